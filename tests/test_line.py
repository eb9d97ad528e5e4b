"""The whole line: settings to spec, bars to model to live signal, the same twice, causal, and unharmed by kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import NotFoundError, OptionError, code_version, configure_logging
from orbiquant.domain import MIN_CONFIDENCE, Action, Bars, Costs, SeriesId
from orbiquant.features.matrix import build_features, warmup_bars
from orbiquant.line import Line
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.cards import StoredModel
from orbiquant.research.drift import model_drift
from orbiquant.research.live import LIVE_MARGIN, LiveLine, find_series, policy_of, recent_bars
from orbiquant.research.spec import ResearchSpec, asked_spec, feature_spec, kept_line, spec_now
from orbiquant.research.train import Prepared, prepare, trade, trade_model, train
from orbiquant.research.verdict import judge
from orbiquant.runtime import Runtime
from orbiquant.settings import load_settings

EURUSD_1H = SeriesId.parse("EURUSD", "1h")
ORBUSD_5M = SeriesId.parse("ORBUSD", "5m")

ORBIQUANT = str(Path(sys.executable).parent / "orbiquant")
BARS = synthetic_market(3000, "1h", seed=11).bars
HELD_BACK = 24


def make_runtime(folder: Path) -> Runtime:
    """Return a runtime that keeps everything in a folder."""
    places = {"store_uri": f"{folder}/store", "models_dir": f"{folder}/models", "database_url": f"sqlite:///{folder}/o"}
    return Runtime(load_settings(workspace=places, models={"folds": 2, "rounds": 20}))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    configure_logging("ERROR")
    made = make_runtime(tmp_path_factory.mktemp("line"))
    made.store.upsert(EURUSD_1H, BARS.iloc[:-HELD_BACK])
    return made


@pytest.fixture(scope="module")
def spec(runtime: Runtime) -> ResearchSpec:
    return ResearchSpec.from_settings(runtime.settings, EURUSD_1H)


@pytest.fixture(scope="module")
def prepared(runtime: Runtime, spec: ResearchSpec) -> Prepared:
    return prepare(runtime, spec)


@pytest.fixture(scope="module")
def stored(runtime: Runtime, prepared: Prepared, spec: ResearchSpec) -> StoredModel:
    return train(runtime, prepared, spec)


# --- what is asked for ---


@pytest.mark.parametrize(
    ("symbol", "asset_class"),
    [("EURUSD", "forex"), ("xau/usd", "metal"), ("BTCUSDT", "crypto"), ("AAPL", "stock"), ("SPX", "index")],
)
def test_a_spec_charges_the_asset_class(symbol: str, asset_class: str):
    settings = load_settings(costs={asset_class: (1.0, 2.0, 3.0)})
    spec = ResearchSpec.from_settings(settings, SeriesId.parse(symbol, "1h"), folds=2, seed=None)
    assert spec.costs == Costs(fee_bps=1, slippage_bps=2, spread_bps=3)
    assert (spec.training.folds, spec.training.seed, spec.backtest.risk_per_trade) == (
        2,
        settings.models.seed,
        settings.backtest.risk_per_trade,
    )
    other = ResearchSpec.from_settings(settings, SeriesId.parse("BTCUSDT" if symbol != "BTCUSDT" else "SPX", "1h"))
    assert other.costs != spec.costs


def test_a_spec_refuses_what_there_is_not():
    settings = load_settings()
    with pytest.raises(OptionError, match=r"`timeframe` must be one of .* was '7m'"):
        ResearchSpec.from_settings(settings, SeriesId.parse("EURUSD", "7m"))
    guessed = ResearchSpec.from_settings(settings, SeriesId.parse("EURUST", "1h"))
    assert guessed.series.symbol == "EURUST", "a symbol in no table is taken by its form, with a notice"
    with pytest.raises(OptionError, match="folds"):
        ResearchSpec.from_settings(settings, EURUSD_1H, folds=0)


@pytest.mark.parametrize(
    ("trades", "mean", "error", "tone", "headline"),
    [
        (0, 0.0, 0.0, "warn", "No verdict"),
        (1, 5.0, float("nan"), "warn", "No verdict"),
        (99, 5.0, 0.1, "warn", "Too few trades"),
        (100, 0.21, 0.1, "good", "Positive"),
        (100, 0.20, 0.1, "warn", "No edge"),
        (100, -0.20, 0.1, "warn", "No edge"),
        (100, -0.21, 0.1, "bad", "Loses"),
    ],
)
def test_a_verdict_says_no_more_than_the_trades(trades: int, mean: float, error: float, tone: str, headline: str):
    summary = {"trades": trades, "expectancy_r": mean, "standard_error_r": error, "total_r": trades * mean}
    verdict = judge(summary)
    assert verdict.tone == tone and verdict.headline.startswith(headline) and str(trades) in verdict.detail


# --- the line ---


def test_what_is_prepared_is_one_row_a_bar(prepared: Prepared):
    assert prepared.features.index.equals(prepared.bars.index) and prepared.phases.index.equals(prepared.bars.index)
    assert prepared.data_version == 1 and len(prepared.bars) == len(BARS) - HELD_BACK


def test_the_card_tells_where_a_model_comes_from(stored: StoredModel, prepared: Prepared, spec: ResearchSpec):
    card = stored.card
    assert (card.data_version, card.code_version, card.seed) == (1, code_version(), spec.training.seed)
    assert asked_spec(card) == spec
    assert (card.rows, card.start, card.end) == (len(prepared.bars), prepared.bars.index[0], prepared.bars.index[-1])
    assert card.features == stored.bundle.features and set(card.features) <= set(prepared.features)
    assert len(stored.folds) == spec.training.folds and (stored.folds["error"] == "").all()


def test_the_same_seed_is_the_same_model(stored: StoredModel, prepared: Prepared, spec: ResearchSpec, tmp_path: Path):
    again = train(make_runtime(tmp_path), prepared, spec)
    pd.testing.assert_frame_equal(again.predictions, stored.predictions, check_exact=True)
    tail = prepared.features.tail(50)
    pd.testing.assert_frame_equal(again.bundle.predict(tail), stored.bundle.predict(tail), check_exact=True)
    pd.testing.assert_frame_equal(again.skill, stored.skill)


def test_only_the_last_rows_are_trained_on(runtime: Runtime, prepared: Prepared, spec: ResearchSpec, tmp_path: Path):
    short = spec.changed(train_rows=2500, folds=1, rounds=2)
    card = train(make_runtime(tmp_path), relined(prepared, short), short).card
    assert (card.rows, card.start) == (2500, prepared.bars.index[-2500])


def test_more_rows_than_there_are_is_all_of_them(prepared: Prepared, spec: ResearchSpec, tmp_path: Path):
    long = spec.changed(train_rows=10**6, folds=1, rounds=2)
    card = train(make_runtime(tmp_path), relined(prepared, long), long).card
    assert (card.rows, card.start) == (len(prepared.bars), prepared.bars.index[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stop_atr": 3.0}, r"stop_atr 1.5 \(asked: 3.0\)"),
        ({"horizon_bars": 5}, "horizon_bars"),
        ({"phase_detector": "learned"}, "phase_detector rules"),
    ],
)
def test_what_was_prepared_for_another_training_is_refused(
    runtime: Runtime, prepared: Prepared, stored: StoredModel, spec: ResearchSpec, changes: dict[str, Any], said: str
):
    other = spec.changed(**changes)
    for work in (lambda: train(runtime, prepared, other), lambda: trade(prepared, stored.predictions, other)):
        with pytest.raises(OptionError, match=said):
            work()
    with pytest.raises(OptionError, match="symbol EURUSD"):
        train(runtime, prepared, spec.model_copy(update={"series": SeriesId.parse("GBPUSD", "1h")}))


def test_a_model_of_a_line_that_the_runtime_cannot_restore_is_not_kept(
    runtime: Runtime, prepared: Prepared, spec: ResearchSpec
):
    own = replace(prepared, line=replace(prepared.line, detect=lambda bars, rules: prepared.phases))
    with pytest.raises(OptionError, match="must be described by the runtime's own line"):
        train(runtime, own, spec)
    with pytest.raises(OptionError, match="`detect` must be a learned detector"):
        Line(prepared.line.spec.model_copy(update={"phase_detector": "learned"}))


def test_the_promoted_model_serves_and_is_watched(runtime: Runtime, stored: StoredModel, spec: ResearchSpec):
    newer = stored.card.model_copy(update={"created": stored.card.created + pd.Timedelta("1h"), "version": ""})
    later = runtime.registry.save(stored, newer, stored.trades)
    assert LiveLine(runtime, EURUSD_1H).latest().model_version == later
    runtime.registry.promote(EURUSD_1H, stored.card.version, runtime.clock.now(), force=True)
    assert LiveLine(runtime, EURUSD_1H).latest().model_version == stored.card.version
    assert model_drift(runtime, EURUSD_1H).verdict == "no verdict: 0 newer bars, 100 are needed"
    assert not list(runtime.registry.runs.glob("*")), "the jobs of a saved training are kept no longer"


def test_a_kept_model_trades_on_the_bars_it_was_trained_on(runtime: Runtime, stored: StoredModel, spec: ResearchSpec):
    loaded, used, traded = trade_model(runtime, EURUSD_1H, "primary", stored.card.version)
    assert loaded.card == stored.card and used.version == 1
    assert used.changed(policy=spec.signals.policy).model_copy(update={"version": None}) == spec
    assert traded.signals.index[0] == stored.predictions.index[0]
    pd.testing.assert_frame_equal(traded.result.trades, stored.trades)
    assert traded.summary["trades"] == len(traded.result.trades) > 10
    assert (traded.result.trades["r"] <= traded.result.trades["r_gross"]).all()
    with pytest.raises(NotFoundError, match="no model of GBPUSD 1h is saved"):
        trade_model(runtime, SeriesId.parse("GBPUSD", "1h"))


def test_the_confidence_floor_of_the_settings_shapes_backtest_and_trial(
    runtime: Runtime, prepared: Prepared, spec: ResearchSpec, stored: StoredModel
):
    loose = trade_model(runtime, EURUSD_1H, "base", stored.card.version)[2]
    traded = loose.signals.loc[loose.signals["action"] != "HOLD", "confidence"]
    floor = float(traded.median())
    assert traded.min() < floor < traded.max()
    strict = Runtime(load_settings(**runtime.settings.model_dump() | {"signals": {"min_confidence": floor}}))
    assert spec_now(stored.card, strict.settings) == spec.changed(min_confidence=floor)
    _, used, found = trade_model(strict, EURUSD_1H, "base", stored.card.version)
    acted = found.signals["action"] != "HOLD"
    assert used.signals.min_confidence == floor and acted.sum() == (traded >= floor).sum()
    kept = strict.trials.table(EURUSD_1H).iloc[-1]
    assert kept["params"]["min_confidence"] == pytest.approx(floor) and kept["trades"] == len(found.result.trades)
    assert trade(prepared, stored.predictions, used, "primary").result.trades.equals(stored.trades)


# --- the live end ---


def relined(prepared: Prepared, spec: ResearchSpec) -> Prepared:
    """Return described bars whose line is trained as another spec says."""
    line = replace(prepared.line, spec=prepared.line.spec.model_copy(update={"training": spec.training}))
    return replace(prepared, line=line)


def full_signals(runtime: Runtime, stored: StoredModel, spec: ResearchSpec, bars: Bars) -> pd.DataFrame:
    """Return the bundle's signals over a whole history."""
    line = runtime.line(kept_line(stored.card))
    return line.signals(line.describe(bars), stored.bundle, policy_of(spec.signals))


