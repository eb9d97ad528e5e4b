"""What only a card can show, in one script under ten minutes: `make gpu`. Without a card it says so and ends well.

Nothing is fetched: the language model has Qwen3-8B's shapes and random weights, which cost the same time and memory as
trained ones. XGBoost trains on synthetic columns. Every row that fails says why and the others go on.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "gpu.md"
CONTEXT, PROMPT, TOKENS = 8192, 6000, 128
MOST_GB, MOST_FIRST_S, MOST_OVERHEAD = 14.0, 3.0, 1.05
SHAPE = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
}  # fmt: skip
SIDES = (("long", 1), ("short", -1))
BANDWIDTH = {  # GB/s by a part of the card's name, from the makers' sheets; measured where the name is not here
    "T4": 320, "L4": 300, "A10G": 600, "RTX 3090": 936, "RTX 4090": 1008, "RTX 5090": 1792, "L40S": 864,
    "A100": 2039, "H100": 3350, "H200": 4800,
}  # fmt: skip


def settled(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long work took with everything that it queued on the card, and what it returned."""
    import torch

    torch.cuda.synchronize()
    began = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return time.perf_counter() - began, result


def card_lines() -> Iterator[str]:
    """Yield what the card is."""
    import torch

    free, total = torch.cuda.mem_get_info()
    name, cuda = torch.cuda.get_device_name(), torch.version.cuda
    yield f"card | {name}, {total / 1e9:.0f} GB, {free / 1e9:.0f} free, CUDA {cuda}"


def measured_bandwidth() -> float:
    """Return what copying a gigabyte moves, read and written, in GB/s."""
    import torch

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    taken = min(settled(lambda: target.copy_(source))[0] for _ in range(5))
    return 2 * source.numel() / taken / 1e9


def xgboost_lines() -> Iterator[str]:
    """Yield a training of boosted trees on the card beside the CPU."""
    import numpy as np
    import xgboost

    numbers = np.random.default_rng(0)
    columns = numbers.normal(size=(200_000, 60)).astype(np.float32)
    target = (columns[:, 0] + numbers.normal(size=200_000) > 0).astype(np.float32)
    taken = {}
    for device in ("cuda", "cpu"):
        rows = xgboost.QuantileDMatrix(columns, target)
        options = {"device": device, "max_depth": 6, "objective": "binary:logistic"}
        booster_s, booster = settled(lambda rows=rows, options=options: xgboost.train(options, rows, 300))
        used = booster.save_config().split('"device":"')[1].partition('"')[0]
        if not used.startswith(device):
            yield f"XGBoost | asked for {device}, used {used}: this build cannot"
            return
        taken[device] = booster_s
    yield (
        f"XGBoost, 200,000 × 60, 300 trees | {taken['cuda']:.1f} s on the card, {taken['cpu']:.1f} s on "
        f"{os.cpu_count()} cores: {taken['cpu'] / taken['cuda']:.1f} times as fast"
    )


def train_lines() -> Iterator[str]:
    """Yield the product's own classifier, 40,000 rows, on the device that `[models] device = auto` chooses."""
    import numpy as np
    import pandas as pd
    from pydantic import ValidationError

    from orbiquant.models.boosting import Boosting
    from orbiquant.models.tpsl import TPSLClassifier

    numbers = np.random.default_rng(0)
    index = pd.date_range("2020-01-01", periods=40_000, freq="1h", tz="UTC", name="time")
    columns = pd.DataFrame(numbers.normal(size=(40_000, 60)), index, [f"x{place}" for place in range(60)])
    sides = {side: (columns["x0"] * sign + numbers.normal(size=40_000) > 0).astype(float) for side, sign in SIDES}
    try:
        boosting, name = Boosting.model_validate({"device": "auto"}), "auto"
    except ValidationError:
        boosting, name = Boosting(device="cuda"), "cuda (`auto` is no value yet)"
    taken = {
        device: settled(lambda grown=grown: TPSLClassifier(boosting=grown).fit(columns, pd.DataFrame(sides)))[0]
        for device, grown in (("card", boosting), ("cpu", Boosting()))
    }
    yield f"TPSLClassifier, [models] device = {name} | {taken['card']:.1f} s, on the CPU {taken['cpu']:.1f} s"


def make_model(shape: Mapping[str, Any] = SHAPE, device: str = "cuda") -> Any:
    """Return the 8B shape in NF4 on the card, filled layer by layer so that neither disk nor RAM holds it whole."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**shape, dtype=torch.bfloat16)).to(torch.bfloat16)
    head = model.get_output_embeddings()
    options = {"bias": False, "compute_dtype": torch.bfloat16, "compress_statistics": True, "quant_type": "nf4"}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            small = Linear4bit(layer.in_features, layer.out_features, device="meta", **options)
            values = torch.randn(layer.out_features, layer.in_features, dtype=torch.bfloat16, device=device) * 0.02
            small.weight = Params4bit(
                values, requires_grad=False, quant_type="nf4", compress_statistics=True, module=small
            ).to(device)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, small)
    for name, value in list(model.named_parameters()):
        if value.is_meta:
            parent, _, own = name.rpartition(".")
            made = torch.ones(value.shape, dtype=torch.bfloat16, device=device)
            made = made if value.dim() == 1 else torch.randn_like(made) * 0.02
            setattr(model.get_submodule(parent), own, torch.nn.Parameter(made, requires_grad=False))
    with torch.device(device):  # it computes its angles when it is made
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


def language_lines() -> Iterator[str]:
    """Yield pace, memory and first token of the local path, beside plain transformers and the card's limit."""
    import torch
    from transformers import GenerationConfig

    from orbiquant.llm.generation import Sampling, Speaker, generate
    from orbiquant.llm.weights import LoadedWeights
    from tests.tools.small_models import small_tokenizer

    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    made_s, model = settled(lambda: make_model())
    model.generation_config = GenerationConfig(pad_token_id=0)
    weights = model.get_memory_footprint() / 1e9
    yield f"8B shape in NF4, random weights | {weights:.1f} GB, made in {made_s:.0f} s"
    speaker = Speaker("8B", LoadedWeights(model, small_tokenizer("qwen3"), "cuda:0", True))
    speaker.ends = ()  # random weights may draw an end; the pace wants every token
    ids = torch.randint(300, 150_000, (PROMPT,)).tolist()
    generate(speaker, ids[:64], Sampling(8, temperature=0), unheard, Event())  # warms up
    yield pace_line(speaker, model, ids, weights)
    yield from prompt_lines(speaker, ids)
    yield stop_line(speaker, ids)


