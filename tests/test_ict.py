"""ICT objects: against definitions written out slowly, upside down, cut short, and on an unpredictable market."""

import time
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from pydantic import ValidationError
from shared_bars import shared_bars

from orbiquant.core import DataError
from orbiquant.domain import Bars
from orbiquant.features.config import ATR_LENGTH, SESSIONS, IctConfig
from orbiquant.features.ict import (
    EVENT_COLUMNS,
    FAR,
    KINDS,
    context_evidence,
    context_score,
    ict_context,
    ict_events,
    ict_features,
    key_levels,
)
from orbiquant.features.indicators import atr
from orbiquant.features.matrix import causality_violations
from orbiquant.features.sessions import NO_SESSION, killzones
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market

CONFIG = IctConfig()
SMALL = IctConfig(swing_bars=2, minor_bars=1, pool_tolerance=0.3, sweep_bars=2, max_age_bars=25, displacement_atr=0.8)


def frame(open_, high, low, close) -> Bars:
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": 1.0}
    index = pd.date_range("2024-01-01", periods=len(close), freq="15min", tz="UTC", name="time")
    return pd.DataFrame(columns, index, dtype="float64")


def ticks(seed: int, rows: int = 160, largest: int = 6) -> Bars:
    """Return bars on a coarse grid of whole numbers: full of ties, gaps between bars and flat bars."""
    rng = np.random.default_rng(seed)
    close = 1000 + rng.integers(-largest, largest + 1, rows).cumsum()
    open_ = np.append(1000, close[:-1]) + rng.integers(-2, 3, rows)
    high = np.maximum(open_, close) + rng.integers(0, 4, rows)
    low = np.minimum(open_, close) - rng.integers(0, 4, rows)
    return frame(open_, high, low, close)


def positions(bars: Bars, times: pd.Series) -> np.ndarray:
    """Return the rows of moments; −1 for NaT."""
    return bars.index.get_indexer(pd.DatetimeIndex(times))


def as_rows(bars: Bars, events: pd.DataFrame) -> list[tuple]:
    """Return events as sorted tuples: kind, direction, three bars, two prices, two fates."""
    times = [positions(bars, events[f"{name}_time"]).tolist() for name in ("origin", "event", "known")]
    fates = [positions(bars, events[f"{name}_time"]).tolist() for name in ("mitigated", "ended")]
    columns = [events["kind"], events["direction"], *times, events["price_low"], events["price_high"], *fates]
    return sorted(zip(*columns, strict=True))


# ---- the definitions, written out with loops over everything ----


