"""Shamir secret sharing of 32-byte secrets.

Shares are evaluations of a random polynomial over the prime field of order 2^256 + 297, the
smallest prime above 2^256, so every 32-byte string is a field element. Secrecy is
information-theoretic; nothing here rests on a hardness assumption.

Source: Shamir 1979; specs/30-masking.md section 4.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from secagg.errors import LocalProtocolError
from secagg.types import Rng

__all__ = ["PRIME", "SECRET_SIZE", "SHARE_SIZE", "combine", "lagrange_at_zero", "split"]

PRIME: Final = 2**256 + 297
SECRET_SIZE: Final = 32
SHARE_SIZE: Final = 33
_DRAW_SIZE: Final = 33 + 16  # 128 bits beyond the field: the bias of the reduction is below 2^-128
_WORD: Final = 62  # bits of a product of point differences that an int64 holds
_LARGEST_POINT: Final = 2**31 - 1
_STEPS_UNREDUCED: Final = 20  # of Horner's rule; a point has few bits, so the value grows slowly


def split(secret: bytes, points: Sequence[int], threshold: int, rng: Rng) -> dict[int, bytes]:
    """Share `secret` among the holders at `points`.

    Args:
        secret: 32 bytes.
        points: Distinct evaluation points, 1 to 2^31 - 1. Small ones make small products.
        threshold: Shares that suffice; one fewer reveal nothing.
        rng: Source of the polynomial's coefficients.

    Returns:
        Point to share, 33 bytes each.

    Raises:
        LocalProtocolError: a size or a point is wrong.
    """
    if len(secret) != SECRET_SIZE:
        raise LocalProtocolError(f"a secret has {SECRET_SIZE} bytes")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise LocalProtocolError(f"threshold {threshold} of {len(points)} shares")
    drawn = (rng(_DRAW_SIZE) for _ in range(threshold - 1))
    higher = [int.from_bytes(raw, "little") % PRIME for raw in drawn]
    polynomial = [*reversed(higher), int.from_bytes(secret, "little")]
    steps = [
        polynomial[start : start + _STEPS_UNREDUCED]
        for start in range(0, threshold, _STEPS_UNREDUCED)
    ]
    shares = {}
    for point in points:
        value = 0
        for coefficients in steps:
            for coefficient in coefficients:
                value = value * point + coefficient
            value %= PRIME
        shares[point] = value.to_bytes(SHARE_SIZE, "little")
    return shares


@functools.lru_cache(maxsize=128)  # on the complete graph all secrets have the same holders
def lagrange_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the coefficients that combine shares at `points` into the secret.

    Coefficient i is the product of all points over x_i and all x_j - x_i. The quotients share one
    inversion (Montgomery's trick).

    Raises:
        LocalProtocolError: the points are not distinct or not 1 to 2^31 - 1.
    """
    _check_points(points)
    numerator, denominators = math.prod(points) % PRIME, _denominators(points)
    before = list(itertools.accumulate(denominators, lambda a, b: a * b % PRIME, initial=1))
    scale = numerator * pow(before[-1], -1, PRIME) % PRIME
    coefficients = []
    for denominator, product in zip(reversed(denominators), reversed(before[:-1]), strict=True):
        coefficients.append(scale * product % PRIME)
        scale = scale * denominator % PRIME
    return tuple(reversed(coefficients))


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points) or not points:
        raise LocalProtocolError("the holders of a secret need distinct points")
    if min(points) < 1 or max(points) > _LARGEST_POINT:
        raise LocalProtocolError(f"the holders' points are not 1 to {_LARGEST_POINT}")


def _denominators(points: tuple[int, ...]) -> list[int]:
    """Return x_i times the product of all x_j - x_i, modulo the prime, for each i.

    As many factors as an int64 holds are multiplied at once, the rest in big integers.
    """
    x = np.array(points, dtype=np.int64)
    factors = x - x[:, np.newaxis]
    np.fill_diagonal(factors, x)
    together = _WORD // max(points).bit_length()
    padding = np.ones((len(x), -len(x) % together), dtype=np.int64)
    words = np.hstack([factors, padding]).reshape(len(x), together, -1).prod(axis=1)
    return [math.prod(row) % PRIME for row in words.tolist()]


def combine(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret that `shares` determine, or None if that is not a 32-byte string.

    Any set of `threshold` honest shares gives the same secret. A wrong share gives another value;
    the caller compares with a commitment.

    Raises:
        LocalProtocolError: a share has the wrong size (the decoder checks sizes before), there is
            none, or a point is not 1 to 2^31 - 1.
    """
    if any(len(share) != SHARE_SIZE for share in shares.values()):
        raise LocalProtocolError(f"a share has {SHARE_SIZE} bytes")
    points = tuple(sorted(shares))
    value = sum(
        coefficient * int.from_bytes(shares[point], "little")
        for point, coefficient in zip(points, lagrange_at_zero(points), strict=True)
    )
    value %= PRIME
    return value.to_bytes(SECRET_SIZE, "little") if value < 1 << 256 else None
