"""Strategies by name at the command line: their parameters, and the options of a walk-forward."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import Given, costs_told
from orbiquant.cli.reading import Audited

if TYPE_CHECKING:
    from orbiquant.backtest.strategy_sweep import Setting
    from orbiquant.backtest.walk_forward import ForwardPlan
    from orbiquant.research.walk_forward import StrategyAsked
    from orbiquant.runtime import Runtime
    from orbiquant.strategies.contract import Strategy


StrategyOption = Annotated[
    str | None, typer.Option("--strategy", help="A strategy by name, with parameters as they are.")
]
ParamList = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUES", help="Of --strategy: a,b,c or FROM:TO:STEP; may be repeated."),
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Of --strategy; may be repeated.")
]
SPAN = "as 90d for days, 2000 for bars"
FORWARD: dict[str, Any] = {  # how a walk-forward goes on, beside `--walk-forward`
    "stretch": Annotated[str | None, typer.Option(help=f"Traded before the next choice, {SPAN}; else 90d.")],
    "window": Annotated[str | None, typer.Option(help=f"Of the past chosen on, {SPAN}; else all of it.")],
    "first": Annotated[
        str | None, typer.Option(help=f"Of the past before the first choice, {SPAN}; else window or four stretches.")
    ],
    "by": Annotated[
        Literal["t_statistic", "sharpe_per_trade", "expectancy_r", "total_r", "profit_factor"] | None,
        typer.Option(help="Chosen by this figure of the past; else t_statistic."),
    ],
    "min_trades": Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Of a combination in the past to be chosen; else 30.")
    ],
}


def parse_params(
    given: list[str] | None,  # NAME=VALUES
) -> "dict[str, tuple[Setting, ...]]":
    "Return the values of each parameter; raise `typer.BadParameter` for what names none."
    from orbiquant.backtest.strategy_sweep import parse_settings
    from orbiquant.core import DataError

    found: dict[str, tuple[Setting, ...]] = {}
    for text in given or []:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not (equals and name and values.strip()) or name in found:
            told = "twice" if name in found else repr(text)
            raise typer.BadParameter(f"--param must be NAME=VALUES such as length=10,20,40, once a name, was {told}")
        try:
            found[name] = parse_settings(values)
        except DataError as error:
            raise typer.BadParameter(f"--param {name}: {error.message}") from error
    return found


def one_each(
    given: list[str] | None,  # NAME=VALUE
) -> "dict[str, Setting]":
    "Return one value of each parameter; raise `typer.BadParameter` for several."
    found = parse_params(given)
    for name, values in found.items():
        if len(values) > 1:
            raise typer.BadParameter(f"--param {name} must be one value here, was {len(values)}: `sweep` tries several")
    return {name: values[0] for name, values in found.items()}


def ask_strategy(
    runtime: "Runtime",  # settings and strategies
    audited: Audited,  # the bars
    given: Given,  # `strategy` and `COST_OPTIONS`
) -> "StrategyAsked":
    "Return a strategy with the bars it is tried on and what a side costs there."
    from orbiquant.research.walk_forward import StrategyAsked

    costs = costs_told(runtime.settings.costs.of(audited.instrument.asset_class), given)
    name = given["strategy"]
    runtime.strategies.kind(name)  # which says the nearest when there is none
    make = partial(runtime.strategies.signals, name)
    return StrategyAsked(make, audited.bars, costs, audited.series, audited.data_version, name)


def one_strategy(
    runtime: "Runtime",  # settings and strategies
    audited: Audited,  # the bars
    given: Given,  # `strategy`, `param` and `COST_OPTIONS`
) -> "tuple[StrategyAsked, Strategy]":
    "Return a strategy with the parameters that options name, and what it is tried on."
    asked = ask_strategy(runtime, audited, given)
    return asked, asked.make(**one_each(given["param"]))


def parse_forward(
    given: Given,  # `walk_forward` and `FORWARD`
) -> "ForwardPlan | None":
    "Return how a walk-forward goes on, None where none is asked for; raise `typer.BadParameter` for what cannot be."
    from pydantic import ValidationError

    told = {name: given[name] for name in FORWARD if given[name] is not None}
    if not given["walk_forward"]:
        for name in told:
            raise typer.BadParameter(f"--{name.replace('_', '-')} goes with --walk-forward")
        return None
    from orbiquant.backtest.walk_forward import ForwardPlan

    try:
        return ForwardPlan(**told)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise typer.BadParameter(f"--{name.replace('_', '-')} must be {SPAN}, was {told[name]!r}") from error
