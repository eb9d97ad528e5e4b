"""`orbiquant backtest | demo`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import (
    COST_OPTIONS,
    AsJson,
    ExitOption,
    FeeBps,
    FoldsOption,
    FrameOption,
    Given,
    HoldingBars,
    LastOption,
    Lines,
    ModelOption,
    PolicyOption,
    RiskBase,
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
from orbiquant.cli.reading import reads_files
from orbiquant.cli.strategies import ParamOption, StrategyOption, one_each, one_strategy
from orbiquant.cli.words import words_of, write_figure
from orbiquant.cli.workspace import next_steps

if TYPE_CHECKING:
    from rich.table import Table

    from orbiquant.market.files import ReadAs
    from orbiquant.ports import Progress
    from orbiquant.research.train import Traded
    from orbiquant.runtime import Runtime


BARS_ONLY = ("last", "folds", "rounds", "seed", "stop_atr", "risk_reward", "risk_per_trade", "exits")
SIGNALS_ONLY = ("max_holding_bars", "risk_from")
BACKTEST_TAKES = {
    "--signals": ("last", "risk_per_trade", "exits", *COST_OPTIONS, *SIGNALS_ONLY, "asked", "signals_asked"),
    "--bars": ("policy", *BARS_ONLY, *COST_OPTIONS, "asked"),
    "stored bars": ("model", "policy"),
    "--strategy": ("param", "last", *COST_OPTIONS, "asked"),
}


def trade_stored(
    runtime: "Runtime",  # store and registry
    given: Given,  # symbol, timeframe, policy, model
) -> tuple[Given, "Traded"]:
    "Trade a kept model's predictions; return the facts and what they came to."
    from orbiquant.domain import SeriesId
    from orbiquant.research.train import trade_model

    series = SeriesId.parse(given["symbol"], given["timeframe"])
    stored, spec, traded = trade_model(runtime, series, given["policy"], given["model"])
    facts: Given = {"symbol": series.symbol, "timeframe": series.timeframe, "policy": spec.signals.policy}
    facts |= {"model": stored.card.version, "data_version": stored.card.data_version}
    return facts | {"seed": spec.training.seed}, traded


def trade_file(
    runtime: "Runtime",  # settings and the trials ledger
    given: Given,  # the options
    progress: "Progress | None",  # of the training
) -> tuple[Given, "Traded"]:
    "Send a file's bars through the whole line, or given signals through the backtest; return facts and result."
    from orbiquant.core import stage
    from orbiquant.execution.config import parse_plan
    from orbiquant.execution.orders import latest
    from orbiquant.research.files import bars_of_file, read_signals_file, trade_signals
    from orbiquant.research.spec import ResearchSpec
    from orbiquant.research.study import study_bars

    bars, series, instrument, notices = bars_of_file(given["bars"], given["symbol"], given["timeframe"], given["asked"])
    changes: Given = {"policy": given["policy"], "train_rows": given["last"]}
    changes |= {name: given[name] for name in BARS_ONLY if name != "last"}
    changes["exits"] = None if given["exits"] is None else parse_plan(given["exits"])
    spec = ResearchSpec.from_settings(runtime.settings, series, instrument, **changes)
    spec = spec.changed(costs=costs_told(spec.costs, given))
    facts = {"file": given["bars"].name, "symbol": series.symbol, "timeframe": series.timeframe}
    facts |= {"notices": notices} if notices else {}
    if not given["signals"]:
        study = study_bars(runtime, bars, spec, instrument, progress)
        shape = {"policy": spec.signals.policy, "seed": spec.training.seed, "rounds": spec.training.rounds}
        return facts | shape | {"folds": study.training.folds.to_dict("records")}, study.traded
    signals = read_signals_file(given["signals"], given["signals_asked"])
    if given["last"]:
        bars, signals = latest(bars, signals, given["last"])
    terms = {name: given[name] for name in SIGNALS_ONLY} | dict(spec.backtest)
    with stage("backtest"):
        traded = trade_signals(runtime, bars, signals, spec.costs, series, **terms)
    return facts | {"signals": given["signals"].name, **traded.result.terms}, traded


def trade_named(
    runtime: "Runtime",  # settings and the trials ledger
    given: Given,  # the options
) -> tuple[Given, "Traded", Given]:
    "Trade a strategy by name; return the facts, what it came to, and what its trades make at random bars."
    from orbiquant.backtest.baselines import beside_chance
    from orbiquant.backtest.strategy_sweep import strategy_shape
    from orbiquant.cli.audit import load_audited
    from orbiquant.core import stage
    from orbiquant.research.walk_forward import trade_strategy

    where = (given[name] for name in ("bars", "symbol", "timeframe", "last", "asked"))
    asked, strategy = one_strategy(runtime, load_audited(runtime, *where), given)
    with stage("backtest"):
        traded = trade_strategy(runtime, asked, strategy)
    facts = {"symbol": asked.series.symbol, "timeframe": asked.series.timeframe, "data_version": asked.data_version}
    shape = strategy_shape(strategy, one_each(given["param"]), traded.result.max_holding_bars, traded.result.exits)
    facts |= {"strategy": strategy.name} | shape
    if traded.result.trades.empty:
        return facts, traded, {}
    with stage("baselines"):
        beside = beside_chance(asked.bars, traded.result, strategy.warmup_bars)
    rows = beside.table.rename_axis("beside").reset_index()
    chance = {
        "p_value": beside.p_value,
        "draws": len(beside.draws),
        "rows": rows.astype(object).where(rows.notna(), None),
    }
    return facts, traded, chance | {"rows": chance["rows"].to_dict("records")}


def show_backtest(
    facts: Given,  # what was traded
    traded: "Traded",  # what came of it
    seconds: dict[str, float],  # what each stage took
    as_json: bool,  # for a script
    chance: Given | None = None,  # what a strategy's trades make at random bars, and the market by itself
) -> None:
    "Print costs up front, the verdict, every figure and, as JSON, every table."
    from rich.console import Group

    from orbiquant.backtest.delays import delay_table
    from orbiquant.backtest.robustness import examine_trades, records
    from orbiquant.core import stage
    from orbiquant.performance import why_missing
    from orbiquant.research.verdict import judge_traded
    from orbiquant.wire import without_gaps

    result, figures, missing = traded.result, without_gaps(traded.summary), why_missing(traded.summary)
    with stage("robustness"):
        delays = delay_table(traded.bars, traded.signals, result) if "signals" in facts else None
        tables = examine_trades(traded.bars, traded.signals, result, facts.get("seed", 7))
    verdict = judge_traded(traded, delays is not None, delays, "strategy" in facts)
    tables |= {} if delays is None else {"by_delay": records(delays)}
    span = {"first": traded.bars.index[0], "last": traded.bars.index[-1], "bars": len(traded.bars)}
    facts = facts | span | {"costs": result.costs, "trades": len(result.trades)}
    paid = without_gaps(result.costs_in_r)
    told = {key: value for key, value in facts.items() if not isinstance(value, list | dict)} | {
        "costs": str(result.costs),
        "costs in R, before anything is won": f"{result.costs_in_r['mean']:.3f} a trade on average, "
        f"at a median stop of {result.costs_in_r['stop_percent']:.3f} %"
        if len(result.trades)
        else None,
        "verdict": f"{verdict.headline}. {verdict.detail}",
    }
    silent = {f"no {name}": why for why, name in join_names(missing).items()}
    if len(result.trades):  # without one there is no mean, spread or drawdown to print: the verdict says why
        told |= figures | silent
    show(
        facts
        | {"costs_in_r": paid, "verdict": verdict, "metrics": figures, "missing": missing, "skipped": result.skipped}
        | tables
        | ({"baselines": chance} if chance else {})
        | {"held": held_counts(traded), "seconds": seconds},
        as_json,
        lambda: Group(
            fields(told | {"took": tell_seconds(seconds)}),
            *(chance_told(chance) if chance else []),
            *(tables_told(tables) if len(result.trades) else held_told(traded)),
        ),
    )


def chance_told(
    chance: Given,  # from `trade_named`
) -> "list[Table]":
    "Return a strategy beside its own trades at random bars and beside the market, as tables for a screen."
    rows = chance["rows"]
    told = {"random bars as good or better, p": chance["p_value"], "draws": chance["draws"]}
    return [table((row.values() for row in rows), *(f">{name}" for name in rows[0])), fields(told)]


def held_counts(
    traded: "Traded",  # a backtest
) -> dict[str, int]:
    "Return how many rows each rule held; empty for signals made elsewhere."
    from orbiquant.research.unfiltered import held_rows

    return held_rows(traded.signals)["rows"].to_dict() if "reason" in traded.signals else {}


def held_told(
    traded: "Traded",  # a backtest without trades
) -> "list[Table]":
    "Return why rows were held, as a table for a screen; none for signals made elsewhere."
    from orbiquant.research.unfiltered import held_rows

    if not held_counts(traded):
        return []
    held = held_rows(traded.signals)
    rows = (
        (rule, row.rows, f"{row.share:.1%}", row.meaning)
        for rule, row in zip(held.index, held.itertuples(), strict=True)
    )
    return [table(rows, "held for", ">rows", ">share of rows", "what that means")]


def tables_told(
    tables: Given,  # from `examine_trades`
) -> "list[Table]":
    "Return the draws, where there are enough trades for any, and the costs as tables for a screen."
    odds, scaled = tables["monte_carlo"], tables["cost_sensitivity"]
    costs = table((row.values() for row in scaled), *(f">{name}" for name in scaled[0]))
    if not odds["draws"]:
        return [costs]
    heads = (f">{name}" for name in next(iter(odds["quantiles"].values())))
    drawn = (
        (words_of(name), *(write_figure(name, value) for value in values.values()))
        for name, values in odds["quantiles"].items()
    )
    return [table(drawn, f"{odds['draws']} draws", *heads), costs]


def join_names(
    missing: "dict[str, str]",  # figure → why it is not there
) -> dict[str, str]:
    "Return each reason with the figures it is the reason of."
    reasons = dict.fromkeys(missing.values(), "")
    return {why: ", ".join(name for name, other in missing.items() if other == why) for why in reasons}


CONTRACT = """
SIGNALS hold `time` (the open of the bar they were made from), `action`
(LONG, SHORT, HOLD) or `side` (1, -1, 0), `stop_loss` (a price) or
`stop_distance` (from the fill), and, where there is a target, `take_profit`
or `target_distance`; `entry_price` is what was planned from, else the bar's
close. Times without a zone are UTC.