class Slow:
    """Every rule for buyers as a sentence of Python; quadratic, and shares no code with what it checks."""

    def __init__(self, bars: Bars, config: IctConfig) -> None:
        self.config, self.rows = config, len(bars)
        self.open, self.high, self.low, self.close = (bars[name].tolist() for name in ("open", "high", "low", "close"))
        self.atr = atr(bars, ATR_LENGTH).tolist()
        self.lows = self.swings(self.low, config.swing_bars, lambda a, b: a < b)
        self.highs = self.swings(self.high, config.swing_bars, lambda a, b: a > b)
        self.minor = self.swings(self.low, config.minor_bars, lambda a, b: a < b)
        self.breaks = self.find_breaks()

    def swings(self, prices, width, beyond):
        full = range(width, self.rows - width)
        around = [q for q in range(-width, width + 1) if q]
        return [p for p in full if all(beyond(prices[p], prices[p + q]) for q in around)]

    def find_breaks(self):
        """Return {bar: (direction, kind, swing)}."""
        found, trend, width = {}, 0, self.config.swing_bars
        for t in range(self.rows):
            high = max((p for p in self.highs if p + width <= t), default=None)
            low = max((p for p in self.lows if p + width <= t), default=None)
            up = high is not None and self.close[t] > self.high[high]
            down = low is not None and self.close[t] < self.low[low]
            up = up and all(self.close[s] <= self.high[high] for s in range(high, t))
            down = down and all(self.close[s] >= self.low[low] for s in range(low, t))
            if up or down:
                direction = 1 if up else -1
                found[t] = (direction, "choch" if direction == -trend else "bos", high if up else low)
                trend = direction
        return found

    def leg(self, t):
        """Return trend, and the bars of the dealing range's top and bottom."""
        at = max((b for b in self.breaks if b <= t), default=None)
        if at is None:
            return 0, None, None
        direction, _, swing = self.breaks[at]
        span = range(swing, t + 1)
        return direction, max(span, key=lambda b: self.high[b]), min(span, key=lambda b: self.low[b])

    def displacement(self, t):
        body, height = self.close[t] - self.open[t], self.high[t] - self.low[t]
        outer = (self.high[t] - self.close[t]) <= self.config.displacement_close * height
        return body > 0 and body > self.config.displacement_atr * self.atr[t] and outer

    def first(self, known, hit):
        last = min(known + self.config.max_age_bars, self.rows - 1)
        return next((u for u in range(known + 1, last + 1) if hit(u)), -1)

    def zone(self, kind, origin, event, known, bottom, top):
        touched = self.first(known, lambda u: self.low[u] <= top)
        return (kind, 1, origin, event, known, bottom, top, touched, self.first(known, lambda u: self.low[u] < bottom))

    def sweep(self, pivot, width):
        """Return wick, reclaim and extreme of a swing low's sweep, or None."""
        level = self.low[pivot]
        wick = self.first(pivot + width, lambda u: self.low[u] < level)
        tries = range(wick, min(wick + self.config.sweep_bars, self.rows - 1) + 1) if wick >= 0 else ()
        back = next((r for r in tries if self.close[r] > level), None)
        return None if back is None else (wick, back, min(self.low[wick : back + 1]))

    def events(self):
        config, width, found = self.config, self.config.swing_bars, []
        for p in self.lows:
            found.append(self.zone("swing", p, p, p + width, self.low[p], self.low[p]))
            if swept := self.sweep(p, width):
                found.append(("sweep", 1, p, *swept[:2], swept[2], self.low[p], -1, -1))
        for p in self.minor:
            swept = self.sweep(p, config.minor_bars)
            trend, _, bottom = self.leg(swept[1]) if swept else (0, None, None)
            major = swept and p in self.lows and p + width <= swept[1]
            if trend == 1 and bottom < p and not major:
                found.append(("inducement", 1, p, *swept[:2], swept[2], self.low[p], -1, -1))
        for i, p in enumerate(self.lows):
            tolerance = config.pool_tolerance * self.atr[p + width]
            q = next((q for q in self.lows[:i][::-1] if self.low[q] <= self.low[p] + tolerance), None)
            near = q is not None and abs(self.low[q] - self.low[p]) <= tolerance and p - q <= config.max_age_bars
            edges = sorted((self.low[q], self.low[p])) if near else []
            if near and all(self.low[s] >= edges[0] for s in range(q, p)):
                found.append(self.zone("liquidity_pool", q, p, p + width, *edges))
        for t in range(2, self.rows):
            body = self.close[t - 1] > self.open[t - 1] or not config.gap_needs_body
            if self.high[t - 2] < self.low[t] and body:
                found.append(self.zone("fair_value_gap", t - 2, t - 1, t, self.high[t - 2], self.low[t]))
        for t in range(self.rows):
            if self.displacement(t):
                found.append(("displacement", 1, t, t, t, self.open[t], self.close[t], -1, -1))
            direction, kind, swing = self.breaks.get(t, (0, "", 0))
            if direction == 1:
                found.append((kind, 1, swing, t, t, self.high[swing], self.high[swing], -1, -1))
            if direction == 1 and self.displacement(t):
                near = [b for b in range(max(t - config.block_bars, 0), t) if self.close[b] < self.open[b]]
                if near:
                    b = near[-1]
                    found.append(self.zone("order_block", swing, b, t, self.low[b], self.high[b]))
        return sorted(found)


@pytest.mark.parametrize("config", [SMALL, SMALL.model_copy(update={"gap_needs_body": True, "max_age_bars": 9})])
@pytest.mark.parametrize("seed", range(25))
def test_buyers_events_equal_the_written_out_definitions(seed, config):
    bars = ticks(seed)
    found = ict_events(bars, config)
    assert as_rows(bars, found[found["direction"] > 0]) == Slow(bars, config).events()


