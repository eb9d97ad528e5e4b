"""Walk-forward windows: no training label reaches a test, tests are disjoint, ordered and reach the end."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orbiquant.core import ModelError
from orbiquant.models.splits import WalkForward, backtest_paths, combinatorial_folds, purged_folds, purged_tail

sizes = st.integers(1, 60)


gaps = st.integers(0, 30)


@given(st.integers(1, 600), sizes, sizes, gaps, gaps, st.booleans())
def test_windows_are_purged_disjoint_ordered_and_reach_the_end(rows, train, test, purge, embargo, expanding):
    walk = WalkForward(train, test, purge, embargo, expanding)
    assume(walk.get_n_splits(range(rows)) > 0)
    folds = list(walk.split(range(rows)))
    assert len(folds) == walk.get_n_splits(range(rows))
    for train_rows, test_rows in folds:
        assert test_rows[0] - train_rows[-1] == purge + embargo + 1
        assert len(test_rows) == test and len(train_rows) >= train
        assert (np.diff(train_rows) == 1).all() and (np.diff(test_rows) == 1).all()
        assert (train_rows[0] == 0) if expanding else (len(train_rows) == train)
    covered = np.concatenate([test_rows for _, test_rows in folds])
    assert covered[-1] == rows - 1 and (np.diff(covered) == 1).all()
    assert covered[0] < train + purge + embargo + test


@given(st.integers(400, 5_000), st.integers(1, 9), st.integers(1, 20), st.integers(0, 20), st.booleans())
def test_over_gives_the_number_of_folds_that_was_asked_for(rows, folds, horizon, embargo, expanding):
    try:
        walk = WalkForward.over(rows, folds, horizon, embargo, expanding, min_train=20)
    except ModelError:
        assert rows < (folds + 1) * (20 + horizon + embargo)
        return
    assert walk.get_n_splits(range(rows)) == folds
    first, _ = next(iter(walk.split(range(rows))))
    assert len(first) >= 20 and walk.purge == horizon


def test_no_training_label_is_written_during_a_test():
    rows, horizon = 3_000, 24
    label_needs = np.arange(rows) + horizon
    for train, test in WalkForward.over(rows, 5, horizon).split(range(rows)):
        assert label_needs[train].max() < test.min()


def test_scikit_learn_accepts_it_as_a_cross_validator():
    from sklearn.dummy import DummyRegressor
    from sklearn.model_selection import cross_val_score

    X, y = pd.DataFrame({"a": np.arange(1_000.0)}), np.arange(1_000.0)
    scores = cross_val_score(DummyRegressor(), X, y, cv=WalkForward(200, 100, 10, 5))
    assert len(scores) == WalkForward(200, 100, 10, 5).get_n_splits(X) == 7


@pytest.mark.parametrize(("name", "value"), [("train_size", 0), ("test_size", 0), ("purge", -1), ("embargo", -1)])
def test_sizes_that_make_no_windows_are_refused(name, value):
    good = {"train_size": 10, "test_size": 10, "purge": 0, "embargo": 0}
    with pytest.raises(ModelError, match=f"`{name}` must be at least .*, was {value}"):
        WalkForward(**good | {name: value})


def test_too_few_rows_say_how_many_are_needed():
    with pytest.raises(ModelError, match="at least 25 rows for one fold, had 24"):
        next(iter(WalkForward(10, 10, 5).split(range(24))))
    with pytest.raises(
        ModelError, match="5 folds with 24 rows purged need at least 1,344 labelled rows, there are 1,343"
    ):
        WalkForward.over(1343, 5, 24)
    assert WalkForward.over(1344, 5, 24).get_n_splits(range(1344)) == 5


@given(rows=st.integers(1, 500), share=st.floats(0.01, 0.9), purge=st.integers(0, 50))
def test_a_tail_is_the_newest_rows_and_a_purge_away(rows, share, purge):
    try:
        head, tail = purged_tail(rows, share, purge)
    except ModelError as error:
        assert "must leave rows on both sides" in str(error)
        return
    assert head.start == 0 and tail.stop == rows and tail.start - head.stop == purge
    assert tail.stop - tail.start == round(rows * share)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_must_leave_both_sides_something(share):
    with pytest.raises(ModelError, match="`share` must be between 0 and 1"):
        purged_tail(100, share, 0)


# --- purged and combinatorial ---


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(200, 600), groups=st.integers(3, 6), horizon=st.integers(1, 12), embargo=st.integers(0, 8),
    tested=st.integers(1, 2),
)  # fmt: skip
def test_no_training_label_reaches_a_test_row_nor_a_test_label_a_training_row(rows, groups, horizon, embargo, tested):
    folds = combinatorial_folds(rows, groups, tested, horizon, embargo)
    assert len(folds) == comb(groups, tested)
    for train, test in folds:
        inside = np.zeros(rows + horizon + 1, dtype=bool)
        inside[test] = True
        assert not any(inside[row : row + horizon + 1].any() for row in train)
        ends = test[np.append(np.diff(test) > 1, True)]
        assert not any(((train > end) & (train <= end + horizon + embargo)).any() for end in ends)
    tests = np.concatenate([test for _, test in folds])
    assert (np.bincount(tests, minlength=rows) == comb(groups - 1, tested - 1)).all()


def test_purged_folds_test_every_row_once():
    folds = purged_folds(500, 5, horizon=10)
    assert np.concatenate([test for _, test in folds]).tolist() == list(range(500))
    train, test = folds[2]
    assert train[train < test[0]].max() == test[0] - 11 and train[train > test[-1]].min() == test[-1] + 11


def test_paths_are_whole_histories_of_test_predictions():
    folds = combinatorial_folds(300, 5, 2, horizon=3)
    paths = backtest_paths([np.full(len(test), float(i)) for i, (_, test) in enumerate(folds)], folds, 5, 2, 300)
    assert paths.shape == (4, 300)
    for path in paths:
        assert all(row in folds[int(fold)][1] for row, fold in enumerate(path))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: purged_folds(100, 1, 5), "`folds` must be at least 2, was 1"),
        (lambda: combinatorial_folds(100, 4, 0, 5), "`tested` must be at least 1, was 0"),
        (lambda: combinatorial_folds(100, 2, 2, 5), "`groups` must be at least 3, was 2"),
        (lambda: purged_folds(60, 3, 200), "a purge of 200 rows must leave rows on both sides, of 60"),
    ],
)
def test_folds_that_cannot_be_are_refused(call, message):
    with pytest.raises(ModelError, match=message):
        call()
