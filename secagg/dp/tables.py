"""The proposal: blocks of integers, how often each is proposed, and how often it is kept.

Source: specs/51-sampler.md section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secagg.dp.laws import Law
from secagg.errors import LocalProtocolError

__all__ = [
    "BAND",
    "SCALE_BITS",
    "SLOTS",
    "SLOT_BITS",
    "STEEPEST",
    "UNIFORM_BITS",
    "BlockTable",
    "build",
]

SLOT_BITS: Final = 12
SLOTS: Final = 1 << SLOT_BITS
"""Equally likely proposals of a block: 4096 bytes, which stay in the first-level cache."""
UNIFORM_BITS: Final = 31
"""Of the uniform that decides whether a proposal is kept; more are drawn where it is close."""
SCALE_BITS: Final = 10
"""Binary places of `BlockTable.scale`."""
BAND: Final = 2.0**-18
"""Relative half width of what floats leave undecided: their error is below 2^-18.8 (section 5)."""
STEEPEST: Final = 0.875
"""Most that a log-probability differs within a block from that of its centre."""
_NARROWEST: Final = 6  # standard deviations in blocks: 6 to 12, where little is rejected
_TAIL_BITS: Final = 64  # the table ends where F has fallen to 2^-64 of F(0)
_BITS: Final = 192  # precision of F in the builder
_MOST_BLOCKS: Final = 255  # the tail is one more, and all are numbered in one byte
_FIT: Final = 2.0**-20  # most by which a parabola may miss a log-probability within its block


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """What `draw` needs of a law: exact integers that define it, and floats that only hurry it up.

    Block b < blocks holds the integers from (b - blocks/2)·width on, `width` of them. Block number
    `blocks` is the tail, all the others. The arrays are read-only.
    """

    width_bits: int
    """log2 of the width k."""
    blocks: int
    scale: int
    """C·2^10: an integer x of a block with w slots is kept with probability C·F(x)/w."""
    weights: tuple[int, ...]
    """Slots of each block, the tail last; their sum is 4096."""
    slots: NDArray[np.uint8] = field(repr=False)
    """Slot to block, shape (4096,)."""
    centre: NDArray[np.int32] = field(repr=False)
    """First integer of a block plus k/2 (0 for k = 1), shape (blocks + 1,) as all that follow."""
    slope: NDArray[np.float32] = field(repr=False)
    curve: NDArray[np.float32] = field(repr=False)
    """log F(centre) - log F(centre + s) is about s·(slope + s·curve)."""
    under: NDArray[np.float32] = field(repr=False)
    over: NDArray[np.float32] = field(repr=False)
    """2^31·C·F(centre)/w, a little less and a little more. The tail has 0 and an upper bound."""

    @property
    def width(self) -> int:
        """k: integers in a block."""
        return 1 << self.width_bits

    @property
    def cut(self) -> int:
        """First integer of the upper tail; the lower tail starts at -cut - 1."""
        return self.blocks // 2 << self.width_bits


def build(law: Law, *, tail_bits: int = _TAIL_BITS, band: float = BAND) -> BlockTable:
    """Return the table of a law. Only the tests change `tail_bits` and `band`.

    The integers are computed from integers, so that they are the same on every machine (N-03).

    Raises:
        LocalProtocolError: what the sampler relies on does not hold for this law.
    """
    width_bits = 0
    while _NARROWEST**2 * 4 ** (width_bits + 1) <= law.variance:
        width_bits += 1
    width = 1 << width_bits
    peak = law.scaled(0, _BITS)
    half = 1
    while law.scaled(half * width, _BITS) << tail_bits > peak:
        half += 1
    if 2 * half > _MOST_BLOCKS or 2 * law.scaled(half * width + width, _BITS) + 3 > law.scaled(
        half * width, _BITS
    ):  # a tail proposes each further block half as often as the one before it
        raise LocalProtocolError(f"no table of {2 * half} blocks ends at {half * width}")
    # Greatest F of a block, which is that of the integer nearest to 0; below 0 from the left. The
    # tail's is that of its proposals, half of them on either side and half of those a block on.
    greatest = [law.scaled(i * width + 1, _BITS) + 1 for i in reversed(range(half))]
    greatest += [law.scaled(i * width, _BITS) + 1 for i in range(half)]
    greatest.append(4 * (law.scaled(half * width, _BITS) + 1))
    scale = _greatest_scale(greatest)
    weights = _weights(greatest, scale)
    weights[-1] += SLOTS - sum(weights)  # spare slots are rejected
    return _with_floats(law, half, width_bits, scale, weights, band)


def _weights(greatest: list[int], scale: int) -> list[int]:
    """Return the least whole numbers of slots that no probability of keeping exceeds 1 (N-07)."""
    shift = _BITS + SCALE_BITS
    return [max(1, -(-scale * most >> shift)) for most in greatest]


def _greatest_scale(greatest: list[int]) -> int:
    """Return the greatest scale whose slots are no more than 4096."""
    low, high = 0, (SLOTS << SCALE_BITS + _BITS) // max(greatest) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if sum(_weights(greatest, middle)) <= SLOTS:
            low = middle
        else:
            high = middle
    return low


def _with_floats(
    law: Law, half: int, width_bits: int, scale: int, weights: list[int], band: float
) -> BlockTable:
    """Complete a table with what the fast path computes with."""
    width, blocks = 1 << width_bits, 2 * half
    middle = width >> 1
    unit = 2.0 ** (UNIFORM_BITS - SCALE_BITS - _BITS)
    centre = [(b - half) * width + middle for b in range(blocks)] + [0]
    kept = [
        scale * law.scaled(x, _BITS) / w * unit
        for x, w in zip(centre[:-1], weights[:-1], strict=True)
    ]
    tail = scale * 4 * (law.scaled(half * width, _BITS) + 1) / weights[-1] * unit
    upper = [_parabola(law, x, middle) for x in centre[half:-1]]
    sides = [(-slope, curve) for slope, curve in reversed(upper)] + upper + [(0.0, 0.0)]
    table = BlockTable(
        width_bits=width_bits,
        blocks=blocks,
        scale=scale,
        weights=tuple(weights),
        slots=np.repeat(np.arange(blocks + 1), weights).astype(np.uint8),
        centre=np.array(centre, np.int32),
        slope=np.array([slope for slope, _ in sides], np.float32),
        curve=np.array([curve for _, curve in sides], np.float32),
        under=np.array([p * (1 - band) for p in kept] + [0.0], np.float32),
        over=np.array([p * (1 + band) for p in (*kept, tail)], np.float32),
    )
    for name in ("slots", "centre", "slope", "curve", "under", "over"):
        getattr(table, name).flags.writeable = False
    return table


def _parabola(law: Law, centre: int, reach: int) -> tuple[float, float]:
    """Return (slope, curve) of log F(centre) - log F(centre + s), exact at s = 0 and ±reach.

    Raises:
        LocalProtocolError: it misses by more than 2^-20 where a parabola through these points
            misses a cubic by most, or it is too steep.
    """
    if not reach:
        return 0.0, 0.0
    at_centre = law.scaled(centre, _BITS)

    def drop(step: int) -> float:
        return -math.log(law.scaled(centre + step, _BITS) / at_centre)

    below, above = drop(-reach), drop(reach)
    slope, curve = (above - below) / (2 * reach), (above + below) / (2 * reach * reach)
    worst = round(reach / math.sqrt(3))
    misses = (abs(drop(s) - s * (slope + s * curve)) for s in (-worst, worst))
    if max(misses) > _FIT or max(abs(below), abs(above)) > STEEPEST:
        raise LocalProtocolError(f"the law is no parabola about {centre}")
    return slope, curve
