"""How fast the ICT layer reads a market, beside smartmoneyconcepts where that is installed.

Run `python -m tests.benchmarks.bench_ict [rows]`.
"""

import contextlib
import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from orbiquant.arrays import Floats, Ints
from orbiquant.domain import Bars
from orbiquant.features.config import IctConfig
from orbiquant.features.ict import ict_events, ict_features
from orbiquant.features.ict_rules import Events, Side, both_sides, find_gaps, find_swings, first_touches, read_market
from orbiquant.market.synthetic import BITCOIN_LIKE, synthetic_market
from tests.shared_bars import SHARED

CONFIG = IctConfig()


def load_bars(rows: int) -> tuple[Bars, str]:
    """Return the last `rows` of the shared BTCUSDT 5m bars, or as many synthetic ones, and which they are."""
    path = SHARED / "BTCUSDT_5m.parquet"
    if path.exists():
        return pd.read_parquet(path).set_index("time").astype("float64").tail(rows), "BTCUSDT 5m"
    return synthetic_market(rows, timeframe="5m", config=BITCOIN_LIKE).bars, "synthetic 5m"


def best_ms(work: Callable[[], Any], repeats: int) -> float:
    """Return the fastest of some runs, in milliseconds of wall time."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return 1e3 * min(took)


@njit(cache=True)
def put_gaps(side: Side, gaps: Events, touched: Ints, found: Floats) -> None:
    """Write one side's gaps into four rows of the peer's form: sign, top, bottom, and the bar that came back or 0."""
    for i in range(len(touched)):
        at, near, far = gaps.event[i], side.sign * gaps.near[i], side.sign * gaps.far[i]
        found[0, at], found[1, at], found[2, at] = side.sign, max(near, far), min(near, far)
        found[3, at] = touched[i] if touched[i] < found.shape[1] else 0


def gaps_of(bars: Bars) -> pd.DataFrame:
    """Return gaps with their mitigation as the peer defines them: a body in the middle, watched without end."""
    rows = len(bars)
    found = np.full((4, rows), np.nan)
    for side in both_sides(bars):
        gaps = find_gaps(side, needs_body=True)
        put_gaps(side, gaps, first_touches(side, gaps, rows), found)
    return pd.DataFrame(found.T, range(rows), ["FVG", "Top", "Bottom", "MitigatedIndex"])


def own_figures(bars: Bars) -> dict[str, float]:
    """Return how long each part takes here."""
    buyers, sellers = both_sides(bars)
    parts: dict[str, Callable[[], Any]] = {
        "gaps with mitigation": lambda: gaps_of(bars),
        "swings": lambda: [find_swings(side, CONFIG.swing_bars) for side in (buyers, sellers)],
        "whole set": lambda: read_market(bars, CONFIG),
        "table of events": lambda: ict_events(bars, CONFIG),
        "features": lambda: ict_features(bars, CONFIG),
    }
    for work in parts.values():
        work()
    return {name: best_ms(work, 15) for name, work in parts.items()}


def peer_figures(bars: Bars) -> tuple[dict[str, float], bool]:
    """Return how long each part takes in smartmoneyconcepts, and whether its gaps are the same as ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        from smartmoneyconcepts import smc

    plain, kept = bars.reset_index(drop=True), {}

    def timed(name: str, work: Callable[[], Any]) -> float:
        return best_ms(lambda: kept.update({name: work()}), 1)

    took = {
        "gaps with mitigation": timed("gaps", lambda: smc.fvg(plain)),
        "swings": timed("swings", lambda: smc.swing_highs_lows(plain, swing_length=CONFIG.swing_bars)),
    }
    others = [smc.bos_choch, smc.ob, smc.liquidity, smc.retracements]
    took["whole set"] = sum(took.values()) + sum(timed("", lambda f=f: f(plain, kept["swings"])) for f in others)
    return took, kept["gaps"].astype("float64").equals(gaps_of(bars))


def main(rows: int) -> None:
    """Print the table."""
    bars, name = load_bars(rows)
    table = pd.DataFrame({"orbiquant ms": own_figures(bars)})
    print(f"{len(bars):,} bars of {name}")
    if importlib.util.find_spec("smartmoneyconcepts"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            took, same = peer_figures(bars)
        table["smartmoneyconcepts ms"] = pd.Series(took)
        table["times faster"] = table["smartmoneyconcepts ms"] / table["orbiquant ms"]
        print(f"gaps and their mitigation identical: {same}")
    else:
        print("smartmoneyconcepts is not installed: no peer to hold the figures against")
    print(table.round(1).to_string(na_rep=""))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
