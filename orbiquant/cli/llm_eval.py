"""`orbiquant llm eval | tools`"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cards import DASH
from orbiquant.cli.console import AsJson, open_runtime, progress_bar, show, table
from orbiquant.cli.llm import llm_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orbiquant.copilot.eval_cases import EvalCase
    from orbiquant.copilot.eval_report import EvalGroup, EvalReport, EvalShare

CasesOption = Annotated[
    str | None,
    typer.Option("--cases", metavar="FILE", help="JSON lines, as below; else the product's own questions."),
]
ProviderOption = Annotated[
    Literal["auto", "router", "local", "openai", "anthropic"], typer.Option(help="Who is asked; else the settings'.")
]
KindOption = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be repeated.")]
LanguageOption = Annotated[list[str] | None, typer.Option("--language", help="Only this language; may be repeated.")]
FailuresOption = Annotated[int, typer.Option(min=0, max=100_000, help="So many failures, told one by one.")]
MostOption = Annotated[int | None, typer.Option(min=1, max=100_000, help="So many questions, evenly out of all.")]
SkipOption = Annotated[bool, typer.Option("--skip-broken", help="Leave broken lines out, and say which.")]

_HELP = """Count how often a model chooses the right tool and arguments, asks, refuses and invents; nothing is executed.
Exit 1 for an unconfirmed trade.

A file of questions has one JSON object a line, with `id`, `lang` (en, es, …) and `text`; `tool` and `args` are what it asks for,
tool none: nothing (`orbiquant llm tools` lists them). `kind` says what else is judged, each with its own fields:

choice (left out: this). `incomplete`: true where an argument that the tool demands is not named; then it may ask.

parallel: `calls`, a list of \\[tool, args] in place of tool and args; all of them, and no other.

ambiguous: tool ask, and `choices`, the tools that it may mean.

follow: `before`, a list of what the user said earlier; `incomplete` as above.

refusal: `rule`, what it goes against, and `never`, a list of tools that must not be called.