def test_the_written_out_definitions_meet_every_kind():
    kinds = {event[0] for seed in range(25) for event in Slow(ticks(seed), SMALL).events()}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("seed", range(10))
def test_default_rules_equal_the_written_out_definitions_on_a_synthetic_market(seed):
    bars = synthetic_market(700, timeframe="5m", seed=seed, config=BITCOIN_LIKE).bars
    found = ict_events(bars, CONFIG)
    assert as_rows(bars, found[found["direction"] > 0]) == Slow(bars, CONFIG).events()


@pytest.mark.parametrize("dip, pools", [(95.0, 1), (94.9, 0)])
@pytest.mark.parametrize("upwards", [True, False])
def test_two_bars_that_share_a_low_beyond_a_pool_are_no_swing_but_break_it(dip, pools, upwards):
    close = np.full(60, 100.0)
    close[[30, 50]] = 95.0
    close[[39, 40]] = dip  # a tie, so no pivot
    bars = frame(np.append(100, close[:-1]), np.maximum(np.append(100, close[:-1]), close), close, close)
    config = IctConfig(swing_bars=5, pool_tolerance=1.0)
    events = ict_events(bars if upwards else upside_down(bars), config)
    assert (events["kind"] == "liquidity_pool").sum() == pools and (events["kind"] == "swing").sum() == 2


def upside_down(bars: Bars) -> Bars:
    """Return the market that falls where this one rises; exact on whole numbers."""
    return frame(*(4096 - bars[name].to_numpy() for name in ("open", "low", "high", "close")))


@pytest.mark.parametrize("seed", range(10))
def test_sellers_see_what_buyers_see_upside_down(seed):
    bars = ticks(seed, 400)
    up, down = ict_events(bars, SMALL), ict_events(upside_down(bars), SMALL)
    lows, highs = 4096 - down["price_high"], 4096 - down["price_low"]
    flipped = down.assign(direction=-down["direction"], price_low=lows, price_high=highs)
    assert as_rows(bars, up) == as_rows(bars, flipped)
    ours, theirs = ict_features(bars, SMALL), ict_features(upside_down(bars), SMALL)
    other = {"bull": "bear", "below": "above", "low": "high"}
    for name in ours.columns:
        if other.keys() & (words := name.split("_")):
            twin = theirs["_".join(other.get(word, word) for word in words)]
            pd.testing.assert_series_equal(ours[name], twin, check_names=False)
    pd.testing.assert_series_equal(ours["trend"], -theirs["trend"])
    np.testing.assert_allclose(ours["premium"], 1 - theirs["premium"])


# ---- features are what a reader of the table knows ----


@pytest.mark.parametrize("seed", range(6))
def test_features_are_what_a_reader_of_the_events_knows_at_that_bar(seed):
    bars, config = ticks(seed, 300), SMALL
    events, features, slow = ict_events(bars, config), ict_features(bars, config), Slow(bars, config)
    unit, close = atr(bars, ATR_LENGTH).to_numpy(), bars["close"].to_numpy()
    known, ended = positions(bars, events["known_time"]), positions(bars, events["ended_time"])
    names = {"fair_value_gap": "{}_gap", "order_block": "{}_block"}
    places = {"swing": "liquidity_{}", "liquidity_pool": "pool_{}"}
    for t in range(ATR_LENGTH, 300, 7):
        seen = (known <= t) & ((ended < 0) | (ended > t)) & (t - known < config.max_age_bars)
        for direction, trade, place in ((1, "bull", "below"), (-1, "bear", "above")):
            own = events[seen & (events["direction"] == direction)]
            prices = own[["price_low", "price_high"]] if direction > 0 else -own[["price_high", "price_low"]]
            own = own[["kind"]].assign(far=prices.iloc[:, 0], near=prices.iloc[:, 1])
            for kind, name in (names | places).items():
                name = name.format(trade if kind in names else place)
                zones = own[own["kind"] == kind].sort_values("far", kind="stable")
                assert features[f"{name}_count"].iloc[t] == len(zones)
                away = (direction * close[t] - zones["near"].iloc[-1]) / unit[t] if len(zones) else FAR
                assert features[f"{name}_distance"].iloc[t] == pytest.approx(min(max(away, 0), FAR))
            for kind in ("displacement", "sweep", "inducement"):
                past = known[(events["kind"] == kind) & (events["direction"] == direction) & (known <= t)]
                age = min(t - past.max(), config.max_age_bars) if len(past) else config.max_age_bars
                assert features[f"{trade}_{kind}_age"].iloc[t] == age
        trend, top, bottom = slow.leg(t)
        assert features["trend"].iloc[t] == trend
        if trend:
            high, low = slow.high[top], slow.low[bottom]
            premium = (close[t] - low) / (high - low)
            retraced = 1 - premium if trend > 0 else premium
            row = features.iloc[t]
            assert (row["premium"], row["retracement"]) == pytest.approx((premium, retraced))
            assert row["in_ote"] == (config.ote_low <= row["retracement"] <= config.ote_high)
            assert row["range_height"] == pytest.approx((high - low) / unit[t])


