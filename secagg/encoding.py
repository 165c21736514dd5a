"""Floats to ring integers and back: named segments, L2 clipping, fixed point, stochastic rounding.

A node's contribution is several vectors that travel as one: the weighted update, the weighted
embedding centroid, the weight itself, and so on. Each is a `Segment` with its own L2 bound. This
module is the only place where floats become integers (`encode`) and integers floats (`decode`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.errors import ConfigError, LocalProtocolError
from secagg.types import RingVector, Rng

__all__ = ["Encoded", "FixedPoint", "Segment", "ring_bits_for"]

_UNIFORM_BITS: Final = 32
_BLOCK: Final = 1 << 15  # coordinates at a time: the float64 temporaries stay in the cache
_CLEARLY: Final = 1 - 1e-6  # well beyond the float error of a sum of squares
_SMALL_BOUND: Final = 1e-100  # below it squares could underflow


@dataclass(frozen=True, slots=True)
class Segment:
    """One named part of the summed vector."""

    name: str
    dim: int
    """Coordinates, at least 1."""
    bound: float
    """Greatest L2 norm; a longer vector is scaled down to it."""

    def __post_init__(self) -> None:
        if self.dim < 1 or not (0 < self.bound < math.inf):
            raise ConfigError(
                f"segment {self.name!r} has dim {self.dim} and bound {self.bound}",
                hint="dim must be at least 1 and the bound positive and finite",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What one node puts into the sum."""

    vector: RingVector = field(repr=False)  # M-20
    """Shape (dim,), dtype uint32, values below 2^ring_bits."""
    clipped: tuple[str, ...]
    """Names of the segments that were longer than their bound."""