injection: `never`. provenance: no number out of nowhere. These two and refusal take `before`, too."""
_CHOICE = ("tool", "arguments", "coverage", "answered")
_CHECKS = {
    "parallel": "several calls, all and no others", "irrelevance": "nothing called where nothing is wanted",
    "clarification": "asked where something is missing", "offered": "named the tools that may be meant",
    "refusal": "refused", "injection": "did not obey a text", "provenance": "no invented number",
    "not_refused": "did not refuse in vain", "harmless": "no unwanted tool that acts",
}  # fmt: skip


def _share(share: "EvalShare | None") -> str:
    return DASH if share is None else f"{100 * share.share:.1f} (≥ {100 * share.low:.1f})"


def _choices(report: "EvalReport") -> "RenderableType":
    groups: dict[str, EvalGroup] = {"all": report.overall, **report.languages, **report.kinds, **report.tools}
    rows = [
        (name, str(group.questions), *(_share(getattr(group, each)) for each in _CHOICE))
        for name, group in groups.items()
        if group.tool
    ]
    return table(rows, "", ">questions", ">tool %", ">arguments %", ">coverage %", ">of answered %")


def _checks(report: "EvalReport") -> "RenderableType":
    groups = {"all": report.overall, **report.languages}
    rows: list[tuple[str, ...]] = [
        (words, str(whole.of), *(_share(getattr(group, name)) for group in groups.values()))
        for name, words in _CHECKS.items()
        if (whole := getattr(report.overall, name))
    ]
    for rule, group in report.rules.items():
        own = (report.rules_by_language.get(language, {}).get(rule) for language in report.languages)
        shares = (_share(each.refusal if each else None) for each in own)
        rows.append((f"refused: {rule}", str(group.questions), _share(group.refusal), *shares))
    return table(rows, "%", ">questions", *(f">{name}" for name in groups))


def _faults(report: "EvalReport") -> "Iterator[RenderableType]":
    if report.confusions:
        rows = [(each.wanted, each.called, str(each.count)) for each in report.confusions[:10]]
        yield table(rows, "wanted", "called", ">times")
    faulty = [each for each in report.arguments if each.missing + each.wrong + each.invented]
    if faulty:
        counted = [
            (each.tool, each.name, _share(each.right), str(each.missing), str(each.wrong), str(each.invented))
            for each in faulty[:10]
        ]
        yield table(counted, "tool", "argument", ">right %", ">missing", ">wrong", ">invented")


def _seconds(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f} s" if value < 1 else f"{value:.1f} s"


def _told(report: "EvalReport", failures: int) -> "RenderableType":
    from rich.console import Group

    times = report.times
    rate = "not known" if times.tokens_per_second is None else f"{times.tokens_per_second:.1f}"
    lines = [
        f"{report.provider}, questions {report.cases}. Beside each share the lower end of its 90 % interval (Wilson).",
        f"The model being loaded, first word or call: {_seconds(times.first_median_s)}, 95 of 100 below {_seconds(times.first_slow_s)}; whole "
        f"answer {_seconds(times.median_s)}; tokens a second: {rate}.",
    ]
    lines += [f"Failed to answer: {report.errors}."] * bool(report.errors)
    lines += [f"Orders that nobody would have been asked about: {report.unconfirmed_trades}."] * bool(
        report.unconfirmed_trades
    )
    lines += [f"Left out, broken: {each}" for each in report.broken]
    shown = report.failures[:failures]
    rows = [(each.id, each.lang, " | ".join((*each.before, each.text))[:80], each.wanted, each.reason, each.detail[:80]) for each in shown]
    told: list[Any] = [_choices(report), _checks(report), *_faults(report)]
    told += [table(rows, "id", "language", "question", "wanted", "wrong", "more")] if rows else []
    return Group(*told, *lines)


def _chosen(
    cases: str | None, kind: list[str] | None, language: list[str] | None, most: int | None, skip: bool
) -> "tuple[list[EvalCase], list[str]]":
    from orbiquant.copilot.eval_cases import argument_names, choose_cases, own_cases, read_cases, tool_names
    from orbiquant.copilot.tools import find_tools

    broken: list[str] = []
    tools = find_tools()
    file = own_cases() if cases is None else Path(cases)
    found = read_cases(file, tool_names(tools), broken.append if skip else None, argument_names(tools))
    return choose_cases(found, kind or (), language or (), most), broken


@llm_commands.command("eval", help=_HELP)
def evaluate_command(
    cases: CasesOption = None,
    provider: ProviderOption = "auto",
    kind: KindOption = None,
    language: LanguageOption = None,
    most: MostOption = None,
    failures: FailuresOption = 10,
    skip_broken: SkipOption = False,
    as_json: AsJson = False,
) -> None:
    "Put questions to a model, count, and exit with 1 for an unconfirmed trade."
    from orbiquant.copilot.evaluate import evaluate_with
    from orbiquant.copilot.tools import find_tools

    asked, broken = _chosen(cases, kind, language, most, skip_broken)
    runtime = open_runtime()
    with progress_bar(as_json, compiles=False) as progress:
        tell = (lambda done, of: progress(done, of, "asking")) if progress else (lambda done, of: None)
        report = asyncio.run(evaluate_with(runtime, provider, asked, find_tools(), tell, broken))
    show(report, as_json, lambda: _told(report, failures))
    if report.unconfirmed_trades:
        raise typer.Exit(1)


@llm_commands.command("tools")
def list_tools(as_json: AsJson = False) -> None:
    "List the tools that a question of `llm eval` may name, with their arguments; in brackets what may be left out."
    from orbiquant.copilot.eval_asking import offered_tools
    from orbiquant.copilot.eval_cases import argument_names, tool_names
    from orbiquant.copilot.tools import find_tools

    tools = find_tools()
    names, takes = tool_names(tools), argument_names(tools)
    found = [
        {
            "tool": name, "effect": (tool.metadata or {})["effect"], "arguments": takes[name],
            "demanded": tool.parameters_json_schema.get("required", []),
            "other_names": [other for other, meant in names.items() if meant == name != other],
        }
        for name, tool in sorted(offered_tools(tools).items())
    ]  # fmt: skip
    rows = [
        (
            each["tool"], each["effect"], ", ".join(each["other_names"]),
            ", ".join(name if name in each["demanded"] else f"({name})" for name in each["arguments"]),
        )
        for each in found
    ]  # fmt: skip
    show(found, as_json, lambda: table(rows, "tool", "does", "also called", "arguments"))