def unheard(token: int) -> None:
    """Hear a token and do nothing."""


def pace_line(speaker: Any, model: Any, ids: list[int], weights: float) -> str:
    """Return tokens a second beside plain transformers and what the memory's bandwidth allows; `weights` in GB."""
    import torch

    from orbiquant.llm.generation import Sampling, generate

    def decode(work: Callable[[int], float]) -> float:
        spans = [work(TOKENS) - work(TOKENS // 8) for _ in range(3)]
        return (TOKENS - TOKENS // 8) / statistics.median(spans)

    def ours(tokens: int) -> float:
        speaker.prefix.clear()
        asked = Sampling(tokens, temperature=0, repetition_penalty=1)
        return settled(lambda: generate(speaker, ids[:512], asked, unheard, Event()))[0]

    def plain(tokens: int) -> float:
        rows = torch.tensor([ids[:512]], device="cuda")
        return settled(lambda: model.generate(rows, max_new_tokens=tokens, do_sample=False, eos_token_id=None))[0]

    bare, local = decode(plain), decode(ours)
    name = torch.cuda.get_device_name()
    known = next((rate for part, rate in sorted(BANDWIDTH.items(), key=lambda x: -len(x[0])) if part in name), None)
    reached = measured_bandwidth()
    read = weights - SHAPE["vocab_size"] * SHAPE["hidden_size"] * 2 / 1e9  # one row of the embedding, not all of it
    limit = (known or reached) / read
    source = "maker's sheet" if known else "measured"
    return (
        f"pace | {local:.1f} tokens/s, plain transformers {bare:.1f} (× {bare / local:.3f}, goal ≤ {MOST_OVERHEAD}); "
        f"memory bandwidth {known or reached:.0f} GB/s ({source}; a copy reaches {reached:.0f}) allows {limit:.0f}"
    )


def prompt_lines(speaker: Any, ids: list[int]) -> Iterator[str]:
    """Yield the first token of a long prompt, new and known, and the memory of a full context."""
    import torch

    from orbiquant.llm.generation import Sampling, generate

    few = Sampling(TOKENS, temperature=0, repetition_penalty=1)
    speaker.prefix.clear()
    done = generate(speaker, ids, few, unheard, Event())
    held = "held" if done.first_token_s < MOST_FIRST_S else "MISSED"
    yield f"first token, {PROMPT:,} tokens of prompt | {done.first_token_s:.2f} s, goal < {MOST_FIRST_S:g} s: {held}"
    again = generate(speaker, [*ids[:-12], *ids[:12]], Sampling(1, temperature=0), unheard, Event())
    yield f"first token, all but 12 of them known | {again.first_token_s * 1000:.0f} ms, {again.reused_tokens:,} reused"
    speaker.prefix.clear()
    torch.cuda.empty_cache()
    full = torch.randint(300, 150_000, (CONTEXT - TOKENS,)).tolist()
    done = generate(speaker, full, few, unheard, Event())
    peak = max(done.peak_bytes, torch.cuda.max_memory_reserved()) / 1e9
    held = "held" if peak < MOST_GB else "MISSED"
    yield f"memory, a full context of {CONTEXT:,} | {peak:.1f} GB with what is reserved, goal < {MOST_GB:g}: {held}"


def stop_line(speaker: Any, ids: list[int]) -> str:
    """Return how long after it was asked to the computing ended."""
    from orbiquant.llm.generation import Sampling, generate

    stop, heard = Event(), []
    ended: list[float] = []

    def hear(token: int) -> None:
        heard.append(token)
        if len(heard) == 8:
            ended.append(time.perf_counter())
            stop.set()

    generate(speaker, ids[:512], Sampling(TOKENS, temperature=0, repetition_penalty=1), hear, stop)
    return f"stop | the computing ended {1000 * (time.perf_counter() - ended[0]):.0f} ms after it was asked to"


def main() -> None:
    """Print every row and write them beside the other figures; without a card say so."""
    import torch

    if not torch.cuda.is_available():
        print("unmeasured: torch sees no card here; XGBoost on it, the 8B-class local path in NF4 and QLoRA need one")
        return
    from tests.gpu.tuning import tuning_lines

    began, lines = time.perf_counter(), []
    for row in (card_lines, xgboost_lines, train_lines, language_lines, tuning_lines):
        try:
            for line in row():
                print(line, flush=True)
                lines.append(line)
        except Exception as error:  # the other rows go on
            lines.append(f"{row.__name__} | failed: {type(error).__name__}: {error}")
            print(lines[-1], flush=True)
    when = f"{datetime.now(UTC):%d %B %Y}, {time.perf_counter() - began:.0f} s"
    rows = "\n".join(f"| {line} |" for line in lines)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(f"# On a card\n\nMeasured by `make gpu` on {when}.\n\n| what | figure |\n|---|---|\n{rows}\n")
    if any(" failed: " in line for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
