"""`orbiquant agent replay`"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orbiquant.cli.agents import AGENTS_TOLD, agent_commands
from orbiquant.cli.console import (
    AsJson,
    Given,
    fields,
    open_runtime,
    parse_time,
    progress_bar,
    show,
    table,
    tell_seconds,
)
from orbiquant.cli.words import words_of, write_figure

if TYPE_CHECKING:
    from rich.console import Group

    from orbiquant.domain import SeriesId
    from orbiquant.research.replays import AgentReplay, ReplayedMarket
    from orbiquant.runtime import Runtime


REPLAY_FIGURES = (
    *("trades", "win_rate", "expectancy_r", "standard_error_r", "total_r", "profit_factor", "max_drawdown_r"),
    *("initial_equity", "final_equity", "total_return", "max_drawdown", "yearly_return", "sharpe", "exposure"),
    *("average_bars", "fees"),
)
MOST_REASONS = 12  # on a screen


def read_markets(
    words: list[str],  # SYMBOL TIMEFRAME SYMBOL TIMEFRAME …
) -> "list[SeriesId]":
    "Return the markets that were typed, each once."
    from orbiquant.domain import SeriesId

    if len(words) % 2:
        raise typer.BadParameter(f"must be pairs of SYMBOL TIMEFRAME, were {len(words)} words", param_hint="MARKETS")
    return list(dict.fromkeys(SeriesId.parse(*words[at : at + 2]) for at in range(0, len(words), 2)))


@agent_commands.command("replay")
def replay_command(
    markets: Annotated[list[str], typer.Argument(metavar="SYMBOL TIMEFRAME ...", help="Stored markets.")],
    agent: Annotated[
        list[str] | None,
        typer.Option(help="One of atlas, orion, nova; may be repeated; else all.", autocompletion=lambda: AGENTS_TOLD),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Trade this in place of the profile's; ml: the model's signals; may be repeated."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--from", parser=parse_time, metavar="TIME", help="First bar open, inclusive; UTC."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", parser=parse_time, metavar="TIME", help="Bars open before this; UTC.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write trades, equity, decisions and a chart into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    "Let agents trade stored bars with the engine that trades live: rules, and a model's out-of-fold signals."
    from orbiquant.core import stage_seconds
    from orbiquant.research.replays import replay_agents

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # before the work, and not after it
    series, runtime = read_markets(markets), open_runtime()
    with stage_seconds() as seconds, progress_bar(as_json) as progress:
        names = list(dict.fromkeys(agent or AGENTS_TOLD))
        made = replay_agents(runtime, series, names, since, until, progress, strategy)
    written = None if out is None else write_replay(made, out)
    facts = (
        replay_facts(made) | {"seconds": seconds} | ({"written": [str(path) for path in written]} if written else {})
    )
    show(facts, as_json, lambda: replay_view(runtime, made, facts))


def replay_facts(
    made: "AgentReplay",  # a replay
) -> Given:
    "Return everything that a replay came to, for a script."
    from orbiquant.wire import without_gaps

    table_of = made.table()
    return {
        "currency": made.currency,
        "markets": [market.facts for market in made.markets],
        "steps": made.result.steps,
        "figures": {name: without_gaps(table_of[name].to_dict()) for name in table_of},
        "decisions": made.reasons.to_dict("records"),
        "by_strategy": made.by_strategy().reset_index().to_dict("records"),
    }


def replay_view(
    runtime: "Runtime",  # whose limits the targets are told with
    made: "AgentReplay",  # a replay
    facts: Given,  # as `replay_facts` has them
) -> "Group":
    "Return a replay's tearsheet for a screen: data and costs first, then figures, months and reasons."
    from rich.console import Group

    data = made.markets
    heads = {
        "markets": [f"{m.series}: {len(m.bars):,} bars {m.bars.index[0]:%Y-%m-%d} to {m.bars.index[-1]:%Y-%m-%d}" for m in data],
        "signals": [signals_told(m) for m in data],
        "costs": [f"{m.series.symbol}: {m.costs}" for m in data],
        "limits": [f"{name}: {p.risk_per_trade:.2%} a trade, {p.max_drawdown:.0%} drawdown, {p.policy}" for name, p in made.profiles.items()],
        "steps": made.result.steps,
        "ended": list(made.ends) or None,
        "took": tell_seconds(facts["seconds"]),
        "written": facts.get("written"),
    }  # fmt: skip
    figures = made.table()
    rows = [(words_of(name), *(write(name, value) for value in figures.loc[name])) for name in REPLAY_FIGURES]
    months = [
        (name, month, f"{row['return']:.2%}", f"{row.target_from:.0%} to {row.target_to:.0%}", row.reached)
        for name in made.profiles
        for month, row in made.targets(runtime, name).tail(12).iterrows()
    ]
    ways = [
        (who, f"{row.total_trades:.0f}", f"{row.win_rate:.0%}", f"{row.total_r:+.2f}", f"{row.net_profit:+,.2f}")
        for who, row in made.by_strategy().iterrows()
    ]
    why = [tuple(row) for row in made.reasons.head(MOST_REASONS).itertuples(index=False)]
    return Group(
        fields(heads),
        table(rows, "figure", *(f">{name}" for name in figures)),
        table(ways, "agent, strategy", ">trades", ">win rate", ">total R", ">net profit"),
        table(months, "agent", "month", ">return", ">target", "reached"),
        table(why, "agent", "answer", "reason", ">signals"),
    )


def signals_told(
    market: "ReplayedMarket",  # of a replay
) -> str:
    "Return where the signals of a market come from."
    from orbiquant.strategies.config import ML

    rules = [mark for name, mark in market.versions.items() if name != ML]
    told = [f"out of fold, model {market.versions[ML]}, seed {market.seed}"] if ML in market.versions else []
    told += [f"rules {', '.join(rules)}"] if rules else []
    return f"{market.series}: {'; '.join(told)}; data version {market.data_version}"


def write(
    name: str,  # of a figure
    value: float,  # its value
) -> str:
    "Return a figure in its form."
    return str(write_figure(name, float(value)))


def write_replay(
    made: "AgentReplay",  # a replay
    folder: Path,  # made where it is missing
) -> list[Path]:
    "Write a replay's tables as CSV and its equity as a page, and return the files."
    from orbiquant.core import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "trades.csv": made.trades, "equity.csv": made.result.equity.rename_axis("time").reset_index(),
        "decisions.csv": made.reasons, "figures.csv": made.table().rename_axis("figure").reset_index(),
    }  # fmt: skip
    files = [atomic_write(folder / name, each.to_csv(index=False)) for name, each in tables.items()]
    return [*files, atomic_write(folder / "equity.html", made.plot().to_html(include_plotlyjs=True))]
