"""A multivariate series, its windows, and the rows that a node learns from.

A window is `length` consecutive time steps of all channels, flattened oldest step first into one
row. Its label is that of its last step, so an alert says "now", and every test step has exactly one
window. The first test windows reach back into the training part, which the test part follows in
time. Where nothing is recorded before, the first row is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.dataset import DeviceData, Matrix, kept_columns
from fl_core.errors import DataError

__all__ = [
    "Series",
    "device_windows",
    "drop_channels",
    "padded_windows",
    "pool",
    "split_windows",
    "step_windows",
    "window_columns",
    "window_layout",
    "windows",
]

TRAIN_SHARE: Final = 0.8
"""Share of the training part's time steps, the earliest, whose windows train; the rest validate."""

_PARTS: Final = ("train", "validation", "test_benign", "test_attack")
_STEP: Final = re.compile(r"(.+)@(0|-[1-9][0-9]*)")


@dataclass(frozen=True, eq=False)
class Series:
    """What one place recorded: a normal part to learn from, and the labelled part after it."""

    name: str
    """Name of the place, unique in its source."""
    channels: tuple[str, ...]
    """The C channel names, unique."""
    train: Matrix
    """Shape (T, C): normal time steps, oldest first."""
    test: Matrix
    """Shape (T', C): the time steps after them."""
    labels: NDArray[np.int8]
    """Shape (T',): 1 where a test step is anomalous, else 0."""

    def __post_init__(self) -> None:
        width = len(self.channels)
        if width == 0 or len(set(self.channels)) != width:
            raise DataError(f"{self.name}: channels need names of their own")
        for part in ("train", "test"):
            values = getattr(self, part)
            if values.ndim != 2 or values.shape[1] != width or values.dtype != np.float64:
                raise DataError(
                    f"{self.name}: {part} has shape {values.shape} {values.dtype}, not "
                    f"(steps, {width}) float64"
                )
            if not np.isfinite(values).all():
                raise DataError(
                    f"{self.name}: {part} holds a NaN or an infinity",
                    hint="replace it by a real value, or remove the time step",
                )
        if self.labels.shape != (len(self.test),) or not np.isin(self.labels, (0, 1)).all():
            raise DataError(f"{self.name}: labels must be one 0 or 1 for each test step")

    def __repr__(self) -> str:
        return (
            f"Series({self.name!r}, {len(self.channels)} channels, train={len(self.train)}, "
            f"test={len(self.test)}, anomalous={int(self.labels.sum())})"
        )


def drop_channels(series: Series, patterns: Sequence[str]) -> Series:
    """Return `series` without the channels that match any of the shell patterns.

    Raises:
        DataError: A pattern matches no channel, or no channel would be left.
    """
    if not patterns:
        return series
    keep = kept_columns(series.channels, patterns, series.name)
    return replace(
        series,
        channels=tuple(series.channels[i] for i in keep),
        train=series.train[:, keep],
        test=series.test[:, keep],
    )


# ------------------------------------------------------------------------------ windows


def windows(values: Matrix, length: int, stride: int = 1) -> Matrix:
    """Return the windows that lie wholly in `values` (L-30).

    Args:
        values: Shape (T, C), oldest first.
        length: Time steps in a window, at least 1.
        stride: Steps between the starts of two windows, at least 1.

    Returns:
        Shape (n, length * C), float64, n = (T - length) // stride + 1; 0 rows where T < length.
        Columns are ordered by step, oldest first, then by channel.

    Raises:
        DataError: `length` or `stride` below 1.
    """
    if length < 1 or stride < 1:
        raise DataError(f"window {length}, stride {stride}", hint="both must be at least 1")
    steps, channels = values.shape
    if steps < length:
        return np.empty((0, length * channels))
    view = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)[::stride]
    rows = view.transpose(0, 2, 1)  # (n, C, length) -> (n, length, C)
    return np.asarray(rows.reshape(len(rows), length * channels), dtype=np.float64)


