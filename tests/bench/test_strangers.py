"""The bench of strangers: what joins the heads of others, without the device left out."""

from __future__ import annotations

import numpy as np
import pytest

from bench.common import BenchError
from bench.strangers import JOINS, Heads, measure
from fl_core.planted import plant
from tests.bench.test_scores import device


@pytest.mark.req("L-72", "L-75")
def test_every_join_is_judged_without_a_test_row() -> None:
    devices = plant([device(index) for index in range(3)], seed=0)
    found = measure(devices, seed=0, rounds=1)
    assert list(found) == list(JOINS)
    for name, (auc, alarms) in found.items():
        assert auc > 0.5, name
        assert 0.0 <= alarms <= 1.0


def test_two_devices_are_too_few() -> None:
    with pytest.raises(BenchError, match="too few"):
        measure(plant([device(0), device(1)], seed=0), seed=0)


@pytest.mark.req("L-72")
def test_joins_of_two_heads_by_hand() -> None:
    scores = np.array([[1.0, 4.0], [4.0, 16.0]])
    heads = Heads(np.array([1.0, 8.0]), np.array([2.0, 8.0]), np.array([1.0, 1.0]))
    wanted = {
        "least (L-72)": [1, 4],
        "least, over the head's median": [0.5, 2],
        "least, over its threshold": [0.5, 2],
        "least, over its threshold for 10 %": [1, 4],
        "second least": [4, 16],
        "mean of the least two": [2.5, 10],
        "geometric mean of the least three": [2, 8],
        "harmonic, power 1": [0.8, 3.2],
        "geometric mean": [2, 8],
        "median": [2.5, 10],
        "greatest": [4, 16],
    }
    for name, values in wanted.items():
        assert JOINS[name](scores, heads) == pytest.approx(values), name
    least = JOINS["harmonic, power 4"](scores, heads)
    assert (JOINS["harmonic, power 1"](scores, heads) < least).all()
    assert (least < scores.min(axis=0)).all()
