"""`orbiquant warmup`: pay once for compiling and loading, not on the first bar."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from orbiquant.cli.console import AsJson, progress_bar, show, table

if TYPE_CHECKING:
    from orbiquant.ports import Progress


ROWS, SPEC = 6000, {"timeframe": "15m", "calendar": "forex"}
Made = dict[str, Any]  # what the stages so far have made, by name


def make_market(
    made: Made,  # takes nothing, adds `bars`
) -> None:
    "Make a market."
    from orbiquant.market.synthetic import synthetic_market

    made["bars"] = synthetic_market(ROWS, timeframe=SPEC["timeframe"], seed=7).bars


def make_features(
    made: Made,  # takes `bars`, adds `features`, `phases`
) -> None:
    "Build the matrix, the phases and the table of ICT events."
    from orbiquant.features.ict import ict_context, ict_events, key_levels
    from orbiquant.features.matrix import build_features
    from orbiquant.features.phases import detect_phases
    from orbiquant.features.spec import FeatureSpec

    bars, spec = made["bars"], FeatureSpec.model_validate(SPEC)
    made |= {"features": build_features(bars, spec), "phases": detect_phases(bars, spec.phases)}
    ict_events(bars, spec.ict)
    ict_context(bars, spec.ict)
    key_levels(bars, spec.ict)


def follow_feed(
    made: Made,  # takes `bars`
) -> None:
    "Go on bar by bar, which calls the same loops with views of arrays."
    from orbiquant.features.spec import FeatureSpec
    from orbiquant.features.stream import FeatureStream

    stream = FeatureStream(FeatureSpec.model_validate(SPEC))
    stream.seed(made["bars"].iloc[:-8])
    for _, bar in made["bars"].iloc[-8:].iterrows():
        stream.update(bar)


def train_models(
    made: Made,  # takes `bars`, `features`, adds `bundle`, `predictions`
) -> None:
    "Train a pipeline of small models and ask it for one row."
    from orbiquant.models.config import Phase2Config
    from orbiquant.models.phase2 import Phase2Pipeline

    usable = made["features"].dropna()
    training = Phase2Pipeline(Phase2Config(folds=2, rounds=10)).run(made["bars"].loc[usable.index], usable)
    made |= {"bundle": training.bundle, "predictions": training.predictions}
    training.bundle.predict(usable.tail(1))


def warm_backtest(
    made: Made,  # takes everything
) -> None:
    "Make signals, play them in vectorbt and in a sweep."
    from orbiquant.backtest.simulate import simulate
    from orbiquant.backtest.sweep import sweep_grid
    from orbiquant.backtest.sweep_plan import SweepGrid
    from orbiquant.domain import Costs
    from orbiquant.execution.config import ExitPlan
    from orbiquant.models.phase2 import OutOfFold
    from orbiquant.policies import find_policy
    from orbiquant.signals import generate_signals

    frames = (made["bars"], made["features"], made["phases"])
    signals = generate_signals(*frames, OutOfFold(made["predictions"]), find_policy("primary"), 1.0, 1.5)
    simulate(made["bars"], signals, Costs(), max_holding_bars=24)
    simulate(made["bars"], signals, Costs(), exits=ExitPlan(trail_atr=2.0))
    sweep_grid(made["bars"], signals, SweepGrid(stop_atr=(1.0,), risk_reward=(1.0, 2.0)), Costs())


STAGES: dict[str, Callable[[Made], None]] = {
    "a market": make_market,
    "features": make_features,
    "features of a live feed": follow_feed,
    "models": train_models,
    "backtest and sweep": warm_backtest,
}


class Warmed(NamedTuple):
    "What warming one stage up took."

    stage: str
    compiled: int  # functions that were not kept on disk yet
    seconds: float


def warm_up(
    progress: "Progress | None" = None,  # called as (stages done, in all, what comes)
) -> list[Warmed]:
    "Run each stage once and return what it took."
    from numba.core.event import install_recorder

    made: Made = {}
    done: list[Warmed] = []
    for name, stage in STAGES.items():
        if progress:
            progress(len(done), len(STAGES), name)
        began = time.perf_counter()
        with install_recorder("numba:compile") as recorder:
            stage(made)
        compiled = sum(event.is_start for _, event in recorder.buffer)
        done.append(Warmed(name, compiled, round(time.perf_counter() - began, 2)))
    return done


def warmup(as_json: AsJson = False) -> None:
    "Compile and load everything once, so that nothing else has to wait for it."
    with progress_bar(as_json) as progress:
        done = warm_up(progress)
    total = Warmed("all", sum(w.compiled for w in done), round(sum(w.seconds for w in done), 2))
    show(
        {"stages": [w._asdict() for w in done], "compiled": total.compiled, "seconds": total.seconds},
        as_json,
        lambda: table((*done, total), "stage", ">functions compiled", ">seconds"),
    )