@pytest.mark.parametrize("seed", range(4))
def test_flags_say_what_became_known_on_the_bar(seed):
    bars = ticks(seed, 400)
    events, features = ict_events(bars, SMALL), ict_features(bars, SMALL)
    for kind in ("bos", "choch", "displacement", "sweep", "inducement"):
        once = events[events["kind"] == kind].drop_duplicates(["known_time", "direction"])
        expected = once.groupby("known_time")["direction"].sum().reindex(bars.index, fill_value=0)
        assert (features[kind] == expected).all()


def test_features_do_not_depend_on_the_unit_of_price():
    bars = synthetic_market(2000, timeframe="15m", seed=5).bars
    scaled = bars * 1024.0
    pd.testing.assert_frame_equal(ict_features(bars, CONFIG), ict_features(scaled, CONFIG), rtol=1e-9)


# ---- nothing from the future ----


def check_replay(bars: Bars, config: IctConfig, cuts: list[int]) -> None:
    """Assert that features and events of the past stay the same when the future is taken away."""
    assert causality_violations(lambda part: ict_features(part, config), bars, cuts).empty
    events = ict_events(bars, config)
    for cut in cuts:
        past = events[events["known_time"] < bars.index[cut]].copy()
        for fate in ("mitigated_time", "ended_time"):
            past[fate] = past[fate].where(past[fate] < bars.index[cut])
        pd.testing.assert_frame_equal(ict_events(bars.iloc[:cut], config), past)


@pytest.mark.parametrize("seed", range(2))
def test_prefix_replay_at_every_bar_of_a_random_market(seed):
    bars = ticks(seed, 90)
    check_replay(bars, SMALL, list(range(1, len(bars))))


def test_prefix_replay_on_a_synthetic_market():
    bars = synthetic_market(2500, timeframe="15m", seed=11).bars
    check_replay(bars, CONFIG, [15, 400, 1203, *range(2400, 2425), 2499])


def test_prefix_replay_on_real_bars():
    bars = shared_bars("EURUSD_15m").iloc[:20_000]
    check_replay(bars, CONFIG, [5_000, 12_345, 19_990, 19_999])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(0, 4), st.integers(1, 60), st.integers(1, 119))
def test_prefix_replay_whatever_the_rules(seed, swing, sweep, age, cut):
    config = IctConfig(swing_bars=swing, minor_bars=1, sweep_bars=sweep, max_age_bars=age, displacement_atr=0.5)
    check_replay(ticks(seed, 120), config, [cut])


def test_replay_catches_a_swing_marked_where_it_stands():
    bars = ticks(1, 300)

    def leak(part: Bars) -> pd.Series:
        events = ict_events(part, SMALL)
        swings = events[(events["kind"] == "swing") & (events["direction"] > 0)]
        return pd.Series(part.index.isin(swings["event_time"]).astype(float), part.index)

    assert not causality_violations(leak, bars, list(range(280, 300))).empty


