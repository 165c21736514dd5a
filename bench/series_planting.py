"""Series to choose settings on: normal parts alone, with anomalies that are planted.

Whoever compares settings by their figures on labelled steps has tuned on them. So they are compared
here. Every series gives its normal part and nothing else: the first steps of it are the normal part
of a new series, the others its test part, and each copy of the test part has one kind of anomaly.
What is planted lasts long or not (`SETS`), begins at once or slowly, and is a small multiple of
what the channels usually do.

The run of SKAB without anomalies has no label at all. It is cut into pieces as long as an
experiment, so one set has the drift, the lengths and the return to normal of the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.dataset import Matrix
from fl_core.data.series import Series

__all__ = ["KINDS", "SETS", "Planting", "pieces", "plant", "shortened"]

SIZES: Final = (0.7, 5.0)
"""Least and largest size in standard deviations of the channel's normal part, log-uniform."""

PIECE: Final = (400, 1150)
"""Normal steps and all steps of a piece of the run without anomalies: those of an experiment."""

STRIDE: Final = 575
"""Steps between the starts of two pieces."""

_FURTHEST: Final = 5.0  # standard deviations that another regime may lie away


@dataclass(frozen=True, slots=True)
class Planting:
    """How long planted anomalies last, and how many a test part has."""

    lengths: tuple[int, int]
    """Least and greatest length in steps, log-uniform."""

    every: int
    """Steps of the test part for one anomaly; 0 for a single one."""

    lasts: bool = False
    """Whether it lasts until the end of the test part."""


SETS: Final = {
    "long": Planting((60, 120), 0, lasts=True),
    "run": Planting((300, 450), 0),
    "brief": Planting((5, 40), 0),
    "asd": Planting((4, 100), 150),
}
"""The pieces of SKAB's run without anomalies are "run"; its experiments are "long" and "brief"."""


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What a change may use; everything in units of the normal part's spread, its mean being 0."""

    own: Matrix
    """Normal part, shape (T, C)."""
    regime: NDArray[np.float64]
    """Where another series usually is, shape (C,)."""
    size: float
    """Above 0."""
    rng: np.random.Generator

    def ramp(self, count: int) -> Matrix:
        """Return how far it has come, shape (n, 1): at once, or by half of its length."""
        rise = max(1, int(self.rng.uniform(0.0, 0.5) * count))
        return np.asarray(np.minimum(1.0, np.arange(1, count + 1) / rise)[:, None])

    def signs(self, width: int) -> Matrix:
        """Return a direction for each channel, shape (1, C)."""
        return self.rng.choice((-1.0, 1.0), size=(1, width))


_Change = Callable[[Matrix, _Scene], Matrix]
"""Steps (n, C) and their scene to changed steps."""


def _shift(steps: Matrix, at: _Scene) -> Matrix:
    """Move the level."""
    return steps + at.size * at.signs(steps.shape[1]) * at.ramp(len(steps))


def _regime(steps: Matrix, at: _Scene) -> Matrix:
    """Move all channels the way that leads to where another series usually is."""
    way = at.regime / max(float(np.abs(at.regime).max()), 1e-9)
    return steps + 1.5 * at.size * way * at.ramp(len(steps))


def _trend(steps: Matrix, at: _Scene) -> Matrix:
    """Move the level further with every step."""
    way = np.linspace(0.0, 2.0 * at.size, len(steps))[:, None]
    return steps + way * at.signs(steps.shape[1])


def _noise(steps: Matrix, at: _Scene) -> Matrix:
    return steps + at.size * at.rng.normal(size=steps.shape)


def _calm(steps: Matrix, at: _Scene) -> Matrix:
    """Damp what moves."""
    middle = steps.mean(axis=0)
    return np.asarray(middle + (steps - middle) / (1.0 + 2.0 * at.size))


def _wide(steps: Matrix, at: _Scene) -> Matrix:
    """Widen what moves."""
    middle = steps.mean(axis=0)
    return np.asarray(middle + (steps - middle) * (1.0 + at.size))