def test_signals_do_not_change_when_later_bars_come(runtime: Runtime, stored: StoredModel, spec: ResearchSpec):
    whole = full_signals(runtime, stored, spec, BARS)
    for cut in (1500, 2222, len(BARS) - 1):
        pd.testing.assert_frame_equal(
            full_signals(runtime, stored, spec, BARS.iloc[:cut]), whole.iloc[:cut], rtol=1e-9, atol=1e-12
        )


def test_the_live_signal_is_the_last_row_of_the_full_history(runtime: Runtime, stored: StoredModel, spec: ResearchSpec):
    whole = full_signals(runtime, stored, spec, BARS)
    for end in range(len(BARS) - HELD_BACK, len(BARS) + 1, 6):
        runtime.store.upsert(EURUSD_1H, BARS.iloc[:end])
        live, row = LiveLine(runtime, EURUSD_1H).latest(), whole.iloc[end - 1]
        assert live.time == row.name == BARS.index[end - 1]
        assert live.action == row["action"] and live.amd_phase == row["amd_phase"]
        assert live.confidence == pytest.approx(row["confidence"], abs=1e-3)
        assert live.entry_price == pytest.approx(row["entry_price"], abs=1e-5)
        if live.action is not Action.HOLD:
            assert live.confidence >= MIN_CONFIDENCE
            assert live.stop_loss == pytest.approx(row["stop_loss"], abs=2e-5)
        assert live.model_version == stored.card.version and live.features and live.reasoning


