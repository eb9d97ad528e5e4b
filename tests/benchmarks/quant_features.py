"""Rows of the quant table: the feature matrix, the indicator part beside pandas-ta-classic, and one new bar."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from orbiquant.domain import Bars, CalendarName, Timeframe
from orbiquant.features import indicators
from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec, warmup_bars
from orbiquant.features.stream import FeatureStream
from orbiquant.market.calendars import to_times
from tests.benchmarks.quant_row import Row, best_of, in_words, shared_rows, times_faster

ROWS, TRAIN_ROWS, LIVE_ROWS, RECOMPUTED = 215_699, 12_000, 400, 500
SPEC = FeatureSpec(timeframe=Timeframe.M5, calendar=CalendarName.CRYPTO)
SETTLED = 600  # rows after which two beginnings of one recursion agree
Columns = dict[str, pd.Series]


def own_indicators(bars: Bars) -> Columns:
    """Return the indicator part of product.md as this library computes it."""
    tables = {
        "macd": indicators.macd(bars),
        "bollinger": indicators.bollinger(bars),
        "stochastic": indicators.stochastic(bars),
    }
    columns = {f"{name}_{part}": values for name, table in tables.items() for part, values in table.items()}
    columns.pop("bollinger_bandwidth")
    return columns | {
        "sma": indicators.sma(bars, 20),
        "ema": indicators.ema(bars, 20),
        "rsi": indicators.rsi(bars, 14),
        "atr": indicators.atr(bars, 14),
        "obv": indicators.obv(bars),
    }


def peer_indicators(bars: Bars) -> Columns:
    """Return the same from pandas-ta-classic, in its own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas_ta_classic as peer
    high, low, close, volume = (bars[name] for name in ("high", "low", "close", "volume"))
    plain = {"talib": False}
    macd, bands = peer.macd(close, **plain), peer.bbands(close, length=20, std=2, ddof=0, **plain)
    stochastic = peer.stoch(high, low, close, k=14, d=3, smooth_k=3, **plain).reindex(bars.index)
    lines = dict(zip(("macd_macd", "macd_histogram", "macd_signal"), (macd[name] for name in macd), strict=True))
    edges = dict(
        zip(("bollinger_lower", "bollinger_middle", "bollinger_upper"), (bands[n] for n in bands), strict=False)
    )
    k, d = (stochastic[name] for name in list(stochastic)[:2])
    return lines | edges | {
        "bollinger_percent_b": bands.filter(like="BBP").iloc[:, 0],
        "stochastic_k": k,
        "stochastic_d": d,
        "sma": peer.sma(close, length=20, **plain),
        "ema": peer.ema(close, length=20, **plain),
        "rsi": peer.rsi(close, length=14, **plain),
        "atr": peer.atr(high, low, close, length=14, **plain),
        "obv": peer.obv(close, volume, **plain),
    }  # fmt: skip


def largest_difference(ours: Columns, theirs: Columns, bars: Bars) -> float:
    """Return the largest difference of two sets of columns, relative to each column's size, where the market moves.

    In a range without height the stochastic is 0/0: 50 here, 0 there. Left out are the rows that such bars reach.
    """
    if set(ours) != set(theirs):
        raise SystemExit(f"not the same indicators: {set(ours) ^ set(theirs)}")
    height = bars["high"].rolling(14).max() - bars["low"].rolling(14).min()
    moves = (height.rolling(6).min() > 0).to_numpy()[SETTLED:]
    pairs = {name: (ours[name].to_numpy()[SETTLED:], theirs[name].to_numpy()[SETTLED:]) for name in ours}
    pairs["obv"] = tuple(values - values[0] for values in pairs["obv"])  # each counts from a beginning of its own
    return max(float(np.abs((a - b)[moves]).max() / np.abs(b).max()) for a, b in pairs.values())


