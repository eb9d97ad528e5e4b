"""`orbiquant sweep`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import (
    COST_OPTIONS,
    POLICIES_TOLD,
    AsJson,
    FeeBps,
    FoldsOption,
    FrameOption,
    Given,
    LastOption,
    ModelOption,
    RoundsOption,
    SeedOption,
    SlippageBps,
    SpreadBps,
    check_source,
    check_written,
    costs_told,
    fields,
    open_runtime,
    progress_bar,
    show,
    table,
    tell_seconds,
)
from orbiquant.cli.reading import reads_files, takes
from orbiquant.cli.strategies import FORWARD, ParamList, StrategyOption, ask_strategy, parse_forward, parse_params

if TYPE_CHECKING:
    from rich.table import Table

    from orbiquant.backtest.strategy_sweep import ParameterGrid
    from orbiquant.backtest.sweep_plan import SweepGrid
    from orbiquant.backtest.walk_forward import ForwardPlan
    from orbiquant.market.files import ReadAs
    from orbiquant.ports import Progress
    from orbiquant.research.sweeps import Counted, Sweepable, Swept
    from orbiquant.research.walk_forward import StrategyAsked, WalkedForward
    from orbiquant.runtime import Runtime


BreakEvens = Annotated[
    str | None, typer.Option(help="R in favour that put the stop at the fill: none,1,2; else as [backtest] exits.")
]
Trails = Annotated[
    str | None, typer.Option(help="Stops so many ATR behind the best close: none,2,3; else as [backtest] exits.")
]
PartialTargets = Annotated[
    str | None, typer.Option(help="Partial targets: none/1:0.5/1:0.3,2:0.3; else as [backtest] exits.")
]
TRAINING = ("folds", "rounds", "seed")
SWEEP_TAKES = {
    "--signals": ("last", *COST_OPTIONS, "asked", "signals_asked"),
    "--bars": ("policy", "last", *TRAINING, *COST_OPTIONS, "asked"),
    "stored bars": ("model", "policy"),
    "--strategy": ("param", "last", *COST_OPTIONS, "asked"),
}
COMMON = (
    *("stop_atr", "risk_reward", "min_confidence", "max_holding_bars", "filters", "period", "top", "save", "resume"),
    *("break_even_r", "trail_atr", "targets"),
    *("walk_forward", *FORWARD),
)
StopLevels = Annotated[str, typer.Option(help="Stops in average true ranges (ATR): FROM:TO:STEP or a,b,c.")]
RewardLevels = Annotated[str, typer.Option(help="Targets over the stop: FROM:TO:STEP or a,b,c.")]
ConfidenceLevels = Annotated[str, typer.Option(help="Least confidences, 0 to 1: FROM:TO:STEP or a,b,c.")]
TimeLimits = Annotated[str | None, typer.Option(help="Time limits, `none` for none; else the model's.")]
Filters = Annotated[str, typer.Option("--filter", help="all, long, short, column=value; joined by &.")]
LEVEL_LISTS = {
    "stop_atr": "0.5:3:0.5",
    "risk_reward": "1:4:0.5",
    "min_confidence": "0",
    "filters": "all",
}  # tried unless told
PLANNED = ("break_even_r", "trail_atr", "targets")
FIGURES_SHOWN = (
    "trades",
    "expectancy_r",
    "standard_error_r",
    "t_statistic",
    "total_r",
    "profit_factor",
    "max_drawdown_r",
    "cost_r",
)


def parse_grid(
    given: Given,  # the options
) -> "SweepGrid":
    "Return what is tried; raise `typer.BadParameter` for a list that cannot be."
    from pydantic import ValidationError

    from orbiquant.backtest.sweep_plan import SweepGrid
    from orbiquant.core import DataError, rule_of
    from orbiquant.execution.config import parse_targets

    lists: Given = {"filters": tuple(part.strip() for part in given["filters"].split(","))}
    if given["max_holding_bars"] is not None:
        lists["max_holding_bars"] = tuple(parse_limit(part) for part in given["max_holding_bars"].split(","))
    if given["targets"] is not None:
        lists["targets"] = tuple(parse_targets(part) for part in given["targets"].split("/"))
    for name in ("stop_atr", "risk_reward", "min_confidence", "break_even_r", "trail_atr"):
        try:
            if given[name] is not None:
                lists[name] = parse_asked(given[name])
        except DataError as error:
            raise typer.BadParameter(f"{option_of(name)}: {error.message}") from error
    try:
        return SweepGrid(**lists)
    except ValidationError as error:
        wrong = error.errors()[0]
        name, rule = option_of(str(wrong["loc"][0])), rule_of(wrong)
        told = f"`{name}` {rule}" if rule.startswith("must") else f"`{name}`: {rule}"
        raise typer.BadParameter(told if ", was " in rule else f"{told}, was {wrong['input']}") from error


def parse_asked(
    text: str,  # steps, with `none,` before them where nothing is tried too
) -> tuple[float | None, ...]:
    "Return what a list names; raise `DataError` when it names nothing."
    from orbiquant.backtest.sweep_plan import parse_steps

    first, _, rest = text.partition(",")
    if first.strip().lower() != "none":
        return parse_steps(text)
    return (None, *parse_steps(rest)) if rest.strip() else (None,)


def parse_limit(
    text: str,  # a number of bars, or "none"
) -> int | None:
    "Return a time limit; raise `typer.BadParameter` for a text that is none."
    if text.strip().lower() == "none":
        return None
    if not text.strip().isdecimal():
        raise typer.BadParameter(f"--max-holding-bars must be a list of bars or `none`, was {text!r}")
    return int(text)


def option_of(
    name: str,  # of a list of the grid
) -> str:
    "Return the option that gives a list."
    return "--filter" if name == "filters" else f"--{name.replace('_', '-')}"


def refuse_levels(
    given: Given,  # the options
) -> None:
    "Refuse levels beside a strategy's parameters, where they have no meaning."
    if given["param"]:
        for name in ("max_holding_bars", *LEVEL_LISTS):
            if given[name] != LEVEL_LISTS.get(name):
                raise typer.BadParameter(
                    f"{option_of(name)} does not go with --param: a strategy places its own levels"
                )


def parameter_grid(
    given: Given,  # the options
) -> "ParameterGrid":
    "Return what is tried of a strategy: the parameters, under each exit plan where one is asked for."
    from orbiquant.backtest.strategy_sweep import ParameterGrid

    asked = any(given[name] is not None for name in PLANNED)
    plans = tuple(parse_grid(given).plans()) if asked else ()
    return ParameterGrid(strategy=given["strategy"], parameters=parse_params(given["param"]), exits=plans)


def find_signals(
    runtime: "Runtime",  # settings, store, registry
    given: Given,  # the options
    progress: "Progress | None",  # of a training
) -> "Sweepable | StrategyAsked":
    "Return the signals that the options name, or the strategy whose parameters are tried."
    from orbiquant.cli.audit import load_audited
    from orbiquant.domain import SeriesId
    from orbiquant.execution.orders import latest
    from orbiquant.research.files import bars_of_file, read_signals_file
    from orbiquant.research.spec import ResearchSpec
    from orbiquant.research.sweeps import from_bars, from_model, from_signals

    if given["strategy"]:
        from orbiquant.research.walk_forward import from_strategy

        where = (given[name] for name in ("bars", "symbol", "timeframe", "last", "asked"))
        asked = ask_strategy(runtime, load_audited(runtime, *where), given)
        return asked if given["param"] else from_strategy(asked.make(), asked)
    policy = given["policy"] or "primary"
    if given["bars"] is None:
        return from_model(runtime, SeriesId.parse(given["symbol"], given["timeframe"]), policy, given["model"])
    bars, series, instrument, _ = bars_of_file(given["bars"], given["symbol"], given["timeframe"], given["asked"])
    changes = {name: given[name] for name in TRAINING} | {"policy": policy, "train_rows": given["last"]}
    spec = ResearchSpec.from_settings(runtime.settings, series, instrument, **changes)
    spec = spec.changed(costs=costs_told(spec.costs, given))
    if not given["signals"]:
        return from_bars(runtime, bars, spec, instrument, progress)
    signals = read_signals_file(given["signals"], given["signals_asked"])
    if given["last"]:
        bars, signals = latest(bars, signals, given["last"])
    return from_signals(bars, signals, spec.costs, series)


def show_sweep(
    what: "Counted",  # bars, and what names them
    swept: "Swept",  # what came of them
    top: int,  # how many combinations
    seconds: dict[str, float],  # by stage
    as_json: bool,  # for a script
    walked: "WalkedForward | None" = None,  # what choosing among them on the past came to
) -> None:
    "Print the headline with its trials, then the best combinations; a walk-forward's before a sweep's."
    from rich.console import Group

    from orbiquant.performance import LEAST_MOMENTS

    able = swept.result.table.assign(able=swept.result.table["trades"] >= LEAST_MOMENTS)  # others are no answer
    ranked = able.sort_values(["able", "t_statistic"], ascending=False).drop(columns="able").head(top)
    best = ranked.reset_index().astype(object).where(ranked.reset_index().notna(), None)
    every = swept.result.table
    tried = [name for name in swept.result.settings if every[name].nunique(dropna=False) > 1]
    facts = {
        "symbol": what.series.symbol, "timeframe": what.series.timeframe, "data": what.data_version, "signals": what.policy,
        "first": what.bars.index[0], "last": what.bars.index[-1], "bars": len(what.bars),
        "costs": str(what.costs),
        "combinations": len(swept.result.table), "seed": what.seed,
    }  # fmt: skip
    left = swept.headline.overfitting.figures if swept.headline else {}
    risk = swept.headline.selection.model_dump() if swept.headline and swept.headline.selection else {}
    told = swept.headline.sentence() if swept.headline else swept.note
    played = swept.confirmed.exits.moves if swept.confirmed else False  # vectorbt cannot: the exit plan's own step did
    sure = "trade for trade" if swept.confirmed and not played else None
    again = "trade for trade, by the exit plan's own step" if played else None
    forward = {} if walked is None else forward_facts(walked)
    show(
        facts
        | {"costs": what.costs, "headline": swept.headline, "verdict": told, "confirmed_by_vectorbt": bool(sure)}
        | {"best": best.to_dict("records"), "seconds": seconds}
        | forward,
        as_json,
        lambda: Group(
            *([] if walked is None else forward_view(walked)),
            fields(
                facts
                | {
                    "best in hindsight" if walked else "best": told,
                    "confirmed by vectorbt": sure,
                    "confirmed by a backtest": again,
                }
            ),
            fields(left | risk),
            table(
                best[["combination", *tried, *FIGURES_SHOWN]].itertuples(index=False),
                *(f">{name}" for name in ("combination", *tried, *FIGURES_SHOWN)),
            ),
            fields({"took": tell_seconds(seconds)}),
        ),
    )


CHOICES_SHOWN = (*("begins", "combination", "in_sample_trades", "in_sample_r", "trades", "expectancy_r", "total_r"),)


def forward_facts(
    walked: "WalkedForward",  # what came of it
) -> Given:
    "Return a walk-forward for a script."
    choices = walked.result.choices.reset_index().astype(object)
    rows = choices.where(choices.notna(), None).to_dict("records")
    told = {"plan": walked.result.plan, "headline": walked.headline, "verdict": walked.headline.sentence()}
    return {"walk_forward": told | {"choices": rows}}


def forward_view(
    walked: "WalkedForward",  # what came of it
) -> "list[Table]":
    "Return a walk-forward for a screen: the verdict, its figures, and each choice."
    told, found = walked.headline, walked.result
    risk = told.selection.model_dump() if told.selection else {}
    kept = {"in sample, R a trade": told.in_sample_r, "kept of it": told.efficiency}
    columns = [*CHOICES_SHOWN[:2], *found.found.settings, *CHOICES_SHOWN[2:]]
    rows = found.choices[columns].astype(object).where(found.choices[columns].notna(), None)
    return [
        fields({"walk-forward": told.sentence()} | told.figures | kept | told.overfitting.figures | risk),
        table(rows.itertuples(index=False), *(f">{name}" for name in columns)),
    ]


@reads_files(asked="--bars", signals_asked="--signals")
@takes(**FORWARD)
def sweep_command(
    symbol: Annotated[str | None, typer.Option(help="In any spelling; of a file: by its name.")] = None,
    timeframe: FrameOption = None,
    bars: Annotated[Path | None, typer.Option(help="Bars, Parquet or CSV: train and sweep on this file alone.")] = None,
    signals: Annotated[Path | None, typer.Option(help="Signals without levels, Parquet or CSV, on --bars.")] = None,
    strategy: StrategyOption = None,
    param: ParamList = None,
    walk_forward: Annotated[
        bool | None, typer.Option("--walk-forward", help="Choose on the past, trade the next stretch, again and again.")
    ] = None,
    stop_atr: StopLevels = LEVEL_LISTS["stop_atr"],
    risk_reward: RewardLevels = LEVEL_LISTS["risk_reward"],
    min_confidence: ConfidenceLevels = LEVEL_LISTS["min_confidence"],
    max_holding_bars: TimeLimits = None,
    break_even_r: BreakEvens = None,
    trail_atr: Trails = None,
    targets: PartialTargets = None,
    filters: Filters = LEVEL_LISTS["filters"],
    policy: Annotated[
        str | None, typer.Option(help=f"Filters first, one of {POLICIES_TOLD}; else `primary`, which trades all.")
    ] = None,
    model: ModelOption = None,
    period: Annotated[Literal["day", "week", "month"], typer.Option(help="Of the R series compared.")] = "day",
    top: Annotated[int, typer.Option(min=1, max=100_000, help="Combinations shown.")] = 10,
    save: Annotated[Path | None, typer.Option(help="Write every combination here, as .parquet or .csv.")] = None,
    resume: Annotated[bool, typer.Option(help="Keep finished chunks and go on from an earlier run's.")] = True,
    last: LastOption = None,
    folds: FoldsOption = None,
    rounds: RoundsOption = None,
    seed: SeedOption = None,
    fee_bps: FeeBps = None,
    slippage_bps: SlippageBps = None,
    spread_bps: SpreadBps = None,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
    signals_asked: "ReadAs | None" = None,
    **forward: Any,
) -> None:
    "Try every combination of stop, target, threshold, time limit and filter, or of a strategy's parameters; judge the best."
    given = locals() | forward
    del given["forward"]
    check_source(given, SWEEP_TAKES, COMMON)
    from orbiquant.core import stage_seconds
    from orbiquant.research.files import write_table

    check_written("--save", save, bars, signals)
    plan = parse_forward(given)
    refuse_levels(given)
    grid = parse_grid(given)
    runtime = open_runtime()
    told = {name: (getattr(runtime.settings.backtest.exits, name),) for name in PLANNED if given[name] is None}
    grid = grid.model_copy(update=told)
    with stage_seconds() as seconds, progress_bar(as_json) as progress:
        what, walked, swept = try_all(runtime, given, grid, plan, progress)
    if save:
        write_table(save, swept.result.table.reset_index() if walked is None else walked.result.trades)
    show_sweep(what, swept, top, seconds, as_json, walked)


def try_all(
    runtime: "Runtime",  # settings and the trials ledger
    given: Given,  # the options
    grid: "SweepGrid",  # of levels
    plan: "ForwardPlan | None",  # of a walk-forward; None: a sweep alone
    progress: "Progress | None",  # of training and sweep
) -> "tuple[Counted, WalkedForward | None, Swept]":
    "Sweep what the options name, and walk it forward where they say so."
    from orbiquant.core import stage
    from orbiquant.research.sweeps import run_sweep
    from orbiquant.research.walk_forward import StrategyAsked, judge_forward, sweep_parameters

    what = find_signals(runtime, given, progress)
    if isinstance(what, StrategyAsked):
        with stage("sweep"):
            swept = sweep_parameters(runtime, what, parameter_grid(given), given["period"], progress)
    else:
        if given["max_holding_bars"] is None:
            grid = grid.model_copy(update={"max_holding_bars": (what.max_holding_bars,)})
        with stage("sweep"):
            swept = run_sweep(runtime, what, grid, given["period"], given["resume"], progress)
    if plan is None:
        return what, None, swept
    with stage("walk-forward"):
        return what, judge_forward(runtime, what, swept, plan), swept