def test_recent_bars_give_the_features_of_the_full_history(runtime: Runtime, stored: StoredModel):
    wanted = feature_spec(runtime.settings, EURUSD_1H)
    held = find_series(runtime, EURUSD_1H)
    few = recent_bars(runtime, held, warmup_bars(wanted) + LIVE_MARGIN)
    assert len(few) == warmup_bars(wanted) + LIVE_MARGIN < held.rows
    whole = build_features(runtime.store.read(EURUSD_1H), wanted).iloc[-LIVE_MARGIN:]
    recent = build_features(few, wanted).iloc[-LIVE_MARGIN:]
    assert list(recent) == list(whole) and recent.index.equals(whole.index)
    np.testing.assert_allclose(recent, whole, rtol=1e-6, atol=1e-6)
    predicted = stored.bundle.predict(recent) - stored.bundle.predict(whole)
    assert float(predicted.abs().max().max()) < 1e-3


def test_a_live_signal_needs_bars_and_a_model(runtime: Runtime, stored: StoredModel):
    with pytest.raises(NotFoundError, match="no model of XAUUSD 1h"):
        LiveLine(runtime, SeriesId.parse("XAUUSD", "1h")).latest()
    with pytest.raises(NotFoundError, match="the store holds no GBPUSD 1h"):
        find_series(runtime, SeriesId.parse("GBPUSD", "1h"))