def test_events_are_known_no_earlier_than_their_confirmation():
    bars = synthetic_market(3000, timeframe="15m", seed=2).bars
    events = ict_events(bars, CONFIG)
    event, known = positions(bars, events["event_time"]), positions(bars, events["known_time"])
    waited = pd.Series(known - event).groupby(events["kind"]).agg(["min", "max"])
    assert waited.loc["swing"].tolist() == [5, 5] and waited.loc["liquidity_pool"].tolist() == [5, 5]
    assert waited.loc["fair_value_gap"].tolist() == [1, 1]
    assert waited.loc["order_block", "min"] >= 1 and waited.loc["order_block", "max"] <= CONFIG.block_bars
    assert waited.loc["sweep"].tolist() == [0, CONFIG.sweep_bars] and waited.loc["inducement", "min"] == 0
    assert (waited.loc[["bos", "choch", "displacement"]] == 0).all(axis=None)
    assert (events["origin_time"] <= events["event_time"]).drop(events.index[events["kind"] == "order_block"]).all()
    fates = events[["known_time", "mitigated_time", "ended_time"]].dropna()
    assert (fates["mitigated_time"] > fates["known_time"]).all()
    assert (fates["ended_time"] >= fates["mitigated_time"]).all()


@pytest.mark.parametrize("name", ["synthetic", "BTCUSDT_5m"])
def test_features_forget_where_history_starts(name):
    bars = (
        synthetic_market(6000, timeframe="15m", seed=4).bars if name == "synthetic" else shared_bars(name).iloc[-6000:]
    )
    config = IctConfig(max_age_bars=200)
    whole = ict_features(bars, config)
    for end in (3000, 4321, 6000):
        recent = ict_features(bars.iloc[end - config.warmup_bars - 1 : end], config)
        pd.testing.assert_series_equal(recent.iloc[-1], whole.iloc[end - 1], rtol=1e-9)


# ---- a market that cannot be predicted ----

STEPS, STOP, TARGET, WALKS, ROWS = 15, 0.002, 0.004, 200, 3000