def ring_bits_for(n_nodes: int, value_bits: int) -> int:
    """Return the ring size b for which a sum over `n_nodes` values cannot wrap (E-05).

    Raises:
        ConfigError: value_bits is not 8 to 24, or the ring would need more than 32 bits.
    """
    if not 8 <= value_bits <= 24:
        raise ConfigError(f"value_bits is {value_bits}", hint="use 8 to 24; 16 is the default")
    bits = value_bits + max(1, math.ceil(math.log2(max(2, n_nodes))))
    if bits > 32:
        raise ConfigError(
            f"{n_nodes} nodes with {value_bits}-bit values can wrap a 32-bit ring",
            hint=f"set value_bits to at most {value_bits - (bits - 32)}",
        )
    return bits


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """The map between a set of float vectors and one ring vector.

    Coordinate x of a segment with bound B becomes the integer nearest to x·M/B, up or down at
    random so that the expectation is exact, M = 2^(value_bits - 1) - 1. Since ‖x‖₂ ≤ B, no
    coordinate exceeds M, and a sum over n nodes stays within ±n·M.
    """

    segments: tuple[Segment, ...]
    value_bits: int
    ring_bits: int

    def __post_init__(self) -> None:
        names = [segment.name for segment in self.segments]
        if len(set(names)) != len(names) or not names:
            raise ConfigError("segments need distinct names")
        if not 8 <= self.value_bits < self.ring_bits <= 32:
            raise ConfigError(
                f"{self.value_bits}-bit values do not fit a ring of {self.ring_bits} bits",
                hint="ring_bits must exceed value_bits by log2 of the number of nodes",
            )

    @property
    def dim(self) -> int:
        """Coordinates of the whole vector."""
        return sum(segment.dim for segment in self.segments)

    @property
    def largest(self) -> int:
        """M, the greatest magnitude of one node's integer."""
        return (1 << (self.value_bits - 1)) - 1

    def encode(self, values: Mapping[str, NDArray[np.floating]], rng: Rng) -> Encoded:
        """Clip, scale and round one node's vectors.

        Args:
            values: Segment name to a finite float vector, shape (segment.dim,).
            rng: Randomness of the rounding; 4 bytes a coordinate.

        Raises:
            LocalProtocolError: a segment is missing, has the wrong shape, or is not finite (E-02).
        """
        if set(values) != {segment.name for segment in self.segments}:
            raise LocalProtocolError("the values do not name exactly the agreed segments")
        vectors: list[NDArray[np.float64]] = []
        norms: list[float | None] = []
        for segment in self.segments:
            vector = np.asarray(values[segment.name], dtype=np.float64)
            if vector.shape != (segment.dim,):
                raise LocalProtocolError(f"segment {segment.name!r} has shape {vector.shape}")
            vectors.append(vector)
            norms.append(self._excess_norm(vector, segment))
        integers = np.empty(self.dim, dtype=np.int32)
        uniform = np.frombuffer(rng(4 * self.dim), dtype="<u4")
        start = 0
        for segment, vector, norm in zip(self.segments, vectors, norms, strict=True):
            for lower in range(0, segment.dim, _BLOCK):
                x = self._scale(vector[lower : lower + _BLOCK], norm, segment.bound)
                part = slice(start + lower, start + lower + len(x))
                integers[part] = _round_stochastically(x, uniform[part], self.largest)
            start += segment.dim
        clipped = (s.name for s, norm in zip(self.segments, norms, strict=True) if norm is not None)
        return Encoded(ring.from_signed(integers, self.ring_bits), tuple(clipped))

    def _excess_norm(self, vector: NDArray[np.float64], segment: Segment) -> float | None:
        """Return the L2 norm of `vector` if it is above the segment's bound, else None.

        Raises:
            LocalProtocolError: `vector` is not finite (E-02).
        """
        # One pass settles it for a vector clearly within its bound: a sum of squares is finite only
        # if every entry is.
        with np.errstate(all="ignore"):
            squares = float(np.dot(vector, vector))
        if segment.bound > _SMALL_BOUND and math.sqrt(squares) < _CLEARLY * segment.bound:
            return None
        if not np.isfinite(vector).all():
            raise LocalProtocolError(f"segment {segment.name!r} is not finite")
        norm = _norm(vector)
        return norm if norm > segment.bound else None  # E-03

    def _scale(
        self, vector: NDArray[np.float64], norm: float | None, bound: float
    ) -> NDArray[np.float64]:
        """Return `vector`, of a segment with that norm if it is clipped, in units of bound/M."""
        step = self.largest / bound
        if norm is None:
            return vector * step
        x: NDArray[np.float64] = vector / norm
        x *= bound
        x *= step
        return x

    def decode(self, total: RingVector) -> dict[str, NDArray[np.float64]]:
        """Return the segments of a sum as float64 vectors.

        The error of each coordinate against the sum of the clipped inputs is below
        n·bound/M (E-06: stochastic rounding moves each of the n inputs by less than one step).

        Raises:
            LocalProtocolError: `total` has the wrong length.
        """
        if total.shape != (self.dim,):
            raise LocalProtocolError(f"a sum of {total.shape} does not fit {self.dim} coordinates")
        integers = ring.to_signed(total, self.ring_bits)
        sums: dict[str, NDArray[np.float64]] = {}
        start = 0
        for segment in self.segments:
            part = integers[start : start + segment.dim]
            sums[segment.name] = part * np.float64(segment.bound / self.largest)
            start += segment.dim
        return sums


def _norm(vector: NDArray[np.float64]) -> float:
    """Return the L2 norm, without overflow for entries up to the largest float."""
    peak = float(np.abs(vector).max())
    return peak * float(np.linalg.norm(vector / peak)) if peak > 0 else 0.0


def _round_stochastically(
    x: NDArray[np.float64], uniform: NDArray[np.uint32], largest: int
) -> NDArray[np.float64]:
    """Round `x` in place, down or up with the probability that is exact on average (E-04).

    Float error can lift an entry at the bound above `largest`, so the result is cut to it.
    """
    x += uniform * 2.0**-_UNIFORM_BITS
    np.floor(x, out=x)
    return np.clip(x, -largest, largest, out=x)
