"""`orbiquant audit prefix-replay | null-market | trials`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import (
    COST_OPTIONS,
    MOST_BARS,
    MOST_MADE,
    AsJson,
    FrameOption,
    LastOption,
    SymbolOption,
    fields,
    open_runtime,
    progress_bar,
    show,
    table,
)
from orbiquant.cli.reading import Audited, reads_files
from orbiquant.cli.strategies import ParamOption, StrategyOption, one_strategy
from orbiquant.cli.words import words_of, write_figure

if TYPE_CHECKING:
    import pandas as pd

    from orbiquant.backtest.surrogates import Statistic
    from orbiquant.domain import Bars, Costs
    from orbiquant.line import Line
    from orbiquant.market.files import ReadAs
    from orbiquant.runtime import Runtime
    from orbiquant.strategies.contract import Strategy


audit_commands = typer.Typer(
    help="Ask whether the line knows its future, earns where nothing is, or was only tried often.", no_args_is_help=True
)
BarsFile = Annotated[Path | None, typer.Option("--bars", help="File of bars, Parquet or CSV; else the store's.")]
Rounds = Annotated[int, typer.Option(min=1, max=100_000, help="Boosting rounds (trees) at most.")]
Folds = Annotated[int, typer.Option(min=1, max=1000, help="Walk-forward folds.")]


def load_audited(
    runtime: "Runtime",  # has the store
    file: Path | None,  # None: from the store
    symbol: str | None,  # any spelling
    timeframe: str | None,  # e.g. "5m"
    last: int | None,  # None: all
    asked: "ReadAs | None" = None,  # what is said of the file
) -> Audited:
    "Return the bars to audit; raise `typer.BadParameter` when neither a file nor a series is named."
    from orbiquant.domain import SeriesId
    from orbiquant.market.instruments import instrument_of
    from orbiquant.research.files import bars_of_file, file_version

    if file is not None:
        bars, series, instrument, _ = bars_of_file(file, symbol, timeframe, asked)
        version = file_version(bars)
    elif symbol and timeframe:
        series = SeriesId.parse(symbol, timeframe)
        newest = runtime.store.version()
        bars, version = runtime.store.read(series, version=newest), str(newest)
        instrument = instrument_of(series.symbol, bars.index).instrument
    else:
        raise typer.BadParameter("give --bars FILE, or --symbol and --timeframe of stored bars")
    return Audited(bars.iloc[-last:] if last else bars, series, instrument, version)


def make_line(
    runtime: "Runtime",  # has the settings
    audited: Audited,  # series and calendar
    **training: float | None,  # what the settings' training is overridden with; None keeps the setting
) -> "Line":
    "Return the line that the runtime serves, as the settings describe it."
    from orbiquant.research.spec import ResearchSpec, line_spec

    spec = ResearchSpec.from_settings(runtime.settings, audited.series, audited.instrument, **training)
    return runtime.line(line_spec(runtime.settings, spec, audited.instrument.calendar))


def finish(
    facts: dict[str, Any],  # shown first, `verdict` among them
    details: "dict[str, pd.DataFrame]",  # name → table, in JSON under that name
    as_json: bool,  # for scripts
    rows: int | None = None,  # printed for people of each table; None: all
) -> None:
    "Print an audit's result and exit with 1 when it failed."
    from rich.console import Group

    def view() -> Group:
        filled = [frame.head(rows) if rows else frame for frame in details.values() if len(frame)]
        heads = [[f">{name}" if frame[name].dtype.kind in "if" else name for name in frame] for frame in filled]
        return Group(fields(facts), *(table(f.itertuples(index=False), *h) for f, h in zip(filled, heads, strict=True)))

    show(facts | {name: frame.to_dict("records") for name, frame in details.items()}, as_json, view)
    if facts["verdict"] == "fail":
        raise typer.Exit(1)


VIOLATIONS_SHOWN = 20  # violations printed for people; JSON has all


@audit_commands.command("prefix-replay")
@reads_files(asked="--bars")
def prefix_replay(
    file: BarsFile = None,
    symbol: SymbolOption = None,
    timeframe: FrameOption = None,
    cuts: Annotated[int, typer.Option(min=1, max=10_000, help="How often the history is cut short.")] = 5,
    last: LastOption = 8000,
    strategy: StrategyOption = None,
    param: ParamOption = None,
    rounds: Rounds = 20,
    warmup: Annotated[bool, typer.Option(help="Also ask whether values depend on bars before the warm-up.")] = True,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
) -> None:
    "Recompute features, phases, levels, predictions and signals on histories cut short, and bar by bar; report what changes."
    import pandas as pd

    from orbiquant.backtest.audit import fit_before, replay_prefixes, replay_stream, replay_warmup, spread_cuts

    runtime = open_runtime()
    audited = load_audited(runtime, file, symbol, timeframe, last, asked)
    if named := named_strategy(runtime, audited, strategy, param):
        finish_replay(audited, named, cuts, as_json)
        return
    line = make_line(runtime, audited, rounds=rounds, folds=1)
    check_replay(len(audited.bars), line.warmup + 1, cuts)
    places = spread_cuts(len(audited.bars), cuts)
    models = fit_before(line, audited.bars, places)
    found = replay_prefixes(line, audited.bars, places, models=models)
    warm = replay_warmup(line, audited.bars, places, models=models) if warmup else None
    remembered = warm.violations if warm else pd.DataFrame()
    inside = [cut for cut in places if cut > line.warmup] if line.streams else []
    streamed = replay_stream(line, audited.bars, inside, models) if inside else pd.DataFrame()
    facts = {
        "bars": audited.series.symbol, "timeframe": audited.series.timeframe, "rows": found.rows,
        "columns": found.columns, "phase_detector": runtime.settings.signals.phase_detector,
        "cuts": list(found.cuts), "changed": len(found.violations),
        "warmup_history": list(warm.history) if warm else [], "warmup_changed": len(remembered),
        "streamed_cuts": inside, "streamed_changed": len(streamed),
        "verdict": "pass" if found.passed and remembered.empty and streamed.empty else "fail",
    }  # fmt: skip
    details = {"violations": found.violations, "warmup_violations": remembered, "stream_violations": streamed}
    finish(facts, details, as_json, VIOLATIONS_SHOWN)


def named_strategy(
    runtime: "Runtime",  # knows the workspace's own
    audited: Audited,  # the bars
    name: str | None,  # of a strategy; None: the line is audited
    param: list[str] | None,  # NAME=VALUE
) -> "Strategy | None":
    "Return the strategy that options name, None where they name none."
    if name is None:
        if param:
            raise typer.BadParameter("--param needs the --strategy it is of")
        return None
    given = dict.fromkeys(COST_OPTIONS) | {"strategy": name, "param": param}
    return one_strategy(runtime, audited, given)[1]


def finish_replay(
    audited: Audited,  # the bars
    strategy: "Strategy",  # what is audited
    cuts: int,  # wanted, over the second half
    as_json: bool,  # for scripts
) -> None:
    "Audit a strategy for look-ahead and for a step that says otherwise than its batch; name it when it fails."
    from orbiquant.backtest.audit import spread_cuts
    from orbiquant.backtest.strategy_audit import replay_strategy

    check_replay(len(audited.bars), strategy.warmup_bars + 1, cuts)
    found = replay_strategy(strategy, audited.bars, spread_cuts(len(audited.bars), cuts))
    facts = {
        "bars": audited.series.symbol, "timeframe": audited.series.timeframe, "rows": found.rows,
        "strategy": found.strategy, "columns": found.columns, "cuts": list(found.cuts),
        "changed": len(found.violations), "streamed_changed": len(found.stepped), "why": found.told,
        "verdict": "pass" if found.passed else "fail",
    }  # fmt: skip
    finish(facts, {"violations": found.violations, "stream_violations": found.stepped}, as_json, VIOLATIONS_SHOWN)


def check_replay(
    rows: int,  # bars there are
    needed: int,  # before the first cut
    cuts: int,  # wanted, over the second half
) -> None:
    "Raise `DataError` when there are too few bars for features before the first cut, or for so many cuts."
    from orbiquant.backtest.audit import spread_cuts
    from orbiquant.core import DataError

    if rows <= needed:
        raise DataError(f"{rows} bars are too few to be cut short: features need {needed} before the first cut")
    if cuts > rows // 2 - 1:
        raise typer.BadParameter(f"`--cuts` must be 1 to {max(rows // 2 - 1, 1)} for {rows} bars, was {cuts}")
    if (first := spread_cuts(rows, cuts)[0]) < needed:
        raise DataError(
            f"{rows} bars are too few to be cut short {cuts} times: the first cut leaves {first}, features need {needed}; "
            "more bars, or fewer --cuts"
        )


@audit_commands.command("null-market")
@reads_files(asked="--bars")
def null_market(
    file: BarsFile = None,
    symbol: SymbolOption = None,
    timeframe: FrameOption = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many walk-forward markets.")] = 3,
    rows: Annotated[int, typer.Option(min=1, max=MOST_MADE, help="Bars of each market.")] = 20_000,
    markets: Annotated[int, typer.Option(min=0, max=200, help="Fresh markets a seed at most; 0 is quick.")] = 200,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Confidence floor during the audit.")] = 0.0,
    stop_atr: Annotated[float, typer.Option(min=0.01, max=1000, help="Stop in average true ranges (ATR).")] = 1.0,
    risk_reward: Annotated[float, typer.Option(min=0.01, max=1000, help="Target over stop.")] = 1.0,
    strategy: StrategyOption = None,
    param: ParamOption = None,
    rounds: Rounds = 20,
    folds: Folds = 3,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
) -> None:
    "Trade the whole line or a strategy, without costs, on driftless markets like the bars: nothing may be earned or lost there."
    from orbiquant.backtest.null_market import LEAST_TRADES, audit_null_market, market_like, null_bars
    from orbiquant.backtest.strategy_audit import audit_strategy_null
    from orbiquant.market.bars import with_series

    runtime = open_runtime()
    audited = load_audited(runtime, file, symbol, timeframe, None, asked)
    config = market_like(audited.bars, audited.series.timeframe, audited.instrument.calendar)
    facts: dict[str, Any] = {
        "bars": audited.series.symbol, "timeframe": audited.series.timeframe, "rows": rows, "seeds": seeds,
        "phase_detector": runtime.settings.signals.phase_detector,
    }  # fmt: skip

    def market(seed: int) -> "Bars":
        return with_series(null_bars(rows, audited.series.timeframe, seed, config), audited.series)

    with progress_bar(as_json) as progress:
        if named := named_strategy(runtime, audited, strategy, param):
            exits, facts = runtime.settings.backtest.exits, facts | {"strategy": named.name}
            found = audit_strategy_null(named, market, range(1, seeds + 1), exits, progress=progress, most=markets)
        else:
            line = make_line(runtime, audited, rounds=rounds, folds=folds, stop_atr=stop_atr, risk_reward=risk_reward)
            facts |= {"min_confidence": min_confidence, "stop_atr": stop_atr, "risk_reward": risk_reward}
            found = audit_null_market(
                line, market, range(1, seeds + 1), min_confidence, progress=progress, most=markets
            )
    facts["verdict"] = found.verdict
    if found.verdict == "no verdict":
        facts["why"] = f"policies with fewer than {LEAST_TRADES} trades on a seed: more --markets or --rows make more"
    finish(facts, {"policies": found.verdicts, "markets": found.trades}, as_json)


def make_claim(
    runtime: "Runtime",  # has the settings
    audited: Audited,  # whose costs, features and phases
    claim: str,  # a policy, "primary", or "amd"
    figure: str,  # of a policy's trades
    training: dict[str, int],  # overrides the settings'
    costs: "Costs | None" = None,  # that a policy's trades pay; None: the settings'
) -> "tuple[str, Statistic]":
    "Return the name of a claim's value and the claim."
    from orbiquant.backtest.surrogates import AmdCompletion, LineEdge
    from orbiquant.core import choose
    from orbiquant.policies import POLICY_NAMES

    wanted, line = choose("claim", claim, ["amd", *POLICY_NAMES]), make_line(runtime, audited, **training)
    if wanted == "amd":
        return "amd_completion", AmdCompletion(line.spec.features.phases, line.detect)
    paid = costs or runtime.settings.costs.of(audited.instrument.asset_class)
    edge = LineEdge(line, paid, figure=figure, min_confidence=runtime.settings.signals.min_confidence)
    return claim, edge


@audit_commands.command("trials")
@reads_files(asked="--bars")
def list_trials(
    file: BarsFile = None,
    symbol: SymbolOption = None,
    timeframe: FrameOption = None,
    last: Annotated[int, typer.Option(min=1, max=MOST_BARS, help="Newest trials printed; JSON has all.")] = 20,
    as_json: AsJson = False,
    asked: "ReadAs | None" = None,
) -> None:
    "Show every backtest that was looked at, and what their number leaves of the best of them."
    import pandas as pd

    from orbiquant.domain import SeriesId, Timeframe, normalise_symbol
    from orbiquant.research.verdict import DEFLATED

    runtime, series, version = open_runtime(), SeriesId.parse(symbol, timeframe) if symbol and timeframe else None, None
    if file is not None:
        _, series, _, version = load_audited(runtime, file, symbol, timeframe, None, asked)
    kept = runtime.trials.table(series, version).drop(columns=["id", "key"])
    name = series.symbol if series else normalise_symbol(symbol) if symbol else None
    frame = series.timeframe if series else Timeframe.parse(timeframe) if timeframe else None
    if series is None:  # one of the two was named, or neither
        wanted = {column: value for column, value in (("symbol", name), ("timeframe", frame)) if value}
        kept = kept[(kept[list(wanted)] == pd.Series(wanted)).all(axis=1)]
    best = runtime.trials.best(series, version) if series else None
    deflated = best.deflated_sharpe if best else None
    verdict = "no verdict" if deflated is None else "pass" if deflated >= DEFLATED else "fail"
    facts = {"symbol": name, "timeframe": frame, "trials": len(kept), "best": best, "verdict": verdict}
    printed = (
        facts
        | {"best": None}
        | (
            {f"best trial: {words_of(name)}": write_figure(name, value) for name, value in best.model_dump().items()}
            if best
            else {}
        )
    )
    columns = ["recorded_at", "kind", "symbol", "timeframe", "policy", "trades", "mean_r", "sharpe"]
    finish(
        facts if as_json else printed,
        {"ledger": kept if as_json else kept[columns].tail(last).rename(columns={"sharpe": "sharpe_per_trade"})},
        as_json,
    )