def martingale(seed: int) -> tuple[Bars, np.ndarray]:
    """Return bars of a driftless walk whose volatility clusters, and the walk itself."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.25, ROWS // 25)
    level = np.exp(np.repeat(pd.Series(noise).ewm(halflife=4).mean().to_numpy() * 2, 25 * STEPS))
    path = 100 * np.cumprod(np.append(1, 1 + rng.normal(0, 0.001 / np.sqrt(STEPS), ROWS * STEPS) * level))
    inside = np.lib.stride_tricks.sliding_window_view(path, STEPS + 1)[::STEPS]
    return frame(inside[:, 0], inside.max(axis=1), inside.min(axis=1), inside[:, -1]), path


@njit
def trade_results(path, entries, directions):
    """Return R of trades from a step of the walk to the step that passes stop or target, or to its end."""
    results = np.empty(len(entries))
    for i in range(len(entries)):
        for t in range(entries[i], len(path)):
            move = directions[i] * (path[t] / path[entries[i]] - 1)
            if move <= -STOP or move >= TARGET:
                break
        results[i] = move / STOP
    return results


def walk_results(seed: int, moment: str) -> pd.DataFrame:
    """Return number and sum of R by kind when every event is traded at the open after `moment`."""
    bars, path = martingale(seed)
    events = ict_events(bars, CONFIG)
    entries = (positions(bars, events[moment]) + 1) * STEPS
    results = pd.Series(trade_results(path, entries, events["direction"].to_numpy()))
    return results.groupby(events["kind"]).agg(["size", "sum"])


def mean_r(moment: str, walks: int) -> pd.DataFrame:
    """Return trades, mean R and its standard error by kind; walks are independent, trades of one walk are not."""
    seeds = range(10_000, 10_000 + walks)
    by_walk = pd.concat([walk_results(seed, moment) for seed in seeds], axis=1, keys=seeds).fillna(0)
    size, total = (by_walk.xs(name, axis=1, level=1) for name in ("size", "sum"))
    mean = total.sum(axis=1) / size.sum(axis=1)
    error = np.sqrt(((total - size.mul(mean, axis=0)) ** 2).sum(axis=1)) / size.sum(axis=1)
    return pd.DataFrame({"trades": size.sum(axis=1), "mean": mean, "t": mean / error})


def test_no_event_earns_anything_on_a_martingale():
    found = mean_r("known_time", WALKS)
    assert set(found.index) == set(KINDS) and (found["trades"] > 2000).all()
    assert (found["t"].abs() < 3).all(), found


def test_events_traded_before_they_are_known_earn_a_fortune():
    found = mean_r("event_time", 40)
    assert found.loc["swing", "mean"] > 0.7 and found.loc["swing", "t"] > 30
    assert (found.loc[["swing", "order_block", "liquidity_pool", "fair_value_gap"], "t"] > 5).all(), found
    assert (found.loc[["bos", "choch", "displacement"], "t"].abs() < 3).all(), found  # known at once: no leak to make


# ---- context and key levels ----


def test_context_is_the_share_of_evidence_for_the_trend():
    bars = synthetic_market(4000, timeframe="15m", seed=9).bars
    features, zones = ict_features(bars, CONFIG), killzones(bars.index, SESSIONS)
    score, evidence = context_score(features, zones, CONFIG), context_evidence(features, zones, CONFIG)
    assert score.between(0, 1).all() and score.nunique() > 5
    assert evidence.any().all() and not evidence.all().any()
    for t in range(20, len(bars), 13):
        row, side = features.iloc[t], {1: "bull", -1: "bear", 0: ""}[features["trend"].iloc[t]]
        met = [zones.iloc[t] != NO_SESSION, row["in_ote"] == 1]
        met += [row["premium"] < 0.5 if side == "bull" else row["premium"] > 0.5]
        if side:
            met += [row[f"{side}_{kind}_age"] <= CONFIG.context_bars for kind in ("sweep", "displacement")]
            met += [min(row[f"{side}_gap_distance"], row[f"{side}_block_distance"]) == 0]
        assert score.iloc[t] == pytest.approx(sum(met) / 6 if side else 0)


def test_context_of_the_last_bar_agrees_with_the_features():
    bars = synthetic_market(4000, timeframe="15m", seed=9).bars
    features, zones = ict_features(bars, CONFIG), killzones(bars.index, SESSIONS)
    score, seen = context_score(features, zones, CONFIG), set()
    for t in [*np.flatnonzero(features["in_ote"])[::40], 10, 3000]:
        context, trend = ict_context(bars.iloc[: t + 1], CONFIG), features["trend"].iloc[t]
        assert context["score"] == pytest.approx(score.iloc[t], abs=1e-4) and context["killzone"] == zones.iloc[t]
        zone = {1: "discount", -1: "premium"}[trend] if features["in_ote"].iloc[t] else "none"
        assert context["ote_zone"] == zone
        seen.add(zone)
    assert seen == {"discount", "premium", "none"}


def test_an_up_leg_retraced_by_seventy_percent_is_a_discount():
    legs = [100, 96, 110, 104, 130]  # low, high, higher low, break of the high
    close = np.concatenate([np.linspace(a, b, 12)[:-1] for a, b in pairwise(legs)] + [[130.0]])
    fall = np.linspace(130, 104 + 0.3 * 26, 12)[1:]
    close = np.concatenate([np.linspace(112, 100, 12)[:-1], close, fall])
    bars = frame(np.append(112, close[:-1]), close + 0.1, close - 0.1, close)
    features = ict_features(bars, CONFIG)
    assert features["trend"].iloc[-1] == 1 and 0.62 <= features["retracement"].iloc[-1] <= 0.79
    assert ict_context(bars, CONFIG)["ote_zone"] == "discount"
    assert ict_context(upside_down(bars), CONFIG)["ote_zone"] == "premium"


@pytest.mark.parametrize("seed", range(8))
def test_key_levels_are_the_swings_that_still_stand(seed):
    bars = synthetic_market(900, timeframe="15m", seed=seed).bars
    events, apart = ict_events(bars, CONFIG), CONFIG.pool_tolerance * atr(bars, ATR_LENGTH).iloc[-1]
    swings = events[(events["kind"] == "swing") & events["ended_time"].isna()]
    swings = swings[len(bars) - 1 - positions(bars, swings["known_time"]) < CONFIG.max_age_bars]
    levels = key_levels(bars, CONFIG, count=3)
    for name, direction in (("support", 1), ("resistance", -1)):
        standing = sorted(swings[swings["direction"] == direction]["price_low"] * direction, reverse=True)
        found = [direction * level for level in levels[name]]
        assert set(found) <= set(standing) and found[:1] == standing[:1] and len(found) <= 3
        assert found == sorted(found, reverse=True) and all(a - b > apart for a, b in pairwise(found))
        assert all(level <= direction * bars["close"].iloc[-1] for level in found)
    assert key_levels(bars, CONFIG, count=0) == {"resistance": [], "support": []}


# ---- edges ----


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 10, 15])
def test_few_bars_are_no_error(rows):
    bars = ticks(0, 20).iloc[:rows]
    events, features = ict_events(bars, CONFIG), ict_features(bars, CONFIG)
    assert tuple(events.columns) == EVENT_COLUMNS and features.index.equals(bars.index)
    assert (features.dtypes == "float64").all() and len(features.columns) == 35
    assert events["known_time"].dtype == bars.index.dtype


def test_the_last_of_no_bars_is_an_error():
    for function in (ict_context, key_levels):
        with pytest.raises(DataError, match="`bars` must be at least 1"):
            function(ticks(0, 5).iloc[:0], CONFIG)


def test_a_market_that_stands_still_shows_nothing():
    bars = frame(*[np.full(300, 50.0)] * 4)
    features = ict_features(bars, CONFIG)
    assert ict_events(bars, CONFIG).empty
    assert np.isfinite(features.iloc[ATR_LENGTH:]).all(axis=None) and (features["trend"] == 0).all()
    assert ict_context(bars, CONFIG)["score"] == 0 and key_levels(bars, CONFIG)["support"] == []


def test_a_market_that_only_rises_leaves_gaps_and_nothing_else():
    close = 100.0 + np.arange(300)
    events = ict_events(frame(close - 0.2, close + 0.1, close - 0.3, close), CONFIG)
    assert set(events["kind"]) == {"fair_value_gap"} and len(events) == 298
    assert events["mitigated_time"].isna().all() and (events["direction"] == 1).all()


def test_features_are_finite_after_the_first_atr():
    for seed in range(5):
        features = ict_features(ticks(seed, 200), SMALL)
        assert np.isfinite(features.iloc[ATR_LENGTH:]).all(axis=None)
    real = ict_features(shared_bars("XAUUSD_1h"), CONFIG)
    assert np.isfinite(real.iloc[ATR_LENGTH:]).all(axis=None) and real["premium"].between(0, 1).all()


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("rows", [slice(80, 81), slice(0, 20)])
def test_a_hole_in_the_prices_is_refused(name, rows):
    bars = ticks(0)
    bars.iloc[rows, bars.columns.get_loc(name)] = np.nan
    with pytest.raises(DataError, match=rf"`{name}` must be finite, \d+ values are not, the first is row {rows.start}"):
        ict_features(bars, CONFIG)
    bars.iloc[rows, :4] = np.nan
    with pytest.raises(DataError, match=f"row {rows.start}"):
        ict_events(bars, CONFIG)


@pytest.mark.parametrize(
    "wrong",
    [
        {"swing_bars": 0},
        {"minor_bars": 5},
        {"ote_low": 0.8},
        {"displacement_close": 0.6},
        {"max_age_bars": 0},
        {"x": 1},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        IctConfig(**wrong)


def test_cost_grows_with_the_bars_and_not_with_what_is_open():
    close = 100.0 + np.arange(200_000) * 0.5
    stairs = frame(close - 0.2, close + 0.1, close - 0.3, close)  # every gap stays open
    config = IctConfig(max_age_bars=200_000)
    ict_features(stairs.iloc[:100], config)
    began = time.process_time()
    assert ict_features(stairs, config)["bull_gap_count"].iloc[-1] == 199_998
    assert time.process_time() - began < 2
