"""Surrogates: what is kept and what is tossed, true p-values, planted edges found, interrupts that end."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import ORBIQUANT, Ask, ask

from orbiquant.backtest.surrogates import (
    AmdCompletion,
    LineEdge,
    SurrogateTest,
    audit_surrogates,
    block_numbers,
    mirror,
    p_value,
    sign_flip,
)
from orbiquant.core import DataError, OptionError
from orbiquant.domain import Bars, CalendarName, Costs, Timeframe
from orbiquant.features.config import PhaseConfig
from orbiquant.features.spec import FeatureSpec
from orbiquant.line import Line, LineSpec
from orbiquant.market.bars import check_bars
from orbiquant.market.synthetic import SyntheticConfig, synthetic_market
from orbiquant.models.config import Phase2Config
from orbiquant.policies import POLICIES
from orbiquant.research.files import name_bars
from orbiquant.runtime import current
from tests.tools.shared_bars import shared_bars

__all__ = ["ask"]
BARS = synthetic_market(1200, seed=4).bars
AMD = AmdCompletion(PhaseConfig())


def momentum(bars: Bars) -> float:
    """Return whether moves of two bars go on: a cheap claim."""
    return float(np.log(bars["close"]).diff(2).autocorr(2))


def persistent(bars: Bars, stay: float, seed: int) -> Bars:
    """Return bars whose direction is the last one's with probability `stay`."""
    same = np.where(np.random.default_rng(seed).random(len(bars)) < stay, 1, -1)
    return mirror(bars, np.cumprod(same) * np.where(bars["close"] < bars["open"], -1, 1))


def sizes(bars: Bars) -> pd.DataFrame:
    """Return everything about bars that has no sign."""
    logs = np.log(bars[["open", "high", "low", "close"]])
    gap = logs["open"] - logs["close"].shift(fill_value=logs["open"].iloc[0])
    wicks = [logs["high"] - logs["open"], logs["open"] - logs["low"]]
    return pd.DataFrame(
        {
            "range": logs["high"] - logs["low"],
            "body": (logs["close"] - logs["open"]).abs(),
            "gap": gap.abs(),
            "return": (gap + logs["close"] - logs["open"]).abs(),
            "longer": np.maximum(*wicks),
            "shorter": np.minimum(*wicks),
            "volume": bars["volume"],
        }
    )


# --- bars ---


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.one_of(st.integers(1, 200), st.just("day")))
def test_every_surrogate_is_a_valid_market_of_the_same_sizes(seed: int, block: int | str):
    flipped = sign_flip(BARS, seed, block)
    check_bars(flipped, "15m")
    np.testing.assert_allclose(sizes(flipped), sizes(BARS), atol=1e-9)
    assert flipped.index.equals(BARS.index) and flipped["open"].iloc[0] == pytest.approx(BARS["open"].iloc[0])
    assert flipped.equals(sign_flip(BARS, seed, block))


def test_a_flip_mirrors_and_two_flips_are_none():
    once = mirror(BARS, np.full(len(BARS), -1))
    np.testing.assert_allclose(np.log(once["close"]).diff()[1:], -np.log(BARS["close"]).diff()[1:], atol=1e-12)
    np.testing.assert_allclose(once["high"] / once["open"], BARS["open"] / BARS["low"], rtol=1e-12)
    np.testing.assert_allclose(mirror(once, np.full(len(BARS), -1)), BARS, rtol=1e-9)
    np.testing.assert_allclose(mirror(BARS, np.ones(len(BARS), int)), BARS, rtol=1e-9)


def test_a_block_is_flipped_as_a_whole():
    def turned(bars: Bars) -> pd.Series:
        return (np.sign(bars["close"] - bars["open"]) * np.sign(BARS["close"] - BARS["open"])).round()

    by_day = turned(sign_flip(BARS, 3, "day"))
    moved = by_day[by_day != 0]
    days = pd.Series(block_numbers(BARS.index, "day"), BARS.index)[moved.index]
    assert (moved.groupby(days).nunique() == 1).all() and moved.nunique() == 2
    assert block_numbers(BARS.index, 5)[:11].tolist() == [0] * 5 + [1] * 5 + [2]
    assert len(set(days)) == pytest.approx(1200 / 96, abs=2)


