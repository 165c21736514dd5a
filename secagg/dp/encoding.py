"""What a node gives under client-level noise: float vectors to clipped, rounded, noised integers.

A node's contribution is several named vectors that are clipped as one: all are scaled by the same
factor, so the ratios that the coordinator reads out of the sum, such as Σwx / Σw, lose nothing but
the clipped node's weight in them. `secagg.encoding` is the counterpart without noise.

Source: specs/50-dp.md sections 3 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.dp import headroom
from secagg.dp.adaptive import WITHIN_SHARE
from secagg.dp.events import SumNoise
from secagg.dp.rotation import rotate, unrotate
from secagg.dp.rounding import Sensitivity, round_bounded, sensitivity, squares_of
from secagg.dp.terms import NoiseTerms
from secagg.errors import ConfigError, LocalProtocolError
from secagg.types import RingVector, Rng

__all__ = [
    "CENTROID_SHARE",
    "WEIGHT_SHARE",
    "WITHIN",
    "PrivateEncoding",
    "PrivateSegment",
    "default_segments",
]

WITHIN: Final = "within"
"""Name of the coordinate that says whether the vector was within the clip."""
CENTROID_SHARE: Final = 0.3
"""Part of the clip that a centroid of norm √k takes at weight 1."""
WEIGHT_SHARE: Final = 0.2
"""Part of the clip that a weight of 1 takes."""
_ROTATED: Final = 1 + 2.0**-17
_LEAST: Final = 1e-30
_MOST: Final = 1e30
"""Units and clips are within these, so that their products and quotients are floats."""
_BLOCK: Final = 1 << 15  # coordinates at a time: the temporaries stay in the cache
_SQUARES: Final = (1e-280, 1e280)
"""Sums of squares between these lost nothing to overflow or underflow."""
_FLOATS: Final = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class PrivateSegment:
    """One named part of the joint vector.

    Raises:
        ConfigError: dim or unit is out of range, or the name is taken by the encoding itself.
    """

    name: str
    dim: int
    """Coordinates, at least 1."""
    unit: float
    """What the segment is divided by before the joint norm is taken: the smaller, the more of the
    norm it takes, and the less noise it gets."""

    def __post_init__(self) -> None:
        if self.name == WITHIN:
            raise ConfigError(f"no segment can be called {WITHIN!r}", hint="rename the segment")
        if self.dim < 1 or not _LEAST <= self.unit <= _MOST:
            raise ConfigError(
                f"segment {self.name!r} has dim {self.dim} and unit {self.unit}",
                hint=f"dim must be at least 1 and the unit {_LEAST} to {_MOST}",
            )


def default_segments(
    clip: float, *, update_dim: int, centroid_dim: int
) -> tuple[PrivateSegment, ...]:
    """Return the segments `update`, `centroid` and `weight` for a round with this clip.

    The unit of the update is 1, so the clip is in units of ‖wΔθ‖. A node of weight 1 with a
    centroid of norm √k, the longest there is of standardised embeddings, gives it 0.3 of the norm
    and the weight 0.2; 0.933 is left to the update. These are parts of the clip of the *round*, so
    that the noise on Σw stays 5·z when the clip adapts. Table in specs/50-dp.md section 3.

    Args:
        clip: C of the round's terms.
        update_dim: Coordinates of the update.
        centroid_dim: k, coordinates of an embedding.

    Raises:
        ConfigError: the clip or a dim is out of range.
    """
    if not _LEAST <= clip <= _MOST:
        raise ConfigError(f"clip is {clip}", hint=f"use {_LEAST} to {_MOST}")
    return (  # D-04
        PrivateSegment("update", update_dim, 1.0),
        PrivateSegment(
            "centroid", centroid_dim, math.sqrt(max(0, centroid_dim)) / (CENTROID_SHARE * clip)
        ),
        PrivateSegment("weight", 1, 1 / (WEIGHT_SHARE * clip)),
    )


@dataclass(frozen=True, slots=True)
class PrivateEncoding:
    """The map between named float vectors and the integers of a noised sum.

    Raises:
        ConfigError: the segments have no distinct names, or the clip is out of range.
    """

    segments: tuple[PrivateSegment, ...]
    terms: NoiseTerms
    within: bool = False
    """Whether a last coordinate counts the vectors within the clip (secagg/dp/adaptive.py)."""

    def __post_init__(self) -> None:
        names = [segment.name for segment in self.segments]
        if len(set(names)) != len(names) or not names:
            raise ConfigError("segments need distinct names")
        if not _LEAST <= self.terms.clip <= _MOST:
            raise ConfigError(f"clip is {self.terms.clip}", hint=f"use {_LEAST} to {_MOST}")

    @property
    def dim(self) -> int:
        """Coordinates of the whole vector."""
        return sum(segment.dim for segment in self.segments) + self.within

    @property
    def sensitivity(self) -> Sensitivity:
        """How long one node's integers can be; what replacing it by zeros moves the sum by."""
        return sensitivity(self.terms.scale, self.dim)

    @property
    def share_variance(self) -> float:
        """Variance parameter of a node's noise in each coordinate, in steps²."""
        return headroom.share_variance(self.terms, self.dim)

    @property
    def free_clip(self) -> float:
        """What the segments are clipped to: C, less what `within` takes of the norm."""
        return self.terms.clip * (math.sqrt(1 - WITHIN_SHARE**2) if self.within else 1.0)

    def event(self, shares: int) -> SumNoise:
        """Return what a round costs in which the noise of `shares` honest nodes is counted on.

        Raises:
            LocalProtocolError: the noise is that of several rounds, which are charged together.
        """
        if self.terms.stretch != 1:
            raise LocalProtocolError("noise that is correlated over rounds has no cost by round")
        bounds = self.sensitivity
        return SumNoise(
            mechanism=self.terms.mechanism,
            share_variance=self.share_variance,
            shares=shares,
            l2=bounds.l2,
            l1=bounds.l1,
            dim=self.dim,
            truncation=shares * 2.0**-headroom.CUT_BITS,
        )

    def ring_bits(self, nodes: int) -> int:
        """Return the ring for sums of `nodes`; `secagg.dp.headroom.ring_bits` says the errors."""
        return headroom.ring_bits(self.terms, self.dim, nodes)

    def value_bits(self) -> int:
        """Return the bits of one node's values; `secagg.dp.headroom.value_bits` says the errors."""
        return headroom.value_bits(self.terms, self.dim)

    def std(self, name: str, contributors: int) -> float:
        """Return the standard deviation of a decoded coordinate of a sum of `contributors`.

        Noise and rounding, the latter at most 1/4 of a squared step a node; with and without
        rotation.

        Raises:
            LocalProtocolError: there is no such segment.
        """
        steps = {known: step for known, _, step in self._layout()}
        if name not in steps:
            raise LocalProtocolError(f"there is no segment {name!r}")
        return steps[name] * math.sqrt(contributors * (self.share_variance + 0.25))

    def encode(
        self, values: Mapping[str, NDArray[np.floating[Any]]], rng: Rng, *, signs_seed: bytes
    ) -> NDArray[np.int64]:
        """Clip, rotate and round one node's vectors; no noise yet.

        Args:
            values: Segment name to a finite vector of float16, float32 or float64, shape
                (segment.dim,).
            rng: Randomness of the rounding; 32 bytes a draw, mostly one draw.
            signs_seed: 32 public bytes, made for the rotation of this round; unused without it.

        Returns:
            Shape (dim,), dtype int64, L2 norm at most `sensitivity`, no coordinate beyond
            `headroom.greatest_magnitude`. To be noised before it goes anywhere.

        Raises:
            LocalProtocolError: the values are not the agreed segments, finite vectors of floats of
                the right shape (D-02). Nothing was drawn.
        """
        x = self._clip(self._join(values))
        if self.terms.rotation:
            x = rotate(x, signs_seed)
            length = math.sqrt(squares_of(x))
            if 1 < length / self.terms.scale < _ROTATED:  # by the float error of the rotation
                x *= self.terms.scale / length
        integers = round_bounded(x, self.terms.scale, rng)
        limit = headroom.greatest_magnitude(self.terms, self.dim)
        return np.clip(integers, -limit, limit, out=integers)  # D-09

    def noised(
        self, integers: NDArray[np.int64], noise: NDArray[np.integer[Any]], *, ring_bits: int
    ) -> RingVector:
        """Add a node's noise to what `encode` gave, modulo 2^ring_bits.

        Args:
            integers: Shape (dim,).
            noise: Shape (dim,), drawn with the variance parameter `share_variance`. It is cut to
                ±`headroom.greatest_noise`: where, does not depend on the integers.
            ring_bits: 8 to 32.

        Raises:
            LocalProtocolError: a shape or dtype is wrong.
        """
        for vector in (integers, noise):
            if vector.shape != (self.dim,) or not np.issubdtype(vector.dtype, np.signedinteger):
                raise LocalProtocolError(f"{vector.dtype} of shape {vector.shape} is no noised sum")
        limit = min(headroom.greatest_noise(self.terms, self.dim), int(np.iinfo(noise.dtype).max))
        total = np.empty(self.dim, dtype=np.uint32)
        for start in range(0, self.dim, _BLOCK):
            part = slice(start, start + _BLOCK)
            total[part] = integers[part]
            total[part] += np.clip(noise[part], -limit, limit).astype(np.uint32)  # D-10
        return ring.reduce(total, ring_bits)

    def decode(
        self, integers: NDArray[np.signedinteger[Any]], *, signs_seed: bytes
    ) -> dict[str, NDArray[np.float64]]:
        """Return the segments of a noised sum, and `within`, as float64 vectors.

        Args:
            integers: Shape (dim,), the residues of least magnitude (`secagg.ring.to_signed`).
            signs_seed: As for `encode`.

        Raises:
            LocalProtocolError: `integers` has the wrong shape.
        """
        if integers.shape != (self.dim,):
            raise LocalProtocolError(f"a sum of {integers.shape} is not of {self.dim} coordinates")
        y = integers.astype(np.float64)
        if self.terms.rotation:
            y = unrotate(y, signs_seed)
        sums: dict[str, NDArray[np.float64]] = {}
        start = 0
        for name, dim, step in self._layout():
            sums[name] = y[start : start + dim] * step  # D-12
            start += dim
        return sums

    def _layout(self) -> list[tuple[str, int, float]]:
        """Return name, coordinates and value of a step of all segments, `within` included."""
        step = self.terms.clip / self.terms.scale  # D-01
        layout = [(segment.name, segment.dim, step * segment.unit) for segment in self.segments]
        if self.within:
            layout.append((WITHIN, 1, 1 / (2 * WITHIN_SHARE * self.terms.scale)))
        return layout

    def _join(self, values: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
        """Return the segments in their units, one behind the other, and a last place for `within`.

        Raises:
            LocalProtocolError: as `encode`; the message tells no value.
        """
        if set(values) != {segment.name for segment in self.segments}:  # D-02
            raise LocalProtocolError("the values do not name exactly the agreed segments")
        joint = np.zeros(self.dim)
        start = 0
        for segment in self.segments:
            vector = np.asarray(values[segment.name])
            if vector.dtype not in _FLOATS:
                raise LocalProtocolError(f"segment {segment.name!r} has dtype {vector.dtype}")
            if vector.shape != (segment.dim,):
                raise LocalProtocolError(f"segment {segment.name!r} has shape {vector.shape}")
            part = joint[start : start + segment.dim]
            with np.errstate(over="ignore", invalid="ignore"):
                np.divide(vector, segment.unit, out=part, dtype=np.float64)
                finite = math.isfinite(squares_of(part)) or math.isfinite(_peak(part))
            if not finite:
                raise LocalProtocolError(f"segment {segment.name!r} is not finite in its unit")
            start += segment.dim
        return joint

    def _clip(self, joint: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale all segments by one factor, in place, and set `within`; return steps."""
        scale, clip = self.terms.scale, self.free_clip
        free = joint[: self.dim - self.within]
        inside = True
        peak, squares = 1.0, squares_of(free)
        if not _SQUARES[0] < squares < _SQUARES[1] and (peak := _peak(free)) > 0:
            free /= peak  # squares of what is left neither overflow nor vanish together
            squares = squares_of(free)
        if peak > 0:
            root = math.sqrt(squares)
            inside = root <= clip / peak
            factor = peak / self.terms.clip if inside else clip / self.terms.clip / root
            free *= factor * scale  # D-03
        if self.within:
            joint[-1] = (1 if inside else -1) * WITHIN_SHARE * scale  # D-05
        return joint


def _peak(vector: NDArray[np.float64]) -> float:
    """Return the greatest magnitude; not finite if any entry is not."""
    return max(float(vector.max()), -float(vector.min()))
