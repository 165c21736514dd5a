"""Devices to choose settings on: what is benign is validation rows, what is not is planted.

Whoever compares settings by their figures on test rows has tuned on them. So settings are compared
on devices made of training and validation rows alone; attacks are benign rows of other devices, and
bursts: own rows in which some streams are several times as busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from fl_core.data.dataset import DeviceData, Matrix
from fl_core.errors import DataError
from fl_core.layouts import named_blocks

__all__ = ["BURST", "plant"]

BURST: Final = (1.3, 20.0)
"""Least and largest factor of a burst, log-uniform."""

_HELD_OUT: Final = 5  # one training row in so many sets thresholds
_BUSY: Final = 0.3  # share of the streams in a burst, at least one


def plant(devices: Sequence[DeviceData], *, seed: int) -> list[DeviceData]:
    """Return the same devices with everything they know of attacks replaced.

    Args:
        devices: At least two, with the same columns.
        seed: Of what is planted; non-negative.

    Returns:
        Each with four fifths of its training rows, the rest of them as validation rows, its
        validation rows as benign test rows, and twice as many planted rows as attacks, half of them
        bursts and half benign rows of other devices. No test row is in any part.

    Raises:
        DataError: there is one device only.

    Source: specs/90-learning.md L-75.
    """
    if len(devices) < 2:
        raise DataError(
            "one device has no others whose rows could be planted", hint="give two or more"
        )
    rng = np.random.default_rng(seed)
    found = []
    for index, device in enumerate(devices):
        others = np.concatenate(
            [each.validation for other, each in enumerate(devices) if other != index]
        )
        count = len(device.validation)
        foreign = others[rng.integers(len(others), size=count)]
        bursts = _bursts(device.validation, named_blocks(device.feature_names), rng)
        attacks = np.concatenate([foreign, bursts])
        held = np.arange(len(device.train)) % _HELD_OUT == 0
        found.append(
            replace(
                device,
                train=device.train[~held],
                validation=device.train[held],
                test_benign=device.validation,
                test_attack=attacks,
                attack_names=np.repeat(["foreign", "burst"], count),
            )
        )
    return found


def _bursts(rows: Matrix, runs: Sequence[int], rng: np.random.Generator) -> Matrix:
    """Multiply all statistics of some runs (their lengths) of each row by a factor of its own."""
    busy = rng.random((len(rows), len(runs))) < _BUSY
    busy[np.arange(len(rows)), rng.integers(len(runs), size=len(rows))] = True  # never none
    columns = np.repeat(busy, runs, axis=1)  # (n, runs) -> (n, d)
    low, high = np.log(BURST)
    factor = np.exp(rng.uniform(low, high, size=(len(rows), 1)))
    return np.asarray(np.where(columns, rows * factor, rows))
