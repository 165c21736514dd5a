"""The bench of scores: every score is judged by what it was not fitted to, and none is broken."""

from __future__ import annotations

import numpy as np
import pytest

from bench.scores import SCORES, measure
from fl_core.data.dataset import DeviceData
from fl_core.planted import plant
from tests.learning.conftest import make_rows


def device(index: int) -> DeviceData:
    rows = make_rows(index)
    return DeviceData(
        f"device-{index}",
        rows.feature_names,
        rows.train,
        rows.validation,
        rows.test_benign * np.nan,
        rows.test_attack * np.nan,
        np.full(len(rows.test_attack), "attack"),
    )


@pytest.mark.req("L-75")
def test_every_score_finds_something_without_a_test_row() -> None:
    found = measure(plant([device(index) for index in range(3)], seed=0), seed=0, rounds=1)
    assert list(found) == list(SCORES)
    for name, (foreign, burst, alarms) in found.items():
        assert max(foreign, burst) > 0.55, name
        assert 0.0 <= alarms <= 1.0
