"""What the router costs a question, on this machine: `python -m tests.benchmarks.bench_router`."""

import json
import os
from statistics import median
from time import perf_counter, process_time

import numpy as np

from orbiquant.copilot.eval_cases import own_cases
from orbiquant.llm.router import Router

LIMIT_MS = 60.0


def bench_router(rounds: int = 1) -> dict[str, float]:
    """Return milliseconds a question, wall clock and processor, and seconds to the first answer."""
    texts = [json.loads(line)["text"] for line in own_cases().read_text(encoding="utf-8").splitlines()]
    began, router = perf_counter(), Router()
    router.route(texts[0])
    first = perf_counter() - began
    wall, busy = [], []
    for text in texts * rounds:
        started, used = perf_counter(), process_time()
        router.route(text)
        wall.append(1000 * (perf_counter() - started))
        busy.append(1000 * (process_time() - used))
    return {
        "first_answer_s": first, "p50_ms": median(wall), "p95_ms": float(np.quantile(wall, 0.95)),
        "cpu_p50_ms": median(busy), "cpu_p95_ms": float(np.quantile(busy, 0.95)), "load": os.getloadavg()[0],
    }  # fmt: skip


if __name__ == "__main__":
    figures = bench_router()
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))
    print(f"router question p50 {figures['p50_ms']:.0f} ms, limit {LIMIT_MS:.0f} ms on an idle core")
