"""The command line as it is typed: results on standard output, one-line errors, exit codes, pipes, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any, NamedTuple

import pandas as pd
import pytest

from orbiquant.cli import main
from orbiquant.cli.doctor import missing_libraries
from orbiquant.cli.program import program
from orbiquant.runtime import Runtime, using
from tests.tools.programs import run_program

ORBIQUANT = [str(Path(sys.executable).parent / "orbiquant")]


class Answer(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Yield a function that runs a command line in an empty workspace."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))

    def typed(*words: str) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    with using(Runtime()):
        yield typed


def shell(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the installed program."""
    return subprocess.run([*ORBIQUANT, *words], capture_output=True, text=True, timeout=60, check=False, **options)


# --- the program ---


def test_help_answers_at_once():
    timed = "import time; a = time.process_time(); import orbiquant.cli.program; print(time.process_time() - a)"
    taken = [float(subprocess.check_output([sys.executable, "-c", timed])) for _ in range(3)]
    assert min(taken) < 0.35
    done = shell("--help")
    assert done.returncode == 0 and "data" in done.stdout
    code = "import sys; sys.argv[1:] = ['data', 'pull', '--help']\ntry: main()\nexcept SystemExit: print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", f"from orbiquant.cli import main\n{code}"], text=True)
    assert {"pandas", "numpy", "sqlalchemy", "structlog"} & set(modules.split()) == set()


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that reach it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def test_every_command_is_described_and_prints_json():
    from typer.main import get_command

    found = dict(commands(get_command(program)))
    assert {("data", "import"), ("service", "keys", "create"), ("report", "run"), ("serve",)} <= set(found)
    for words, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.help and command.help.endswith("."), words
        assert "--json" in options or words in (("serve",), ("telegram",)), words
        assert all(getattr(parameter, "help", "") for parameter in command.params), words


def test_completion_is_offered_for_the_shell():
    done = shell(
        "--show-completion", env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "SHELL": "bash"}
    )
    assert done.returncode in (0, 1, 2)
    asked = {"_ORBIQUANT_COMPLETE": "complete_bash", "COMP_WORDS": "orbiquant data ch", "COMP_CWORD": "2"}
    assert shell(env=os.environ | asked).stdout.split() == ["check"]


