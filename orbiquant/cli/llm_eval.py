"""`orbiquant llm eval`"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orbiquant.cli.console import AsJson, open_runtime, show, table
from orbiquant.cli.llm import llm_commands

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from rich.table import Table

    from orbiquant.copilot.evaluate import EvalGroup, EvalReport

CasesOption = Annotated[
    Path,
    typer.Option("--cases", metavar="FILE", help="JSON lines: id, lang, text, tool, args."),
]
ProviderOption = Annotated[
    Literal["auto", "router", "local", "openai", "anthropic"], typer.Option(help="Who is asked; else the settings'.")
]


def _model_of(provider: str) -> "Model":
    if provider == "router":
        from orbiquant.llm.router import Router
        from orbiquant.llm.router_model import router_model
        from orbiquant.llm.vocabulary import vocabulary_of
        from orbiquant.market.instruments import known_instruments

        return router_model(Router(vocabulary=vocabulary_of(known_instruments(None).values())))
    runtime = open_runtime()
    if provider in ("auto", runtime.settings.llm.provider):
        return runtime.chat_model
    raise typer.BadParameter(
        f"set [llm] provider = {provider} (ORBIQUANT_LLM__PROVIDER), then ask with --provider auto"
    )


def _figures(name: str, group: "EvalGroup") -> tuple[str, ...]:
    share = lambda value: "" if value is None else f"{100 * value:.1f}"  # noqa: E731
    low, high = group.interval
    bounds = f"{100 * low:.1f}–{100 * high:.1f}"
    figures = (group.tool_accuracy, group.argument_accuracy, group.coverage, group.accuracy_of_answered)
    tool, arguments, coverage, answered = map(share, figures)
    return name, str(group.questions), tool, bounds, arguments, coverage, answered


def _told(report: "EvalReport") -> "Table":
    groups = {"all": report.overall, **report.languages, **report.tools}
    heads = ("", "questions", "tool %", "90 % interval", "arguments %", "coverage %", "of answered %")
    return table((_figures(*each) for each in groups.items()), *heads)


@llm_commands.command("eval")
def evaluate_command(cases: CasesOption, provider: ProviderOption = "auto", as_json: AsJson = False) -> None:
    "Count how often a model chooses the right tool and arguments; nothing is executed. Exit 1 for an unconfirmed trade."
    from orbiquant.copilot.evaluate import evaluate_model, read_cases, tool_names
    from orbiquant.copilot.tools import find_tools

    tools = find_tools()
    asked = read_cases(cases, tool_names(tools))
    report = asyncio.run(evaluate_model(_model_of(provider), asked, tools))
    show(report, as_json, lambda: _told(report))
    if report.unconfirmed_trades:
        raise typer.Exit(1)
