"""Exact noise at the rate of the memory: integers from a discrete Gaussian or a Skellam law.

::

    noise = sampler_for("skellam", 1e6).draw(1_000_000, os.urandom)

A block of integers is proposed by twelve random bits, a place in it by up to twenty more, and the
proposal is kept if a uniform number is below C·F(x)/w, compared in float32. Where the two are too
close for floats the comparison is done again in integers (`secagg/dp/resolve.py`), so that the law
is exact and the draws are the same on every machine. The work does not depend on what is drawn.

Source: specs/51-sampler.md; von Neumann 1951 (rejection).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.dp.keystream import KEY_SIZE, SLACK, Keystream
from secagg.dp.laws import DiscreteGaussian, Law, Skellam
from secagg.dp.resolve import Resolver
from secagg.dp.tables import SLOT_BITS, UNIFORM_BITS, BlockTable, build
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS, SKELLAM
from secagg.errors import ConfigError, LocalProtocolError
from secagg.types import Rng

__all__ = ["MAX_VARIANCE", "MIN_VARIANCE", "NoiseSampler", "keystream", "sampler_for"]

MIN_VARIANCE: Final = 2.0**-4
MAX_VARIANCE: Final = 2.0**44
"""A standard deviation of 2^22: int32 holds 512 of them."""
_MOST: Final = 1 << 32  # draws of one call: their proposals fit the keystream
_BATCH: Final = 1 << 14  # proposals at a time: what a batch touches stays in a 1 MB cache
_WORD: Final = 8  # bytes of a proposal
_PLACE_BITS: Final = 32 - SLOT_BITS

# exp(-y/2) for |y| <= 0.875, highest power first: Chebyshev, relative error below 1.6e-8. Only
# additions and multiplications, which IEEE 754 defines to the bit, so that an error bound is one
# on every machine.
_EXP_HALF: Final = tuple(
    np.float32(c)
    for c in (
        2.18315401888e-5,
        -2.62500472187e-4,
        2.6041168034e-3,
        -2.08325348317e-2,
        0.125000004773,
        -0.500000076444,
        1.0,
    )
)


@dataclass(frozen=True, slots=True)
class NoiseSampler:
    """Independent integers of one law, exactly. Immutable; several threads may draw at once."""

    law: Law
    table: BlockTable = field(repr=False, compare=False)

    @classmethod
    def discrete_gaussian(cls, variance: float) -> NoiseSampler:
        """Return the sampler of P(x) ∝ exp(-x²/(2·variance)), variance the float64 as it is.

        Raises:
            ConfigError: variance is not from 2^-4 to 2^44.
        """
        law = DiscreteGaussian(_checked(variance))
        return cls(law, build(law))

    @classmethod
    def skellam(cls, variance: float) -> NoiseSampler:
        """Return the sampler of P(x) = exp(-variance)·I_|x|(variance).

        Raises:
            ConfigError: variance is not from 2^-4 to 2^44.
        """
        law = Skellam(_checked(variance))
        return cls(law, build(law))

    @property
    def variance(self) -> float:
        """The parameter; the variance of Skellam, an upper bound on that of the Gaussian."""
        return self.law.variance

    def draw(self, count: int, rng: Rng) -> NDArray[np.int32]:
        """Return `count` draws.

        `rng` is asked once, for 64 bytes, whatever `count` is: the keys of the stream that the
        proposals are made of, and of those that settle close calls. Under the same 64 bytes
        a smaller count gives the beginning of a larger one's draws (N-03).

        Args:
            count: 0 to 2^32.
            rng: Returns n uniform bytes.

        Returns:
            Shape (count,), dtype int32.

        Raises:
            LocalProtocolError: count is out of range.
            OverflowError: a draw does not fit int32: never, it lies beyond 500 standard deviations.
        """
        if not 0 <= count <= _MOST:
            raise LocalProtocolError(f"{count} draws at once; 2^32 are the most")
        keys = rng(2 * KEY_SIZE)  # N-03
        stream = Keystream(keys[:KEY_SIZE])
        resolver = Resolver(self.law, self.table, keys[KEY_SIZE:])
        out = np.empty(count, np.int32)
        batch = _Batch(min(_BATCH, _proposals_for(count)))
        filled = first = 0
        while filled < count:
            size = min(batch.size, _proposals_for(count - filled))
            kept = batch.run(size, first, self.table, stream, resolver)
            kept = kept[: count - filled]
            out[filled : filled + len(kept)] = kept
            filled += len(kept)
            first += size
        return out


class _Batch:
    """Buffers for up to `size` proposals, and the passes over them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = np.empty(_WORD * size + SLACK, np.uint8)
        self._index = np.empty(size, np.int64)
        self._block = np.empty(size, np.uint8)
        self._place = np.empty(size, np.int32)
        self._x = np.empty(size, np.int32)
        self._floats = np.empty((4, size), np.float32)
        self._flags = np.empty((2, size), np.bool_)

    def run(
        self, size: int, first: int, table: BlockTable, stream: Keystream, resolver: Resolver
    ) -> NDArray[np.int32]:
        """Make proposals number `first` to `first + size - 1` and return what is kept of them.

        A proposal is one little-endian word of 64 bits: its 12 highest bits choose a slot, the 20
        below them the place in the block, the low half but its last bit is the uniform number.
        """
        stream.fill(self._bytes[: _WORD * size + SLACK])
        words = self._bytes[: _WORD * size].view("<u8")
        halves = words.view("<u4")
        index, block = self._index[:size], self._block[:size]
        place, x = self._place[:size], self._x[:size]
        y, kept, uniform, spare = self._floats[:, :size]
        sure, maybe = self._flags[:, :size]

        # The same operations whatever the words hold (N-02).
        np.right_shift(words, 64 - SLOT_BITS, out=index.view(np.uint64))
        np.take(table.slots, index, out=block, mode="clip")
        np.copyto(index, block)
        np.bitwise_and(halves[1::2], table.width - 1, out=place.view(np.uint32))
        place -= table.width >> 1
        np.right_shift(halves[0::2], 32 - UNIFORM_BITS, out=x.view(np.uint32))
        np.copyto(uniform, x, casting="same_kind")

        np.copyto(spare, place, casting="same_kind")
        np.take(table.curve, index, out=y, mode="clip")
        y *= spare
        y += np.take(table.slope, index, out=kept, mode="clip")
        y *= spare
        _exp_of_minus(y, kept)
        np.take(table.under, index, out=y, mode="clip")
        y *= kept
        y -= np.float32(1)  # the number is in [u, u + 1)/2^31
        np.less(uniform, y, out=sure)
        np.take(table.over, index, out=y, mode="clip")
        y *= kept
        np.less(uniform, y, out=maybe)
        np.take(table.centre, index, out=x, mode="clip")
        x += place
        if np.count_nonzero(sure) != np.count_nonzero(maybe):  # N-04
            for i in np.flatnonzero(sure != maybe).tolist():
                number = int(halves[2 * i]) >> 32 - UNIFORM_BITS
                settled = resolver.resolve(first + i, int(block[i]), int(x[i]), number)
                if settled is not None:
                    x[i], sure[i] = settled, True
        values: NDArray[np.int32] = x[sure]
        return values


