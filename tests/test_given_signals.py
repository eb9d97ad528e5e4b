"""Signals made elsewhere: never called good, traded a bar later, audited, and counted once however they are written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import Ask, ask

from orbiquant.backtest.delays import delay_signals, delay_table, delay_verdict
from orbiquant.backtest.simulate import simulate
from orbiquant.backtest.surrogates import GivenEdge
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Bars, Costs, Signals
from orbiquant.market.synthetic import SyntheticConfig, synthetic_market
from orbiquant.research.files import bars_of_file, file_version, read_signals_file, signals_version
from orbiquant.research.verdict import judge
from orbiquant.runtime import current

__all__ = ["ask"]
BARS = synthetic_market(3000, "1h", seed=21).bars
FREE = ("--fee-bps", "0", "--slippage-bps", "0", "--spread-bps", "0")


def seer(bars: Bars) -> Signals:
    """Return signals whose side is the direction of the next bar."""
    ahead = np.sign(bars["close"].shift(-1) - bars["open"].shift(-1)).fillna(0).astype(int)
    return pd.DataFrame({"side": ahead, "stop_distance": 0.004 * bars["close"]}, bars.index)[::2]


def priced_seer(bars: Bars) -> Signals:
    """Return the same with levels as prices, as most programs write them."""
    rows = seer(bars)
    rows = rows[rows["side"] != 0]
    close, side = bars["close"].loc[rows.index], rows["side"]
    return pd.DataFrame(
        {"side": side, "stop_loss": close * (1 - 0.004 * side), "take_profit": close * (1 + 0.012 * side)}
    )


def coin(bars: Bars) -> Signals:
    """Return sides by chance."""
    rows = seer(bars)
    return rows.assign(side=np.random.default_rng(5).choice([1, -1], len(rows)))


def trend_market() -> tuple[Bars, Signals]:
    """Return a market that runs on for days, and signals that follow it."""
    bars = synthetic_market(3000, "1h", seed=4, config=SyntheticConfig(cycles=False)).bars
    drift = np.repeat(np.random.default_rng(1).choice([-1, 1], 60), 50) * 0.0008
    prices = bars[["open", "high", "low", "close"]].mul(np.exp(drift.cumsum()), axis=0)
    side = pd.Series(np.sign(drift).astype(int), bars.index).shift(12, fill_value=0)
    return bars.assign(**prices), pd.DataFrame({"side": side, "stop_distance": 0.01 * prices["close"]}, bars.index)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return a file of bars and files of signals on them."""
    made = {"bars": BARS, "seer": seer(BARS), "priced": priced_seer(BARS), "coin": coin(BARS)}
    for name, table in made.items():
        table.reset_index().to_parquet(tmp_path / f"EURUSD_{name}.parquet")
    return {name: tmp_path / f"EURUSD_{name}.parquet" for name in made}


# --- the verdict ---


@pytest.mark.parametrize("name", ["seer", "priced"])
def test_signals_that_know_the_next_bar_are_called_suspect_and_never_good(ask: Ask, files, name):
    words = ("backtest", "--bars", files["bars"], "--signals", files[name], "--max-holding-bars", 1, *FREE)
    found = ask(*map(str, words), "--json").json
    assert found["metrics"]["t_statistic"] > 10 and found["metrics"]["deflated_sharpe"] > 0.99
    assert found["verdict"]["tone"] != "good" and "suspect of look-ahead" in found["verdict"]["headline"]
    assert "beyond its trials" not in json.dumps(found["verdict"])
    now, later = found["by_delay"]
    assert (now["bars later"], later["bars later"]) == (0, 1) and now["total_r"] == found["metrics"]["total_r"]
    assert later["trades"] == 0 or later["expectancy_r"] < 2 * later["standard_error_r"]
    said = ask(*map(str, words)).out
    assert "suspect of look-ahead" in said and "One bar later" in said


def test_an_edge_that_outlives_a_bar_has_a_neutral_tone(ask: Ask, tmp_path: Path):
    bars, signals = trend_market()
    bars.reset_index().to_parquet(tmp_path / "EURUSD_1h.parquet")
    signals.reset_index().to_csv(tmp_path / "s.csv", index=False)
    words = ("--bars", tmp_path / "EURUSD_1h.parquet", "--signals", tmp_path / "s.csv", "--max-holding-bars", 8)
    found = ask("backtest", *map(str, words), "--json").json
    assert found["verdict"]["tone"] == "neutral" and "made elsewhere" in found["verdict"]["headline"]
    assert "One bar later" in found["verdict"]["detail"] and "not known here" in found["verdict"]["detail"]
    done = ask("audit", "delays", *map(str, words), "--most", "3", "--json")
    assert (
        done.code == 0
        and done.json["verdict"] == "pass"
        and [r["bars later"] for r in done.json["delays"]] == [*range(4)]
    )