def matrix_rows() -> Iterator[Row]:
    """Yield what the whole matrix takes, and the indicator part beside its peer."""
    bars = shared_rows("BTCUSDT_5m", ROWS)
    columns = build_features(bars, SPEC).shape[1]
    took = best_of(lambda: build_features(bars, SPEC), 7)
    size = f"{ROWS:,} bars of BTCUSDT 5m"
    note = f"one core, warm; wall {in_words(took.wall)}, CPU {in_words(took.cpu)}, best of 7"
    goal = "≤ 0.4 s"
    yield Row(
        f"{columns} causal features, {size}",
        "–",
        in_words(took.cpu),
        "–",
        in_words(took.cpu),
        goal,
        took.cpu <= 0.4,
        note,
    )
    ours, theirs = own_indicators(bars), peer_indicators(bars)
    apart = largest_difference(ours, theirs, bars)
    own, peer = best_of(lambda: own_indicators(bars), 7), best_of(lambda: peer_indicators(bars), 3)
    note = f"CPU time; {len(ours)} columns, the largest relative difference is {apart:.0e}"
    row = times_faster(f"indicator part, {size}", "pandas-ta-classic", own.cpu, peer.cpu, 20, note)
    yield row._replace(met=row.met and apart < 1e-6)


def trained(bars: Bars) -> Any:
    """Return small models of ranges, barriers and their confidence, trained on some bars."""
    from orbiquant.models.config import Phase2Config
    from orbiquant.models.phase2 import Phase2Pipeline

    features = build_features(bars, SPEC).iloc[warmup_bars(SPEC) :]
    return Phase2Pipeline(Phase2Config(folds=3, rounds=60)).run(bars.loc[features.index], features).bundle


def each_ms(work: Callable[[int], Any], rows: range) -> tuple[np.ndarray, np.ndarray]:
    """Return wall and CPU time of one call a row, in milliseconds."""
    took = []
    for row in rows:
        wall, cpu = time.perf_counter(), time.thread_time()
        work(row)
        took.append((time.perf_counter() - wall, time.thread_time() - cpu))
    wall, cpu = 1e3 * np.array(took).T
    return wall, cpu


def live_rows() -> Iterator[Row]:
    """Yield what features and the models' answer take for one new bar, beside recomputing some hundred bars."""
    bars = shared_rows("BTCUSDT_5m", TRAIN_ROWS)
    bundle, stream, few = trained(bars), FeatureStream(SPEC), warmup_bars(SPEC) + RECOMPUTED
    seen = len(bars) - LIVE_ROWS
    stream.seed(bars.iloc[:seen])
    times, prices = to_times(bars.index), bars.to_numpy()
    places = stream.columns.get_indexer(bundle.features)

    def live(row: int) -> np.ndarray:
        values = stream.advance(int(times[row]), prices[row])[places].astype("float32")
        return bundle.predict_values(values[None], bars.index[row : row + 1])

    def again(row: int) -> pd.DataFrame:
        return bundle.predict(build_features(bars.iloc[row - few + 1 : row + 1], SPEC).tail(1))

    kept: list[np.ndarray] = []
    live(seen)  # the first call lays the trees out
    wall, cpu = each_ms(lambda row: kept.append(live(row)), range(seen + 1, len(bars)))
    peer = np.median(each_ms(again, range(seen, seen + 40))[1])
    whole = bundle.predict(build_features(bars, SPEC).iloc[seen + 1 :]).to_numpy()
    apart = float(np.abs(np.vstack(kept) - whole).max())
    work = f"one new bar: {len(stream.columns)} features and the answer of {len(bundle.models)} models"
    note = (
        f"CPU time of {len(cpu)} bars, p99 {np.percentile(cpu, 99):.1f} ms, wall p50 {np.median(wall):.1f} ms; "
        f"answers as over all bars to {apart:.0e}"
    )
    middle, recomputed = float(np.median(cpu)), f"recomputing {few:,} bars ({RECOMPUTED} beside the warm-up)"
    met = middle <= 3 and apart < 1e-12
    yield Row(work, recomputed, f"{middle:.2f} ms", f"{peer:.1f} ms", f"p50 {middle:.2f} ms", "p50 ≤ 3 ms", met, note)


def rows() -> Iterator[Row]:
    """Yield three rows."""
    yield from matrix_rows()
    yield from live_rows()
