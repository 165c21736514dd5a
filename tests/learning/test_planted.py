"""Devices to choose settings on: no test row in them, and anomalies that can be found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_core.baselines import knn_score
from fl_core.errors import DataError
from fl_core.metrics import quality
from fl_core.planted import BURST, plant
from tests.learning.test_contest import device

DEVICES = [replace(device(index), device=f"device-{index}") for index in range(3)]


def rows_of(*parts: np.ndarray) -> set[bytes]:
    return {row.tobytes() for part in parts for row in part}


@pytest.mark.req("L-75")
def test_no_test_row_is_in_any_part() -> None:
    for before, after in zip(DEVICES, plant(DEVICES, seed=0), strict=True):
        tests = rows_of(before.test_benign, before.test_attack)
        parts = (after.train, after.validation, after.test_benign, after.test_attack)
        assert not tests & rows_of(*parts)
        assert rows_of(after.train, after.validation) == rows_of(before.train)
        assert not rows_of(after.train) & rows_of(after.validation)
        assert after.test_benign is before.validation


@pytest.mark.req("L-75")
def test_anomalies_are_foreign_rows_and_bursts_of_own_ones() -> None:
    planted = plant(DEVICES, seed=0)
    first = planted[0]
    foreign = first.test_attack[first.attack_names == "foreign"]
    bursts = first.test_attack[first.attack_names == "burst"]
    assert rows_of(foreign) <= rows_of(DEVICES[1].validation, DEVICES[2].validation)
    assert len(foreign) == len(bursts) == len(first.test_benign)
    ratio = bursts / np.where(first.test_benign == 0, 1, first.test_benign)
    changed = np.abs(ratio - 1) > 1e-9
    assert changed.any(axis=1).all()
    assert not changed.all(axis=1).any()
    assert BURST[0] <= ratio[changed].min() <= ratio[changed].max() <= BURST[1]


def test_they_can_be_found_and_the_seed_fixes_them() -> None:
    (first, *_), (again, *_) = plant(DEVICES, seed=1), plant(DEVICES, seed=1)
    assert np.array_equal(first.test_attack, again.test_attack)
    score = knn_score(first.train)
    assert quality(score(first.test_benign), score(first.test_attack), 1.0).auc > 0.8


def test_one_device_alone_is_refused() -> None:
    with pytest.raises(DataError, match="no others"):
        plant(DEVICES[:1], seed=0)
