"""`orbiquant llm tune | adapters`"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orbiquant.cli.console import MOST_SEED, AsJson, fields, progress_bar, show, table
from orbiquant.cli.llm import llm_commands

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orbiquant.llm.adapters import AdapterManifest, HeldOutFigures
    from orbiquant.llm.tuning import TuningConfig
    from orbiquant.llm.tuning_data import TuningSplit
    from orbiquant.settings import Settings

BaseOption = Annotated[str | None, typer.Option("--base", help="Model that is tuned; else [llm] model.")]
EXAMPLES_SHOWN = 3  # examples of a dry run
NameOption = Annotated[str, typer.Option("--name", help="Of the adapter, for [llm] adapter.")]
StepsOption = Annotated[int | None, typer.Option(min=1, max=100_000, help="Of the optimiser; else 300.")]
BatchOption = Annotated[int | None, typer.Option(min=1, max=256, help="Examples on the device at once; else 2.")]
ToolsOption = Annotated[int | None, typer.Option("--tools", min=1, max=1000, help="That an example shows; else 8.")]
QuestionsOption = Annotated[
    int, typer.Option(min=0, max=100_000, help="Held-out ones put to the base and to the tuned model; 0: none.")
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Else [llm] device.")]
TuneSeed = Annotated[int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="Of everything random; else 0.")]


def _models_dir(settings: "Settings") -> Path:
    return settings.path(settings.workspace.models_dir)


def _share(figure: float | None) -> str:
    return "–" if figure is None else f"{100 * figure:.1f} %"


def _judged(figures: "HeldOutFigures | None") -> str:
    if figures is None:
        return ""
    low, high = figures.interval
    return (
        f"tool {_share(figures.tool_accuracy)} ({100 * low:.0f}–{100 * high:.0f}), "
        f"arguments {_share(figures.argument_accuracy)} of {figures.questions} questions"
    )


def _dropped(split: "TuningSplit", too_long: int = 0) -> str:
    from orbiquant.llm.tuning_data import TOO_LONG

    reasons = {**split.dropped, **({TOO_LONG: too_long} if too_long else {})}
    return ", ".join(f"{count} for {why}" for why, count in reasons.items())


def _learned(split: "TuningSplit") -> Iterator[str]:
    for example in split.learned[:: max(1, len(split.learned) // EXAMPLES_SHOWN)][:EXAMPLES_SHOWN]:
        calls = ", ".join(f"{name}({json.dumps(dict(given), ensure_ascii=False)})" for name, given in example.calls)
        yield f"{example.phrasing.text} → {calls or example.reply}"


def _look_at(base: str, split: "TuningSplit", tools: Mapping[str, Any], config: "TuningConfig") -> dict[str, Any]:
    from orbiquant.core import ModelError
    from orbiquant.llm.weights import find_weights

    told = {
        "base": base, "examples": len(split.learned), "with_calls": sum(bool(each.calls) for each in split.learned),
        "held_out": len(split.held_out), "dropped": _dropped(split), "for_example": [*_learned(split)],
    }  # fmt: skip
    try:
        find_weights(base)
    except ModelError as error:
        return told | {"tokens": f"not counted: {error.message}"}
    return told | _look_at_tokens(base, split, tools, config)


def _look_at_tokens(
    base: str, split: "TuningSplit", tools: Mapping[str, Any], config: "TuningConfig"
) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from orbiquant.llm.tuning import encode_split
    from orbiquant.llm.tuning_data import NOT_LEARNED
    from orbiquant.llm.weights import find_weights

    made = encode_split(base, split, tools, config)
    tokenizer = AutoTokenizer.from_pretrained(find_weights(base))
    row = next(row for row in made.rows)
    lengths = sorted(len(each["input_ids"]) for each in made.rows)
    learned = [token for token in row["labels"] if token != NOT_LEARNED]
    return {
        "examples": len(made.rows), "dropped": _dropped(split, made.too_long),
        "tokens": f"{lengths[len(lengths) // 2]} in the middle, {lengths[-1]} at most", "fingerprint": made.fingerprint,
        "rounds": round(config.steps * config.batch * config.accumulation / len(made.rows), 1),
        "read": tokenizer.decode(row["input_ids"][: -len(learned)]), "learned": tokenizer.decode(learned),
    }  # fmt: skip


def _told(manifest: "AdapterManifest", folder: Path) -> "RenderableType":
    named = {
        "adapter": folder.name, "base": manifest.base, "folder": str(folder),
        "examples": f"{manifest.examples} learned from, {manifest.held_out} held out",
        "left out": ", ".join(f"{count} for {why}" for why, count in manifest.dropped.items()),
        "loss of a token": f"{manifest.first_loss:.3f} → {manifest.last_loss:.3f} in {manifest.steps} steps, "
        f"{manifest.seconds:.0f} s on {manifest.device}{' in four bits' if manifest.nf4 else ''}",
        "held out, before": _judged(manifest.before), "held out, after": _judged(manifest.after),
        "next": f"[llm] adapter = {folder.name}, with [llm] provider = local",
    }  # fmt: skip
    return fields(named)


@llm_commands.command("tune")
def tune_command(
    name: NameOption, base: BaseOption = None, steps: StepsOption = None, batch: BatchOption = None,
    tools: ToolsOption = None, questions: QuestionsOption = 100, device: DeviceOption = None, seed: TuneSeed = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a tuning of that name that was begun, and replace it where it is damaged.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be learned; no weights needed.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    "Tune the local model to call this product's tools, and ask it what it has not seen; Ctrl-C ends after a step and loses none, twice at once."
    from orbiquant.llm.adapters import new_adapter_folder
    from orbiquant.settings import load_settings

    settings = load_settings()
    folder = new_adapter_folder(name, _models_dir(settings))
    from orbiquant.llm.tuning import TuningConfig, check_order, make_adapter

    given = {"steps": steps, "batch": batch, "offered": tools, "seed": seed}
    config = TuningConfig.model_validate({name: value for name, value in given.items() if value is not None})
    llm = settings.llm.model_copy(update={"device": device or settings.llm.device})
    chosen = base or llm.model
    if not dry_run:
        check_order(name, chosen, config, _models_dir(settings), device=llm.device, fresh=fresh)
    from orbiquant.copilot.eval_asking import offered_tools
    from orbiquant.copilot.held_out import judge_adapter, product_split
    from orbiquant.copilot.tools import find_tools

    product = find_tools()
    offered = offered_tools(product)
    split = product_split(product, config)
    if dry_run:
        seen = _look_at(chosen, split, offered, config)
        told = seen | {"for_example": "\n".join(seen["for_example"])}
        show(seen, as_json, lambda: fields(told))
        return
    with progress_bar(as_json, compiles=False) as progress:
        manifest = make_adapter(
            name, chosen, split, offered, config, _models_dir(settings), device=llm.device,
            memory_fraction=llm.memory_fraction, fresh=fresh, progress=progress,
        )  # fmt: skip
        if questions and (manifest.after is None or manifest.after.questions != min(questions, len(split.held_out))):
            manifest = asyncio.run(judge_adapter(folder, split, product, llm, questions, progress))
    show(manifest, as_json, lambda: _told(manifest, folder))


@llm_commands.command("adapters")
def list_tuned(as_json: AsJson = False) -> None:
    "List the adapters of this workspace, their bases, and how they chose before and after."
    from orbiquant.llm.adapters import list_adapters
    from orbiquant.settings import load_settings

    settings = load_settings()
    found = list_adapters(_models_dir(settings))
    rows = [
        (
            f"{name} ([llm] adapter)" if name == settings.llm.adapter else name,
            "" if each.name == name else f"tuned as {each.name}", each.base, each.steps,
            *(_share(figures.tool_accuracy if figures else None) for figures in (each.before, each.after)),
        )
        for name, each in found.items()
    ]  # fmt: skip
    none = "There are none: orbiquant llm tune --name tools"
    told = [{"folder": name} | each.model_dump(mode="json") for name, each in found.items()]
    show(told, as_json, lambda: table(rows, "adapter", "", "base", ">steps", ">before", ">after") if found else none)
