"""Real bars for tests at scale: found outside the repository, or the test is skipped and says so."""

import os
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from orbiquant.domain import Bars, SeriesId
from orbiquant.market.bars import with_series

SHARED = Path(os.environ.get("ORBIQUANT_SAMPLE_DATA", Path(__file__).parents[3] / "shared" / "data"))


@cache
def shared_bars(name: str) -> Bars:
    """Return the bars of `<name>.parquet`; skip the test when they are not there."""
    path = SHARED / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"no {path.name} in {SHARED}; set ORBIQUANT_SAMPLE_DATA")
    bars = pd.read_parquet(path).set_index("time").astype("float64")
    return with_series(bars.set_axis(bars.index.as_unit("us"), axis=0), SeriesId.parse(*name.split("_")))