@pytest.mark.parametrize("block", [0, -3, "week"])
def test_a_block_that_is_none_is_refused(block: int | str):
    with pytest.raises(DataError, match="`block` must be"):
        sign_flip(BARS, 1, block)


def test_odd_markets_can_be_flipped():
    still = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 1.25), BARS.index).assign(volume=0.0)
    pd.testing.assert_frame_equal(sign_flip(still, 1), still)
    assert sign_flip(BARS.iloc[:0], 1).empty and len(sign_flip(BARS.iloc[:1], 1)) == 1
    with pytest.raises(DataError, match="`bars` must be at least 1"):
        audit_surrogates(momentum, BARS.iloc[:0])


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "EURUSD_15m", "XAUUSD_1h"])
def test_real_bars_keep_their_sizes(name: str):
    bars = shared_bars(name).iloc[-20_000:]
    flipped = sign_flip(bars, 1)
    check_bars(flipped, name.split("_")[1])
    np.testing.assert_allclose(sizes(flipped), sizes(bars), atol=1e-8)


# --- p-values ---


def test_p_values_count_the_original_and_what_has_no_answer():
    assert p_value(1.0, [0.0] * 99) == 0.01 and p_value(0.0, [0.0] * 99) == 1.0
    assert p_value(1.0, [0, 0, np.nan]) == 0.5 and np.isnan(p_value(np.nan, [0.0]))
    test = SurrogateTest({"a": 1.0, "b": float("nan")}, pd.DataFrame({"a": np.zeros(19), "b": np.zeros(19)}), 1)
    assert (test.verdict("a"), test.verdict("a", 0.01), test.verdict("b")) == ("pass", "no verdict", "no verdict")
    with pytest.raises(OptionError, match="`claim` must be one of"):
        test.verdict("c")


def test_a_policy_that_loses_less_than_its_surrogates_has_no_edge():
    losses = pd.DataFrame({"a": np.full(99, -0.3)})
    for observed, verdict in ((-0.1, "fail"), (0.0, "fail"), (0.1, "pass")):
        assert SurrogateTest({"a": observed}, losses, 1, missing=0.0).verdict("a") == verdict
    assert SurrogateTest({"a": -0.1}, losses, 1).verdict("a") == "pass"  # a correlation may be below zero


@pytest.mark.parametrize(
    ("count", "alpha", "verdict"), [(18, 0.05, "no verdict"), (19, 0.05, "pass"), (98, 0.01, "no verdict")]
)
def test_surrogates_too_few_for_any_pass_are_no_verdict(count: int, alpha: float, verdict: str):
    assert SurrogateTest({"a": 1.0}, pd.DataFrame({"a": np.zeros(count)}), 1).verdict("a", alpha) == verdict


@pytest.mark.slow
def test_a_martingale_gives_uniform_p_values():
    from scipy.stats import kstest

    config = SyntheticConfig(cycles=False, weekend_gap=0.0)
    found = [
        audit_surrogates(momentum, synthetic_market(300, seed=n, config=config).bars, 19, seed=n)
        .table["p_value"]
        .item()
        for n in range(100)
    ]
    dithered = np.array(found) - np.random.default_rng(1).random(100) / 20
    assert kstest(dithered, "uniform").pvalue > 0.01


def test_a_planted_momentum_is_found_unless_the_block_keeps_it():
    trending = persistent(synthetic_market(2000, seed=1, config=SyntheticConfig(cycles=False)).bars, 0.7, seed=2)
    assert audit_surrogates(momentum, trending, 39).table["p_value"].item() == 1 / 40
    kept = audit_surrogates(momentum, trending, 39, block="day").table.loc["claim"]
    assert kept["surrogate_mean"] > 0.8 * kept["observed"] and kept["p_value"] > 1 / 40


