"""The feature matrix is causal, scale-free, finite, aligned in clock-change weeks; the causality check finds leaks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orbiquant.arrays import Floats
from orbiquant.core import DataError
from orbiquant.domain import Bars, CalendarName, Timeframe
from orbiquant.features import groups_context, matrix
from orbiquant.features.config import IctConfig, PhaseConfig
from orbiquant.features.groups_price import View
from orbiquant.features.ict import context_score, ict_features
from orbiquant.features.matrix import build_features, causality_violations
from orbiquant.features.sessions import asian_range, killzones
from orbiquant.features.spec import HIGHER, FeatureSpec, warmup_bars
from orbiquant.features.windows import LIMIT
from orbiquant.market.bars import empty_bars
from orbiquant.market.calendars import expected_times
from orbiquant.market.resampling import resample
from orbiquant.market.synthetic import BITCOIN_LIKE, SyntheticConfig, synthetic_market
from tests.tools.shared_bars import SHARED, shared_bars

QUICK = PhaseConfig(range_bars=8, lookback_bars=60, max_age_bars=24)
QUICK_ICT = IctConfig(max_age_bars=20)
SPEC = FeatureSpec(timeframe="15m", calendar="forex")
EQUITY = SyntheticConfig(calendar="us_equity", start_price=4000.0, tick_size=0.01)
MARKETS = {
    "1m crypto": (FeatureSpec(timeframe="1m", calendar="crypto"), BITCOIN_LIKE, 5000),
    "5m crypto": (FeatureSpec(timeframe="5m", calendar="crypto"), BITCOIN_LIKE, 2000),
    "15m forex": (SPEC, SyntheticConfig(), 2000),
    "1h forex": (FeatureSpec(timeframe="1h", calendar="forex"), SyntheticConfig(), 2000),
    "1h equity": (FeatureSpec(timeframe="1h", calendar="us_equity", higher=("1d",)), EQUITY, 2000),
    "4h crypto": (FeatureSpec(timeframe="4h", calendar="crypto"), BITCOIN_LIKE, 2000),
    "1d equity": (FeatureSpec(timeframe="1d", calendar="us_equity"), EQUITY, 2000),
    "1w crypto": (FeatureSpec(timeframe="1w", calendar="crypto", phases=QUICK, ict=QUICK_ICT), BITCOIN_LIKE, 500),
}


def market(name: str, seed: int = 3) -> tuple[Bars, FeatureSpec]:
    spec, config, rows = MARKETS[name]
    return synthetic_market(rows, timeframe=spec.timeframe, seed=seed, config=config).bars, spec


@pytest.fixture(scope="module")
def bars() -> Bars:
    return market("15m forex")[0]


# --- causality


@pytest.mark.parametrize("name", MARKETS)
def test_every_feature_ignores_the_future(name):
    bars, spec = market(name)
    least = warmup_bars(spec) + 1
    cuts = [least, *np.random.default_rng(1).integers(least + 1, len(bars), 2), len(bars) - 1]
    assert causality_violations(lambda b: build_features(b, spec), bars, cuts).empty


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.integers(1100, 1999))
def test_every_feature_ignores_the_future_at_any_cut(seed, cut):
    bars = market("15m forex", seed)[0]
    assert causality_violations(lambda b: build_features(b, SPEC), bars, [cut]).empty


@pytest.mark.parametrize("name", ["BTCUSDT_5m", "EURUSD_15m", "XAUUSD_1h"])
def test_every_feature_ignores_the_future_on_real_bars(name):
    calendar, timeframe = ("crypto" if "USDT" in name else "forex"), name.split("_")[1]
    spec, bars = FeatureSpec(timeframe=timeframe, calendar=calendar), shared_bars(name).iloc[-4000:]
    cuts = np.random.default_rng(2).integers(warmup_bars(spec) + 1, len(bars), 3)
    assert causality_violations(lambda b: build_features(b, spec), bars, cuts).empty


LEAKS = {
    "centred": lambda close: close.rolling(3, center=True).mean(),
    "next": lambda close: close.pct_change(fill_method=None).shift(-1),
    "whole sample": lambda close: (close - close.mean()) / close.std(),
    "ranked": lambda close: close.rank(pct=True),
    "filled back": lambda close: close.where(close > close.shift(1)).bfill(),
}


class Leak:
    """A group of features that looks ahead."""

    columns = ("leak",)

    def __init__(self, look) -> None:
        self.look = look

    def run(self, view: View, out: Floats) -> None:
        out[0] = self.look(pd.Series(view.close))


@pytest.mark.parametrize("leak", LEAKS)
def test_a_seeded_leak_is_caught_and_named(leak, bars, monkeypatch):
    monkeypatch.setattr(matrix, "FEATURE_GROUPS", (*matrix.FEATURE_GROUPS, lambda spec: Leak(LEAKS[leak])))
    found = causality_violations(lambda b: build_features(b, SPEC), bars, [1500, 1501, 1502, 1777])
    assert set(found["column"]) == {"leak"}


def test_a_higher_bar_shown_before_it_has_closed_is_caught(bars, monkeypatch):
    class Early(groups_context.Higher):
        def run(self, view: View, out: Floats) -> None:
            super().run(view, out)
            out[:, :-16] = out[:, 16:].copy()  # four hours too soon

    monkeypatch.setattr(matrix, "Higher", Early)
    found = causality_violations(lambda b: build_features(b, SPEC), bars, [1501, 1502, 1777])
    assert len(found) and set(found["column"].str.split("_").str[-1]) <= {"1h", "4h"}


def test_bars_by_another_clock_than_the_calendars_are_refused_for_higher_timeframes(bars):
    shifted = bars.set_axis(bars.index + pd.Timedelta("30min"), axis=0)
    assert np.isfinite(build_features(shifted, SPEC).iloc[-1]).all()
    hourly, spec = market("1h forex")
    askew = hourly.set_axis(hourly.index + pd.Timedelta("30min"), axis=0)
    with pytest.raises(DataError, match="must not cross the bounds of 4h bars"):
        build_features(askew, spec)


def test_violations_say_where_and_what(bars):
    found = causality_violations(lambda b: b["close"].shift(-1).rename("next"), bars, [100, 200])
    assert found["column"].tolist() == ["next", "next"]
    assert found["time"].tolist() == [bars.index[99], bars.index[199]]
    assert found["full"].tolist() == [bars["close"].iloc[100], bars["close"].iloc[200]]
    assert found["truncated"].isna().all()


def test_violations_see_words_rows_and_columns(bars):
    label = lambda b: pd.Series(np.where(b["close"] > b["close"].iloc[-1], "above", "below"), b.index)  # noqa: E731
    assert len(causality_violations(label, bars, [100]))
    tops = lambda b: b["high"][b["high"] == b["high"].rolling(5, center=True).max()]  # noqa: E731
    assert len(causality_violations(tops, bars, range(50, 80)))
    event = lambda b: b["high"][b["high"] > b["high"].shift(1)]  # noqa: E731
    assert causality_violations(event, bars, [50, 51, 52, 53]).empty
    appears = lambda b: b[["close"]].assign(late=1.0) if len(b) > 500 else b[["close"]]  # noqa: E731
    assert causality_violations(appears, bars, [100])["column"].tolist() == ["late"]


def test_violations_have_no_tolerance_unless_given_one(bars):
    drift = lambda b: b["close"] + 1e-9 * len(b)  # noqa: E731
    assert len(causality_violations(drift, bars, [100]))
    assert causality_violations(drift, bars, [100], tolerance=1e-5).empty


@pytest.mark.parametrize("cut", [0, 2000, -5])
def test_a_cut_that_cuts_nothing_is_refused(cut, bars):
    with pytest.raises(DataError, match="`cuts` must lie between 1 and 1999"):
        causality_violations(lambda b: b["close"], bars, [cut])


# --- shape, scale, finiteness


@pytest.mark.parametrize("name", MARKETS)
def test_after_the_warmup_everything_is_a_finite_number(name):
    bars, spec = market(name)
    features = build_features(bars, spec)
    assert features.index.equals(bars.index) and (features.dtypes == "float64").all()
    assert features.columns.is_unique and 55 <= features.shape[1] <= 140
    assert np.isfinite(features.iloc[warmup_bars(spec) :]).all(axis=None)
    assert not np.isinf(features).any(axis=None)


@pytest.mark.parametrize("name", MARKETS)
def test_no_bars_give_no_rows_and_all_columns(name):
    bars, spec = market(name)
    assert build_features(empty_bars(), spec).columns.equals(build_features(bars, spec).columns)


def test_too_few_bars_say_how_many_are_needed(bars):
    needed = warmup_bars(SPEC) + 1
    with pytest.raises(DataError, match=f"need at least {needed:,} of them to warm up, there are {needed - 1:,}"):
        build_features(bars.iloc[: needed - 1], SPEC)
    assert np.isfinite(build_features(bars.iloc[:needed], SPEC).iloc[-1]).all()


def test_bars_that_break_the_contract_are_refused(bars):
    for spoilt in (bars.assign(close=np.nan), bars.iloc[::-1], bars.tz_localize(None), bars.drop(columns="volume")):
        with pytest.raises(DataError, match="`bars` must be valid 15m bars"):
            build_features(spoilt, SPEC)


def test_prices_and_volumes_have_no_scale(bars):
    scaled = bars * [*[2.0**13] * 4, 2.0**-7]
    pd.testing.assert_frame_equal(build_features(bars, SPEC), build_features(scaled, SPEC), rtol=1e-6, atol=1e-7)


def test_a_feed_without_volume_has_nothing_to_report(bars):
    features = build_features(bars.assign(volume=0.0), SPEC).iloc[warmup_bars(SPEC) :]
    assert (features[["volume_zscore", "volume_ratio", "volume_trend", "volume_flow"]] == 0).all(axis=None)
    assert np.isfinite(features).all(axis=None)
    steady = build_features(bars.assign(volume=7.0), SPEC).iloc[warmup_bars(SPEC) :]
    np.testing.assert_allclose(steady[["volume_zscore", "volume_ratio", "volume_trend"]], 0, atol=1e-6)


def test_a_hole_over_a_session_leaves_the_last_range_standing(bars):
    local = bars.index.tz_convert("America/New_York")
    evening = (local.hour >= 20) & (local.date == local[-400].date())
    features = build_features(bars[~evening], SPEC)
    whole = build_features(bars, SPEC)
    assert evening.sum() == 16 and np.isfinite(features.iloc[warmup_bars(SPEC) :]).all(axis=None)
    before = whole.index < bars.index[evening][0]
    pd.testing.assert_frame_equal(features[: before.sum()], whole[before], check_exact=True)
    night = (features.index > bars.index[evening][-1]) & (features.index < bars.index[evening][-1] + pd.Timedelta("9h"))
    ranges = asian_range(bars[~evening])
    last = ranges[: before.sum()].dropna().iloc[-1]
    assert (ranges[night] == last).all(axis=None) and (features.loc[night, "asia_height"] > 0).all()


def test_bars_on_the_wrong_calendar_are_refused_where_their_higher_bars_would_be_wrong():
    bars, spec = market("1h equity")
    wrong = spec.model_copy(update={"calendar": CalendarName.CRYPTO, "higher": (Timeframe.H4,)})
    with pytest.raises(DataError, match="`bars` must not cross the bounds of 4h bars"):
        build_features(bars, wrong)
    with pytest.raises(ValidationError, match="calendar"):
        FeatureSpec(timeframe="1h", calendar=None)


def test_the_warmup_covers_the_ict_rules_memory():
    spec = FeatureSpec(timeframe="5m", calendar="crypto", ict=IctConfig(max_age_bars=2000))
    assert warmup_bars(spec) == spec.ict.warmup_bars > warmup_bars(FeatureSpec(timeframe="5m", calendar="crypto"))


def test_ict_columns_are_bounded_and_say_what_the_rules_say(bars):
    features, ict = build_features(bars, SPEC), ict_features(bars, SPEC.ict)
    columns = features.filter(like="ict_").drop(columns="ict_range_height").iloc[14:]
    assert columns.shape[1] == 23 and columns.abs().max(axis=None) <= 1
    assert (np.sign(features["ict_structure"]) == ict["trend"]).all()
    assert (features["ict_break_age"].eq(0) == ict["break_age"].eq(0)).all()
    zones = killzones(bars.index, SPEC.sessions)
    pd.testing.assert_series_equal(features["ict_context"], context_score(ict, zones, SPEC.ict), check_names=False)


def test_a_higher_timeframe_is_named_once():
    with pytest.raises(ValidationError, match="`higher` must name each timeframe once, was 1h, 4h, 1h"):
        FeatureSpec(timeframe="5m", calendar="crypto", higher=("1h", "4h", "1h"))


@pytest.mark.parametrize("start", ["2023-05-01", "2023-11-06"])
def test_bars_before_and_after_the_bell_may_lie_across_a_higher_bound_in_summer_and_winter(start):
    local = pd.date_range(start, periods=120 * 48, freq="30min", tz="America/New_York")
    local = local[(local.hour >= 4) & (local.hour < 20) & (local.day_of_week < 5)]
    index = pd.DatetimeIndex(local.tz_convert("UTC"), name="time").as_unit("us")
    bars = synthetic_market(len(index), timeframe="30m", seed=5).bars.set_axis(index, axis=0)
    bars.attrs = {}  # no longer the synthetic market's hours
    spec = FeatureSpec(timeframe="30m", calendar="us_equity")
    features = build_features(bars, spec)
    assert features.iloc[-1].notna().all()
    daily = resample(bars, "30m", "1d", "us_equity")
    body = ((daily["close"] - daily["open"]) / (daily["high"] - daily["low"])).iloc[-1]
    assert features["body_1d"].iloc[-1] == pytest.approx(body)


def test_a_halted_market_stays_finite_and_small():
    bars = synthetic_market(3000, timeframe="5m", seed=4, config=BITCOIN_LIKE).bars * [1, 1, 1, 1, 0.1234567]
    spec = FeatureSpec(timeframe="5m", calendar="crypto")
    halted = bars.copy()
    halted.iloc[1200:, :4] = halted["close"].iloc[1199]
    halted.iloc[1200:, 4] = 0.0
    features = build_features(halted, spec)
    assert np.isfinite(features.iloc[warmup_bars(spec) :]).all(axis=None)
    assert features.abs().max(axis=None) <= LIMIT
    still = "^(return_|volatility|range_volatility|position|height|efficiency|body|volume_z|macd|true_range|vwap|asia)"
    assert (features.iloc[-1].filter(regex=still + "(?!.*_[14]h)") == 0).all()
    assert (features["volume_flow"].iloc[-1], features["volume_ratio"].iloc[-1]) == (0, 0)
    dead = build_features(bars.assign(open=1.5, high=1.5, low=1.5, close=1.5), spec)
    assert np.isfinite(dead.iloc[warmup_bars(spec) :]).all(axis=None)


@pytest.mark.parametrize("name", ["5m crypto", "1h forex", "4h crypto", "1d equity"])
def test_after_the_warmup_the_start_of_history_is_forgotten(name):
    spec, config, _ = MARKETS[name]
    bars = synthetic_market(5000, timeframe=spec.timeframe, seed=8, config=config).bars
    whole = build_features(bars, spec)
    for start in (1, 333, 2999):
        part = build_features(bars.iloc[start:], spec).iloc[warmup_bars(spec) :]
        pd.testing.assert_frame_equal(whole.loc[part.index], part, rtol=1e-6, atol=1e-6)


# --- clock and higher timeframes


@pytest.mark.parametrize("start", ["2024-02-12", "2024-10-07"])
def test_higher_bars_appear_when_they_have_closed_in_clock_change_weeks_too(start):
    index = expected_times(start, pd.Timestamp(start) + pd.Timedelta(days=42), "30m", "forex")
    path = synthetic_market(len(index), timeframe="30m", seed=6).bars.set_axis(index.rename("time"), axis=0)
    spec = FeatureSpec(timeframe="30m", calendar="forex")
    features = build_features(path, spec)
    local = pd.Series(index.tz_convert("America/New_York"), index)
    hours_since_five = (local.dt.hour * 60 + local.dt.minute - 17 * 60) % 1440 // 30
    for frame, steps in (("4h", 8), ("1d", 48)):
        changed = features[f"body_{frame}"].ne(features[f"body_{frame}"].shift()).iloc[1100:]
        assert (hours_since_five[changed[changed].index] % steps == steps - 1).all()
        coarse = resample(path, "30m", frame, "forex")
        body = (coarse["close"] - coarse["open"]) / (coarse["high"] - coarse["low"])
        for row in features.index[1100::37]:
            closed = body[coarse.index + pd.Timedelta(hours=steps / 2) <= row + pd.Timedelta("30min")]
            assert features.loc[row, f"body_{frame}"] == closed.iloc[-1]


def test_clock_columns_follow_new_york(bars):
    features = build_features(bars, SPEC)
    local = bars.index.tz_convert("America/New_York")
    angle = (local.hour * 60 + local.minute) * 2 * np.pi / 1440
    np.testing.assert_allclose(features["day_sin"], np.sin(angle), atol=1e-12)
    assert features.filter(like="killzone_").sum(axis=1).isin([0, 1]).all()
    assert (features.loc[(local.hour >= 2) & (local.hour < 5), "killzone_london_open"] == 1).all()
    daily = build_features(*market("1d equity"))
    assert not daily.filter(regex="^(day_|week_|killzone_|asia_|today_|vwap)").shape[1]


def test_specs_are_values_and_say_what_is_wrong():
    usual = FeatureSpec(timeframe="5m", calendar="crypto")
    assert usual == FeatureSpec(timeframe="5m", calendar="crypto", higher=("1h", "4h"))
    assert set(HIGHER) == set(type(SPEC.timeframe)) - {"1w"}
    assert FeatureSpec.model_validate_json(SPEC.model_dump_json()) == SPEC
    for wrong in (
        {"timeframe": "2h"},
        {"higher": ("5m",)},
        {"higher": ("15m",)},
        {"windows": (6,)},
        {"windows": (24, 12)},
        {"sessions": {"asia": "25:00-01:00"}},
        {"calendar": "moon"},
        {"lags": (1,)},
    ):
        with pytest.raises((ValidationError, DataError)):
            FeatureSpec(**({"timeframe": "15m", "calendar": "forex"} | wrong))


def test_sessions_name_the_columns(bars):
    features = build_features(bars, FeatureSpec(timeframe="15m", calendar="forex", sessions={"lunch": "12:00-13:00"}))
    assert features.filter(like="killzone_").columns.tolist() == ["killzone_lunch"]
    assert not features.filter(like="asia").shape[1]


# --- at scale


@pytest.mark.slow
def test_six_years_of_five_minute_bars_take_less_than_two_gigabytes():
    shared_bars("BTCUSDT_5m")
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's own peak")
    code = (
        "import pandas as pd\n"
        "from pathlib import Path\n"
        "from orbiquant.features.matrix import build_features\n"
        "from orbiquant.features.spec import FeatureSpec\n"
        f"bars = pd.read_parquet({str(SHARED / 'BTCUSDT_5m.parquet')!r}).set_index('time').astype('float64')\n"
        "build_features(bars, FeatureSpec(timeframe='5m', calendar='crypto'))\n"
        "status = Path('/proc/self/status').read_text()\n"  # `ru_maxrss` starts with what the parent of the process had
        "print(status.partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 2e9
