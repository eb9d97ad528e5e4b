"""`orbiquant backtest` on anyone's bars and signals: the same figures as the library and as a plain loop."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import Answer, main

from orbiquant.backtest.simulate import simulate
from orbiquant.core import DataError
from orbiquant.domain import Costs
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.files import check_target, fingerprint, name_bars, read_signals_file, write_table
from orbiquant.runtime import Runtime, using
from tests.tools.oracle import Terms, replay

Ask = Callable[..., Answer]
BARS = synthetic_market(4000, timeframe="15m", seed=11).bars


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Yield a function that runs `orbiquant backtest` in a workspace that holds bars.parquet."""
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    BARS.to_parquet(tmp_path / "bars.parquet")

    def typed(*words: object) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main(["backtest", *map(str, words)])
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    with using(Runtime()):
        yield typed


def signals_of(bars: pd.DataFrame) -> pd.DataFrame:
    """Random sides every dozen bars, with levels of half a per cent."""
    rng = np.random.default_rng(4)
    rows = bars.iloc[20::12]
    side = rng.choice([1, -1], len(rows))
    distance = 0.004 * rows["close"]
    levels = {"stop_loss": rows["close"] - side * distance, "take_profit": rows["close"] + side * 1.5 * distance}
    return pd.DataFrame(
        {"action": np.where(side > 0, "LONG", "SHORT"), "entry_price": rows["close"], **levels, "confidence": 0.61}
    )


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_given_signals_make_the_trades_of_a_plain_loop(ask: Ask, tmp_path: Path, ending: str):
    signals = signals_of(BARS)
    table = signals.reset_index()
    table.to_parquet(tmp_path / "s.parquet") if ending == "parquet" else table.to_csv(tmp_path / "s.csv", index=False)
    out = tmp_path / f"trades.{ending}"
    costs = ("--fee-bps", 5, "--slippage-bps", 1, "--spread-bps", 2)
    files = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / f"s.{ending}", "--trades", out)
    answer = ask(*files, *costs, "--max-holding-bars", 40, "--json")
    assert answer.code == 0, answer.err
    found, told = answer.json, replay(BARS, signals, Terms(5e-4, 2e-4, limit=40)).trades
    assert found["trades"] == found["metrics"]["trades"] == len(told) > 80
    assert found["metrics"]["total_r"] == pytest.approx(sum(trade["r"] for trade in told))
    assert found["costs"] == {"fee_bps": 5, "slippage_bps": 1, "spread_bps": 2}
    assert found["costs_in_r"]["median"] == pytest.approx(14e-4 / 0.004, rel=0.02)
    assert found["costs_in_r"]["round_trip_bps"] == pytest.approx(14)
    assert "is in no instrument table" in found["notices"][0] and found["timeframe"] == "15m"
    written = read_table_of_trades(out)
    np.testing.assert_allclose(written["r"], [trade["r"] for trade in told])
    np.testing.assert_allclose(written["exit"], [trade["exit"] for trade in told])
    assert not (tmp_path / "data" / "store").exists() and not list(tmp_path.glob("**/models"))