def test_an_own_model_is_judged_as_before():
    good = {"trades": 400.0, "expectancy_r": 0.2, "standard_error_r": 0.07, "total_r": 80.0}
    assert judge(good).tone == "good" and judge(good, given=True).tone == "neutral"


# --- delays ---


def test_a_delayed_signal_is_planned_as_it_was():
    rows = priced_seer(BARS)
    late = delay_signals(BARS, rows, 3)
    assert (late.index == BARS.index[BARS.index.get_indexer(rows.index[: len(late)]) + 3]).all()
    assert list(late["entry_price"]) == list(BARS["close"].loc[rows.index[: len(late)]])
    assert list(late["stop_loss"]) == list(rows["stop_loss"].iloc[: len(late)])
    assert len(simulate(BARS, late, Costs(), max_holding_bars=2).trades) > 100  # levels that were passed are skipped
    planned = delay_signals(BARS, rows.assign(entry_price=BARS["open"].loc[rows.index] * 1.0), 1)
    assert planned["entry_price"].iloc[0] == BARS["open"].loc[rows.index[0]]
    with pytest.raises(DataError, match="`by` must be 0 bars or more, was -1"):
        delay_signals(BARS, rows, -1)


def test_few_trades_are_no_verdict_on_delays():
    rows = seer(BARS).iloc[:20]
    table = delay_table(BARS, rows, simulate(BARS, rows, Costs(), max_holding_bars=1))
    assert delay_verdict(table)[0] == "no verdict" and list(table.index) == [0, 1]


# --- audits ---


def test_the_audit_of_delays_fails_a_seer_and_has_no_verdict_on_a_coin(ask: Ask, files):
    words = ("--bars", str(files["bars"]), "--max-holding-bars", "1", *FREE, "--json")
    failed, blind = (ask("audit", "delays", "--signals", str(files[name]), *words) for name in ("seer", "coin"))
    assert failed.code == 1 and failed.json["verdict"] == "fail" and "look-ahead" in failed.json["why"]
    assert blind.code == 0 and blind.json["verdict"] == "no verdict" and failed.json["costs"]["fee_bps"] == 0
    assert current().trials.count() == 2


@pytest.mark.slow
def test_surrogates_take_signals_and_costs(ask: Ask, files, tmp_path: Path):
    bars, signals = trend_market()
    bars.reset_index().to_parquet(tmp_path / "EURUSD_trend.parquet")
    signals.reset_index().to_parquet(tmp_path / "trend.parquet")

    def asked(bars_file: Path, file: Path, *more: str) -> object:
        where = ("--bars", str(bars_file), "--signals", str(file), "--max-holding-bars", "8")
        return ask("audit", "surrogates", *where, "--count", "39", *more, "--json")

    gross, dear = (
        asked(tmp_path / "EURUSD_trend.parquet", tmp_path / "trend.parquet", *costs)
        for costs in (FREE, ("--fee-bps", "90"))
    )
    assert gross.json["verdict"] == "pass" and gross.json["p_value"] <= 0.05 and gross.json["claim"] == "signals"
    assert gross.json["costs"] == {"fee_bps": 0, "slippage_bps": 0, "spread_bps": 0}
    assert dear.json["verdict"] == "fail" and dear.json["costs"]["fee_bps"] == 90
    blind = asked(files["bars"], files["coin"], *FREE)
    assert blind.json["verdict"] == "fail" and blind.json["p_value"] > 0.05
    knowing = asked(files["bars"], files["seer"], *FREE, "--max-holding-bars", "1")
    assert knowing.json["p_value"] <= 0.05 and knowing.json["verdict"] == "fail"
    assert "look-ahead" in knowing.json["one_bar_later"] and knowing.code == 1


def test_the_lines_own_claim_can_be_asked_gross(ask: Ask, files):
    words = ("audit", "surrogates", "--bars", str(files["bars"]), "--claim", "primary", "--rounds", "2", "--folds", "1")
    gross, net = (ask(*words, "--count", "1", *costs, "--json").json for costs in (FREE, ("--fee-bps", "30")))
    assert gross["claims"][0]["observed"] > net["claims"][0]["observed"] + 0.1
    assert gross["costs"]["spread_bps"] == 0 and net["costs"]["fee_bps"] == 30
    kept = current().trials.table()
    assert {row["costs"]["fee_bps"] for row in kept["params"]} == {0, 30}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("surrogates", "--signals", "x"), "--signals needs the --bars it stands on"),
        (("surrogates", "--bars", "b", "--signals", "s", "--claim", "base"), "--claim does not go with --signals"),
        (("surrogates", "--bars", "b", "--signals", "s", "--rounds", "3"), "--rounds does not go with --signals"),
        (("surrogates", "--bars", "b", "--risk-from", "plan"), "--risk-from does not go with a claim of the line"),
        (("surrogates", "--bars", "b", "--claim", "amd", "--fee-bps", "1"), "--fee-bps does not go with --claim amd"),
        (("delays", "--bars", "b"), "--signals FILE and the --bars FILE"),
    ],
)
def test_options_that_do_not_go_together_are_refused(ask: Ask, files, words, said):
    named = {"b": str(files["bars"]), "s": str(files["seer"])}
    done = ask("audit", *(named.get(word, word) for word in words))
    assert done.code == 2 and said in " ".join(done.err.replace("│", " ").split())


