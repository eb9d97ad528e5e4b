"""AMD rules on drawn paths, their invariants on random markets, and how they do against planted truth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shared_bars import shared_bars

from orbiquant.domain import Bars
from orbiquant.features.config import PhaseConfig
from orbiquant.features.matrix import causality_violations
from orbiquant.features.phases import PHASES, PROBABILITIES, _run_cycle, detect_phases, new_cycle, range_compression
from orbiquant.market.synthetic import BITCOIN_LIKE, SyntheticConfig, synthetic_market
from orbiquant.settings import load_settings

LETTERS = dict(zip((phase.value for phase in PHASES), ".AMDI", strict=True))
FOLLOWS = {
    "neutral": {"accumulation"},
    "accumulation": {"manipulation", "distribution", "invalidated"},
    "manipulation": {"distribution", "invalidated"},
    "distribution": {"neutral", "accumulation"},
    "invalidated": {"neutral", "accumulation"},
}


def play(*path: tuple[float, float, float], tight: tuple[int, ...] = (0,), **rules: float) -> tuple[str, list[int]]:
    """Play (high, low, close) after a range from 100 to 110 has formed; say phases as letters, and directions."""
    high, low, close = np.array([(106.0, 104.0, 105.0), *path], dtype="float64").T.copy()
    marks = np.isin(np.arange(len(close)), tight)
    ranges = (np.full(len(close), 110.0), np.full(len(close), 100.0))
    numbers = {"range_bars": 24, "sweep_bars": 3, "min_pierce": 0.1, "max_age_bars": 10} | rules
    phases, directions, *_ = _run_cycle((high, low, close), ranges, marks, *numbers.values(), new_cycle())
    return "".join(LETTERS[PHASES[code].value] for code in phases), directions.tolist()


INSIDE = (106, 104, 105)
UNDER = (101, 98, 99)  # pierces the low by 20 % and closes outside
OVER = (112, 109, 111)


def test_swept_low_reclaimed_and_broken_above_is_a_long_cycle():
    assert play(INSIDE, UNDER, INSIDE, INSIDE, OVER, OVER) == ("AAMMMDD", [0, 0, 0, 1, 1, 1, 1])


def test_swept_high_reclaimed_and_broken_below_is_a_short_cycle():
    assert play(OVER, INSIDE, UNDER) == ("AMMD", [0, 0, -1, -1])


def test_a_wick_that_closes_back_inside_has_its_direction_at_once():
    assert play((106, 98, 105), OVER) == ("AMD", [0, 1, 1])


def test_a_bar_that_sweeps_and_breaks_the_other_side_is_distribution_or_nothing():
    assert play((112, 104, 111), (105, 99.5, 99.5)) == ("AMD", [0, 0, -1])
    assert play((112, 98, 105), INSIDE) == ("AI.", [0, 0, 0])


def test_a_poke_shallower_than_the_least_pierce_changes_nothing():
    assert play((106, 99.5, 99.5), INSIDE)[0] == "AAA"
    assert play((106, 99, 99.5), INSIDE)[0] == "AMM"
    assert play((106, 100, 100), (106, 99.9, 99.9), min_pierce=0.0)[0] == "AAM"


def test_a_break_out_is_a_pierce_that_is_not_reclaimed_in_time():
    assert play(UNDER, UNDER, UNDER, UNDER, INSIDE)[0] == "AMMMI."
    assert play(UNDER, UNDER, UNDER, INSIDE)[1] == [0, 0, 0, 0, 1]


def test_after_the_reclaim_a_close_beyond_the_extreme_ends_the_cycle():
    assert play(UNDER, INSIDE, (101, 97, 98.5), (101, 96, 97.5), INSIDE)[0] == "AMMMI."
    assert play(UNDER, INSIDE, (101, 97, 97.5))[0] == "AMMI"


def test_after_the_reclaim_the_break_must_come_within_range_bars():
    assert play(UNDER, *[INSIDE] * 5, range_bars=4)[0] == "AMMMMMI"
    assert play(UNDER, *[INSIDE] * 4, OVER, range_bars=4)[0] == "AMMMMMD"


def test_a_range_without_a_sweep_grows_old():
    assert play(*[INSIDE] * 4, max_age_bars=3)[0] == "AAAI."
    assert play(*[INSIDE] * 4, max_age_bars=3, tight=(0, 3, 4))[0] == "AAAIA"


def test_distribution_ends_behind_the_middle_or_with_time():
    assert play((106, 98, 105), OVER, (110, 106, 106), (106, 104, 104.9))[0] == "AMDD."
    assert play((106, 98, 105), *[OVER] * 5, range_bars=3)[0] == "AMDDD.."
    assert play((106, 98, 105), OVER, (106, 104, 104.9), tight=(0, 3))[0] == "AMDA"


def test_defaults_are_the_shipped_settings_and_bad_numbers_are_refused():
    assert PhaseConfig().model_dump() == load_settings().phases.model_dump()
    for bad in ({"range_bars": 3}, {"range_quantile": 1.0}, {"min_pierce": -0.1}, {"sweep": 1}):
        with pytest.raises(ValidationError):
            PhaseConfig(**bad)


def check_invariants(bars: Bars, config: PhaseConfig) -> pd.DataFrame:
    """Assert everything that must hold of any market's phases, and return them."""
    found = detect_phases(bars, config)
    assert found.index.equals(bars.index)
    chances = found[list(PROBABILITIES)]
    assert chances.ge(0).all(axis=None) and np.allclose(chances.sum(axis=1), 1, rtol=0, atol=1e-12)
    likeliest = chances.idxmax(axis=1).str.removeprefix("p_")
    assert (likeliest == found["phase"].replace("invalidated", "neutral")).all()
    resting = found["phase"].isin(["neutral", "accumulation", "invalidated"])
    assert (found.loc[resting, "direction"] == 0).all()
    assert (found.loc[found["phase"] == "distribution", "direction"] != 0).all()
    assert (found["range_high"].isna() == (found["phase"] == "neutral")).all()
    assert (found["range_high"].dropna() > found["range_low"].dropna()).all()
    new = found["phase"].ne(found["phase"].shift())
    renewed = found["phase"].eq("accumulation") & found["age"].eq(0)
    assert (found["age"].eq(0) == new | renewed).all()
    assert (found["age"].diff()[~new & ~renewed] == 1).all()
    steps = set(zip(found["phase"][:-1], found["phase"][1:], strict=True))
    assert {(a, b) for a, b in steps if a != b} <= {(a, b) for a, after in FOLLOWS.items() for b in after}
    assert (found["phase"].iloc[: config.first_known] == "neutral").all()
    return found


