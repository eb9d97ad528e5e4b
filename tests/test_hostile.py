"""Every command and every option under hostile input: an error is a line or two of our own, never another library's."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_origin

import pytest
from typer.main import get_command

import orbiquant.runtime
from orbiquant.cli import main
from orbiquant.cli.ending import UNFORESEEN
from orbiquant.cli.examples import EXAMPLES
from orbiquant.cli.program import program

ORBIQUANT = [str(Path(sys.executable).parent / "orbiquant")]
SECONDS = 60  # that one refusal may take at most on a busy machine
WHOLE = ("-1", "0", "nan", "1e3", "１２", " 5", "0x10", "", "9" * 30, str(2**63 - 1), str(2**32))
NUMBERS = ("nan", "inf", "-inf", "-0", "1e999", "1e308", "1e-320", "１２", "1" + "0" * 30, "", "abc")
TIMES = (
    "0001-01-01", "9999-12-31", "1e400", "12026-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00",
    "1677-01-01", "2262-05-01", "2024-13-01", "", "\x00",
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "\udcff", "😀", "x" * 10_000, "\x1b[31mred\x1b[0m", "a\nb", "../..", "--", "-x", "nan", "%s", "{}",
    "'; drop table bars", "1:2:0", "0:1:1e-30", "[", "long&", "a=", "=", "\u202eabc",
)  # fmt: skip
NOWHERE = (
    "", "missing.csv", ".", "\x00", "\udcff.csv", "x" * 300 + ".csv", "loop", "sealed.csv", "broken.zip", "broken.gz",
    "broken.parquet", "broken.xlsx", "empty.csv", "garbage.csv", "/dev/null", "pipe", "EURUSD_1h.csv/below.csv",
)  # fmt: skip
TARGETS = ("", "out.txt", "/dev/full.csv", "loop/x.csv", "x" * 300 + ".csv", "EURUSD_1h.csv/x.csv", "EURUSD_1h.csv")
FOREIGN = re.compile(
    r"Traceback|pydantic|pyo3|panicked|\brust|sqlalche|pandas|pyarrow|numpy|deltalake|errno|\b[A-Z]\w*(Error|Exception|"
    r"Warning)\b(?<!\bError)|OutOfBounds|<class|object at 0x|" + UNFORESEEN
)


class Said(NamedTuple):
    """What a command line left."""

    code: Any
    out: str
    err: str


def drive(*words: str) -> Said:
    """Run a command line in this process, with streams of UTF-8."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe")
    orbiquant.runtime._current.clear()

    def give_up(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(words))
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        signal.alarm(0)
        orbiquant.runtime._current.clear()
    return Said(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def faults(said: Said) -> list[str]:
    """Return what is wrong with how a command line ended."""
    wrong = [f"exit {said.code}"] if said.code not in (0, 1, 2, 130) else []
    if found := FOREIGN.search(said.err):
        wrong.append(f"foreign {found[0]!r}")
    if not said.err.isprintable() and not set(filter(lambda c: not c.isprintable(), said.err)) <= {"\n"}:
        wrong.append("control characters")
    errors = [line for line in said.err.splitlines() if line and not line.startswith("Note: ")]
    if said.code in (1, 2) and said.err and not any(line.startswith("Error: ") for line in errors):
        wrong.append("no error is told")
    if said.code in (1, 2) and not said.err and not said.out:
        wrong.append("silence")
    if len(said.err) > 1500 or any(len(line) > 1000 for line in errors):
        wrong.append(f"{len(said.err)} characters")
    quoted = any("it begins" in line for line in errors)  # a file's first lines stand in the message
    if len(errors) > (7 if quoted else 2) and said.code:
        wrong.append(f"{len(errors)} lines")
    return wrong


def leaves(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that reach it."""
    for name, command in (group or get_command(program)).commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(leaves())
STORED = ("--symbol", "EURUSD", "--timeframe", "1h")
FILES = ("--bars", "EURUSD_1h.csv", "--signals", "signals.csv")
FOLLOWED = ("--arg=symbol=EURUSD", "--arg=timeframe=1h", "--arg=source=dukascopy")
BASES: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {  # what stands beside the option that is tried
    ("version",): ((),),
    ("doctor",): ((),),
    ("init",): (("new",),),
    ("demo",): (),  # no option but --json; its parts are tried singly
    ("warmup",): (),
    ("settings", "show"): (("models",),),
    ("data", "import"): (("EURUSD_1h.csv",),),
    ("data", "pull"): (
        ("sample", "EURUSD", "1h"),
        ("csv", "EURUSD", "1h", "--path", "EURUSD_1h.csv"),
        ("synthetic", "X", "1h"),
    ),
    ("data", "list"): ((),),
    ("data", "remove"): (("GBPUSD", "1h", "--yes"),),
    ("data", "check"): (("EURUSD", "1h"),),
    ("data", "show"): (("EURUSD", "1h"),),
    ("data", "follow"): (("EURUSD", "1h", "csv", "--once"),),
    ("data", "vacuum"): (("--yes",),),
    ("jobs", "list"): ((),),
    ("jobs", "add"): (("look", "data.follow", "--schedule=@daily", *FOLLOWED),),
    ("jobs", "remove"): (("look",),),
    ("jobs", "enable"): (("look",),),
    ("jobs", "disable"): (("look",),),
    ("jobs", "run"): (("data.follow",),),
    ("jobs", "history"): ((),),
    ("jobs", "work"): (),  # it does not end by itself; its parts are tried singly
    ("agent", "list"): ((),),
    ("agent", "start"): (("atlas",),),
    ("agent", "pause"): (("atlas",),),
    ("agent", "resume"): (("atlas",),),
    ("agent", "adopt"): (("paper-usdt",),),
    ("agent", "stop"): (("atlas",),),
    ("agent", "status"): (("atlas",),),
    ("agent", "journal"): (("atlas",),),
    ("agent", "run"): (("--once",),),
    ("portfolio", "show"): ((),),
    ("portfolio", "allocate"): ((),),
    ("portfolio", "rebalance"): (("--dry-run",),),
    ("agent", "replay"): (("EURUSD", "1h", "--agent", "atlas"),),
    ("account", "open"): (("atlas-conservative",),),
    ("account", "list"): ((),),
    ("account", "show"): (("inv-1",),),
    ("account", "deposit"): (("inv-1", "1000"),),
    ("account", "withdraw"): (("inv-1", "10"),),
    ("account", "transactions"): (("inv-1",),),
    ("account", "performance"): (("inv-1",),),
    ("account", "check"): ((),),
    ("alert", "add"): (("EURUSD", "above", "1.5"),),
    ("alert", "list"): ((),),
    ("alert", "remove"): (("none",),),
    ("kill",): (("--status",),),
    ("mcp",): (("--list",),),
    ("ledger", "balances"): ((),),
    ("ledger", "entries"): ((),),
    ("ledger", "check"): ((),),
    ("ledger", "export"): ((),),
    ("models", "list"): ((),),
    ("models", "show"): (("EURUSD", "1h"),),
    ("models", "promote"): (("EURUSD", "1h", "newest"),),
    ("models", "drift"): (("EURUSD", "1h"),),
    ("train",): (STORED,),
    ("backtest",): (STORED, FILES[:2], FILES),
    ("sweep",): (STORED, FILES),
    ("audit", "prefix-replay"): (STORED, FILES[:2]),
    ("audit", "null-market"): ((*STORED, "--rows", "10", "--seeds", "1", "--markets", "0"),),
    ("audit", "trials"): (STORED, ()),
    ("audit", "surrogates"): ((*STORED, "--last", "50"),),
    ("audit", "delays"): (FILES,),
    ("chat",): (("what is the price of EURUSD?",),),
    ("telegram",): ((),),
    ("llm", "pull"): (),  # it asks Hugging Face; what it refuses is tried in test_local_model
    ("llm", "list"): ((),),
    ("llm", "check"): ((),),
    ("llm", "tune"): (("--name", "tools", "--base", "nowhere"),),
    ("llm", "adapters"): ((),),
    ("llm", "tools"): ((),),
    ("llm", "eval"): (("--provider", "router", "--cases", "questions.jsonl"),),
    ("report", "run"): (("research", "--timeout", "1"),),
    ("report", "batch"): (("research", "--vary", "symbol=EURUSD", "--timeout", "1"),),
    ("report", "list"): ((),),
    ("report", "runs"): ((),),
    ("report", "schedule", "add"): (("monday", "research", "--schedule=@daily"),),
    ("report", "schedule", "list"): ((),),
    ("report", "schedule", "remove"): (("monday",),),
    ("report", "schedule", "run-due"): ((),),
    ("report", "schedule", "daemon"): (),  # it does not end by itself
    ("service", "build"): (("--check",),),
    ("endpoint", "list"): ((),),
    ("service", "keys", "create"): (("dashboard",),),
    ("service", "keys", "list"): ((),),
    ("service", "keys", "revoke"): (("1a2b3c4d",),),
    ("backup", "create"): (("desk.tar",),),
    ("backup", "check"): (("desk.tar",),),
    ("backup", "restore"): (("desk.tar",),),
    ("database", "status"): ((),),
    ("database", "migrate"): ((),),
    ("work",): (),  # it stays; what it is told is tried in test_crew
    ("service", "keys", "rotate"): (("1a2b3c4d",),),
    ("service", "token"): (("ana",),),
    ("serve",): (("--host", "203.0.113.7"),),  # no address of this machine: it cannot begin to serve
}


def kind(parameter: Any) -> tuple[str, ...]:
    """Return hostile values of an option's or argument's kind."""
    annotation = parameter.type_descriptor.annotation
    if annotation is bool:
        return ()
    if parameter.name in ("trades", "save"):
        return TARGETS
    values = {int: WHOLE, float: NUMBERS, datetime: TIMES, Path: NOWHERE}
    if get_origin(annotation) is Literal:
        return TEXTS[:8]
    return values.get(annotation, TEXTS)


def lines_of(words: tuple[str, ...], base: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield command lines in which one value is hostile."""
    command = COMMANDS[words]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    for parameter in command.params:
        for value in kind(parameter):
            if parameter in arguments:
                place = arguments.index(parameter)
                given = [*base[: len(arguments)], *["x"] * (len(arguments) - len(base))]
                given[place] = value
                yield (*words, *base[len(arguments) :], "--", *given)
            elif parameter.name != "help":
                option = parameter.opts[0]
                place = base.index(option) if option in base else len(base)
                yield (*words, *base[:place], *base[place + 2 :], f"{option}={value}")


LONG = {
    ("report", "run"),
    ("report", "batch"),
    ("backtest",),
    ("sweep",),
    ("audit", "delays"),
    ("audit", "surrogates"),
    ("audit", "null-market"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a workspace with few bars and files of every broken kind, which the tests copy."""
    home = tmp_path_factory.mktemp("hostile")
    environment = pytest.MonkeyPatch()
    environment.setenv("ORBIQUANT_HOME", str(home))
    try:
        assert drive("data", "pull", "sample", "EURUSD", "1h", "--until", "2017-01-13").code == 0
        assert drive("service", "keys", "create", "first").code == 0
        bars = drive("data", "show", "EURUSD", "1h", "--rows", "200", "--json")
    finally:
        environment.undo()
    import json

    rows = [",".join(map(str, bar.values())) for bar in json.loads(bars.out)]
    (home / "EURUSD_1h.csv").write_text("\n".join(["time,open,high,low,close,volume", *rows]))
    signals = [f"{row.split(',')[0]},{1 if place % 2 else -1},0.002,0.004" for place, row in enumerate(rows[5::10])]
    (home / "signals.csv").write_text("\n".join(["time,side,stop_distance,target_distance", *signals]))
    asked = '{"id": "1", "lang": "en", "text": "gold?", "tool": "get_price", "args": {"symbol": "gold"}}'
    (home / "questions.jsonl").write_text(asked)
    (home / "sealed.csv").write_text("x")
    (home / "sealed.csv").chmod(0)
    (home / "broken.zip").write_bytes(b"PK\x03\x04" + b"\x00\xff" * 50)
    (home / "broken.xlsx").write_bytes(b"PK\x03\x04\x14" + b"xl/workbook.xml" * 9)
    (home / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00" + b"\xff" * 50)
    (home / "broken.parquet").write_bytes(b"PAR1" + b"\xff" * 50 + b"PAR1")
    (home / "empty.csv").write_text("")
    (home / "garbage.csv").write_bytes(bytes(range(256)) * 20)
    return home


@pytest.fixture
def home(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a copy of the workshop."""
    place = tmp_path / "home"
    shutil.copytree(workshop, place)
    (place / "loop").symlink_to("loop")
    os.mkfifo(place / "pipe")
    monkeypatch.setenv("ORBIQUANT_HOME", str(place))
    monkeypatch.chdir(place)
    return place


def try_all(lines: Iterator[tuple[str, ...]]) -> None:
    """Drive every line and tell all that end badly."""
    bad, tried = [], 0
    for words in lines:
        said, tried = drive(*words), tried + 1
        if wrong := faults(said):
            bad.append(f"{[word[:40] for word in words]}: {', '.join(wrong)}: {said.err[-300:]!a}")
    assert not bad, "\n".join([f"{len(bad)} of {tried}", *bad[:20]])


def test_every_command_has_a_line_to_try_and_an_example():
    assert set(BASES) == set(COMMANDS), "a new command needs a line here"
    assert set(EXAMPLES) == set(COMMANDS), "a new command needs an example in cli/examples.py"


CASES = [
    (words, base, bool(later) or words in LONG) for words, bases in BASES.items() for later, base in enumerate(bases)
]


@pytest.mark.parametrize(
    ("words", "base"),
    [
        pytest.param(words, base, id=f"{'-'.join(words)}-{place}", marks=[pytest.mark.slow] if slow else [])
        for place, (words, base, slow) in enumerate(CASES)
    ],
)
def test_a_hostile_value_is_refused_in_a_line(words: tuple[str, ...], base: tuple[str, ...], home: Path):
    try_all(lines_of(words, base))


def test_the_same_holds_for_a_few_values_of_the_long_commands(home: Path):
    def lines() -> Iterator[tuple[str, ...]]:
        for words in LONG:
            yield from list(lines_of(words, BASES[words][0]))[::9]

    try_all(line for line in lines() if not line[-1].endswith(("=-0", "=1e-320", "= 5", "=0")))


# --- the workspace ---


def spoil_store(home: Path, pattern: str, content: bytes | None) -> None:
    """Overwrite files of the store, or remove them."""
    for file in (home / "data" / "store").glob(pattern):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)


def spoil_database(home: Path, content: bytes | None) -> None:
    """Put other bytes, or a folder, in the place of the database."""
    for file in (home / "data").glob("orbiquant.db*"):
        file.unlink()
    place = home / "data" / "orbiquant.db"
    place.mkdir() if content is None else place.write_bytes(content)


def spoil_models(home: Path) -> None:
    """Put a model there whose every file is garbage."""
    folder = home / "data" / "models" / "EURUSD_1h" / "20250602T120000000000Z-0123abcd"
    folder.mkdir(parents=True)
    for name in ("card.json", "bundle.json", "bundle.pkl", "folds.parquet", "skill.parquet"):
        (folder / name).write_bytes(b"\x80garbage{")


def put_file_for_folder(home: Path) -> None:
    """Put a file where the store should be."""
    shutil.rmtree(home / "data" / "store")
    (home / "data" / "store").write_text("x")


SPOILT = {
    "bars cut short": lambda home: spoil_store(home, "**/*.parquet", b"PAR1"),
    "bars gone": lambda home: spoil_store(home, "**/*.parquet", None),
    "log of garbage": lambda home: spoil_store(home, "_delta_log/*.json", b"\x00garbage"),
    "log emptied": lambda home: spoil_store(home, "_delta_log/*.json", b""),
    "log gone": lambda home: spoil_store(home, "_delta_log/*0.json", None),
    "store is a file": put_file_for_folder,
    "database of garbage": lambda home: spoil_database(home, b"garbage" * 1000),
    "database emptied": lambda home: spoil_database(home, b""),
    "database is a folder": lambda home: spoil_database(home, None),
    "models of garbage": spoil_models,
}
LOOKS = (
    "data list", "data show EURUSD 1h", "data check EURUSD 1h", "data pull sample EURUSD 1h --until 2017-01-25",
    "data remove EURUSD 1h --yes", "data vacuum --versions 1 --yes", "models list", "models show EURUSD 1h",
    "models promote EURUSD 1h newest", "models drift EURUSD 1h", "service keys list", "service keys create b",
    "audit trials", "train --symbol EURUSD --timeframe 1h --folds 1 --rounds 1", "report runs", "doctor", "version",
    "backtest --symbol EURUSD --timeframe 1h", "serve --host 203.0.113.7",
)  # fmt: skip


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_broken_workspace_is_told_in_a_line(spoilt: str, home: Path):
    SPOILT[spoilt](home)
    try_all(tuple(look.split()) for look in LOOKS)


SETTINGS = (
    b"\xff\xfe", b"\x00", b"[a", b"x" * 10_000, b"[service]\nport=nan", b"[service]\nport = 9999999999999999999999",
    b"[files]\nunpacked_mb = 1e999", b"[models]\nquantiles = nan, inf", b"[models]\nlearning_rate = nan",
    b"[models]\ntest_from = 1e999", b"[sessions]\nasia = 99:99-00:00", b"[workspace]\ndata_dir = \x00",
    b"[workspace]\nstore_uri = ftp://x/y", b"[workspace]\ndatabase_url = oracle://x", b"[costs]\nforex = nan, 1, 2",
    b"[workspace]\nmodels_dir = /dev/null/x", b"[market]\nsymbols = \x1b[31m", b"[market]\ntimeframes = 7m",
    b"[logging]\nlevel = LOUD", b"[backtest]\ninitial_equity = 1e999", b"[phases]\nrange_bars = 1" + b"0" * 30,
    b"[workspace]\nreports_dir = " + b"x" * 5000, b"[workspace]\ndatabase_url = postgresql://u:hush@127.0.0.1:1/x",
)  # fmt: skip
DOTENV = (b"\xff\xfe\x00", b"ORBIQUANT_=1", b"A" * 100_000, b"ORBIQUANT_SERVICE_PORT='open", b"=", b"ORBIQUANT_X=\x00")
VARIABLES = (
    ("SERVICE_PORT", "nan"), ("SERVICE", "x"), ("", "x"), ("MARKET_SYMBOLS", "\udcff"), ("SERVICE_HOST", "x" * 9999),
    ("HOME", "/dev/null"), ("HOME", "x" * 5000), ("HOME", ""), ("HOME", "~nobody at all/x"), ("HOME", "\udcff"),
    ("MODELS_FOLDS", "1e999"), ("PROVIDERS_EXCHANGE_URLS", "x"), ("LOGGING_LEVEL", "\x1b[31m"),
)  # fmt: skip
FEW_LOOKS = ("settings show", "data list", "doctor", "models list", "version")


@pytest.mark.parametrize(("name", "content"), [("settings.ini", c) for c in SETTINGS] + [(".env", c) for c in DOTENV])
def test_hostile_settings_are_told_in_a_line(name: str, content: bytes, home: Path):
    (home / name).write_bytes(content)
    try_all(tuple(look.split()) for look in FEW_LOOKS)
    assert "hush" not in drive("doctor").out


@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_hostile_variables_are_told_in_a_line(name: str, value: str, home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(f"ORBIQUANT_{name}", value)
    try_all(tuple(look.split()) for look in FEW_LOOKS)


def test_the_doctor_finds_the_folder_that_cannot_be_written(home: Path):
    for name, key in (("models", "models_dir"), ("report runs", "reports_dir"), ("data", "data_dir")):
        (home / "settings.ini").write_text(f"[workspace]\n{key} = EURUSD_1h.csv/below\n")
        said = drive("doctor")
        assert (
            said.code == 1 and f"folder of {name}" in said.out and "EURUSD_1h.csv/below cannot be written" in said.out
        )
    (home / "settings.ini").unlink()
    assert drive("doctor").code == 0


# --- the shell ---


def shell(line: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a line of the shell, `orbiquant` in it being the program."""
    told = os.environ | {"ORBIQUANT_HOME": str(home), "O": ORBIQUANT[0]} | environment
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=120, check=False, env=told, cwd=home)


@pytest.mark.slow
def test_a_screen_of_ascii_shows_everything(home: Path):
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for line in (
        "$O data list",
        "$O data show EURUSD 1h --json",
        "$O data show 😀 1h",
        "$O doctor",
        "$O data show --help",
    ):
        done = shell(line, home, **plain)
        assert done.returncode in (0, 1, 2) and (done.stdout + done.stderr).isascii(), line
        assert not FOREIGN.search(done.stderr.decode()), done.stderr


@pytest.mark.slow
def test_streams_that_are_full_or_closed_end_a_command_in_a_line(home: Path):
    full = shell("$O data list --json > /dev/full", home)
    assert full.returncode == 1 and full.stderr.decode().splitlines()[0].startswith("Error: standard output")
    assert len(full.stderr.splitlines()) <= 2
    for line in ("$O data list >&-", "$O data list 2>&-", "$O data list 2>/dev/full", "$O data show nowhere 1h 2>&-"):
        done = shell(line, home)
        assert done.returncode in (0, 1) and done.stderr == b"", (line, done.stderr)
    done = shell("$O data remove EURUSD 1h <&-", home)
    assert done.returncode in (1, 2) and b"--yes" in done.stderr and not FOREIGN.search(done.stderr.decode())
    assert shell("$O data show EURUSD 1h --rows 300 | head -n 1", home).stderr == b""


def test_bytes_that_are_no_text_are_refused(home: Path):
    for line in (r"$O data show $'\xff' 1h", r"$O data import $'\xff.csv'", r"$O $'\xff'", r"$O data show --$'\xff'"):
        done = shell(line, home)
        assert done.returncode == 2 and not FOREIGN.search(done.stderr.decode()), done.stderr


@pytest.mark.slow
def test_places_made_where_no_workspace_was_named_are_told(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "ORBIQUANT_HOME"}
    words = [*ORBIQUANT, "data", "pull", "sample", "EURUSD", "1h", "--until", "2017-01-05"]
    first, second = (
        subprocess.run(words, capture_output=True, text=True, timeout=120, check=True, env=environment, cwd=tmp_path)
        for _ in range(2)
    )
    assert "Note: made data/store in " in first.stderr and "ORBIQUANT_HOME" in first.stderr
    assert "Note: made" not in second.stderr


# --- help ---


def test_every_help_has_an_example_that_parses_and_lists_its_choices(monkeypatch: pytest.MonkeyPatch):
    import typer

    from orbiquant.cli.console import POLICIES_TOLD, REPAIRS_TOLD, TIMEFRAMES
    from orbiquant.cli.ending import command_of
    from orbiquant.domain import Timeframe
    from orbiquant.market.repair import REPAIR_RULES
    from orbiquant.policies import POLICY_NAMES

    assert ", ".join(POLICY_NAMES) == POLICIES_TOLD and ", ".join(REPAIR_RULES) == REPAIRS_TOLD
    assert tuple(Timeframe) == TIMEFRAMES
    for words, command in leaves(command_of(program)):
        for flag in ("-h", "--help"):
            said = drive(*words, flag)
            assert said.code == 0 and f"Example: orbiquant {EXAMPLES[words]}" in " ".join(said.out.split()), words
        example = shlex.split(EXAMPLES[words])
        assert tuple(example[: len(words)]) == words
        try:
            command.make_context(" ".join(words), example[len(words) :])
        except typer.Exit:
            pytest.fail(f"{words}: {example}")
        for one in command.params:
            told = f"{one.help or ''} {one.type_descriptor.choices or ''}"
            if one.name == "timeframe":
                assert ", ".join(TIMEFRAMES) in told, (words, one.name)
            if one.name in ("policy", "claim"):
                assert POLICIES_TOLD in told, (words, one.name)
            if one.name == "repair":
                assert REPAIRS_TOLD in told
            if one.name in ("attention", "meta", "plan", "period", "stored", "risk_from", "figure"):
                assert one.type_descriptor.choices, (words, one.name)


def test_the_version_is_told_at_the_root(home: Path):
    said = drive("--version")
    assert said.code == 0 and re.fullmatch(r"orbiquant \d+\.\d+\.\d+\S*\n", said.out) and said.err == ""
