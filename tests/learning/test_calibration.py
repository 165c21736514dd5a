"""Every row is scored once, by what had not seen it."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.calibration import FOLDS, cross_scores, cross_scores_together


@pytest.mark.req("L-13")
@pytest.mark.parametrize("count", [3, 5, 23])
def test_no_row_is_scored_by_what_saw_it_and_the_order_stays(count: int) -> None:
    rows = np.arange(count, dtype=np.float64)[:, None]
    fits: list[set[float]] = []

    def fit(some: np.ndarray):
        seen = set(some.ravel().tolist())
        fits.append(seen)

        def score(values: np.ndarray) -> np.ndarray:
            assert not seen & set(values.ravel().tolist())
            return values.ravel() * 10

        return score

    assert np.array_equal(cross_scores(fit, rows), rows.ravel() * 10)
    assert len(fits) == min(FOLDS, count)
    for seen in fits:
        hidden = sorted(set(rows.ravel().tolist()) - seen)
        assert hidden == list(np.arange(hidden[0], hidden[-1] + 1))  # rows that follow one another


@pytest.mark.req("L-13")
def test_devices_are_cut_alike_and_no_row_of_any_is_scored_by_what_saw_it() -> None:
    tables = [np.arange(7.0)[:, None], np.arange(100.0, 112.0)[:, None]]

    def fit(some):
        seen = set(np.concatenate(some).ravel().tolist())
        assert any(value < 100 for value in seen)
        assert any(value >= 100 for value in seen)

        def score(values):
            assert not seen & set(values.ravel().tolist())
            return -values.ravel()

        return score

    found = cross_scores_together(fit, tables)
    assert [scores.tolist() for scores in found] == [(-t).ravel().tolist() for t in tables]


@pytest.mark.req("L-13")
def test_windows_that_share_a_step_with_a_fold_are_not_fitted_to() -> None:
    rows, gap = np.arange(100.0)[:, None], 7

    def fit(some):
        seen = some.ravel()

        def score(values):
            assert all(np.abs(seen - value).min() > gap for value in values.ravel())
            return values.ravel()

        return score

    assert np.array_equal(cross_scores(fit, rows, gap=gap), rows.ravel())


@pytest.mark.req("L-13")
def test_a_fold_that_leaves_too_little_to_fit_to_is_not_scored() -> None:
    def fit(some):
        assert len(some) >= 25
        return lambda values: values.ravel()

    rows = np.arange(50.0)[:, None]
    edges = np.concatenate((rows[:10], rows[40:])).ravel()
    assert np.array_equal(cross_scores(fit, rows, gap=15), edges)
    assert len(cross_scores(fit, rows, gap=40)) == 0


@pytest.mark.req("L-13")
def test_two_rows_are_not_scored_by_a_head_of_one() -> None:
    rows = np.arange(2.0)[:, None]
    assert len(cross_scores(lambda some: lambda values: values.ravel(), rows)) == 0


@pytest.mark.req("L-13")
def test_a_short_device_costs_the_others_no_fold() -> None:
    long, short = np.arange(100.0)[:, None], np.arange(1000.0, 1020.0)[:, None]
    gap = 9

    def fit(some):
        seen = np.concatenate(some).ravel()

        def score(values):
            assert all(np.abs(seen - value).min() > gap for value in values.ravel())
            return values.ravel()

        return score

    of_long, of_short = cross_scores_together(fit, [long, short], gap=gap)
    assert np.array_equal(of_long, long.ravel())
    assert len(of_short) < len(short)