def _exp_of_minus(y: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write exp(-y) to `out`, for |y| <= 0.875."""
    np.multiply(y, _EXP_HALF[0], out=out)
    for coefficient in _EXP_HALF[1:-1]:
        out += coefficient
        out *= y
    out += _EXP_HALF[-1]
    out *= out


def _proposals_for(count: int) -> int:
    """Return proposals that nearly always give `count` draws: 92 % and more of them do."""
    return count + count // 8 + 64


def _checked(variance: float) -> float:
    if not MIN_VARIANCE <= variance <= MAX_VARIANCE:  # N-05; not a number fails too
        raise ConfigError(
            f"noise of variance {variance} in each share",
            hint="use 2^-4 to 2^44 squared steps: change the scale or the noise multiplier",
        )
    return float(variance)


@functools.lru_cache(maxsize=64)
def sampler_for(mechanism: str, variance: float) -> NoiseSampler:
    """Return the sampler of a mechanism and a variance; kept, since a table takes some 0.1 s.

    Raises:
        ConfigError: the mechanism is none of `MECHANISMS`, or variance is not from 2^-4 to 2^44.
    """
    if mechanism == DISCRETE_GAUSSIAN:
        return NoiseSampler.discrete_gaussian(variance)
    if mechanism == SKELLAM:
        return NoiseSampler.skellam(variance)
    raise ConfigError(f"noise mechanism {mechanism!r}", hint=f"use one of: {', '.join(MECHANISMS)}")


def keystream(seed: bytes) -> Rng:
    """Return the AES-256-CTR keystream under a 32-byte seed as a source of bytes (N-06).

    Raises:
        LocalProtocolError: the seed is not 32 bytes.
    """
    return Keystream(seed)