ENTRY at the next bar's open, moved against the trader by slippage and half
the spread. An open at or beyond the stop, or a fill at or beyond the
target, opens nothing, nor does an open that has left less than a tenth of
the planned distance to the stop. One position at a time: the next may open on a bar
after the one in which the last closed.

EXIT inside a bar: its open first (a gap leaves at the open), then the stop,
then the target, the bar of entry included; touching is enough, a bar that
holds both is a loss. Stops, targets, time limits and the last bar's close
all leave at the market: they slip too. The time limit counts the bar of
entry and leaves at a close. An exit plan (`--exits`) moves the stop at the
close of a bar, for the next one on: to the fill once the price has been
break_even_r R in favour, to trail_atr ATR behind the best close; targets
close parts at so many R, the rest leaves at the signal's own target.

R is profit after everything over the distance from the fill to
the stop (`--risk-from plan`: from `entry_price` to it). Costs in R are (2 fee + 2
slippage + spread) over the stop in per cent. Bars are known at their close
only.
"""


@reads_files(asked="--bars", signals_asked="--signals")
def backtest_command(
    symbol: Annotated[str | None, typer.Option(help="In any spelling; of a file: by its name.")] = None,
    timeframe: FrameOption = None,
    policy: PolicyOption = None,
    model: ModelOption = None,
    bars: Annotated[Path | None, typer.Option(help="Bars, Parquet or CSV: train and trade on this file alone.")] = None,
    signals: Annotated[Path | None, typer.Option(help="Signals, Parquet or CSV: trade these on --bars.")] = None,
    strategy: StrategyOption = None,
    param: ParamOption = None,
    trades: Annotated[Path | None, typer.Option(help="Write the trades here, as .parquet or .csv.")] = None,
    last: LastOption = None,
    folds: FoldsOption = None,
    rounds: RoundsOption = None,
    seed: SeedOption = None,
    stop_atr: Annotated[
        float | None, typer.Option(min=0.01, max=1000, help="Stop in average true ranges (ATR).")
    ] = None,
    risk_reward: Annotated[float | None, typer.Option(min=0.01, max=1000, help="Target over stop.")] = None,
    fee_bps: FeeBps = None,
    slippage_bps: SlippageBps = None,
    spread_bps: SpreadBps = None,
    max_holding_bars: HoldingBars = None,
    risk_from: RiskBase = None,
    risk_per_trade: Annotated[
        float | None, typer.Option(min=1e-6, max=0.05, help="Share of the equity lost at the stop: 0.01 is 1 %.")
    ] = None,
    exits: ExitOption = None,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
    signals_asked: "ReadAs | None" = None,
) -> None:
    "Trade out-of-fold predictions, given signals or a strategy, and say what they came to, in R and in money."
    given = dict(locals())
    check_source(given, BACKTEST_TAKES, common=("trades",))
    from orbiquant.core import stage_seconds
    from orbiquant.research.files import write_table

    check_written("--trades", trades, bars, signals)
    runtime = open_runtime()
    chance: Given = {}
    with stage_seconds() as seconds:
        if strategy:
            facts, traded, chance = trade_named(runtime, given)
        elif bars is None:
            facts, traded = trade_stored(runtime, given)
        else:
            with progress_bar(as_json) as progress:
                facts, traded = trade_file(runtime, given, progress)
        if trades:
            write_table(trades, traded.result.trades)
        show_backtest(facts, traded, seconds, as_json, chance)


backtest_command.__doc__ = f"{backtest_command.__doc__}\n{CONTRACT}"  # what `--help` prints


def demo(as_json: AsJson = False) -> None:
    "Run the whole line on real bars: data, features, models, backtest, report, served signal."
    from rich.console import Group

    from orbiquant.demo import run_demo
    from orbiquant.workspace import workspace

    runtime = open_runtime()
    with progress_bar(as_json) as bar:
        done = run_demo(runtime, bar or Lines())
    figures: dict[str, Any] = dict(done.run.metrics)
    page = done.run.html
    facts = {
        "verdict": figures["verdict"],
        "out-of-sample trades": f"{figures['trades']:.0f} (policy {figures['policy']})",
        "mean net R a trade": f"{figures['expectancy_r']:+.3f} ± {figures['standard_error_r']:.3f}, "
        f"of which costs {figures['cost_r']:.3f}",
        "models": figures["skill_told"],
        "look-ahead found": figures["causality_violations"] or "none",
        "served signal": f"{done.signal['direction']} at confidence {done.signal['confidence']:.2f}, "
        f"phase {done.signal['amd_phase']}",
        "seconds": ", ".join(f"{stage} {taken:.1f}" for stage, taken in done.seconds.items()),
        "report": page,
    }
    result = {"report": str(page), "metrics": figures, "signal": done.signal, "seconds": done.seconds}
    steps = next_steps(workspace(), ("jupyter", "lab tutorial.ipynb"), ("orbiquant", "serve"), ("orbiquant", "--help"))
    show(result, as_json, lambda: Group(fields(facts), steps))
