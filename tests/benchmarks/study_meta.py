"""What a second look at the primary is worth on real bars, and how far to correct it.

Run `make study-meta`, six minutes on two cores. Writes `reports/benchmarks/meta.md`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from orbiquant.core import atomic_write, code_version
from orbiquant.domain import Bars
from orbiquant.features.matrix import build_features
from orbiquant.features.spec import spec_of
from orbiquant.models.boosting import Boosting
from orbiquant.models.calibration import calibrate, log_odds, sigmoid
from orbiquant.models.labels import barrier_distance, triple_barrier
from orbiquant.models.meta import (
    BELIEF,
    CORRECTED,
    MetaModel,
    adapt_intervals,
    fit_meta,
    inner_predictions,
    run_coverage,
)
from orbiquant.models.primary import primary_view, side_outcome
from orbiquant.models.skill import log_loss
from orbiquant.models.splits import WalkForward
from orbiquant.models.tpsl import TPSLClassifier
from tests.benchmarks.quant_row import shared_rows

OUTPUT = Path(__file__).parents[2] / "reports" / "benchmarks" / "meta.md"
TERMS = (
    "Labels are judged, not trades: target twice the stop of 1.5 ATR, 24 bars ahead, before costs; 100 rounds on at "
    "most 20,000 rows, seed 7, three outer folds."
)
HORIZON, OUTER, SPEC = 24, 3, Boosting(rounds=100, max_rows=20_000)
LOOKED_AT = (("EURUSD_1h", 10**9), ("XAUUSD_1h", 10**9), ("BTCUSDT_5m", 150_000))
COINS = [f"{coin}USDT_5m" for coin in ("AVAX", "BTC", "DOGE", "ETH", "LINK", "LTC", "SOL", "TRX", "XRP")]
MARKETS = ["EURUSD_1h", "GBPUSD_1h", "USDJPY_1h", "XAUUSD_1h"]
ROWS = ((COINS, (7_000, 12_000, 30_000, 60_000, 120_000)), (MARKETS, (7_000, 12_000, 20_000, 45_000)))
STUDIED = [(name, rows) for names, lengths in ROWS for name in names for rows in lengths]
SHARES = (0.25, CORRECTED, 0.75, 1.0)


def real_labels(bars: Bars, timeframe: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return features and labels of the rows on which both are known."""
    stop = barrier_distance(bars, 1.5)
    X, Y = build_features(bars, spec_of(bars)), triple_barrier(bars, HORIZON, 2 * stop, stop)
    known = (X.notna().all(axis=1) & Y[["long", "short"]].notna().all(axis=1)).to_numpy()
    return X[known], Y.loc[known, ["long", "short"]]


def primary() -> TPSLClassifier:
    """Return an unfitted primary model."""
    return TPSLClassifier(HORIZON, SPEC)


def folds(name: str, rows: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.Series]]:
    """Yield features and labels to train on, features to ask about with the primary's answer, and who won."""
    X, Y = real_labels(shared_rows(name, rows), name.split("_")[1])
    for train, test in WalkForward.over(len(X), OUTER, HORIZON, HORIZON).split(X):
        said = primary_view(primary().fit(X.iloc[train], Y.iloc[train]).predict(X.iloc[test]))
        yield X.iloc[train], Y.iloc[train], X.iloc[test].assign(**said), side_outcome(Y.iloc[test], said)


def second_look(name: str, rows: int) -> dict[str, Any]:
    """Return how the meta model did on one series, beside the base rate and the primary."""
    parts, base, earlier, trees = [], [], None, 0
    for X, Y, asked, won in folds(name, rows):
        meta = fit_meta(X, Y, primary, MetaModel(HORIZON, SPEC), HORIZON, 3)
        earlier, trees = meta.misses_ if earlier is None else earlier, trees + (meta.booster_ is not None)
        parts.append(meta.predict(asked[list(X)], asked).assign(primary=asked["probability"], won=won))
        inner = primary_view(inner_predictions(X, Y, primary, HORIZON, HORIZON, 3))
        base.append(np.full(len(won), side_outcome(Y.loc[inner.index], inner).mean()))
    table = pd.concat(parts).assign(base=np.concatenate(base))
    won = table["won"].to_numpy()
    told = {kind: f"{log_loss(table[kind].to_numpy(), won).mean():.4f}" for kind in ("base", "primary", "p_meta")}
    moving = adapt_intervals(table, table["won"], HORIZON, earlier)
    inside = [run_coverage(frame, table["won"], HORIZON)["inside"] for frame in (table, moving)]
    return {
        "bars": f"{name}, {len(table):,} labels to {table.index[-1]:%Y-%m}",
        **{f"{kind.removeprefix('p_')}, nats": loss for kind, loss in told.items()},
        "won": f"{won.mean():.1%}",
        "primary said": f"{table['primary'].mean():.1%}",
        "meta said": f"{table['p_meta'].mean():.1%}",
        "folds with trees": f"{trees} of {OUTER}",
        "runs inside, fixed": f"{inside[0].mean():.1%} of {len(inside[0])}",
        "adaptive": f"{inside[1].mean():.1%}",
    }


