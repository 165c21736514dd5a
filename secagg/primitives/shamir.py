"""Shamir secret sharing of 32-byte secrets.

Shares are evaluations of a random polynomial over the prime field of order 2^256 + 297, the
smallest prime above 2^256, so every 32-byte string is a field element. Secrecy is
information-theoretic; nothing here rests on a hardness assumption.

Source: Shamir 1979; specs/30-masking.md section 4.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from secagg.errors import LocalProtocolError
from secagg.types import Rng

__all__ = ["PRIME", "SECRET_SIZE", "SHARE_SIZE", "combine", "lagrange_at_zero", "split"]

PRIME: Final = 2**256 + 297
SECRET_SIZE: Final = 32
SHARE_SIZE: Final = 33
_DRAW_SIZE: Final = 33 + 16  # 128 bits beyond the field: the bias of the reduction is below 2^-128


def split(secret: bytes, points: Sequence[int], threshold: int, rng: Rng) -> dict[int, bytes]:
    """Share `secret` among the holders at `points`.

    Args:
        secret: 32 bytes.
        points: Distinct evaluation points, each at least 1.
        threshold: Shares that suffice; one fewer reveal nothing.
        rng: Source of the polynomial's coefficients.

    Returns:
        Point to share, 33 bytes each.

    Raises:
        LocalProtocolError: a size or a point is wrong.
    """
    if len(secret) != SECRET_SIZE or len(set(points)) != len(points) or min(points) < 1:
        raise LocalProtocolError("a secret has 32 bytes and its holders distinct points from 1")
    if not 1 <= threshold <= len(points):
        raise LocalProtocolError(f"threshold {threshold} of {len(points)} shares")
    drawn = (rng(_DRAW_SIZE) for _ in range(threshold - 1))
    higher = [int.from_bytes(raw, "little") % PRIME for raw in drawn]
    polynomial = [*reversed(higher), int.from_bytes(secret, "little")]
    shares = {}
    for point in points:
        value = 0
        for coefficient in polynomial:  # Horner
            value = (value * point + coefficient) % PRIME
        shares[point] = value.to_bytes(SHARE_SIZE, "little")
    return shares


@functools.lru_cache(
    maxsize=4096
)  # a round reconstructs every secret from the same few holder sets
def lagrange_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the coefficients that combine shares at `points` into the secret."""
    coefficients = []
    for i in points:
        numerator = denominator = 1
        for j in points:
            if j != i:
                numerator = numerator * j % PRIME
                denominator = denominator * (j - i) % PRIME
        coefficients.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(coefficients)


def combine(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret that `shares` determine, or None if that is not a 32-byte string.

    Any set of `threshold` honest shares gives the same secret. A wrong share gives another value;
    the caller compares with a commitment.

    Raises:
        LocalProtocolError: a share has the wrong size (the decoder checks sizes before).
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
