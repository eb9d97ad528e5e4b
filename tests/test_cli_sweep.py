"""`orbiquant sweep` as it is typed: every source of signals, every combination a trial, resumed after an interrupt."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orbiquant.backtest import sweep_job
from orbiquant.cli import main
from orbiquant.cli.console import fields
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.runtime import Runtime, current, using
from tests.test_sweep import guesses, market

COIN_4H = SeriesId.parse("COIN", "4h")

Ask = Callable[..., tuple[int, str, str]]
GRID = ("--stop-atr", "1:3:0.5", "--risk-reward", "1,2", "--min-confidence", "0.5,0.7", "--filter", "all,long")


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Yield a function that runs a command line in a workspace with a file of bars and one of signals."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    bars = market(8, 900, 0.0)
    bars.to_parquet(tmp_path / "COIN_4h.parquet")
    guesses(8, bars, 0.9).to_parquet(tmp_path / "signals.parquet")

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["sweep", *words])
        return int(ended.value.code or 0), *capsys.readouterr()

    with using(Runtime()):
        yield typed


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    return "--bars", str(tmp_path / "COIN_4h.parquet"), "--signals", str(tmp_path / "signals.parquet")


def test_signals_of_a_file_are_swept_and_counted(ask, files, tmp_path):
    code, out, _ = ask(*files, *GRID, "--max-holding-bars", "12,none", "--save", str(tmp_path / "all.csv"), "--json")
    said = json.loads(out)
    assert code == 0 and said["combinations"] == 80 == len(pd.read_csv(tmp_path / "all.csv"))
    assert said["confirmed_by_vectorbt"] and said["symbol"] == "COIN" and said["timeframe"] == "4h"
    assert said["headline"]["overfitting"]["trials"] == 80 == current().trials.count(COIN_4H)
    assert said["headline"]["combination"] == said["best"][0]["combination"] and len(said["best"]) == 10
    assert {row["max_holding_bars"] for row in said["best"]} <= {12, None}
    kept = set(current().trials.table(COIN_4H)["kind"])
    assert kept == {"sweep"}


def test_exit_plans_are_swept_and_counted(ask, files, tmp_path):
    plans = ("--break-even-r", "none,1", "--trail-atr", "none,2:3:0.5", "--targets", "none/1:0.5/0.5:0.3,1:0.3")
    code, out, err = ask(*files, "--stop-atr", "2,3", "--risk-reward", "2", *plans, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["combinations"] == 48 == current().trials.count(COIN_4H)
    assert {row["targets"] for row in said["best"]} <= {"none", "1:0.5", "0.5:0.3,1:0.3"}
    assert {row["trail_atr"] for row in said["best"]} <= {None, 2, 2.5, 3}
    tried = list(current().trials.table(COIN_4H)["params"])
    assert all({"break_even_r", "trail_atr", "targets"} <= set(params) for params in tried)
    one = ("--stop-atr", "2", "--risk-reward", "2", "--trail-atr", "2")
    assert not json.loads(ask(*files, *one, "--json")[1])["confirmed_by_vectorbt"]  # which cannot play a plan
    assert "by the exit plan's own step" in " ".join(ask(*files, *one)[1].split())
    plain = json.loads(ask(*files, "--stop-atr", "2", "--risk-reward", "2", "--json")[1])
    assert plain["confirmed_by_vectorbt"] and "trail_atr" not in plain["best"][0]
    (tmp_path / "settings.ini").write_text("[backtest]\nexits = trail_atr=2\n")
    with using(Runtime()):
        by_setting = json.loads(ask(*files, "--stop-atr", "2", "--risk-reward", "2", "--json")[1])
    assert by_setting["best"][0]["trail_atr"] == 2 and by_setting["best"][0]["trades"] != plain["best"][0]["trades"]


@pytest.mark.parametrize(
    "words",
    [
        ("--trail-atr", "0"),
        ("--trail-atr", "none,none"),
        ("--break-even-r", "x"),
        ("--targets", "1:2"),
        ("--targets", "none/none"),
    ],
)
def test_exit_plans_that_are_none_are_refused(ask, files, words):
    code, _, err = ask(*files, "--stop-atr", "2", "--risk-reward", "2", *words)
    assert code != 0 and "Traceback" not in err and len(err) < 1500


def test_people_get_the_verdict_with_its_trials(ask, files):
    code, out, _ = ask(*files, *GRID, "--top", "3")
    said = " ".join(out.split())
    assert (
        code == 0
        and re.search(r"Combination \d+, the best of this sweep's 40 \(40 trials on the", said)
        and "trade for trade" in out
    )
    assert (
        len(re.findall(r"\b(all|long)\b", out)) >= 3
        and "deflated Sharpe" in out
        and "R: what is lost at the stop" in out
    )


def test_a_second_run_computes_nothing_and_pays_for_no_new_trial(ask, files, monkeypatch):
    first = json.loads(ask(*files, *GRID, "--json")[1])
    monkeypatch.setattr(sweep_job, "play_span", lambda job, span: 1 / 0)
    again = json.loads(ask(*files, *GRID, "--json")[1])
    assert first | {"seconds": 0} == again | {"seconds": 0}
    code, _, err = ask(*files, *GRID, "--no-resume")
    assert code == 1 and "of the sweep failed: ZeroDivisionError" in err


def test_combinations_with_trades_enough_come_first(ask, files):
    said = json.loads(
        ask(*files, "--stop-atr", "0.5,40", "--risk-reward", "1,5", "--min-confidence", "0,0.99", "--json")[1]
    )
    enough = [row["trades"] >= 30 for row in said["best"]]
    assert enough == sorted(enough, reverse=True) and enough[0] and not enough[-1]
    assert said["best"][0]["combination"] == said["headline"]["combination"]


def test_too_few_trades_are_said_and_not_judged(ask, files):
    code, out, _ = ask(*files, "--stop-atr", "40", "--risk-reward", "5", "--json")
    said = json.loads(out)
    assert code == 0 and said["headline"] is None and not said["confirmed_by_vectorbt"]
    assert said["verdict"].startswith("no combination has 30 trades")
    assert "nan" not in ask(*files, "--stop-atr", "40", "--risk-reward", "5")[1].lower()
    assert current().trials.count(COIN_4H) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "give --bars FILE, or --symbol and --timeframe"),
        (("--signals", "x.csv"), 2, "--signals needs the --bars"),
        (("--bars", "x.csv", "--signals", "y.csv", "--policy", "base"), 2, "--policy does not go with --signals"),
        (("--symbol", "EURUSD", "--timeframe", "1h", "--fee-bps", "1"), 2, "--fee-bps does not go with stored bars"),
        (("--symbol", "EURUSD", "--timeframe", "1h", "--last", "99"), 2, "--last does not go with stored bars"),
        (("--bars", "x.csv", "--model", "1"), 2, "--model does not go with --bars"),
        (("--symbol", "EURUSD", "--timeframe", "1h"), 1, "EURUSD"),
        (("--period", "year"), 2, "year"),
    ],
)
def test_wrong_options_are_refused(ask, words, code, message):
    ended, _, err = ask(*words)
    assert ended == code and message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stop-atr", "3:1:1"), "FIRST:LAST:STEP"),
        (("--stop-atr", "0"), "`--stop-atr` must be greater than 0, was 0.0"),
        (("--stop-atr", "1,1"), "`--stop-atr` must hold at least one value and none twice, was (1.0, 1.0)"),
        (("--stop-atr", "1:5:0.000001"), "--stop-atr: steps must be at most 10,000"),
        (("--risk-reward", "inf"), "`--risk-reward` must be a finite number, was inf"),
        (("--min-confidence", "2"), "`--min-confidence` must be less than or equal to 1, was 2.0"),
        (("--filter", "lnog"), "`--filter` must be all, long, short or column=value, joined by &, had 'lnog', did you"),
        (("--max-holding-bars", "0"), "`--max-holding-bars` must be greater than or equal to 1, was 0"),
        (("--max-holding-bars", "soon"), "must be a list of bars"),
        (("--max-holding-bars", "²"), "must be a list of bars"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_read(ask, words, message):
    code, _, err = ask("--bars", "absent.parquet", *words)
    assert code == 2 and message in " ".join(err.replace("│", " ").split())


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_read(ask):
    code, _, err = ask("--bars", "absent.parquet", "--save", "table.xls")
    assert code == 1 and "must end in" in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.iloc[::-1], "`signals` must be sorted by time"),
        (lambda table: table.shift(freq="-400h"), "`signals` must stand on times of `bars`"),
        (lambda table: table.assign(distance=-1.0), "`distance` must be above zero"),
        (lambda table: table.assign(entry_price=0.0), "`entry_price` must be above zero"),
        (lambda table: table.assign(confidence=60.0), "`confidence` must be from 0 to 1"),
    ],
)
def test_signals_that_cannot_be_right_are_refused_and_count_as_no_trial(ask, files, tmp_path, spoil, message):
    spoil(guesses(8, market(8, 900, 0.0), 0.9)).to_parquet(tmp_path / "signals.parquet")
    for words in ((), ("--last", "500")):
        if "stand on" in message and words:
            continue  # those before the last bars are cut off, as asked
        code, _, err = ask(*files, *GRID, *words)
        assert code == 1 and message in " ".join(err.split())
    assert current().trials.count(COIN_4H) == 0


def test_the_last_bars_take_their_signals_with_them(ask, files, tmp_path):
    whole, table = tmp_path / "whole.csv", guesses(8, market(8, 900, 0.0), 0.9)
    table.shift(freq="-4h").iloc[400:].to_parquet(tmp_path / "signals.parquet")
    code, out, _ = ask(*files, *GRID, "--last", "500", "--save", str(whole), "--json")
    assert code == 0 and json.loads(out)["bars"] == 500 and pd.read_csv(whole)["trades"].min() > 30


def test_signals_that_come_with_levels_are_swept_and_confirmed(ask, files, tmp_path):
    table = guesses(8, market(8, 900, 0.0), 0.9)
    table.assign(stop_distance=1.0, target_distance=2.0).to_parquet(tmp_path / "signals.parquet")
    code, out, err = ask(*files, *GRID, "--json")
    assert code == 0, err
    assert json.loads(out)["confirmed_by_vectorbt"]


def test_a_filter_takes_signals_with_a_missing_value(ask, files, tmp_path):
    table = guesses(8, market(8, 900, 0.0), 0.9)
    table.assign(killzone=table["killzone"].where(table["killzone"] == "asia", None)).to_parquet(
        tmp_path / "signals.parquet"
    )
    code, _, err = ask(*files, "--filter", "all,killzone=asia", "--json")
    assert code == 0, err
    code, _, err = ask(*files, "--filter", "killzone=aisa")
    assert code == 1 and "must be one of asia, was 'aisa'" in err


def test_bars_of_a_file_go_through_the_whole_line(ask, tmp_path):
    synthetic_market(3000, timeframe="1h", seed=3).bars.to_parquet(tmp_path / "SYNTH_1h.parquet")
    words = ("--bars", str(tmp_path / "SYNTH_1h.parquet"), "--folds", "2", "--rounds", "5", "--seed", "3")
    code, out, _ = ask(*words, "--stop-atr", "1,2", "--risk-reward", "1,2", "--min-confidence", "0,0.5", "--json")
    said = json.loads(out)
    assert code == 0 and said["combinations"] == 8 and said["signals"] == "primary" and said["seed"] == 3
    assert {row["max_holding_bars"] for row in said["best"]} == {24}  # the horizon the models were trained for
    kept = current().trials.table(SeriesId.parse("SYNTH", "1h"))
    tried = [params for params, kind in zip(kept["params"], kept["kind"], strict=True) if kind == "sweep"]
    assert len(kept) >= len(tried) == 8
    assert {(one["min_confidence"], one["policy_min_confidence"]) for one in tried} == {(0.0, 0.6), (0.5, 0.6)}


def test_signals_keep_the_distance_they_were_made_with():
    from orbiquant.research.sweeps import without_levels

    entry, atr, side = np.array([100.0, 101.0]), np.array([2.0, 3.0]), np.array([1, -1])
    made = pd.DataFrame({"action": ["LONG", "SHORT"], "side": side, "entry_price": entry, "risk_reward": 2.0})
    made = made.assign(stop_loss=entry - side * 1.5 * atr, take_profit=entry + side * 3 * atr)
    assert np.allclose(without_levels(made, 1.5)["distance"], atr)


def test_a_figure_that_is_not_there_is_not_printed():
    from rich.console import Console

    with (console := Console(width=80)).capture() as taken:
        console.print(fields({"trades": 40, "minimum_trades": float("nan"), "zero": 0.0}))
    assert "nan" not in taken.get() and "minimum_trades" not in taken.get() and "zero" in taken.get()
