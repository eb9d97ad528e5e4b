"""`orbiquant train`, `orbiquant models list | show | promote | drift`"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import (
    TIMEFRAMES,
    AsJson,
    FoldsOption,
    LastOption,
    ModelOption,
    RoundsOption,
    SeedOption,
    Symbol,
    TimeframeName,
    fields,
    open_runtime,
    parse_time,
    progress_bar,
    show,
    table,
    tell_seconds,
)
from orbiquant.cli.words import words_of, write_figure, write_number

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from orbiquant.models.registry import History


model_commands = typer.Typer(help="Look at trained models, and say which one answers.", no_args_is_help=True)


def frame_table(
    frame: "pd.DataFrame",  # any
) -> "Table":
    "Return a data frame as a table, its numbers aligned right and to three decimals."
    heads = [f">{name}" if frame[name].dtype.kind in "fiu" else str(name) for name in frame.columns]
    told = {name: [write_number(v, ".3f") for v in frame[name]] for name in frame if frame[name].dtype.kind == "f"}
    rows = frame.assign(**told).itertuples(index=False)
    return table(([v.replace("_", " ") if isinstance(v, str) else v for v in row] for row in rows), *heads)


def train_command(
    symbol: Annotated[str, typer.Option(help="In any spelling: BTCUSDT, btc/usdt.")],
    timeframe: Annotated[
        str, typer.Option(help=f"One of {', '.join(TIMEFRAMES)}, of stored bars.", autocompletion=lambda: TIMEFRAMES)
    ],
    last: LastOption = None,
    test_from: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Test only from then on; UTC.")
    ] = None,
    folds: FoldsOption = None,
    rounds: RoundsOption = None,
    seed: SeedOption = None,
    attention: Annotated[
        Literal["off", "gated"] | None, typer.Option(help="The sequence model: off, or gated by earlier folds.")
    ] = None,
    meta: Annotated[
        Literal["off", "nested"] | None, typer.Option(help="The confidence in the signal: off, or nested in each fold.")
    ] = None,
    tune: Annotated[int | None, typer.Option(min=0, max=10_000, help="Tree settings tried inside each fold.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler's address, or local; else the settings'.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Forget what a killed run had finished.")] = False,
    as_json: AsJson = False,
) -> None:
    "Train every model walk-forward on stored bars and keep it with its out-of-fold predictions."
    from rich.console import Group

    from orbiquant.core import stage_seconds
    from orbiquant.domain import SeriesId
    from orbiquant.research.spec import ResearchSpec
    from orbiquant.research.train import prepare, train

    runtime, series = open_runtime(), SeriesId.parse(symbol, timeframe)
    changes: dict[str, Any] = {
        "train_rows": last, "test_from": test_from, "folds": folds, "rounds": rounds, "seed": seed, "tune_trials": tune,
        "attention": attention, "meta": meta,
    }  # fmt: skip
    spec = ResearchSpec.from_settings(runtime.settings, series, **changes)
    with stage_seconds() as seconds, progress_bar(as_json) as progress:
        stored = train(runtime, prepare(runtime, spec), spec, progress, fresh, scheduler)
    card, served = stored.card, runtime.registry.served(series)
    facts = {"model": card.version, "bars": card.rows, "folds": len(stored.folds), "notes": "; ".join(card.notes)}
    if card.traded is not None:
        facts["traded, out of fold"] = str(card.traded)
    if served != card.version:
        facts["served"] = f"{served}, until `orbiquant models promote {series} {card.version}`"
    show(
        {
            "version": card.version, "card": card, "served": served, "seconds": seconds,
            "skill": stored.skill.to_dict("records"), "folds": stored.folds.to_dict("records"),
        },
        as_json,
        lambda: Group(fields(facts | {"took": tell_seconds(seconds)}), frame_table(stored.skill)),
    )  # fmt: skip


@model_commands.command("list")
def list_models(as_json: AsJson = False) -> None:
    "List every version of every model, newest first."
    registry = open_runtime().registry
    cards = registry.list()
    served = {series: registry.served(series) for series in {card.series for card in cards}}
    states = ["served" if served[card.series] == card.version else "" for card in cards]
    rows = [
        (f"{c.symbol} {c.timeframe}", c.version, state, c.created, c.rows)
        for c, state in zip(cards, states, strict=True)
    ]
    heads = ("series", "version", "", "trained", ">bars")
    empty = "No models yet. Train one: orbiquant train --symbol EURUSD --timeframe 1h"
    found = [card.model_dump(mode="json") | {"served": bool(state)} for card, state in zip(cards, states, strict=True)]
    show(found, as_json, lambda: table(rows, *heads) if rows else empty)


@model_commands.command("show")
def show_model(symbol: Symbol, timeframe: TimeframeName, version: ModelOption = None, as_json: AsJson = False) -> None:
    "Print a model's card, its out-of-sample skill against the baselines, and whether its figures can be trusted."
    from rich.console import Group

    from orbiquant.domain import SeriesId

    registry, series = open_runtime().registry, SeriesId.parse(symbol, timeframe)
    stored = registry.load(series, version)
    card, said = stored.card, stored.reliability
    history = registry.promotions(series)
    facts = card.model_dump(
        exclude={"features", "feature_spec", "training", "params", "metrics", "notes", "traded"}
    ) | {
        "features": len(card.features),
        "models": ", ".join(stored.bundle.models),
        "served": "yes" if registry.served(series) == card.version else "no",
        "notes": "; ".join(card.notes),
        "traded, out of fold": "not kept" if card.traded is None else str(card.traded),
    }
    overall = said[said["regime"] == "all"].drop(columns="regime") if "regime" in said else said
    overall = overall.rename(columns={"predicted": "said", "observed": "came"})  # as the card says it
    parts = {"gate": stored.gate, "reliability": overall}
    show(
        {
            "card": card, "served": facts["served"] == "yes", "promotions": history,
            "skill": stored.skill.to_dict("records"), "gate": stored.gate.to_dict("records"),
            "reliability": said.to_dict("records"),
        },
        as_json,
        lambda: Group(
            fields({label.replace("_", " "): value for label, value in facts.items()}),
            table(
                [(words_of(name), write_figure(name, value)) for name, value in card.metrics.items()],
                "figure of `primary`, which is never served", ">out of sample",
            ),
            frame_table(stored.skill),
            *(frame_table(part) for part in parts.values() if len(part)),
        ),
    )  # fmt: skip


def behind(
    history: "History",  # promotions, oldest first
    now: datetime,  # by the clock
) -> datetime:
    "Return a moment behind the last promotion: a clock that was set back must not leave the older one in force."
    return max([now, *(last.time + timedelta(microseconds=1) for last in history[-1:])])


@model_commands.command("promote")
def promote_model(
    symbol: Symbol,
    timeframe: TimeframeName,
    version: Annotated[str, typer.Argument(help="As `models list` shows it.")],
    force: Annotated[bool, typer.Option("--force", help="Even when it was worse than a baseline.")] = False,
    as_json: AsJson = False,
) -> None:
    "Serve a version from now on, whatever is trained after it."
    from orbiquant.domain import SeriesId

    runtime = open_runtime()
    series = SeriesId.parse(symbol, timeframe)
    time = behind(runtime.registry.promotions(series), runtime.clock.now())
    promotion = runtime.registry.promote(series, version, time, force)
    facts = {"served": promotion.version, "since": promotion.time, "against": "; ".join(promotion.against)}
    show(promotion, as_json, lambda: fields(facts))


@model_commands.command("drift")
def show_drift(symbol: Symbol, timeframe: TimeframeName, version: ModelOption = None, as_json: AsJson = False) -> None:
    "Say how far the bars since a model's training are from what it was trained on."
    from rich.console import Group

    from orbiquant.domain import SeriesId
    from orbiquant.models.drift import worst_lines
    from orbiquant.research.drift import model_drift

    report = model_drift(open_runtime(), SeriesId.parse(symbol, timeframe), version)
    facts = {"verdict": report.verdict, "newer bars": report.bars} | report.counts
    show(
        {
            "verdict": report.verdict,
            "bars": report.bars,
            "counts": report.counts,
            "lines": report.table.to_dict("records"),
        },
        as_json,
        lambda: Group(fields(facts), frame_table(worst_lines(report))) if len(report.table) else fields(facts),
    )