def _mirror(steps: Matrix, at: _Scene) -> Matrix:
    """Turn channels over, each usual in itself."""
    del at
    return np.asarray(2.0 * steps.mean(axis=0) - steps)


def _moment(steps: Matrix, at: _Scene) -> Matrix:
    """Take channels from another moment of the normal part."""
    count = min(len(steps), len(at.own))
    start = int(at.rng.integers(len(at.own) - count + 1))
    return np.resize(at.own[start : start + count], steps.shape)


def _rhythm(steps: Matrix, at: _Scene) -> Matrix:
    """Play the steps faster, to and fro."""
    last = max(1, len(steps) - 1)
    when = np.abs((np.arange(len(steps)) * (1.0 + at.size) + last) % (2 * last) - last)
    return np.stack([np.interp(when, np.arange(len(steps)), each) for each in steps.T], axis=1)


KINDS: Final[dict[str, tuple[_Change, float]]] = {
    "shift": (_shift, 0.4),
    "regime": (_regime, 1.0),
    "trend": (_trend, 0.4),
    "noise": (_noise, 0.4),
    "calm": (_calm, 0.6),
    "wide": (_wide, 0.6),
    "mirror": (_mirror, 0.5),
    "moment": (_moment, 0.5),
    "rhythm": (_rhythm, 1.0),
}
"""Change, and the greatest share of the channels that have it; at least one has, at 1 all."""


def shortened(series: Series, share: float, steps: int | None = None) -> Series:
    """Return the normal part alone: its first `share` as normal part, `steps` of the rest to test.

    No test step of `series` is in it.
    """
    cut = int(len(series.train) * share)
    rest = series.train[cut:][:steps]
    return replace(series, train=series.train[:cut], test=rest, labels=np.zeros(len(rest), np.int8))


def pieces(values: Matrix, channels: Sequence[str]) -> Iterator[Series]:
    """Cut a run without anomalies, shape (T, C), into series of `PIECE` steps."""
    own, full = PIECE
    labels = np.zeros(full - own, np.int8)
    for start in range(0, len(values) - full + 1, STRIDE):
        part = values[start : start + full]
        yield Series(f"run-{start}", tuple(channels), part[:own], part[own:], labels)


def plant(series: Series, kind: str, planting: Planting, others: Matrix, *, seed: int) -> Series:
    """Return the series with anomalies of one kind in its test part.

    Args:
        series: Its test part is normal.
        kind: One of `KINDS`.
        planting: How long they last, and how many there are.
        others: Mean levels of other series, shape (n, C), n >= 1.
        seed: Of all draws; non-negative.
    """
    rng = np.random.default_rng(seed)
    change, share = KINDS[kind]
    middle, spread = series.train.mean(axis=0), series.train.std(axis=0)
    spread = np.maximum(spread, 1e-3 * np.maximum(1.0, np.abs(middle)))
    own, test = (series.train - middle) / spread, (series.test - middle) / spread
    labels, changed, width = np.zeros(len(test), np.int8), test.copy(), len(series.channels)
    for start, end in _ranges(len(test), planting, rng):
        size = float(np.exp(rng.uniform(*np.log(SIZES))))
        regime = (others[rng.integers(len(others))] - middle) / spread
        scene = _Scene(own, np.clip(regime, -_FURTHEST, _FURTHEST), size, rng)
        odd = change(test[start:end], scene)
        count = int(rng.integers(1, max(1, round(share * width)) + 1))
        hit = np.arange(width) if share == 1.0 else rng.permutation(width)[:count]
        changed[start:end, hit] = odd[:, hit]
        labels[start:end] = 1
    return replace(series, test=changed * spread + middle, labels=labels)


def _ranges(count: int, planting: Planting, rng: np.random.Generator) -> list[tuple[int, int]]:
    slots = max(1, count // planting.every) if planting.every else 1
    wide = count // slots
    low, high = np.log(planting.lengths)
    found = []
    for slot in range(slots):
        length = min(int(np.exp(rng.uniform(low, high))), wide - 10)
        start = wide - length if planting.lasts else int(rng.integers(5, wide - length - 2))
        found.append((slot * wide + start, slot * wide + start + length))
    return found