def test_a_given_claim_has_a_known_figure():
    with pytest.raises(OptionError, match="`figure` must be one of"):
        GivenEdge(BARS, seer(BARS), Costs(), {}, "mean")
    nothing = GivenEdge(BARS, seer(BARS).assign(side=0), Costs(), {})(BARS)
    assert np.isnan(nothing["signals"])


# --- one look, however it is written ---


def written(folder: Path) -> list[tuple[Path, Path]]:
    """Return the same bars and signals in many forms."""
    rng = np.random.default_rng(3)
    bars = BARS.iloc[:400].copy()
    bars[["open", "high", "low", "close"]] *= np.exp(rng.normal(0, 1e-4, (400, 1)).cumsum(axis=0))  # all digits used
    rows = priced_seer(bars).assign(entry_price=bars["close"], note="x")
    held = rows.reindex(bars.index).assign(side=lambda t: t["side"].fillna(0).astype(int))
    action = held["side"].map({1: "LONG", -1: "SHORT", 0: "hold"})
    forms = []
    for name in ("a", "b", "c", "d", "e"):
        (folder / name).mkdir()
    table, plain = bars.reset_index(), rows.reset_index()
    table.to_csv(folder / "a" / "GOLDISH_1h.csv", index=False)
    plain.to_csv(folder / "a" / "s.csv", index=False)
    table.to_csv(folder / "b" / "GOLDISH_1h.csv.gz", index=False)
    plain.to_csv(folder / "b" / "signals.csv")  # with the numbers of the rows
    bars.to_parquet(folder / "c" / "GOLDISH.parquet")
    rows[rows.columns[::-1]].to_parquet(folder / "c" / "s.parquet")
    other = table.rename(columns=str.capitalize)[["Time", "Volume", "Close", "Low", "High", "Open"]]
    other.assign(Time=table["time"].dt.strftime("%Y-%m-%d %H:%M:%S")).to_csv(folder / "d" / "GOLDISH.csv", index=False)
    held.drop(columns="side").assign(action=action, note="x").to_parquet(folder / "d" / "s.parquet")
    epoch = table.assign(time=table["time"].dt.as_unit("ms").astype("int64"))
    epoch.to_parquet(folder / "e" / "GOLDISH.parquet")
    plain.assign(time=plain["time"].dt.tz_convert("Asia/Tokyo"), side=plain["side"].astype("float32")).to_parquet(
        folder / "e" / "s.parquet"
    )
    for name in ("a", "b", "c", "d", "e"):
        (bars_file,) = (folder / name).glob("GOLDISH*")
        (signals_file,) = (folder / name).glob("s*")
        forms.append((bars_file, signals_file))
    return forms


def test_the_same_bars_and_signals_are_one_trial_however_they_are_written(ask: Ask, tmp_path: Path):
    forms = written(tmp_path)
    assert len({file_version(bars_of_file(bars, "GOLDISH").bars) for bars, _ in forms}) == 1
    assert len({signals_version(read_signals_file(rows)) for _, rows in forms}) == 1
    for bars, rows in forms:
        done = ask("backtest", "--bars", str(bars), "--signals", str(rows), "--json")
        assert done.code == 0 and done.json["metrics"]["trials"] == 1 and done.json["metrics"]["trades"] > 5
    assert current().trials.count() == 1
    bars, rows = forms[0]
    for words in (("sweep", "--stop-atr", "1,2", "--risk-reward", "1"), ("audit", "delays")):
        ask(*words, "--bars", str(bars), "--signals", str(rows))
    assert current().trials.count() == 3  # two combinations; a delay is no other look
    for bars, rows in forms[1:]:
        ask("sweep", "--stop-atr", "1,2", "--risk-reward", "1", "--bars", str(bars), "--signals", str(rows))
    assert current().trials.count() == 3
    changed = pd.read_csv(forms[0][1]).assign(
        stop_loss=lambda t: t["stop_loss"].where(t.index > 0, t["stop_loss"] * 0.9999)
    )
    changed.to_csv(tmp_path / "changed.csv", index=False)
    assert signals_version(read_signals_file(tmp_path / "changed.csv")) != signals_version(read_signals_file(rows))