# --- kill -9 and Ctrl-C ---


class Workspace:
    """A folder, and the program in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = os.environ | {"ORBIQUANT_HOME": str(home)}

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command."""
        return subprocess.Popen([ORBIQUANT, *words], env=self.environment, stdout=-1, stderr=-1, text=True)

    def ask(self, *words: str) -> Any:
        """Return what a command says as JSON; it must succeed."""
        done = subprocess.run(
            [ORBIQUANT, *words, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def kill(self, words: tuple[str, ...], now: Callable[[], bool]) -> bool:
        """Start a command, `kill -9` it as soon as `now` says so, and return whether that was in time."""
        with self.start(*words) as process:
            while process.poll() is None:
                if now():
                    process.kill()
                    process.wait()
                    return process.returncode == -signal.SIGKILL
                time.sleep(0.0005)
            return False


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that says yes from so many seconds on."""
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() >= moment


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def home_runtime(place: Workspace) -> Runtime:
    """Return the runtime that the program has in a workspace."""
    data = place.home / "data"
    places = {
        "store_uri": data / "store",
        "models_dir": data / "models",
        "database_url": f"sqlite:///{data}/orbiquant.db",
    }
    return Runtime(load_settings(workspace={name: str(place) for name, place in places.items()}))


@pytest.mark.slow
def test_a_killed_import_leaves_a_store_that_reads(place: Workspace, tmp_path: Path):
    bars = synthetic_market(50_000, "5m", seed=5).bars
    sizes = {"first": 20_000, "whole": len(bars)}
    for name, rows in sizes.items():
        bars.iloc[:rows].rename_axis("time").reset_index().to_parquet(tmp_path / f"{name}.parquet")
    load = ("data", "import", "--symbol", "ORBUSD", "--timeframe", "5m")
    begin = time.monotonic()
    assert place.ask(*load, str(tmp_path / "first.parquet"))["rows_added"] == sizes["first"]
    took, store = time.monotonic() - begin, place.home / "data" / "store"
    known = set(store.rglob("*"))
    shares = np.random.default_rng(3).uniform(0.5, 1.1, 2)
    in_time = sum(place.kill((*load, str(tmp_path / "whole.parquet")), after(share * took)) for share in shares)
    in_time += place.kill((*load, str(tmp_path / "whole.parquet")), lambda: bool(set(store.rglob("*")) - known))
    kept = home_runtime(place).store.read(ORBUSD_5M)
    assert in_time and len(kept) in sizes.values()
    assert place.ask("data", "list")["series"][0]["rows"] == len(kept)
    pd.testing.assert_frame_equal(kept, bars.iloc[: len(kept)], check_freq=False)
    assert place.ask(*load, str(tmp_path / "whole.parquet"))["rows_read"] == sizes["whole"]
    pd.testing.assert_frame_equal(home_runtime(place).store.read(ORBUSD_5M), bars, check_freq=False)


def train_small(place: Workspace) -> str:
    """Train one small model in a workspace and return its version."""
    made = home_runtime(place)
    spec = ResearchSpec.from_settings(made.settings, EURUSD_1H, folds=1, rounds=3)
    return train(made, prepare(made, spec), spec).card.version


@pytest.fixture
def trained(place: Workspace) -> str:
    """Store bars in the workspace, train a model on them and return its version."""
    home_runtime(place).store.upsert(EURUSD_1H, BARS.iloc[:2200])
    return train_small(place)


TRAIN = ("train", "--symbol", "EURUSD", "--timeframe", "1h", "--folds", "1", "--rounds", "3")


def check_models(place: Workspace, before: str) -> None:
    """Check that the workspace lists whole models, the one of before among them, and trains another."""
    listed = {card["version"] for card in place.ask("models", "list")}
    assert before in listed
    registry = home_runtime(place).registry
    assert all(registry.load(EURUSD_1H, version).card.version == version for version in listed)
    again = train_small(place)
    assert {card.version for card in registry.list()} == listed | {again} and again not in listed


@pytest.mark.slow
def test_a_training_killed_while_it_saves_leaves_whole_models(place: Workspace, trained: str):
    models = place.home / "data" / "models"
    assert place.kill(TRAIN, lambda: any(models.rglob(".saving-*/*")))
    assert any(models.rglob(".saving-*")) or len(home_runtime(place).registry.list()) == 2
    check_models(place, trained)


@pytest.mark.slow
def test_a_training_killed_at_any_moment_leaves_whole_models(place: Workspace, trained: str):
    begin = time.monotonic()
    place.ask(*TRAIN)
    took = time.monotonic() - begin
    for share in np.random.default_rng(4).uniform(0.1, 1, 8):
        place.kill(TRAIN, after(share * took))
        check_models(place, trained)


@pytest.mark.parametrize("fitting", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_training_with_130(fitting: bool, place: Workspace):
    home_runtime(place).store.upsert(EURUSD_1H, BARS)
    words = ("train", "--symbol", "EURUSD", "--timeframe", "1h", "--folds", "5", "--rounds", "3000")
    with place.start(*words) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while maps.exists() and ("libxgboost" if fitting else "_multiarray_umath") not in maps.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(1.5 if fitting else 0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "Interrupted. What was finished is kept" in err and "Traceback" not in err
    assert place.ask("models", "list") == []
