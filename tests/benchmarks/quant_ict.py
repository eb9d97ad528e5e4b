"""Rows of the quant table: fair value gaps with mitigation, and the whole ICT set, on 100,000 bars."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from orbiquant.domain import Bars
from orbiquant.features.config import SESSIONS
from orbiquant.features.ict_kernels import place_in_range
from orbiquant.features.ict_rules import read_market
from orbiquant.features.sessions import asian_range, killzones
from tests.benchmarks.bench_ict import CONFIG, gaps_of
from tests.benchmarks.quant_row import Row, Seconds, best_of, shared_rows, times_faster

ROWS = 100_000


def whole_set(bars: Bars) -> None:
    """Find swings, structure, gaps, blocks and liquidity with their fates, sessions, and the place in the range."""
    market = read_market(bars, CONFIG)
    side, structure = market.buyers.side, market.structure
    place_in_range(side.close, structure.top, structure.bottom)
    killzones(bars.index, SESSIONS)
    asian_range(bars, SESSIONS["asia"])


def smart_money_concepts(bars: Bars) -> tuple[Seconds, Seconds, bool]:
    """Return what gaps and what the whole set take in smartmoneyconcepts, one run each, and if its gaps are ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        from smartmoneyconcepts import smc
    plain, kept, width = bars.reset_index(drop=True), dict[str, Any](), CONFIG.swing_bars
    took = [
        best_of(lambda: kept.update(gaps=smc.fvg(plain)), 1),
        best_of(lambda: kept.update(swings=smc.swing_highs_lows(plain, swing_length=width)), 1),
        best_of(lambda: smc.sessions(bars.copy(), "Custom", "20:00", "00:00"), 1),
    ]
    others = (smc.bos_choch, smc.ob, smc.liquidity, smc.retracements)
    took += [best_of(lambda part=part: part(plain, kept["swings"]), 1) for part in others]
    whole = Seconds(*np.sum(took, axis=0))
    return took[0], whole, kept["gaps"].astype("float64").equals(gaps_of(bars))


def pyvsmc_whole(bars: Bars) -> Seconds:
    """Return what the set takes in pyvsmc, which knows no sessions and no retracements."""
    import pyvsmc

    open_, high, low, close = (bars[name].to_numpy() for name in ("open", "high", "low", "close"))

    def work() -> None:
        swings = pyvsmc.detect_swings(high, low, CONFIG.swing_bars)
        given = {"swing_high": swings.swing_high, "swing_low": swings.swing_low}
        pyvsmc.detect_structure(high, low, close, **given)
        pyvsmc.detect_fvg(high, low, compute_mitigation=True, close=close)
        pyvsmc.detect_order_blocks(
            open_, high, low, close, lookback=CONFIG.block_bars, window_size=CONFIG.swing_bars, compute_mitigation=True
        )
        pyvsmc.detect_liquidity(high, low, close, **given)
        pyvsmc.detect_zones(high, low, close, **given)

    return best_of(work, 2)


def rows() -> Iterator[Row]:
    """Yield three rows."""
    bars = shared_rows("BTCUSDT_5m", ROWS)
    whole_set(bars)
    gaps, whole = best_of(lambda: gaps_of(bars), 15), best_of(lambda: whole_set(bars), 15)
    peer_gaps, peer_whole, same = smart_money_concepts(bars)
    size, once = f"{ROWS:,} bars of BTCUSDT 5m", "CPU time; the peer's one run"
    name = "smartmoneyconcepts 0.0.27"
    gap_row = times_faster(f"FVG with mitigation, {size}", name, gaps.cpu, peer_gaps.cpu, 1000, once)
    verdict = "output identical" if same else "OUTPUT DIFFERS"
    yield gap_row._replace(met=gap_row.met and same, note=f"{verdict}; {once}")
    work = f"whole ICT set, {size}"
    yield times_faster(work, name, whole.cpu, peer_whole.cpu, 500, f"{once}; its definitions differ and look ahead")
    note = "CPU time; without sessions and retracements there"
    yield times_faster(work, "pyvsmc 0.3.7", whole.cpu, pyvsmc_whole(bars).cpu, 10, note)
