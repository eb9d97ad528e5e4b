"""What cannot be trained on is refused with the cause and the way out, in no word of the program's own."""

import numpy as np
import pandas as pd
import pytest

from orbiquant.core import OrbiError
from orbiquant.features.matrix import build_features
from orbiquant.features.spec import FeatureSpec
from orbiquant.market.synthetic import synthetic_market
from orbiquant.models.config import Phase2Config
from orbiquant.models.phase2 import Phase2Pipeline

PRICES = ["open", "high", "low", "close"]


def market(bars: int = 2_200) -> pd.DataFrame:
    """Return made-up hours."""
    return synthetic_market(bars, "1h", seed=31).bars


def refusal(bars: pd.DataFrame, last: int | None = None, **settings: int) -> str:
    """Return why some bars, or the last of them, are not trained on."""
    config = Phase2Config(rounds=5, meta="off", **settings)
    with pytest.raises(OrbiError) as refused:
        features = build_features(bars, FeatureSpec(timeframe="1h", calendar="forex"))
        Phase2Pipeline(config).run(bars.iloc[-(last or 0) :], features.iloc[-(last or 0) :])
    said = refused.value.message
    assert not {"`Y`", "`X`", "`n_rows`", "n_rows", "Traceback"} & set(said.split()) and len(said) < 500
    return said


def test_a_market_that_stands_still():
    flat = market()
    flat[PRICES] = 7.0
    said = refusal(flat)
    assert said.startswith("no bar of 2,200 can be learned from: each is flat") and "bring bars that move" in said


@pytest.mark.parametrize("last", [1, 2, 24, 25, 300])
def test_no_bar_with_a_result_and_a_volatility(last):
    said = refusal(market(), last=last)
    assert said.startswith(f"no bar of {last} can be learned from: the last 24 have no result yet")
    assert "train on more bars, or with a shorter `horizon_bars`" in said


@pytest.mark.parametrize("bars", [1, 10, 900])
def test_too_few_for_a_single_feature(bars):
    said = refusal(market().iloc[:bars])
    assert f"there are {bars:,}" in said and "import or pull more" in said


@pytest.mark.parametrize(
    ("last", "folds", "way"), [(1_700, 5, "with `folds` 3 or less"), (600, 5, "train on more bars")]
)
def test_too_few_for_so_many_folds(last, folds, way):
    said = refusal(market(), last=last, folds=folds)
    assert said.startswith("5 folds need at least 1,488 bars that can be learned from, there are ") and said.endswith(
        way
    )


def test_the_number_of_folds_it_names_can_be_trained():
    bars = market()
    features = build_features(bars, FeatureSpec(timeframe="1h", calendar="forex"))
    config = Phase2Config(rounds=2, meta="off", folds=3)
    assert len(Phase2Pipeline(config).run(bars.iloc[-1_700:], features.iloc[-1_700:]).folds) == 3


def test_closes_that_never_change_between_ranges_that_do():
    still = market()
    wiggle = np.random.default_rng(5).uniform(0.001, 0.002, size=len(still))
    still[["open", "close"]], still["high"], still["low"] = 1.0, 1 + wiggle, 1 - wiggle
    said = refusal(still, folds=1)
    assert said.startswith("no bar of 2,200 can be learned from: every close is 1, there is no volatility")
