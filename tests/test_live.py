"""The live line is research's own row: to the last bit from the same first bar, in its actions when begun later."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orbiquant.backtest.audit import replay_prefixes
from orbiquant.cli.audit import Audited, make_line
from orbiquant.core import NotFoundError, OptionError, configure_logging
from orbiquant.domain import Bars, CalendarName, SeriesId, Signals, Timeframe
from orbiquant.features.spec import FeatureSpec
from orbiquant.line import Line, LineSpec
from orbiquant.market.instruments import find_instrument
from orbiquant.market.store import DeltaBarStore
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from orbiquant.models.attention import AttentionModel
from orbiquant.models.bundle import ModelBundle
from orbiquant.models.config import Phase2Config
from orbiquant.models.labels import range_targets
from orbiquant.models.network import AttentionSpec
from orbiquant.models.phase2 import Phase2Pipeline
from orbiquant.policies import find_policy
from orbiquant.research.live import LIVE_MARGIN, WARM_LINES, Live, LiveLine
from orbiquant.research.spec import ResearchSpec, kept_line
from orbiquant.research.train import prepare, train
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings
from tests.tools.shared_bars import shared_bars

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
TRAINING = Phase2Config(folds=1, rounds=30, horizon_bars=12)
CRYPTO = LineSpec(features=FeatureSpec(timeframe=Timeframe.M5, calendar=CalendarName.CRYPTO), training=TRAINING)
FOREX = LineSpec(features=FeatureSpec(timeframe=Timeframe.H1, calendar=CalendarName.FOREX), training=TRAINING)
BARS = synthetic_market(3000, "1h", seed=11).bars


def fitted(line: Line, bars: Bars) -> ModelBundle:
    """Return models fitted on some bars."""
    configure_logging("ERROR")
    return Phase2Pipeline(line.spec.training).run(bars, line.describe(bars).features).bundle


def streamed(line: Line, bars: Bars, cut: int, bundle: ModelBundle, policy: str) -> Signals:
    """Return what the line says bar by bar after the first `cut` bars, as a table."""
    stream = line.follow(bars.iloc[:cut], bundle, find_policy(policy))
    rows = [stream.step(bar).row for _, bar in bars.iloc[cut:].iterrows()]
    return pd.DataFrame(rows, index=bars.index[cut:])


def check_identity(line: Line, bars: Bars, cut: int, policy: str = "aggressive_filter") -> Signals:
    """Assert that stream and history agree to the last bit from the same first bar, and return what they say."""
    bundle = fitted(line, bars.iloc[:cut])
    whole = line.signals(line.describe(bars), bundle, find_policy(policy)).iloc[cut:]
    live = streamed(line, bars, cut, bundle, policy).astype(whole.dtypes)
    pd.testing.assert_frame_equal(live, whole, check_exact=True, check_freq=False)
    return live


# --- to the last bit ---


@pytest.mark.slow
def test_five_thousand_bars_one_by_one_are_the_table_to_the_last_bit():
    said = check_identity(Line(CRYPTO), synthetic_market(8000, "5m", seed=5, config=BITCOIN_LIKE).bars, 3000)
    assert (
        len(said) == 5000
        and said["amd_phase"].nunique() == 5
        and set(said["reason"]) >= {"manipulation", "low confidence"}
    )
    assert said["confidence"].notna().all() and said["killzone"].nunique() > 4


@pytest.mark.slow
def test_a_year_of_bitcoin_one_by_one_is_the_table_to_the_last_bit():
    bars = shared_bars("BTCUSDT_5m")
    year = bars.loc["2023-12-01":"2024-12-31"]
    said = check_identity(Line(CRYPTO), year, int(year.index.searchsorted(pd.Timestamp("2024-01-01", tz="UTC"))))
    assert len(said) > 105_000


@pytest.mark.slow
@pytest.mark.parametrize("change", ["2016-03-13", "2016-11-06"])
def test_a_week_in_which_clocks_change_is_the_table_to_the_last_bit(change: str):
    day = pd.Timestamp(change, tz="UTC")
    bars = shared_bars("EURUSD_1h").loc[: day + pd.Timedelta(days=6)].iloc[-4000:]
    said = check_identity(Line(FOREX), bars, int(bars.index.searchsorted(day - pd.Timedelta(days=6))))
    assert {day.date()} < {time.date() for time in said.index} or len(said) > 100


def test_a_sequence_model_is_asked_with_the_rows_it_looks_back_over():
    line, bars = Line(CRYPTO), synthetic_market(2600, "5m", seed=5, config=BITCOIN_LIKE).bars
    trees, features = fitted(line, bars.iloc[:2400]), line.describe(bars.iloc[:2400]).features
    small = AttentionSpec(columns=("atr", "return_1"), length=16, patch=4, epochs=1, max_windows=200)
    sequence = AttentionModel(TRAINING.quantiles, TRAINING.horizon_bars, ("atr",), small)
    sequence.fit(features, range_targets(bars.iloc[:2400], TRAINING.horizon_bars))
    bundle = replace(trees, attention=sequence, range_from="attention")
    assert bundle.context == sequence.context_ > 0
    whole = line.signals(line.describe(bars), bundle, find_policy("aggressive_filter")).iloc[2400:]
    live = streamed(line, bars, 2400, bundle, "aggressive_filter").astype(whole.dtypes)
    pd.testing.assert_frame_equal(live, whole, rtol=1e-6, check_freq=False)  # a matrix product rounds by its rows


def test_a_line_with_a_stage_of_ones_own_cannot_be_followed():
    line = Line(FOREX, detect=lambda bars, rules: pd.DataFrame())
    with pytest.raises(OptionError, match="`phase_detector` must be 'rules' to go on bar by bar"):
        line.follow(BARS, fitted(Line(FOREX), BARS.iloc[:2000]), find_policy("base"))


# --- begun later, late bars, another history ---


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("live")
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    made = Runtime(load_settings(workspace=places, models={"folds": 1, "rounds": 20}))
    made.store.upsert(EURUSD_1H, BARS.iloc[:2600])
    spec = ResearchSpec.from_settings(made.settings, EURUSD_1H)
    train(made, prepare(made, spec), spec)
    yield made
    made.engine.dispose()


@pytest.fixture
def store(runtime: Runtime) -> Iterator[Runtime]:
    """Yield the runtime with the first 2,600 bars of its market in the store."""
    runtime.store.remove(EURUSD_1H)
    runtime.store.upsert(EURUSD_1H, BARS.iloc[:2600])
    yield runtime


class Counted(LiveLine):
    """A live line that counts how often it began."""

    begun = 0

    def _begin(self, *what):
        self.begun += 1
        return super()._begin(*what)


def row_of(runtime: Runtime, bars: Bars) -> pd.Series:
    """Return the row that research has for the last of some bars."""
    stored = runtime.registry.load(EURUSD_1H)
    line, policy = runtime.line(kept_line(stored.card)), find_policy(runtime.settings.signals.policy)
    return line.signals(line.describe(bars), stored.bundle, policy).iloc[-1]


def check_alike(runtime: Runtime, live: LiveLine, bars: Bars) -> None:
    """Assert that a live line begun later acts as research does, within 1e-3 of confidence."""
    signal, row = live.latest(), row_of(runtime, bars)
    assert signal.time == row.name == bars.index[-1] and signal.action == row["action"]
    assert signal.amd_phase == row["amd_phase"] and signal.confidence == pytest.approx(row["confidence"], abs=1e-3)


def test_new_bars_are_stepped_and_not_begun_anew(store: Runtime):
    live = Counted(store, EURUSD_1H)
    for end in (2600, 2601, 2602, 2640):
        store.store.upsert(EURUSD_1H, BARS.iloc[:end])
        check_alike(store, live, BARS.iloc[:end])
    assert live.begun == 1 and live.latest() is live.latest()


def test_another_series_in_the_store_changes_nothing(store: Runtime):
    live = Counted(store, EURUSD_1H)
    first = live.latest()
    store.store.upsert(SeriesId.parse("GBPUSD", "1h"), BARS.iloc[:10])
    assert live.latest() is first and live.begun == 1


def test_a_bar_that_comes_late_begins_anew(store: Runtime):
    store.store.upsert(EURUSD_1H, BARS.iloc[2600:2610].drop(BARS.index[2605]))
    live = Counted(store, EURUSD_1H)
    check_alike(store, live, BARS.iloc[:2610].drop(BARS.index[2605]))
    store.store.upsert(EURUSD_1H, BARS.iloc[2605:2606])
    check_alike(store, live, BARS.iloc[:2610])
    assert live.begun == 2


def test_a_changed_history_begins_anew_and_is_what_is_said(store: Runtime):
    live = Counted(store, EURUSD_1H)
    before = live.latest()
    higher = BARS.iloc[:2600].copy()
    higher.iloc[-5:] *= [1.01, 1.01, 1.01, 1.01, 1.0]
    store.store.upsert(EURUSD_1H, higher)
    check_alike(store, live, higher)
    assert live.begun == 2 and live.latest().entry_price != before.entry_price


def test_a_series_that_was_removed_and_written_again_begins_anew(store: Runtime):
    live = Counted(store, EURUSD_1H)
    live.latest()
    store.store.remove(EURUSD_1H)
    with pytest.raises(NotFoundError, match="EURUSD 1h"):
        live.latest()
    store.store.upsert(EURUSD_1H, BARS.iloc[:2500])
    check_alike(store, live, BARS.iloc[:2500])


def test_a_backlog_is_begun_anew_instead_of_stepped(store: Runtime):
    live = Counted(store, EURUSD_1H)
    live.latest()
    store.store.upsert(EURUSD_1H, BARS.iloc[2600 : 2601 + LIVE_MARGIN])
    check_alike(store, live, BARS.iloc[: 2601 + LIVE_MARGIN])
    assert live.begun == 2


def test_a_store_in_the_place_of_another_begins_anew(store: Runtime, tmp_path: Path):
    """The other store has as many versions, so that its number alone would not tell it from this one."""
    live, lines = Counted(store, EURUSD_1H), Live(store)
    before, listed = live.latest(), lines.series()
    here, twin = Path(store.store.uri).parent, DeltaBarStore(tmp_path)
    higher = BARS.iloc[:2600] * [1.01, 1.01, 1.01, 1.01, 1.0]
    twin.upsert(EURUSD_1H, higher)
    while twin.version() < store.store.version():
        twin.upsert(SeriesId(f"COIN{twin.version()}", Timeframe.H1), BARS.iloc[:2])
    assert twin.version() == store.store.version()
    shutil.rmtree(here)
    shutil.copytree(tmp_path, here)
    check_alike(store, live, higher)
    assert live.begun == 2 and live.latest().entry_price != before.entry_price
    assert lines.series() != listed, "the list was read anew"


class At:
    """A clock that is set by hand."""

    def __init__(self, now: pd.Timestamp) -> None:
        self.time = now

    def now(self):
        return self.time.to_pydatetime()


def test_a_bar_that_still_forms_is_not_decided_on(store: Runtime):
    store.store.upsert(EURUSD_1H, BARS.iloc[2600:2604])
    clock = At(BARS.index[2602] + pd.Timedelta("59min"))
    live = Counted(Runtime(store.settings, clock), EURUSD_1H)
    assert live.latest().time == BARS.index[2601] == live.latest().time
    clock.time += pd.Timedelta("1min")
    assert live.latest().time == BARS.index[2602] and live.begun > 0
    live.runtime.store.upsert(EURUSD_1H, BARS.iloc[2604:2605])
    assert live.latest().time == BARS.index[2602], "a bar that is new and forms changes nothing"
    clock.time = BARS.index[2610]
    check_alike(store, live, BARS.iloc[:2605])
    clock.time = BARS.index[0]
    with pytest.raises(NotFoundError, match="no closed bar of EURUSD 1h"):
        LiveLine(live.runtime, EURUSD_1H).latest()


def test_the_unfiltered_signal_is_never_served(store: Runtime):
    settings = store.settings
    research = settings.model_copy(update={"signals": settings.signals.model_copy(update={"policy": "primary"})})
    with pytest.raises(OptionError, match="`policy` must be one that serves, was 'primary'"):
        LiveLine(Runtime(research), EURUSD_1H).latest()


def test_many_lines_are_kept_and_the_least_asked_for_forgotten(store: Runtime):
    live = Live(store)
    live.latest(EURUSD_1H)
    first = live._lines[EURUSD_1H]
    for number in range(WARM_LINES):
        with pytest.raises(NotFoundError):
            live.latest(SeriesId(f"COIN{number}", Timeframe.H1))
    assert len(live._lines) == WARM_LINES and EURUSD_1H not in live._lines
    live.latest(EURUSD_1H)
    assert live._lines[EURUSD_1H] is not first


# --- what is audited is what is served ---


def test_the_audit_is_given_the_line_that_is_served(store: Runtime):
    stored = store.registry.load(EURUSD_1H)
    audited = Audited(BARS, EURUSD_1H, find_instrument("EURUSD"), "1")
    line, served = make_line(store, audited), store.line(kept_line(stored.card))
    assert line == served and line.streams
    assert replay_prefixes(served, BARS.iloc[:1600], [1200, 1599], models=stored.bundle).passed


def test_an_unsteady_stream_would_be_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orbiquant.features.stream.FeatureStream.atr", property(lambda stream: np.float64(1e-3)))
    with pytest.raises(AssertionError):
        check_identity(Line(FOREX), BARS.iloc[:2210], 2200, "primary")