CONFIGS = st.builds(
    PhaseConfig,
    range_bars=st.integers(4, 40),
    lookback_bars=st.integers(50, 300),
    range_quantile=st.floats(0.05, 0.95),
    sweep_bars=st.integers(1, 12),
    min_pierce=st.floats(0, 0.5),
    max_age_bars=st.integers(1, 200),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), CONFIGS)
def test_invariants_hold_for_any_market_and_numbers(seed, config):
    check_invariants(synthetic_market(1500, seed=seed).bars, config)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), CONFIGS, st.lists(st.integers(1, 1999), min_size=1, max_size=3))
def test_phases_do_not_know_the_future(seed, config, cuts):
    bars = synthetic_market(2000, seed=seed, config=BITCOIN_LIKE).bars
    assert causality_violations(lambda b: detect_phases(b, config), bars, cuts).empty


def test_upside_down_markets_give_upside_down_directions():
    bars = synthetic_market(4000, seed=2, config=SyntheticConfig(start_price=64.0, tick_size=2.0**-12)).bars
    flipped = bars.assign(open=256 - bars["open"], high=256 - bars["low"], low=256 - bars["high"])
    flipped["close"] = 256 - bars["close"]
    up, down = (detect_phases(frame, PhaseConfig()) for frame in (bars, flipped))
    assert up["phase"].equals(down["phase"]) and up["direction"].equals(-down["direction"])
    assert (up["direction"] != 0).any()
    np.testing.assert_allclose(up[list(PROBABILITIES)], down[list(PROBABILITIES)], atol=1e-9)


