"""`orbiquant llm pull | list | check`"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbiquant.cli.console import AsJson, progress_bar, show, table

if TYPE_CHECKING:
    from orbiquant.cli.doctor import Finding
    from orbiquant.llm.config import LlmConfig


llm_commands = typer.Typer(help="Fetch a local language model, and see whether it runs here.", no_args_is_help=True)
GIGABYTE = 1_000_000_000
ModelName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="At Hugging Face, or a folder; else [llm] model.")
]


def _config() -> "LlmConfig":
    from orbiquant.settings import load_settings

    return load_settings().llm


@llm_commands.command("pull")
def pull_model(name: ModelName = None, as_json: AsJson = False) -> None:
    "Fetch the weights of a local model from Hugging Face; what is here already stays."
    from orbiquant.llm.weights import pull_weights

    chosen = name or _config().model
    with progress_bar(as_json, compiles=False) as progress:
        folder = pull_weights(chosen, progress)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    told = f"{chosen}: {size / GIGABYTE:.1f} GB in {folder}. Next: orbiquant llm check"
    show({"model": chosen, "folder": str(folder), "bytes": size}, as_json, lambda: told)


def _known(chosen: str) -> Iterator[dict[str, Any]]:
    from orbiquant.core import ModelError
    from orbiquant.llm.weights import TESTED_MODELS, find_weights

    for name, note in ({chosen: "as [llm] model has it"} | TESTED_MODELS).items():
        told = f"{note} ([llm] model)" if name == chosen and name in TESTED_MODELS else note
        try:
            yield {"model": name, "here": True, "folder": str(find_weights(name)), "note": told, "lacks": ""}
        except ModelError as error:
            yield {"model": name, "here": False, "folder": "", "note": told, "lacks": error.message}


@llm_commands.command("list")
def list_weights(as_json: AsJson = False) -> None:
    "List the models that the local path is written for, and which of them are here."
    found = list(_known(_config().model))
    rows = [(each["model"], "here" if each["here"] else "", each["note"]) for each in found]
    show(found, as_json, lambda: table(rows, "model", "", "note"))


def _see_device(config: "LlmConfig") -> str:
    from orbiquant.llm.memory import memory_at_hand
    from orbiquant.llm.weights import choose_device

    there = memory_at_hand(choose_device(config.device))
    slow = "; without a card an answer of an 8B model takes minutes" if there.device == "cpu" else ""
    return f"{there.name}, {there.free / GIGABYTE:.1f} of {there.total / GIGABYTE:.1f} GB free{slow}"


def _see_fit(config: "LlmConfig", name: str) -> str:
    from transformers import AutoConfig

    from orbiquant.llm.memory import check_fits, memory_at_hand, memory_need
    from orbiquant.llm.weights import choose_device, find_weights

    device = choose_device(config.device)
    need = memory_need(AutoConfig.from_pretrained(find_weights(name)).get_text_config(), config.context)
    check_fits(name, need, memory_at_hand(device), config.memory_fraction)
    return f"{need.total / GIGABYTE:.1f} GB as NF4 with {config.context} tokens of context"


def _see_format(name: str) -> str:
    from transformers import AutoTokenizer

    from orbiquant.llm.chat_format import format_of
    from orbiquant.llm.weights import find_weights

    tokenizer = AutoTokenizer.from_pretrained(find_weights(name))
    style = format_of(str(tokenizer.chat_template or ""))
    told = "by this product's text protocol" if style.told == "text" else f"as {style.name} does"
    return f"writes tool calls {told}"


def _see_adapter(config: "LlmConfig", name: str) -> str:
    from orbiquant.llm.adapters import adapter_folder, check_adapter, open_peft
    from orbiquant.llm.weights import find_weights
    from orbiquant.settings import load_settings

    settings = load_settings()
    open_peft()
    folder = settings.path(adapter_folder(config.adapter, settings.path(settings.workspace.models_dir)))
    manifest = check_adapter(folder, find_weights(name), name)
    return f"{folder.name}, tuned for {manifest.steps} steps"


def _examine(config: "LlmConfig", name: str) -> "Iterator[Finding]":
    from orbiquant.cli.doctor import Finding, look, missing_libraries

    lacking = missing_libraries("llm")
    told = f"missing: {', '.join(lacking)} (pip install 'orbiquant[llm]')" if lacking else "complete"
    yield Finding("libraries", "problem" if lacking else "ok", told)
    if lacking:
        return
    from orbiquant.llm.weights import find_weights

    yield look("device", lambda: _see_device(config))
    weights = look("weights", lambda: str(find_weights(name)))
    yield weights
    if weights.status == "ok":
        yield look("memory", lambda: _see_fit(config, name))
        yield look("tools", lambda: _see_format(name))
        if config.adapter:
            yield look("adapter", lambda: _see_adapter(config, name))


@llm_commands.command("check")
def check_model(name: ModelName = None, as_json: AsJson = False) -> None:
    "See whether a local model would run here: libraries, device, weights, memory; exit 1 when it would not."
    config = _config()
    findings = list(_examine(config, name or config.model))
    show(
        [finding._asdict() for finding in findings],
        as_json,
        lambda: table(((each.name, each.status, each.detail) for each in findings), "what", "status", "detail"),
    )
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)
