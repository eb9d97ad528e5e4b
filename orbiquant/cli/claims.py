"""`orbiquant audit surrogates | delays`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.audit import (
    Audited,
    BarsFile,
    audit_commands,
    finish,
    load_audited,
    make_claim,
)
from orbiquant.cli.console import (
    COST_OPTIONS,
    MOST_SEED,
    POLICIES_TOLD,
    AsJson,
    FeeBps,
    FrameOption,
    Given,
    HoldingBars,
    LastOption,
    RiskBase,
    SlippageBps,
    SpreadBps,
    SymbolOption,
    costs_told,
    open_runtime,
    progress_bar,
)
from orbiquant.cli.reading import reads_files, takes
from orbiquant.cli.strategies import ParamOption, StrategyOption, one_strategy

if TYPE_CHECKING:
    from orbiquant.backtest.surrogates import Block, Statistic
    from orbiquant.domain import Costs
    from orbiquant.market.files import ReadAs
    from orbiquant.research.train import Traded
    from orbiquant.runtime import Runtime
    from orbiquant.strategies.contract import Strategy


SignalsFile = Annotated[
    Path | None, typer.Option("--signals", help="Signals made elsewhere, Parquet or CSV, on --bars.")
]


GIVEN_TERMS = {  # what signals made elsewhere are traded on
    "fee_bps": FeeBps, "slippage_bps": SlippageBps, "spread_bps": SpreadBps, "max_holding_bars": HoldingBars,
    "risk_from": RiskBase,
}  # fmt: skip


def audit_costs(
    runtime: "Runtime",  # has the settings
    audited: Audited,  # whose asset class says which
    given: Given,  # with `COST_OPTIONS`
) -> "Costs":
    "Return the settings' costs of what is audited, with those that options name."
    return costs_told(runtime.settings.costs.of(audited.instrument.asset_class), given)


def trade_given(
    runtime: "Runtime",  # has the trials ledger
    audited: Audited,  # the bars, cut to the last
    given: Given,  # `signals`, `max_holding_bars`, `risk_from` and `COST_OPTIONS`
) -> "Traded":
    "Trade signals made elsewhere on the audited bars, which counts as the trial that a backtest of them is."
    from orbiquant.research.files import read_signals_file, trade_signals

    signals = read_signals_file(given["signals"], given["signals_asked"])
    signals = signals[signals.index >= audited.bars.index.min()] if given["last"] else signals
    terms = {name: given[name] for name in ("max_holding_bars", "risk_from")} | dict(runtime.settings.backtest)
    return trade_signals(runtime, audited.bars, signals, audit_costs(runtime, audited, given), audited.series, **terms)


def trade_by_name(
    runtime: "Runtime",  # settings, strategies and the trials ledger
    audited: Audited,  # the bars, cut to the last
    given: Given,  # `strategy`, `param` and `COST_OPTIONS`
) -> "tuple[Traded, Strategy]":
    "Trade a strategy on the audited bars, which counts as the trial that a backtest of it is."
    from orbiquant.research.walk_forward import trade_strategy

    asked, strategy = one_strategy(runtime, audited, given)
    return trade_strategy(runtime, asked, strategy, "audit"), strategy


def refuse_options(
    given: Given,  # every option by name
    names: tuple[str, ...],  # that do not go with
    what: str,  # e.g. "--signals"
) -> None:
    "Raise `typer.BadParameter` for an option that was given and has no meaning there."
    for name in names:
        if given[name] is not None:
            raise typer.BadParameter(f"--{name.replace('_', '-')} does not go with {what}")


def parse_block(
    text: str,  # "1", "12", "day"
) -> "Block":
    "Return a block length; raise `typer.BadParameter` for what is none."
    if text == "day":
        return "day"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"`--block` must be a number of bars of at least 1, or day, was {text!r}")
    return int(text)


def measure_original(
    runtime: "Runtime",  # has the trials ledger
    audited: Audited,  # the bars
    statistic: "Statistic",  # the claim
) -> dict[str, float]:
    "Return what a claim is worth on the bars themselves; each policy whose trades are looked at is a trial."
    from orbiquant.backtest.surrogates import LineEdge, measure_claim
    from orbiquant.backtest.trials import Trial

    if not isinstance(statistic, LineEdge):
        return measure_claim(statistic, audited.bars)
    results, bars = statistic.results(audited.bars), audited.bars
    training = statistic.line.spec.training
    shape = training.model_dump(mode="json", exclude={"seed", "threads"})
    about = {
        "kind": "audit", "symbol": audited.series.symbol, "timeframe": audited.series.timeframe,
        "data_version": audited.data_version, "first": bars.index[0], "last": bars.index[-1],
        "seed": training.seed,
        "params": shape | {
            "costs": statistic.costs.model_dump(), "min_confidence": statistic.min_confidence,
            "phase_detector": runtime.settings.signals.phase_detector,
        },
    }  # fmt: skip
    runtime.trials.record(*(Trial.of(r, policy=name, **about) for name, r in results.items()))
    return statistic.figures(results)


TRAINED_ROUNDS, TRAINED_FOLDS = 20, 2  # of the line on each surrogate, unless asked for others


def choose_claim(
    runtime: "Runtime",  # has the settings and the trials ledger
    audited: Audited,  # the bars
    given: Given,  # the options
) -> "tuple[str, Statistic, Traded | None]":
    "Return the name of what is claimed, the claim, and the trades of signals made elsewhere."
    from orbiquant.backtest.strategy_audit import StrategyEdge
    from orbiquant.backtest.surrogates import GivenEdge

    if given["strategy"]:
        refuse_options(given, ("claim", "rounds", "folds", "max_holding_bars", "risk_from", "signals"), "--strategy")
        traded, named = trade_by_name(runtime, audited, given)
        return (
            named.name,
            StrategyEdge(named, traded.result.costs, given["figure"], runtime.settings.backtest.exits),
            traded,
        )
    if given["signals"]:
        refuse_options(given, ("claim", "rounds", "folds"), "--signals")
        traded = trade_given(runtime, audited, given)
        result = traded.result
        edge = GivenEdge(traded.bars, traded.signals, result.costs, result.terms, given["figure"])
        return "signals", edge, traded
    refuse_options(given, ("max_holding_bars", "risk_from"), "a claim of the line, only with --signals")
    wanted = given["claim"] or runtime.settings.signals.policy
    if wanted == "amd":
        refuse_options(given, COST_OPTIONS, "--claim amd, which trades nothing")
    training = {"rounds": given["rounds"] or TRAINED_ROUNDS, "folds": given["folds"] or TRAINED_FOLDS}
    training |= {"threads": 1} if given["workers"] > 1 else {}
    costs = audit_costs(runtime, audited, given)
    return *make_claim(runtime, audited, wanted, given["figure"], training, costs), None


def claim_facts(
    given: Given,  # the options
    statistic: "Statistic",  # the claim
    traded: "Traded | None",  # of signals made elsewhere
    verdict: str,  # of the surrogates alone
) -> dict[str, Any]:
    "Return what the claim pays, and for given signals whether it outlives a bar: what knows the next bar beats any chance."
    from orbiquant.backtest.delays import delay_table, delay_verdict
    from orbiquant.performance import LEAST_MOMENTS

    costs = getattr(statistic, "costs", None)
    paid = {} if costs is None else {"costs": costs if given["as_json"] else str(costs)}
    if traded is None:
        return paid | {"verdict": verdict}
    delayed, why = delay_verdict(delay_table(traded.bars, traded.signals, traded.result))
    few = verdict == "pass" and len(traded.result.trades) < LEAST_MOMENTS  # luck of a few is no claim
    verdict = "no verdict" if few else verdict
    failed = verdict == "pass" and delayed == "fail"
    source = {"strategy": given["strategy"]} if given["strategy"] else {"signals": given["signals"].name}
    about = source | {"trades": len(traded.result.trades), "one_bar_later": why}
    return paid | about | {"verdict": "fail" if failed else verdict}


@audit_commands.command("surrogates")
@reads_files(asked="--bars", signals_asked="--signals")
@takes(**GIVEN_TERMS)
def surrogates(
    file: BarsFile = None,
    signals: SignalsFile = None,
    symbol: SymbolOption = None,
    timeframe: FrameOption = None,
    strategy: StrategyOption = None,
    param: ParamOption = None,
    claim: Annotated[
        str | None, typer.Option(help=f"One of {POLICIES_TOLD}, or amd (completed phases); else the settings' policy.")
    ] = None,
    figure: Annotated[
        Literal["expectancy_r", "total_r", "t_statistic"], typer.Option(help="Of its net R.")
    ] = "expectancy_r",
    count: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many surrogates; fewer than 1/alpha − 1 are no verdict.")
    ] = 99,
    block: Annotated[str, typer.Option(help="Flipped as a whole: bars, or day; shorter than what is claimed.")] = "1",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Largest p-value that is believed.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the surrogates.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    last: LastOption = 6000,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100_000, help=f"Boosting rounds at most; else {TRAINED_ROUNDS}.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=1, max=1000, help=f"Walk-forward folds; else {TRAINED_FOLDS}.")
    ] = None,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
    signals_asked: "ReadAs | None" = None,
    **terms: Any,
) -> None:
    "Rerun the line or a strategy, or trade given signals, on the bars with the signs of their returns tossed; print the p-value."
    given = locals() | terms
    from orbiquant.backtest.surrogates import audit_surrogates

    check_signals_bars(given)
    runtime = open_runtime()
    audited = load_audited(runtime, file, symbol, timeframe, last, asked)
    name, statistic, traded = choose_claim(runtime, audited, given)
    length, missing = parse_block(block), None if name == "amd_completion" else 0.0
    with progress_bar(as_json) as progress:
        if progress:
            progress(0, count, "the original")
        observed = measure_original(runtime, audited, statistic)
        found = audit_surrogates(statistic, audited.bars, count, seed, length, workers, missing, progress, observed)
    facts = {
        "bars": audited.series.symbol, "timeframe": audited.series.timeframe, "rows": len(audited.bars),
        "phase_detector": runtime.settings.signals.phase_detector, "surrogates": count,
        "block": block, "seed": seed, "claim": name, "p_value": float(found.table.loc[name, "p_value"]), "alpha": alpha,
    }  # fmt: skip
    facts |= {"why": found.silence(name, alpha)} | claim_facts(given, statistic, traded, found.verdict(name, alpha))
    finish(facts, {"claims": found.table.reset_index()}, as_json)


def check_signals_bars(
    given: Given,  # the options
) -> None:
    "Raise `typer.BadParameter` for signals without the file of bars they stand on, or parameters of no strategy."
    if given["signals"] and not given["file"]:
        raise typer.BadParameter("--signals needs the --bars it stands on")
    if given["param"] and not given["strategy"]:
        raise typer.BadParameter("--param needs the --strategy it is of")


@audit_commands.command("delays")
@reads_files(asked="--bars", signals_asked="--signals")
@takes(**GIVEN_TERMS)
def delays(
    file: BarsFile = None,
    signals: SignalsFile = None,
    symbol: SymbolOption = None,
    timeframe: FrameOption = None,
    strategy: StrategyOption = None,
    param: ParamOption = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="Bars of the longest delay.")] = 5,
    last: LastOption = None,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
    signals_asked: "ReadAs | None" = None,
    **terms: Any,
) -> None:
    "Trade given signals or a strategy's some bars later: an edge that dies by one bar's delay is suspect of look-ahead."
    given = locals() | terms
    from orbiquant.backtest.delays import delay_table, delay_verdict

    check_signals_bars(given)
    if not strategy and not (signals and file):
        raise typer.BadParameter("give --strategy NAME, or --signals FILE and the --bars FILE it stands on")
    runtime = open_runtime()
    audited = load_audited(runtime, file, symbol, timeframe, last, asked)
    if strategy:
        refuse_options(given, ("signals", "max_holding_bars", "risk_from"), "--strategy")
    traded = trade_by_name(runtime, audited, given)[0] if strategy else trade_given(runtime, audited, given)
    table = delay_table(traded.bars, traded.signals, traded.result, range(most + 1))
    verdict, why = delay_verdict(table)
    facts = {
        "bars": audited.series.symbol, "timeframe": audited.series.timeframe, "rows": len(audited.bars),
        "signals": strategy or (signals and signals.name), "costs": traded.result.costs if as_json else str(traded.result.costs),
        "why": why, "verdict": verdict,
    }  # fmt: skip
    finish(facts, {"delays": table.reset_index()}, as_json)