def test_planted_cycles_complete_more_often_than_their_surrogates_and_a_martingale_does_not():
    cyclic, martingale = (
        synthetic_market(5000, seed=12, config=SyntheticConfig(edge=1.0, cycles=cycles)).bars
        for cycles in (True, False)
    )
    assert audit_surrogates(AMD, cyclic, 39).verdict("amd_completion") == "pass"
    assert audit_surrogates(AMD, martingale, 39).verdict("amd_completion") == "fail"


@pytest.mark.slow
def test_processes_answer_as_one_does_and_progress_is_told():
    told: list[tuple[int, int, str]] = []
    alone = audit_surrogates(AMD, BARS, 6, seed=5)
    crowd = audit_surrogates(AMD, BARS, 6, seed=5, workers=2, progress=lambda *step: told.append(step))
    pd.testing.assert_frame_equal(alone.surrogates, crowd.surrogates)
    assert [done for done, _, _ in told] == list(range(7)) and {total for _, total, _ in told} == {6}
    assert not alone.surrogates.equals(audit_surrogates(AMD, BARS, 6, seed=6).surrogates)


def test_what_no_answer_is_worth_is_the_callers_word():
    def mute(bars: Bars) -> float:
        return 1.0 if bars is BARS else float("nan")

    assert audit_surrogates(mute, BARS, 9).table["p_value"].item() == 1.0
    assert audit_surrogates(mute, BARS, 9, missing=0.0).table["p_value"].item() == 0.1


def test_a_claim_of_a_figure_or_policy_that_is_none_is_refused():
    spec = FeatureSpec(timeframe=Timeframe.M15, calendar=CalendarName.FOREX)
    with pytest.raises(OptionError, match="`figure` must be one of"):
        LineEdge(Line(LineSpec(features=spec)), Costs(), figure="profit")
    with pytest.raises(OptionError, match="`policy` must be one of"):
        LineEdge(Line(LineSpec(features=spec)), Costs(), ("bas",))


@pytest.mark.slow
def test_the_whole_line_finds_a_planted_edge_and_none_on_a_martingale():
    spec = FeatureSpec(timeframe=Timeframe.M15, calendar=CalendarName.FOREX)
    training = Phase2Config(folds=1, rounds=20, learning_rate=0.2, horizon_bars=6, stop_atr=1.0, risk_reward=1.0)
    edge = LineEdge(Line(LineSpec(features=spec, training=training)), Costs(), ("primary",))
    quiet = synthetic_market(3600, seed=2, config=SyntheticConfig(cycles=False)).bars
    planted = audit_surrogates(edge, persistent(quiet, 0.75, seed=1), 19, missing=0.0, workers=2)
    assert planted.verdict("primary") == "pass"
    assert audit_surrogates(edge, quiet, 19, missing=0.0, workers=2).verdict("primary") == "fail"