def test_the_level_of_prices_does_not_matter():
    bars = synthetic_market(3000, seed=2).bars
    scaled = bars.assign(**{name: bars[name] * 2.0**20 for name in ("open", "high", "low", "close")})
    columns = ["phase", "direction", "age", *PROBABILITIES]
    pd.testing.assert_frame_equal(
        detect_phases(bars, PhaseConfig())[columns], detect_phases(scaled, PhaseConfig())[columns], check_exact=True
    )


def test_dead_and_short_markets_are_neutral():
    bars = synthetic_market(900, seed=2).bars
    dead = bars.assign(open=1.5, high=1.5, low=1.5, close=1.5)
    halted = bars.copy()
    halted.iloc[600:, :4] = halted["close"].iloc[599]
    assert (detect_phases(dead, PhaseConfig())["phase"] == "neutral").all()
    check_invariants(halted, PhaseConfig())
    for rows in (0, 1, 5, 30, PhaseConfig().first_known):
        found = detect_phases(bars.iloc[:rows], PhaseConfig())
        assert len(found) == rows and (found["p_neutral"] == 1).all()


def test_compression_is_the_quantile_rule():
    bars, config = synthetic_market(1200, seed=4).bars, PhaseConfig(lookback_bars=100)
    found = range_compression(bars, config)
    height = bars["high"].rolling(24).max() - bars["low"].rolling(24).min()
    true = np.maximum(bars["high"], bars["close"].shift()) - np.minimum(bars["low"], bars["close"].shift())
    atr = true.iloc[1:].copy()
    atr.iloc[13] = atr.iloc[:14].mean()
    atr = atr.iloc[13:].ewm(alpha=1 / 14, adjust=False).mean().reindex(bars.index)
    scaled = height / atr
    np.testing.assert_allclose(found["tightness"], scaled.rolling(100).quantile(0.35) / scaled, rtol=1e-9)


def test_better_than_guessing_on_planted_phases():
    scores, ways = [], []
    for seed in (11, 12, 13):
        market = synthetic_market(15_000, seed=seed)
        found = check_invariants(market.bars, PhaseConfig())
        said, truth = (f["phase"].replace("invalidated", "neutral") for f in (found, market.phases))
        hits = pd.crosstab(truth, said)
        f1 = 2 * pd.Series(np.diag(hits), hits.index) / (hits.sum() + hits.sum(axis=1))
        scores.append(f1.mean() - truth.value_counts(normalize=True).mean())
        both = (said == "distribution") & (truth == "distribution")
        ways.append((found["direction"] == market.phases["direction"])[both].mean())
    assert min(scores) > 0.12 and min(ways) > 0.85


def test_a_market_without_cycles_has_no_direction_to_give():
    """The close after `distribution` is called must not drift on a martingale: mean move within three errors of 0."""
    market = synthetic_market(60_000, seed=21, config=SyntheticConfig(cycles=False))
    found = detect_phases(market.bars, PhaseConfig())
    starts = found["direction"].ne(0) & found["direction"].shift().eq(0)
    after = np.log(market.bars["close"]).diff(12).shift(-12) * found["direction"]
    moves = after[starts].dropna()
    assert len(moves) > 300
    assert abs(moves.mean()) < 3 * moves.std() / np.sqrt(len(moves))


def test_real_bars_hold_the_invariants():
    found = check_invariants(shared_bars("BTCUSDT_5m").iloc[-60_000:], PhaseConfig())
    assert set(found["phase"]) == {phase.value for phase in PHASES}
    check_invariants(shared_bars("EURUSD_15m"), PhaseConfig())


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "EURUSD_15m", "XAUUSD_1h"])
def test_after_the_warmup_the_start_of_history_is_forgotten(name):
    bars, config = shared_bars(name).iloc[-24_000:], PhaseConfig()
    whole = detect_phases(bars, config)
    for start in np.random.default_rng(5).integers(1, 20_000, 15):
        part = detect_phases(bars.iloc[start:], config).iloc[config.warmup_bars :]
        same = whole.loc[part.index]
        for column in ("phase", "direction", "age", "range_high", "range_low"):
            assert same[column].equals(part[column]), (start, column)
        np.testing.assert_allclose(same[list(PROBABILITIES)], part[list(PROBABILITIES)], atol=1e-9)
