"""One node's data: benign rows to learn from and to set thresholds on, and rows to test on."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fl_core.errors import DataError

__all__ = ["DeviceData", "Matrix", "drop_columns", "evenly", "kept_columns", "seeded", "thin"]

Matrix = NDArray[np.float64]
"""Rows of features: shape (n, d), dtype float64."""

_PARTS = ("train", "validation", "test_benign", "test_attack")


@dataclass(frozen=True, eq=False)
class DeviceData:
    """The rows of one device, in time order where the source has an order.

    Every part has shape (n, d) with the columns of `feature_names`; all values are finite.
    `test_attack` may be empty: a site without recorded attacks still trains.
    """

    device: str
    """Name of the device, as the source spells it."""
    feature_names: tuple[str, ...]
    """The d column names, unique."""
    train: Matrix
    """Benign rows to learn from."""
    validation: Matrix
    """Benign rows for thresholds, disjoint from `train`; later, where the source has time."""
    test_benign: Matrix
    """Benign rows for testing, disjoint from both."""
    test_attack: Matrix
    """Rows of attack traffic, for testing only."""
    attack_names: NDArray[np.str_]
    """Shape (m,): the attack of each row, such as "mirai.syn"; "attack" where it is unknown."""

    def __post_init__(self) -> None:
        width = len(self.feature_names)
        if len(set(self.feature_names)) != width:
            raise DataError(f"{self.device}: two columns have the same name")
        for part in _PARTS:
            shape = getattr(self, part).shape
            if len(shape) != 2 or shape[1] != width:
                raise DataError(f"{self.device}: {part} has shape {shape}, not (rows, {width})")
        if self.attack_names.shape != (len(self.test_attack),):
            raise DataError(f"{self.device}: attack_names must name each of the attack rows once")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part}={len(getattr(self, part))}" for part in _PARTS)
        return f"DeviceData({self.device!r}, {len(self.feature_names)} columns, {sizes})"


def kept_columns(names: Sequence[str], patterns: Sequence[str], owner: str) -> list[int]:
    """Return the places of the columns that match none of the shell patterns.

    Raises:
        DataError: A pattern matches no column, or no column would be left; names the owner.
    """
    dropped: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise DataError(
                f"{owner}: no column matches {pattern!r}",
                hint=f"the columns are {names[0]} to {names[-1]}",
            )
        dropped |= found
    keep = [i for i, name in enumerate(names) if name not in dropped]
    if not keep:
        raise DataError(f"{owner}: the patterns drop every column", hint="drop fewer")
    return keep


def drop_columns(data: DeviceData, patterns: Sequence[str]) -> DeviceData:
    """Return `data` without the columns that match any of the shell patterns.

    Args:
        data: What to take the columns from; it is left as it is.
        patterns: Such as "HH_jit_*"; case counts.

    Raises:
        DataError: A pattern matches no column, or no column would be left.
    """
    if not patterns:
        return data
    keep = kept_columns(data.feature_names, patterns, data.device)
    return replace(
        data,
        feature_names=tuple(data.feature_names[i] for i in keep),
        train=data.train[:, keep],
        validation=data.validation[:, keep],
        test_benign=data.test_benign[:, keep],
        test_attack=data.test_attack[:, keep],
    )


def evenly(count: int, limit: int | None) -> NDArray[np.intp]:
    """Return at most `limit` of the indices 0..count-1, evenly spaced and in order."""
    if limit is None or count <= limit:
        return np.arange(count)
    return np.arange(limit) * count // limit


def seeded(seed: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream of draws under a seed.

    Raises:
        DataError: The seed is negative.
    """
    if seed < 0:
        raise DataError(f"seed {seed} is negative", hint="use a whole number from 0 on")
    return np.random.default_rng(np.random.SeedSequence((seed, *stream)))


def thin(data: DeviceData, limit: int | None) -> DeviceData:
    """Return `data` with at most `limit` rows of each part, evenly spaced and in order."""
    kept = {part: evenly(len(getattr(data, part)), limit) for part in _PARTS}
    return replace(
        data,
        **{part: getattr(data, part)[rows] for part, rows in kept.items()},
        attack_names=data.attack_names[kept["test_attack"]],
    )