def padded_windows(values: Matrix, length: int, before: Matrix | None = None) -> Matrix:
    """Return one window a time step: the one that ends there (L-31).

    Args:
        values: Shape (T, C), T >= 1.
        length: Time steps in a window, at least 1.
        before: Shape (B, C): what was recorded just before. The first `length` - 1 windows take
            their missing steps from its end; what is still missing repeats the oldest row known.

    Returns:
        Shape (T, length * C), as `windows`.

    Raises:
        DataError: `length` below 1, or no values.
    """
    if length < 1 or len(values) == 0:
        raise DataError(f"window {length} over {len(values)} time steps", hint="give at least 1")
    known = values if before is None else np.concatenate((before[-length:], values))
    missing = max(0, length - 1 - (len(known) - len(values)))
    full = np.concatenate((np.repeat(known[:1], missing, axis=0), known))
    return windows(full, length)[-len(values) :]


def window_columns(channels: Sequence[str], length: int) -> tuple[str, ...]:
    """Return the columns of a window: ``Pressure@-3`` is three steps before its end (L-30).

    The last step is ``Pressure@0``. A window of one step has the channels' own names.
    """
    if length == 1:
        return tuple(channels)
    return tuple(f"{name}@{step}" for step in range(1 - length, 1) for name in channels)


def window_layout(columns: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the channels and the window length that `columns` are named for.

    The inverse of `window_columns`. Columns that are named otherwise stand alone: they are their
    own channels in a window of one step.
    """
    found = [_STEP.fullmatch(name) for name in columns]
    length = 1 - int(found[0][2]) if found and found[0] else 1
    if length > 1 and not len(columns) % length:
        last = found[-(len(columns) // length) :]
        channels = tuple(match[1] for match in last if match)
        if window_columns(channels, length) == tuple(columns):
            return channels, length
    return tuple(columns), 1


# ------------------------------------------------------------------------------ a series' rows


def split_windows(series: Series, length: int) -> tuple[Matrix, Matrix]:
    """Return the training and the validation windows of the normal part (L-32).

    The first 80 % of the time steps give the ones, the others the other. Windows do not reach
    over the cut, so no time step is in both: ends of windows are `length` steps apart there.

    Returns:
        Shapes (n, length * C) and (m, length * C), n >= 2 and m >= 1.

    Raises:
        DataError: The normal part is too short for both.
    """
    cut = int(len(series.train) * TRAIN_SHARE)
    train = windows(series.train[:cut], length)
    validation = windows(series.train[cut:], length)
    if len(train) < 2 or len(validation) < 1:
        raise DataError(
            f"{series.name}: {len(series.train)} normal time steps are too few for windows of "
            f"{length} in training and validation",
            hint=f"record at least {5 * length + 5}, or take a shorter window",
        )
    return train, validation


def step_windows(series: Series, length: int) -> Matrix:
    """Return the window of every test step, in time order; `series.labels` are theirs (L-31).

    Returns:
        Shape (T', length * C). The first `length` - 1 of them hold the training part's last steps.
    """
    if len(series.test) == 0:
        return np.empty((0, length * len(series.channels)))
    return padded_windows(series.test, length, series.train)


def device_windows(series: Series, length: int) -> DeviceData:
    """Return a series as rows to learn from, to set thresholds on and to test on.

    Args:
        series: What was recorded.
        length: Time steps in a window.

    Raises:
        DataError: As `split_windows`.
    """
    train, validation = split_windows(series, length)
    rows = step_windows(series, length)
    attack = rows[series.labels == 1]
    return DeviceData(
        device=series.name,
        feature_names=window_columns(series.channels, length),
        train=train,
        validation=validation,
        test_benign=rows[series.labels == 0],
        test_attack=attack,
        attack_names=np.full(len(attack), "attack"),
    )


def pool(parts: Sequence[DeviceData], name: str) -> DeviceData:
    """Join the rows of several devices into one, in their order.

    Args:
        parts: At least one, with the same columns.
        name: The name of the whole.

    Raises:
        DataError: None is given, or their columns differ.
    """
    if not parts:
        raise DataError(f"{name}: there is nothing to join")
    columns = parts[0].feature_names
    for part in parts:
        if part.feature_names != columns:
            raise DataError(
                f"{name}: the columns of {part.device} are not those of {parts[0].device}",
                hint="give all files of a group the same columns in the same order",
            )
    joined = {key: np.concatenate([getattr(part, key) for part in parts]) for key in _PARTS}
    attacks = np.concatenate([part.attack_names for part in parts])
    return DeviceData(device=name, feature_names=columns, attack_names=attacks, **joined)