def corrected(name: str, rows: int) -> "pd.Series[float]":
    """Return by how much each share of the correction moves the primary's log-loss, mean of the folds."""
    found = []
    for X, Y, asked, won in folds(name, rows):
        inner = primary_view(inner_predictions(X, Y, primary, HORIZON, HORIZON, 4))
        score, outcome = log_odds(inner["probability"].to_numpy()), side_outcome(Y.loc[inner.index], inner).to_numpy()
        said, came, base = log_odds(asked["probability"].to_numpy()), won.to_numpy(), float(log_odds(outcome.mean()))
        told, row = log_loss(sigmoid(said), came).mean(), {"too sure": (sigmoid(said) - came).mean()}
        for share in SHARES:
            curve = calibrate(score, outcome, base, HORIZON, "auto", BELIEF, share)
            row |= {f"loss {share}": log_loss(curve(said), came).mean() - told}
            row |= {f"gap {share}": (curve(said) - came).mean()}
        found.append(row)
    return pd.DataFrame(found).mean().rename(f"{name}, {rows:,}")


def in_short(table: pd.DataFrame) -> pd.DataFrame:
    """Return one line a share: the change of log-loss on all series, and how far too sure it leaves the primary."""
    lines = {"0": {"too sure, points": f"{100 * table['too sure'].abs().mean():.2f}"}}
    for share in SHARES:
        loss = 1e4 * table[f"loss {share}"]
        lines[f"{share:g}"] = {
            "too sure, points": f"{100 * table[f'gap {share}'].abs().mean():.2f}",
            "mean change, 1e-4 nats": f"{loss.mean():+.1f}",
            "better on": f"{(loss < 0).sum()} of {len(loss)}",
            "best": f"{loss.min():+.1f}",
            "worst": f"{loss.max():+.1f}",
        }
    return pd.DataFrame.from_dict(lines, orient="index").fillna("–").rename_axis("share")


def in_words(lengths: Sequence[int]) -> str:
    """Return lengths as a sentence lists them."""
    return f"{', '.join(f'{rows:,}' for rows in lengths[:-1])} and {lengths[-1]:,}"


def as_table(frame: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    rows: Sequence[Sequence[str]] = frame.reset_index().astype(str).to_numpy().tolist()
    head = [frame.index.name, *frame]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Run both studies and write the page."""
    run = Parallel(n_jobs=-1)
    looked = pd.DataFrame(run(delayed(second_look)(*each) for each in LOOKED_AT)).set_index("bars")
    studied = pd.DataFrame(run(delayed(corrected)(*each) for each in STUDIED))
    own = (studied["too sure"] > 0).sum()
    page = f"""# What a second look at the primary is worth

Written by `make study-meta` with {code_version()}. {TERMS}

## The meta model

Three inner parts; log-loss of the inner parts' share of wins, of the primary and of the meta model; coverage of runs of
ten trades, 90 % promised.

{as_table(looked)}

## How far to correct the primary

{len(studied)} series: the last {in_words(ROWS[0][1])} rows of {len(COINS)} coins at 5m, the last
{in_words(ROWS[1][1])} of {len(MARKETS)} markets at 1h; four inner parts, no trees. Uncorrected the primary is
too sure of the side it chose on {own} of them. Log-loss is compared with that of the primary uncorrected: less than 0
is better.

{as_table(in_short(studied))}
"""
    atomic_write(OUTPUT, page)
    print(page)


if __name__ == "__main__":
    main()
