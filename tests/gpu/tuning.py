"""What a step of QLoRA takes on a card: time and memory, with an 8B shape and random weights. Part of `make gpu`.

Whether a tuning teaches anything only trained weights show: `make tune BASE=… NAME=…`.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STEPS, BATCH, TOKENS, ANSWER = 6, 2, 2048, 64  # 2,048 tokens: a question with eight of the product's tools


def random_rows(count: int, tokens: int, answer: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Return examples of random tokens, of which the last ones are learned."""
    import torch

    drawn = torch.randint(vocabulary, (count, tokens), generator=torch.Generator().manual_seed(0)).tolist()
    return [{"input_ids": row, "labels": [-100] * (tokens - answer) + row[-answer:]} for row in drawn]


def tuning_lines(shape: Mapping[str, Any] | None = None, device: str = "cuda:0", tokens: int = TOKENS) -> Iterator[str]:
    """Yield seconds a step and the peak of the memory; the first step, which warms up, is told apart."""
    import torch

    from orbiquant.llm.tuning import TuningConfig, tune_weights
    from orbiquant.llm.weights import LoadedWeights
    from tests.gpu.run import SHAPE, make_model
    from tests.tools.small_models import small_tokenizer

    chosen, card = {**SHAPE, **(shape or {})}, device != "cpu"
    torch.manual_seed(0)
    model = make_model(chosen, device)
    model.is_loaded_in_4bit = True  # as transformers marks what it has made small itself
    if card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    config = TuningConfig(steps=STEPS, batch=BATCH, accumulation=1, save_steps=STEPS)
    rows = random_rows(STEPS * BATCH, tokens, ANSWER, chosen["vocab_size"])
    times, losses = [time.perf_counter()], []

    def told(step: int, steps: int, text: str) -> None:
        times.append(time.perf_counter())
        losses.append(float(text.rpartition(" ")[2]))

    with tempfile.TemporaryDirectory() as work:
        last = tune_weights(
            LoadedWeights(model, small_tokenizer("qwen3"), device, True), rows, config, Path(work), told
        )
        size = (last / "adapter_model.safetensors").stat().st_size / 1e6
    first, rest = times[1] - times[0], (times[-1] - times[1]) / (STEPS - 1)
    peak = (
        f"{torch.cuda.max_memory_reserved() / 1e9:.1f} GB at the peak" if card else "memory unmeasured without a card"
    )
    pace = f"{rest:.2f} s a step ({BATCH * tokens / rest:,.0f} tokens/s)"
    yield (
        f"QLoRA, {BATCH} examples of {tokens:,} tokens a step | {pace}, the first {first:.1f} s; "
        f"{peak}; adapter {size:.0f} MB; loss {losses[0]:.2f} → {losses[-1]:.2f}"
    )
