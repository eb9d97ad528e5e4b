"""The front door: real names from their rooms, loaded when they are asked for, and the first example of the README."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import orbiquant as oq
from orbiquant.core import NotFoundError, OptionError, configure_logging
from orbiquant.desk.study import find_bars
from orbiquant.domain import SeriesId
from orbiquant.market.synthetic import synthetic_market
from orbiquant.research.study import Study
from orbiquant.runtime import Runtime, using
from orbiquant.settings import load_settings

README = Path(__file__).parent.parent / "README.md"
EURUSD_1H = SeriesId.parse("EURUSD", "1h")


@pytest.fixture
def runtime(tmp_path: Path):
    configure_logging("ERROR")
    places = {"store_uri": f"{tmp_path}/store", "models_dir": tmp_path / "models"}
    made = Runtime(load_settings(workspace=places | {"database_url": f"sqlite:///{tmp_path}/o"}))
    with using(made):
        yield made
    made.engine.dispose()


# --- names ---


def test_each_name_is_the_one_of_its_room_and_no_package():
    for room, names in oq._ROOMS.items():
        module = import_module(f"orbiquant.{room}")
        for name in names:
            assert getattr(oq, name) is getattr(module, name)
            assert getattr(getattr(oq, name), "__module__", module.__name__) == module.__name__, "defined there"
    assert 20 <= len(oq._ROOM_OF) <= 45 and set(dir(oq)) == set(oq.__all__)
    packages = {path.parent.name for path in Path(oq.__file__).parent.rglob("__init__.py")}
    modules = {path.stem for path in Path(oq.__file__).parent.glob("*.py")}
    assert not set(oq._ROOM_OF) & (packages | modules), "a submodule that is imported later would hide it"


def test_submodules_are_found_beside_the_names_and_a_typo_is_met_with_the_nearest():
    from orbiquant import charts

    assert charts is sys.modules["orbiquant.charts"]
    with pytest.raises(AttributeError, match="orbiquant has no 'studdy', did you mean 'study'"):
        oq.studdy  # noqa: B018
    with pytest.raises(ImportError):
        from orbiquant import no_such_name  # noqa: F401


def test_every_config_that_has_defaults_may_be_left_out():
    bars = synthetic_market(3000, "1h", seed=7).bars
    assert oq.detect_phases(bars).equals(oq.detect_phases(bars, oq.PhaseConfig()))
    spec = oq.FeatureSpec(timeframe="1h", calendar="forex")
    assert oq.build_features(bars).equals(oq.build_features(bars, spec)) and len(oq.ict_events(bars)) > 100


# --- bars by name ---


def test_the_store_comes_before_the_sample(runtime: Runtime):
    sample = oq.load_bars("eur/usd")
    assert len(sample) == 6225 and sample.attrs == {"symbol": "EURUSD", "timeframe": "1h"}
    own = synthetic_market(50, "1h", seed=3).bars
    runtime.store.upsert(EURUSD_1H, own)
    assert oq.load_bars("EURUSD", "1h").equals(find_bars(runtime, EURUSD_1H)) and len(oq.load_bars("EURUSD")) == 50
    with pytest.raises(NotFoundError, match="the store holds no GBPUSD 1h"):
        oq.load_bars("GBPUSD", "1h")
    with pytest.raises(OptionError, match="`timeframe` must be one of"):
        oq.load_bars("GBPUSD", "7h")


# --- a study ---


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    configure_logging("ERROR")
    folder = tmp_path_factory.mktemp("study")
    places = {"store_uri": f"{folder}/store", "models_dir": folder / "models", "database_url": f"sqlite:///{folder}/o"}
    made = Runtime(load_settings(workspace=places))
    bars = synthetic_market(3000, "1h", seed=7).bars
    with using(made):
        found = oq.study(bars=bars, folds=2, rounds=15, meta="off", policy="primary", stop_atr=2.0, horizon_bars=12)
    made.engine.dispose()
    return found


def test_a_study_is_the_whole_line_in_one_object(study: Study):
    told = study.summary()
    assert told["trades"] == len(study.trades) > 100 and told["verdict"] == study.verdict.headline
    assert told["costs"] == str(study.traded.result.costs) == "fee 0.2 bp, slippage 0.3 bp, spread 0.5 bp"
    assert set(study.trades["signal_time"]) <= set(study.signals.index)
    assert study.plot().layout.title.text.startswith("ORBUSD 1h, primary")


def test_stop_target_and_horizon_of_the_backtest_are_those_of_the_training(study: Study):
    training = study.spec.training
    assert (training.stop_atr, training.horizon_bars) == (2.0, 12) and study.prepared.line.spec.training == training
    signals, result = study.signals, study.traded.result
    stop = (signals["entry_price"] - signals["stop_loss"]).abs()
    target = (signals["take_profit"] - signals["entry_price"]).abs()
    assert (target / stop - training.risk_reward).abs().max() < 1e-9
    assert result.max_holding_bars == 12 and study.trades["bars"].max() <= 12 and result.costs == study.spec.costs


def test_a_study_refuses_what_there_is_not(runtime: Runtime):
    with pytest.raises(OptionError, match="`symbol` must be given, or `bars`"):
        oq.study()
    with pytest.raises(OptionError, match="`fold` must be a field of a research spec, did you mean 'folds'"):
        oq.study("EURUSD", "1h", fold=3)
    with pytest.raises(OptionError, match=r"`folds`: .* was 0"):
        oq.study("EURUSD", "1h", folds=0)
    with pytest.raises(OptionError, match=r"`quantiles` must hold 0\.9, which aggressive_filter asks for"):
        oq.study("EURUSD", "1h", policy="aggressive_filter", quantiles=(0.25, 0.75))


# --- the README ---


def test_the_readmes_first_example_needs_one_import_and_at_most_eight_lines():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    code = [line for block in blocks for line in block.splitlines() if line.strip()]
    assert sum("import" in line for line in code) == 1 and code[0] == "import orbiquant as oq" and len(code) <= 8
    assert any(".plot()" in line for line in code)