def test_a_closed_pipe_is_no_error():
    line = f"{ORBIQUANT[0]} settings show --json | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_interrupting_exits_130_with_a_word(tmp_path: Path):
    code = (
        "import typer, time; from orbiquant.cli.ending import run\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def wait():\n    print('ready', flush=True); time.sleep(30)\n"
        "run(app, [])"
    )
    with run_program([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (130, "Interrupted.")


def test_an_interrupt_says_how_to_go_on():
    from orbiquant.cli.ending import how_to_go_on

    assert "the same command again goes on" in how_to_go_on(["train", "--symbol", "EURUSD"])
    assert "--no-resume" in how_to_go_on(["sweep"]) and "goes on" in how_to_go_on(["data", "pull", "sample"])
    assert "as it was before" in how_to_go_on(["data", "import", "x.csv"]) and how_to_go_on(["version"]) == ""


def test_progress_without_a_terminal_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from orbiquant.cli import console

    clock = iter(range(100))
    monkeypatch.setattr(console, "monotonic", lambda: float(next(clock)))
    with console.progress_bar(as_json=False) as progress:
        assert progress is not None
        for done in range(20):
            progress(done, 20, f"fold {done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[0/20] fold 0 (") and 3 <= len(lines) <= 6
    with console.progress_bar(as_json=True) as progress:
        assert progress is None


def test_a_step_that_takes_long_is_told_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from orbiquant.cli import console

    monkeypatch.setattr(console, "EVERY_S", 0.1)
    with console.progress_bar(as_json=False) as progress:
        assert progress is not None
        progress(1, 2, "features")
        sleep(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3 and all(line.startswith("[1/2] features (") for line in lines)
    sleep(0.3)
    assert capsys.readouterr().err == "", "nothing is told after the end"


def test_what_compiles_is_said():
    from numba import njit

    from orbiquant.cli.console import compiling

    said: list[str] = []
    with compiling(said.append):
        assert njit(lambda x: x + 1)(1) == 2
    assert len(said) == 1 and said[0].startswith("compiling ")
    njit(lambda x: x + 2)(1)
    assert len(said) == 1


# --- errors ---


def test_a_mistyped_command_exits_2(ask: Ask):
    assert ask("data", "pul").code == 2
    answer = ask("data", "show", "EURUSD", "1h", "--since", "yesterday")
    assert answer.code == 2 and "ISO date" in re.sub(r"[\s│]+", " ", answer.err) and answer.out == ""


def test_an_error_is_one_line_and_a_hint_without_traceback(ask: Ask):
    answer = ask("data", "show", "EURUSD", "1h", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: ") and "Hint: " in answer.err and "Traceback" not in answer.err
    assert len(answer.err.splitlines()) == 2


def test_brackets_of_a_message_are_not_taken_for_markup(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_SERVICE_PORT", "99999")
    assert "[service] port" in ask("settings", "show").err


def test_debug_shows_the_traceback(tmp_path: Path):
    environment = os.environ | {"ORBIQUANT_HOME": str(tmp_path)}
    for words in (["--debug", "data", "show", "EURUSD", "1h"], ["data", "show", "EURUSD", "1h", "--debug"]):
        done = shell(*words, env=environment)
        assert done.returncode == 1 and "Traceback" in done.stderr


# --- settings and doctor ---


def test_settings_show_the_merged_values_without_passwords(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_WORKSPACE_DATABASE_URL", "postgresql://me:secret@db/orbiquant")
    monkeypatch.setenv("ORBIQUANT_MODELS_FOLDS", "3")
    shown = ask("settings", "show", "--json").json
    assert shown["models"]["folds"] == 3 and shown["workspace"]["database_url"] == "postgresql://me:***@db/orbiquant"
    monkeypatch.setenv("ORBIQUANT_WORKSPACE_DATABASE_URL", "postgresql://me:se/cr:et@db/orbiquant")
    monkeypatch.setenv("ORBIQUANT_PROVIDERS_EXCHANGE_URLS", "binance=https://me:hush@proxy, kraken=https://other")
    shown = ask("settings", "show", "--json").json
    assert shown["workspace"]["database_url"] == "postgresql://me:***@db/orbiquant"
    assert "hush" not in json.dumps(shown) and "https://me:***@proxy" in json.dumps(shown)
    assert set(ask("settings", "show", "costs", "--json").json) == {"costs"}
    assert "did you mean 'costs'?" in ask("settings", "show", "cost").err


def test_the_doctor_finds_nothing_wrong_and_changes_nothing(ask: Ask, tmp_path: Path):
    answer = ask("doctor", "--json")
    assert answer.code == 0, answer.out
    findings = {finding["name"]: finding for finding in answer.json}
    assert {"python", "libraries", "settings", "store", "database"} <= set(findings)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_sees_keys_that_others_can_read(ask: Ask, tmp_path: Path):
    def secrets() -> list[tuple[str, str]]:
        return [(f["status"], f["detail"]) for f in ask("doctor", "--json").json if f["name"] == "secrets"]

    assert secrets() == []
    (tmp_path / ".env").write_text("ORBIQUANT_PROVIDERS_POLYGON_API_KEY=k\n")
    (tmp_path / ".env").chmod(0o644)
    assert secrets() == [("warning", f"others can read {tmp_path}/.env: chmod 600 {tmp_path}/.env")]
    (tmp_path / ".env").chmod(0o600)
    assert secrets() == [("ok", "for its owner alone")]


def test_the_doctor_works_on_a_broken_workspace(ask: Ask, tmp_path: Path):
    (tmp_path / "settings.ini").write_text("[service]\nprot = 1\n")
    answer = ask("doctor", "--json")
    findings = {finding["name"]: finding for finding in answer.json}
    assert answer.code == 1 and "did you mean 'port'?" in findings["settings"]["detail"]


# --- data ---


def test_a_file_imported_again_says_what_is_new_changed_and_stored_already(ask: Ask, tmp_path: Path):
    rows = [f"2024-01-02 {hour:02}:00,1.5,2.5,1.25,1.75,{hour}" for hour in range(20)]
    file = tmp_path / "EURUSD_1h.csv"
    said = []
    for lines in (
        rows[:15],
        rows[5:],
        [row.replace(",1.75,", ",2.25,") for row in rows[:3]] + rows[3:],
        rows[4:8],
    ):
        file.write_text("time,open,high,low,close,volume\n" + "\n".join(lines))
        done = ask("data", "import", str(file), "--json").json
        said.append((done["rows_added"], done["rows_changed"], done["rows_equal"]))
    assert said == [(15, 0, 0), (5, 0, 10), (0, 3, 17), (0, 0, 4)]


def test_a_series_is_removed_when_somebody_says_so(ask: Ask):
    ask("data", "pull", "synthetic", "TESTUSD", "1h", "--rows", "50")
    ask("data", "pull", "synthetic", "TESTUSD", "4h", "--rows", "50")
    asked = ask("data", "remove", "testusd", "1h")
    assert asked.code == 1 and len(ask("data", "list", "--json").json["series"]) == 2, "nobody said yes"
    assert ask("data", "remove", "TEST/USD", "1h", "--yes").code == 0
    assert [line["timeframe"] for line in ask("data", "list", "--json").json["series"]] == ["4h"]
    assert "removed" in ask("data", "remove", "TESTUSD", "--yes").out
    assert ask("data", "list", "--json").json["series"] == []
    assert "the store holds no TESTUSD" in ask("data", "remove", "TESTUSD", "--yes").err


def test_data_from_pull_to_show(ask: Ask):
    assert "store is empty" in ask("data", "list").out and "data/store" in ask("data", "list").out
    assert "data/store" in ask("data", "show", "EURUSD", "1h").err
    pulled = ask("data", "pull", "sample", "eur/usd", "1h", "--json").json
    assert pulled["rows_added"] == 6225
    again = ask("data", "pull", "sample", "EURUSD", "1h", "--json").json
    assert (again["rows_added"], again["version"]) == (0, pulled["version"])
    (series,) = ask("data", "list", "--json").json["series"]
    assert (series["symbol"], series["timeframe"], series["rows"]) == ("EURUSD", "1h", 6225)
    bars = ask("data", "show", "EURUSD", "1h", "--until", "2017-01-03", "--rows", "3", "--json").json
    assert [bar["time"] for bar in bars] == [f"2017-01-02T{hour}:00:00Z" for hour in (21, 22, 23)]
    assert set(bars[0]) == {"time", "open", "high", "low", "close", "volume"}
    assert "2017-01-02 23:00" in ask("data", "show", "EURUSD", "1h", "--until", "2017-01-03").out


def test_a_window_is_pulled_and_the_synthetic_market_has_any_name(ask: Ask):
    words = ("data", "pull", "synthetic", "TESTUSD", "15m", "--rows", "500", "--seed", "3", "--json")
    pulled = ask(*words).json
    assert (pulled["symbol"], pulled["rows_added"]) == ("TESTUSD", 500)
    one_day = ask("data", "pull", "sample", "EURUSD", "1h", "--since", "2017-03-01", "--until", "2017-03-02", "--json")
    assert one_day.json["rows_added"] == 24


def test_what_the_settings_follow_is_pulled_where_nothing_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_MARKET_SYMBOLS", "EURUSD, XAUUSD")
    monkeypatch.setenv("ORBIQUANT_MARKET_TIMEFRAMES", "1h, 1w")
    with using(Runtime()):
        pulled = ask("data", "pull", "sample", "--json").json
        assert [(s["symbol"], s["timeframe"], s["rows_added"]) for s in pulled["series"]] == [("EURUSD", "1h", 6225)]
        assert pulled["missed"] == [["EURUSD", "1w"], ["XAUUSD", "1h"], ["XAUUSD", "1w"]]
        *_, hours, weeks = ask("data", "pull", "sample", "EURUSD").out.strip().splitlines()
        assert hours.split()[:2] == ["EURUSD", "1h"] and weeks.split()[:4] == ["EURUSD", "1w", "not", "there"]
        assert "holds no XAUUSD 1w" in ask("data", "pull", "sample", "XAUUSD").err
        assert "`SYMBOL` must be given" in ask("data", "pull", "synthetic").err


@pytest.mark.parametrize(
    ("source", "option", "said"),
    [
        ("sample", ("--repair", "sort"), "`--repair` is for csv and parquet and remote sources, was given for sample"),
        ("sample", ("--price", "bid"), "`--price` is for dukascopy and sql, was given for sample"),
        ("synthetic", ("--path", "x.csv"), "`--path` is for csv and parquet, was given for synthetic"),
        ("binance", ("--path", "x.csv"), "`--path` is for csv and parquet, was given for binance"),
        ("csv", ("--seed", "7"), "`--seed` is for synthetic, was given for csv"),
        ("dukascopy", ("--rows", "9"), "`--rows` is for synthetic, was given for dukascopy"),
    ],
)
def test_an_option_that_a_source_does_not_take_is_refused_before_anything_is_opened(
    source: str, option: tuple[str, str], said: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orbiquant.cli.data.open_runtime", lambda: pytest.fail("opened"))
    refused = ask("data", "pull", source, "EURUSD", "1h", *option)
    assert refused.code == 1 and said in refused.err


def test_a_file_is_imported_and_checked(ask: Ask, tmp_path: Path):
    ask("data", "pull", "synthetic", "GAPUSD", "1h", "--rows", "200")
    bars = ask("data", "show", "GAPUSD", "1h", "--rows", "200", "--json").json
    lines = [",".join(map(str, [bar["time"], *list(bar.values())[1:]])) for bar in bars if bar is not bars[50]]
    file = tmp_path / "EURUSD_1h.csv"
    file.write_text("time,open,high,low,close,volume\n" + "\n".join(lines))
    imported = ask("data", "import", str(file), "--json")
    assert imported.code == 0, imported.err
    assert (imported.json["symbol"], imported.json["timeframe"], imported.json["rows_added"]) == ("EURUSD", "1h", 199)
    checked = ask("data", "check", "EURUSD", "1h", "--json")
    assert checked.code == 0 and checked.json["ok"] and checked.json["rows"] == 199
    assert "199" in ask("data", "check", "EURUSD", "1h").out
    again = ask("data", "import", str(file), "--symbol", "XAU/USD", "--timeframe", "1h")
    assert again.code == 0 and "XAUUSD 1h" in again.out


def test_a_notice_is_a_sentence_and_is_said_once(ask: Ask, tmp_path: Path):
    rows = [f"2024-01-{day:02}T{hour:02}:00Z,1,2,1,2,{hour}" for day in range(1, 8) for hour in range(24)]
    file = tmp_path / "ONCECOIN_1h.csv"
    file.write_text("time,open,high,low,close,volume\n" + "\n".join(rows))
    told = ask("data", "import", str(file))
    assert told.code == 0 and (told.out + told.err).count("is in no instrument table") == 1
    assert "[warning" not in told.err and "module=" not in told.err
    told = ask("data", "import", str(file), "--json")
    assert told.err == "" and "is in no instrument table" in told.json["notices"][0]


def test_a_log_is_shown_to_who_asks_for_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from orbiquant.core import get_logger

    for level, lines in (("AUTO", 0), ("INFO", 1), ("ERROR", 0)):
        monkeypatch.setenv("ORBIQUANT_LOGGING_LEVEL", level)
        with using(Runtime()):
            assert ask("data", "list").code == 0
        get_logger("test").info("told")
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_bad_file_is_refused_and_named(ask: Ask, tmp_path: Path):
    file = tmp_path / "EURUSD_1h.csv"
    file.write_text("time,open,high,low,close,volume\n2024-01-02T00:00Z,1,0.5,2,1,0\n2024-01-02T01:00Z,1,1,1,1,0\n")
    answer = ask("data", "import", str(file))
    assert answer.code == 1 and "Error: " in answer.err and answer.out == ""
    assert "rule" in ask("data", "import", str(file), "--repair", "polish").err
    assert "must be given" in ask("data", "import", str(tmp_path / "bars.csv")).err
    assert "`--path` must be given" in ask("data", "pull", "csv", "EURUSD", "1h").err
    assert "did you mean 'sample'" in ask("data", "pull", "sampl", "EURUSD", "1h").err


def test_remote_bars_are_pulled_reported_and_go_on(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    from contracts.bar_store import random_bars

    from tests.tools.fake_providers import FakeBinance

    words = ("data", "pull", "binance", "btc/usdt", "1h", "--since", "2024-02-26", "--until", "2024-03-01")
    with FakeBinance("BTCUSDT", random_bars("2024-02-26", 90)).running() as server:
        monkeypatch.setenv("ORBIQUANT_PROVIDERS_EXCHANGE_URLS", f"binance={server.url}")
        with using(Runtime()):
            pulled = ask(*words, "--json").json
            assert (pulled["rows_added"], pulled["report"]["missing"]) == (90, 0)
            again = ask(*words)
            assert again.code == 0 and "90 bars" in again.out and "2024-02-29 17:00" in again.out
            unknown = ask(*[word.replace("btc/usdt", "BTCUSDQ") for word in words])
            assert unknown.code == 1 and "did you mean 'BTCUSDT 1h'" in unknown.err


def test_remote_sources_say_what_they_lack(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    for source, variable in (("polygon", "POLYGON_API_KEY"), ("alpaca", "ALPACA_API_SECRET"), ("sql", "SQL_URL")):
        refused = ask("data", "pull", source, "BTCUSD", "1h")
        assert refused.code == 1 and f"ORBIQUANT_PROVIDERS_{variable}" in refused.err
    assert "did you mean 'kraken'" in ask("data", "pull", "krakn", "BTCUSD", "1h").err
    assert "`--price` is for dukascopy and sql" in ask("data", "pull", "binance", "BTCUSDT", "1h", "--price", "bid").err
    monkeypatch.setenv("ORBIQUANT_PROVIDERS_SQL_URL", "sqlite:///none.db")
    with using(Runtime()):
        assert "a table of bars" in ask("data", "pull", "sql", "EURUSD", "1h", "--price", "bid").err
    assert "`price` must be one of bid" in ask("data", "pull", "dukascopy", "EURUSD", "1h", "--price", "bud").err


def test_the_doctor_says_whose_key_is_set_and_never_which(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_PROVIDERS_POLYGON_API_KEY", "hunter2-key")
    answer, shown = ask("doctor", "--json"), ask("settings", "show", "--json")
    findings = {finding["name"]: finding["detail"] for finding in answer.json}
    assert "polygon: ready" in findings["providers"] and "alpaca_api_key" in findings["providers"]
    assert "hunter2" not in answer.out + answer.err + shown.out


# --- models, service, reports ---


def test_models_of_an_empty_workspace(ask: Ask):
    assert ask("models", "list", "--json").json == []
    assert "No models yet" in ask("models", "list").out
    for words in (("show", "EURUSD", "1h"), ("drift", "EURUSD", "1h"), ("promote", "EURUSD", "1h", "newest")):
        assert "no model of EURUSD 1h is saved" in ask("models", *words).err
    unknown = ask("train", "--symbol", "EURUSD", "--timeframe", "1h", "--attention", "on")
    assert "`--attention` must be one of off, gated, was 'on'" in unknown.err


def test_keys_are_made_listed_and_ended(ask: Ask):
    made = ask("service", "keys", "create", "dashboard", "--scope", "read", "--scope", "trade", "--json").json
    (key,) = ask("service", "keys", "list", "--json").json
    assert made["key"].startswith(f"oq_{key['prefix']}_") and key["scopes"] == ["read", "trade"]
    assert made["key"] not in ask("service", "keys", "list").out
    assert ask("service", "keys", "revoke", key["prefix"]).code == 0
    assert ask("service", "keys", "revoke", key["prefix"]).code == 1
    assert ask("service", "keys", "create", "x", "--plan", "gold").code == 2
    alone = ask("kill", "atlas", "--why", "now")
    assert alone.code == 2 and "'atlas' alone does not say whom: --agent atlas, --account atlas or --all" in " ".join(
        alone.err.split()
    )
    bare = ask("service", "keys", "create", "shell")
    assert re.fullmatch(r"oq_\S+\n", bare.out) and "Keep it: it is not shown again" in bare.err, (
        "$(…) takes the key alone"
    )
    several = ask("service", "keys", "create", "x", "--scope", "read,write")
    assert several.code == 2 and "takes one at a time: --scope read --scope write" in several.err
    assert "`--scope` must be one of" in ask("service", "keys", "create", "x", "--scope", "all").err


def test_keys_end_and_are_changed(ask: Ask):
    made = ask("service", "keys", "create", "backend", "--scope", "write", "--expires", "90d", "--json").json
    prefix = made["key"][3:11]
    following = ask("service", "keys", "rotate", prefix, "--grace", "2d", "--json").json
    old, new = ask("service", "keys", "list", "--json").json
    assert following["key"].startswith(f"oq_{new['prefix']}_") and new["scopes"] == ["write"]
    left = {each["prefix"]: datetime.fromisoformat(each["expires_at"]) - datetime.now(UTC) for each in (old, new)}
    assert timedelta(days=1.9) < left[prefix] <= timedelta(days=2) < timedelta(days=89) < left[new["prefix"]]
    assert "expires" in ask("service", "keys", "list").out
    for words in (("create", "x", "--expires", "soon"), ("create", "x", "--expires=-1d"), ("rotate", "00000000")):
        assert ask("service", "keys", *words).code == 1
    assert "`grace` must be" in ask("service", "keys", "rotate", new["prefix"], "--grace", "long").err


def test_no_token_is_signed_without_a_secret(ask: Ask):
    assert "`[tokens] signing_secret` must be set" in ask("service", "token", "ana").err


def test_a_token_is_one_line_however_long_it_is(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    for name in ("ISSUER", "AUDIENCE", "SIGNING_SECRET"):
        monkeypatch.setenv(f"ORBIQUANT_TOKENS_{name}", "a text of thirty-two bytes or more")
    with using(Runtime()):
        printed = ask("service", "token", "ana", "--scope", "read", "--scope", "write").out
    assert len(printed) > 250 and len(printed.split()) == 1, "a shell's $(…) takes it whole"


def test_a_section_of_the_settings_is_read_in_help(ask: Ask):
    assert "secret of [tokens] and" in ask("service", "token", "--help").out
    assert "[llm] device" in ask("llm", "tune", "--help").out and "[notices]" in ask("telegram", "--help").out


def test_a_token_is_signed_where_there_is_a_secret(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    for name in ("ISSUER", "AUDIENCE", "SIGNING_SECRET"):
        monkeypatch.setenv(f"ORBIQUANT_TOKENS_{name}", "a text of thirty-two bytes or more")
    with using(Runtime()):
        made = ask("service", "token", "ana", "--plan", "pro", "--minutes", "5", "--json").json
    assert made["token"].count(".") == 2 and made["expires_in_s"] == 300
    shown = ask("settings", "show", "tokens", "--json").json["tokens"]
    assert set(shown["signing_secret"]) == {"*"} and shown["issuer"].startswith("a text")
    assert ask("service", "token", "local").code == 1


def test_the_service_can_be_checked(ask: Ask):
    answer = ask("service", "build", "--check", "--json")
    assert answer.code == (1 if answer.json["changed"] else 0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Write a report of two cells into the workspace."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = [
        new_markdown_cell("# Study\n\n> Counts to a number."),
        new_code_cell('symbol: str = "EURUSD"\ncount: int = 3', metadata={"tags": ["parameters"]}),
        new_code_cell("from orbiquant.reports import record\nrecord(total=10 // count)"),
    ]
    path = tmp_path / "reports" / "study.ipynb"
    path.parent.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_a_report_is_run_and_found_again(ask: Ask, study: Path):
    listed = {report["name"]: report for report in ask("report", "list", "--json").json}
    assert [p["name"] for p in listed["study"]["parameters"]] == ["symbol", "count"]
    answer = ask("report", "run", "study", "--symbol", "XAUUSD", "--param", "count=5", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["metrics"] == {"total": 2} and answer.json["parameters"] == {"symbol": "XAUUSD", "count": 5}
    assert Path(answer.json["html"]).exists()
    failed = ask("report", "run", "study", "--param", "count=0")
    assert failed.code == 1 and "ZeroDivisionError" in failed.out and "Traceback" not in failed.err
    found = ask("report", "runs", "--json").json
    assert [run["status"] for run in found] == ["failed", "succeeded"]
    assert "succeeded" in ask("report", "runs").out


def test_bad_report_parameters_are_told(ask: Ask, study: Path):
    assert "must be name=value" in re.sub(r"[\s│]+", " ", ask("report", "run", "study", "--param", "count").err)
    assert "did you mean 'count'" in ask("report", "run", "study", "--param", "cuont=3").err
    assert "has no parameter 'timeframe'" in ask("report", "run", "study", "--timeframe", "1h").err


def test_serving_needs_a_key_when_others_can_reach_it(ask: Ask):
    answer = ask("serve", "--host", "0.0.0.0")
    assert answer.code == 1 and "there is no API key yet" in answer.err


def test_the_service_starts_and_says_where(tmp_path: Path):
    environment = os.environ | {"ORBIQUANT_HOME": str(tmp_path)}
    with run_program(
        [*ORBIQUANT, "serve", "--port", "0", "--no-work"], stderr=-1, stdout=-1, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        begun = time.monotonic()
        line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert re.search(r"http://127\.0\.0\.1:\d+/", line) and time.monotonic() - begun < 30
    assert out == "" and process.returncode in (0, 130)


def test_an_interrupt_that_python_drops_is_raised_again():
    code = """
import signal, time, typer, weakref
from orbiquant.cli.ending import run
app = typer.Typer()

@app.command()
def wait() -> None:
    class Thing: ...
    thing = Thing()
    held = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(20)

run(app, [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")


def test_the_trees_without_cuda_will_do(monkeypatch: pytest.MonkeyPatch):
    from importlib import metadata

    there, real = {"xgboost-cpu"}, metadata.version

    def version(name: str) -> str:
        if name.startswith("xgboost") and name not in there:
            raise metadata.PackageNotFoundError(name)
        return "3.2.0" if name in there else real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert missing_libraries("service") == missing_libraries("models") == []
    there.clear()
    assert missing_libraries("service") == missing_libraries("models") == ["xgboost>=3.1"]


def test_a_narrow_screen_breaks_cells_and_leaves_nothing_out(capsys):
    from rich.console import Console

    from orbiquant.cli.models import frame_table

    version = "20261129T004900124181Z-fa72440b"
    frame = pd.DataFrame({"version": [version], "baseline_name": ["base_rate"], "skill": [-0.00701], "true": [False]})
    frame["detail"] = "/a/path/that/is/longer/than/what/is/left/of/the/line/orbiquant.db"
    Console(width=64, force_terminal=False).print(frame_table(frame))
    printed = capsys.readouterr().out
    assert version in printed and "…" not in printed
    assert "-0.007" in printed and "-0.00701" not in printed and "base rate" in printed
    assert " no" in printed and "False" not in printed