def read_table_of_trades(path: Path) -> pd.DataFrame:
    """Return a written trade list."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def test_json_holds_what_the_library_finds(ask: Ask, tmp_path: Path):
    signals = signals_of(BARS)
    signals.to_parquet(tmp_path / "s.parquet")
    where = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet", "--symbol", "EURUSD")
    found = ask(*where, "--fee-bps", 1, "--slippage-bps", 0, "--spread-bps", 0, "--risk-from", "plan", "--json").json
    result = simulate(BARS, signals, Costs(fee_bps=1), risk_from="plan")
    assert found["trades"] == len(result.trades) and found["skipped"] == result.skipped
    assert found["metrics"]["expectancy_r"] == pytest.approx(result.trades["r"].mean())
    assert found["risk_from"] == "plan" and found["max_holding_bars"] is None and "notices" not in found
    assert [row["times the costs"] for row in found["cost_sensitivity"]] == [0, 0.5, 1, 2]
    assert found["by_confidence"][0]["confidence"] == "0.60–0.65"
    assert found["monte_carlo"]["draws"] == 2000 and 0 <= found["monte_carlo"]["probability"]["loss"] <= 1
    assert sum(row["total"] for row in found["monthly"]) == pytest.approx(result.trades["r"].sum())
    assert found["verdict"]["detail"].split(" made")[0].endswith("trades of given signals")
    assert found["metrics"]["trials"] == 1
    assert ask(*where, "--fee-bps", 1, "--json").json["metrics"]["trials"] == 2


def test_an_exit_plan_is_asked_for_by_option_and_by_setting(ask: Ask, tmp_path: Path):
    signals = signals_of(BARS).assign(atr=0.002 * BARS["close"])
    signals.to_csv(tmp_path / "s.csv")
    plan, costs = "break_even_r=1 trail_atr=2 targets=0.5:0.25,1:0.25", ("--fee-bps", 5, "--spread-bps", 2)
    where = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.csv", *costs, "--slippage-bps", 1)
    found = ask(*where, "--exits", plan, "--json").json
    moved = Terms(5e-4, 2e-4, break_even_r=1.0, trail_atr=2.0, targets=((0.5, 0.25), (1.0, 0.25)))
    told = replay(BARS, signals, moved).trades
    assert found["trades"] == len(told) > 50 and found["exits"] == plan
    assert found["metrics"]["total_r"] == pytest.approx(sum(trade["r"] for trade in told))
    assert found["metrics"]["trials"] == 1 and "exits" not in ask(*where, "--json").json
    assert plan in " ".join(ask(*where, "--exits", plan).out.split())
    assert ask(*where, "--exits", plan, "--json").json["metrics"]["trials"] == 2  # the fixed plan and this one
    (tmp_path / "settings.ini").write_text(f"[backtest]\nexits = {plan}\n")
    with using(Runtime()):
        again = ask(*where, "--json").json
        assert again["metrics"]["total_r"] == found["metrics"]["total_r"] and again["exits"] == found["exits"]
        assert "exits" not in ask(*where, "--exits", "fixed", "--json").json


@pytest.mark.parametrize(
    "plan", ["trail=2", "trail_atr=0", "trail_atr", "targets=1:0.5,1:0.2", "break_even_r=nan", "max_holding_bars=1.5"]
)
def test_an_exit_plan_that_is_none_is_refused(ask: Ask, tmp_path: Path, plan: str):
    signals_of(BARS).to_parquet(tmp_path / "s.parquet")
    answer = ask("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet", "--exits", plan)
    assert answer.code != 0 and "Traceback" not in answer.err and len(answer.err) < 1000
    assert plan.split("=")[0] in answer.err


def test_the_files_that_are_read_are_not_written_over(ask: Ask, tmp_path: Path):
    signals_of(BARS).to_csv(tmp_path / "s.csv")
    held = (tmp_path / "s.csv").read_bytes()
    words = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.csv", "--trades", tmp_path / "s.csv")
    answer = ask(*words)
    assert answer.code == 2 and "another file than those that are read" in answer.err
    assert (tmp_path / "s.csv").read_bytes() == held
    told = ask(*words[:4], "--risk-from", "luck")
    assert told.code == 2 and "`--risk-from` must be one of plan, fill, was 'luck'" in told.err


def test_a_person_reads_figures_in_words_and_units(ask: Ask, tmp_path: Path):
    signals_of(BARS).to_parquet(tmp_path / "s.parquet")
    out = ask("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet").out
    assert not re.search(r"\de-\d|\bnan\b|expectancy_r|win_rate", out)
    assert re.search(r"win rate +\d+\.\d %", out) and re.search(r"mean net, R +[-+]\d+\.\d\d\n", out)
    assert re.search(r"account at last, its currency +[\d,]+\.\d\d\n", out)
    assert out.rstrip().splitlines()[-1].startswith("R: what is lost at the stop")


def test_a_person_reads_costs_before_results(ask: Ask, tmp_path: Path):
    signals_of(BARS).to_parquet(tmp_path / "s.parquet")
    out = ask("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet").out
    places = [out.index(word) for word in ("costs in R, before", "verdict", "mean net, R", "2000 draws", "times the")]
    assert places == sorted(places)


def test_the_whole_line_on_a_file_is_the_same_twice_and_keeps_nothing(ask: Ask, tmp_path: Path):
    words = ("--bars", tmp_path / "bars.parquet", "--policy", "primary", "--folds", 2, "--rounds", 6, "--seed", 3)
    words += ("--last", 3000)
    first, again = (ask(*words, "--json") for _ in range(2))
    assert first.code == 0, first.err
    a, b = first.json, again.json
    for answer in (a, b):
        answer.pop("seconds")
    assert a == b
    assert a["policy"] == "primary" and a["seed"] == 3 and len(a["folds"]) == 2 and a["trades"] > 20
    assert {row["amd_phase"] for row in a["by_phase"]} <= {
        "accumulation", "manipulation", "distribution", "neutral", "invalidated",
    }  # fmt: skip
    assert pd.Timestamp(a["first"]) > BARS.index[1500] and pd.Timestamp(a["last"]) == BARS.index[-1]
    assert not list(tmp_path.glob("**/models/*")) and not (tmp_path / "data" / "store").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --bars FILE, or --symbol and --timeframe"),
        (("--symbol", "EURUSD"), "give --bars FILE"),
        (("--signals", "s.parquet"), "--signals needs the --bars"),
        (("--symbol", "EURUSD", "--timeframe", "1h", "--fee-bps", "1"), "--fee-bps does not go with stored bars"),
        (("--bars", "bars.parquet", "--model", "x"), "--model does not go with --bars"),
        (("--bars", "bars.parquet", "--risk-from", "fill"), "--risk-from does not go with --bars"),
        (
            ("--bars", "bars.parquet", "--signals", "s.parquet", "--policy", "base"),
            "--policy does not go with --signals",
        ),
        (("--bars", "bars.parquet", "--fee-bps", "-1"), "--fee-bps"),
        (("--bars", "bars.parquet", "--fee-bps", "inf"), "--fee-bps"),
        (("--bars", "bars.parquet", "--fee-bps", "nan"), "--fee-bps"),
    ],
)
def test_options_that_do_not_go_together_are_refused(ask: Ask, words: tuple[str, ...], said: str):
    answer = ask(*words)
    assert answer.code == 2 and said in " ".join(answer.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bars", "absent.parquet"), "absent.parquet"),
        (("--bars", "bars.parquet", "--signals", "absent.parquet"), "absent.parquet"),
        (("--bars", "bars.parquet", "--signals", "text.csv"), "must have a column `time`"),
        (("--bars", "bars.parquet", "--signals", "bars.parquet"), "must have `action` or `side`"),
        (("--bars", "bars.parquet", "--signals", "shifted.parquet"), "`signals` must stand on times of `bars`"),
        (
            ("--bars", "bars.parquet", "--signals", "good.parquet", "--trades", "trades.txt"),
            "must end in .parquet or .csv",
        ),
        (("--bars", "bars.parquet", "--policy", "bold"), "`policy`: must be one of"),
        (("--bars", "few.parquet"), "need at least"),
        (("--bars", "bad.parquet"), "must hold valid 15m bars"),
    ],
)
def test_bad_files_are_refused_in_one_line(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, said):
    monkeypatch.chdir(tmp_path)
    signals = signals_of(BARS)
    signals.to_parquet("good.parquet")
    signals.set_axis(signals.index + pd.Timedelta("1min")).to_parquet("shifted.parquet")
    Path("text.csv").write_text("a,b\n1,2\n")
    BARS.iloc[:50].to_parquet("few.parquet")
    BARS.assign(high=BARS["low"] / 2).to_parquet("bad.parquet")
    answer = ask(*words, "--json")
    assert answer.code == 1 and said in answer.err and "Traceback" not in answer.err and answer.out == ""
    assert not Path("t.txt").exists()


def test_the_dearest_costs_leave_out_the_multiples_they_cannot_have(ask: Ask, tmp_path: Path):
    signals_of(BARS).to_parquet(tmp_path / "s.parquet")
    files = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet")
    answer = ask(*files, "--fee-bps", 2600, "--json")
    assert answer.code == 0, answer.err
    assert [row["times the costs"] for row in answer.json["cost_sensitivity"]] == [0, 0.5, 1]


def test_signals_out_of_time_are_refused_with_the_last_bars_too(ask: Ask, tmp_path: Path):
    signals_of(BARS).iloc[::-1].to_parquet(tmp_path / "s.parquet")
    files = ("--bars", tmp_path / "bars.parquet", "--signals", tmp_path / "s.parquet")
    for words in ((), ("--last", 500)):
        answer = ask(*files, *words)
        assert answer.code == 1 and "`signals` must be sorted by time" in " ".join(answer.err.split())


def test_names_and_files():
    assert name_bars(Path("EURUSD_15m.parquet")) == "EURUSD" and name_bars(Path("x.csv"), "btc/usdt") == "BTCUSDT"
    assert name_bars(Path("my bars.csv")) == "MY" and name_bars(Path("ü.csv")) == "BARS"
    assert fingerprint(BARS) == fingerprint(BARS.copy()) != fingerprint(BARS.iloc[1:])


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    assert check_target(tmp_path / "new" / "a.CSV") == ".csv" and list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "a.csv", Path("/proc/nope/a.csv")):
        with pytest.raises(DataError, match="must be a file that can be written, was not"):
            check_target(target)


def test_tables_come_back_whatever_their_times(tmp_path: Path):
    signals = signals_of(BARS)
    wanted = signals.index.as_unit("ms")
    forms = {
        "index.parquet": signals,
        "naive.parquet": signals.tz_localize(None),
        "local.parquet": signals.tz_convert("Asia/Tokyo").reset_index(),
        "stamp.parquet": signals.reset_index().rename(columns={"time": "timestamp"}),
    }
    for name, table in forms.items():
        table.to_parquet(tmp_path / name)
        assert (read_signals_file(tmp_path / name).index == wanted).all(), name
    epoch = signals.reset_index().assign(time=signals.index.as_unit("ms").asi8)
    write_table(tmp_path / "epoch.csv", epoch)
    assert (read_signals_file(tmp_path / "epoch.csv").index == wanted).all()
    (tmp_path / "gap.csv").write_text("time,side\n2024-01-01T00:00Z,1\n,1\n")
    with pytest.raises(DataError, match="must hold a time in every row, had 1 without"):
        read_signals_file(tmp_path / "gap.csv")
