"""What a notebook calls, given anything: an error of ours that names what was wrong, never one of a library."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import orbiquant as oq
from orbiquant.core import OrbiError
from orbiquant.runtime import Runtime, using

BARS = oq.synthetic_market(400, "1h", seed=1).bars
SIGNALS = pd.DataFrame({"side": 1, "stop_distance": 0.002}, index=BARS.index[10:20])
COSTS = oq.Costs(fee_bps=1)
ODD = pd.DataFrame({name: ["a"] for name in BARS}, index=pd.DatetimeIndex(["2024-01-01"]))
VALUES: dict[str, Any] = {
    "None": None, "1": 1, "-1": -1, "NaN": float("nan"), "infinity": float("inf"), "10**30": 10**30, "bytes": b"x",
    "no text": "", "long text": "x" * 5000, "surrogate": "\udcff", "NUL": "\0", "list": [], "dict": {},
    "object": object(),
    "no table": pd.DataFrame(), "no series": pd.Series(dtype=float), "array": np.array([]), "year 1": datetime.min,
    "table of words": ODD, "table of NaN": BARS * np.nan,
}  # fmt: skip
CALLS: dict[str, Callable[[Any], Any]] = {
    "load_bars": lambda v: oq.load_bars(v),
    "load_bars timeframe": lambda v: oq.load_bars("EURUSD", v),
    "load_bars start": lambda v: oq.load_bars("EURUSD", "1h", v),
    "read_bars": lambda v: oq.read_bars(v),
    "store_sample": lambda v: oq.store_sample(v),
    "build_features": lambda v: oq.build_features(v),
    "build_features spec": lambda v: oq.build_features(BARS, v),
    "detect_phases": lambda v: oq.detect_phases(v),
    "detect_phases config": lambda v: oq.detect_phases(BARS, v),
    "ict_events": lambda v: oq.ict_events(v),
    "simulate": lambda v: oq.simulate(v, SIGNALS, COSTS),
    "simulate signals": lambda v: oq.simulate(BARS, v, COSTS),
    "simulate costs": lambda v: oq.simulate(BARS, SIGNALS, v),
    "simulate risk": lambda v: oq.simulate(BARS, SIGNALS, COSTS, risk_per_trade=v),
    "simulate holding": lambda v: oq.simulate(BARS, SIGNALS, COSTS, max_holding_bars=v),
    "summarise": lambda v: oq.summarise(v),
    "study": lambda v: oq.study(v),
    "study bars": lambda v: oq.study(bars=v),
    "study folds": lambda v: oq.study(bars=BARS, folds=v),
    "train_model": lambda v: oq.train_model(v),
    "train_model timeframe": lambda v: oq.train_model("EURUSD", v),
    "backtest_model": lambda v: oq.backtest_model(v),
    "backtest_model policy": lambda v: oq.backtest_model("EURUSD", policy=v),
    "audit_prefixes": lambda v: oq.audit_prefixes(v),
    "audit_prefixes cuts": lambda v: oq.audit_prefixes("EURUSD", cuts=v),
    "latest_signal": lambda v: oq.latest_signal(v),
    "run_report": lambda v: oq.run_report(v),
    "run_report symbol": lambda v: oq.run_report("research", {"symbol": v}),
    "price_chart": lambda v: oq.price_chart(v),
    "price_chart phases": lambda v: oq.price_chart(BARS, phases=v),
    "price_chart events": lambda v: oq.price_chart(BARS, events=v),
    "price_chart trades": lambda v: oq.price_chart(BARS, trades=v),
    "equity_chart": lambda v: oq.equity_chart(v),
    "find_policy": lambda v: oq.find_policy(v),
    "SeriesId.parse": lambda v: oq.SeriesId.parse(v, "1h"),
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Put an empty workspace in force."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORBIQUANT_HOME", str(tmp_path_factory.mktemp("hostile")))
        with using(Runtime()) as made:
            yield made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "run_report symbol")) for name in CALLS]
)
def test_whatever_is_given_is_taken_or_refused_in_our_words(runtime: Runtime, name: str):
    for label, value in VALUES.items():
        try:
            CALLS[name](value)
        except OrbiError as error:
            assert 0 < len(error.message) <= 1000, label


def test_what_is_handed_to_a_report_is_a_table_of_names(runtime: Runtime, tmp_path: Path):
    for value in (1, float("nan"), object(), BARS, np.array([1])):
        with pytest.raises(OrbiError, match="`parameters` must be Mapping or NoneType, was"):
            oq.run_report("research", value, root=tmp_path)
    assert not list(tmp_path.iterdir())