# --- command line ---


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of bars."""
    BARS.reset_index().to_parquet(tmp_path / "EURUSD_15m.parquet")
    return tmp_path / "EURUSD_15m.parquet"


def test_the_command_prints_a_p_value_and_fails_with_the_claim(ask: Ask, file: Path):
    synthetic_market(1200, seed=2).bars.reset_index().to_parquet(file)
    words = ("audit", "surrogates", "--bars", str(file), "--claim", "amd", "--json")
    done = ask(*words, "--count", "19")
    assert done.code == 1 and done.json["verdict"] == "fail" and 0.05 < done.json["p_value"] <= 1
    assert done.json["claims"][0]["claim"] == "amd_completion" and done.json["surrogates"] == 19
    few = ask(*words, "--count", "9")
    assert few.code == 0 and few.json["verdict"] == "no verdict"
    assert ask("audit", "surrogates", "--bars", str(file), "--claim", "amd", "--count", "2", "--alpha", "1").code == 0


def test_what_policies_make_of_the_original_is_counted_once_under_the_name_a_backtest_gives(ask: Ask, tmp_path: Path):
    file = tmp_path / "my-gold_2017.parquet"
    BARS.reset_index().to_parquet(file)
    words = ("--rounds", "2", "--folds", "1", "--count", "1", "--json")
    for more in ((), ("--seed", "2")):
        done = ask("audit", "surrogates", "--bars", str(file), "--claim", "primary", *words, *more)
        assert done.code in (0, 1) and done.json["bars"] == "MY" and done.json["rows"] == len(BARS)
    kept = current().trials.table().set_index("policy")
    assert (
        set(kept.index) == {"primary", *POLICIES} and len(kept) == 1 + len(POLICIES) and set(kept["kind"]) == {"audit"}
    )
    claims = {row["claim"]: row["observed"] for row in done.json["claims"]}
    assert kept.loc["primary", "mean_r"] == pytest.approx(claims["primary"]) and kept.loc["primary", "trades"] > 5
    assert kept.loc["primary", "params"]["phase_detector"] == "rules"
    file.rename(tmp_path / "renamed.parquet")
    for name in ("my-gold_2017.parquet", "renamed.parquet"):
        BARS.reset_index().to_parquet(tmp_path / name)
        seen = ask("audit", "trials", "--bars", str(tmp_path / name), "--json").json
        assert seen["symbol"] == name_bars(tmp_path / name) and seen["trials"] == len(kept)
    assert ask("audit", "surrogates", "--bars", str(file), "--claim", "amd", "--count", "1", "--json").code in (0, 1)
    assert current().trials.count() == len(kept)


def test_a_floor_of_confidence_binds_the_policies_and_not_the_primary_signal():
    spec = FeatureSpec(timeframe=Timeframe.M15, calendar=CalendarName.FOREX)
    training = Phase2Config(folds=1, rounds=20, learning_rate=0.2, horizon_bars=6, stop_atr=1.0, risk_reward=1.0)
    edge = LineEdge(Line(LineSpec(features=spec, training=training)), Costs(), ("primary", "base"))
    trending = persistent(synthetic_market(1200, seed=2, config=SyntheticConfig(cycles=False)).bars, 0.9, seed=1)
    loose, strict = edge.results(trending), replace(edge, min_confidence=0.95).results(trending)
    assert len(loose["base"]) > 50 and strict["base"].empty and loose["primary"].equals(strict["primary"])
    assert np.isnan(edge.figures(strict)["base"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--claim", "bse"), "`claim` must be one of"),
        (("--claim", "base", "--figure", "mean"), "`--figure` must be one of"),
        (("--claim", "amd", "--block", "0"), "`--block` must be"),
    ],
)
def test_bad_words_are_named(ask: Ask, file: Path, words: tuple[str, ...], said: str):
    done = ask("audit", "surrogates", "--bars", str(file), *words)
    assert done.code in (1, 2) and said in done.err


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path: Path):
    synthetic_market(40_000, seed=1).bars.reset_index().to_parquet(tmp_path / "EURUSD_15m.parquet")
    words = ("audit", "surrogates", "--bars", "EURUSD_15m.parquet", "--claim", "amd", "--last", "40000")
    running = subprocess.Popen(
        [*ORBIQUANT, *words, "--count", "100000", "--workers", "2"], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"ORBIQUANT_HOME": str(tmp_path)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(children(running.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "Interrupted." in said and "Traceback" not in said
    deadline = time.monotonic() + 30
    while group(running.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert group(running.pid) == []


def children(pid: int) -> list[str]:
    """Return the processes that a process has started to compute."""
    ps = subprocess.run(["ps", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [line for line in ps.splitlines() if "popen_loky" in line]


def group(pid: int) -> list[str]:
    """Return the living processes of a process group."""
    ps = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=2) for line in ps.splitlines())
    return [row[2] for row in rows if row[0] == str(pid) and not row[1].startswith("Z")]
