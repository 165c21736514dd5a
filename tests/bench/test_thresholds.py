"""The bench of thresholds reads no test row, and counts alarms against chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.thresholds import RULES, measure
from fl_core.data.dataset import DeviceData
from fl_core.data.sources import list_devices, load_device
from fl_core.planted import plant


@pytest.fixture(scope="module")
def devices() -> list[DeviceData]:
    names = list_devices("builtin")[:2]
    return [load_device("builtin", name) for name in names]


@pytest.mark.req("L-75")
def test_every_rule_is_measured_on_every_device_without_a_test_row(
    devices: list[DeviceData],
) -> None:
    blind = [replace(each, test_benign=each.test_benign * np.nan) for each in devices]
    found = list(measure(plant(blind, seed=0), seed=0, rounds=1))
    assert [each.rule for each in found] == [*RULES] * 2
    for device, own in zip(devices, (found[: len(RULES)], found[len(RULES) :]), strict=True):
        scores = {each.rule: each.scores for each in own}
        assert scores["both, 5 folds"] == len(device.train)
        assert scores["held-out rows"] + scores["5 folds"] == len(device.train)
        for each in own:
            assert 0.0 <= each.rate <= 1.0
            assert each.off != 1 or each.rate > 0.01
            assert each.off != -1 or each.rate < 0.01
