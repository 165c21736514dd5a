"""Shamir secret sharing of 32-byte secrets.

Shares are evaluations of a random polynomial over the prime field of order 2^256 + 297, the
smallest prime above 2^256, so every 32-byte string is a field element. Secrecy is
information-theoretic; nothing here rests on a hardness assumption. The shares of a secret are a
word of a Reed-Solomon code, so some wrong ones among enough right ones are found.

Source: Shamir 1979; McEliece and Sarwate 1981 (decoding); specs/30-masking.md section 4.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from secagg.errors import LocalProtocolError
from secagg.primitives.field import recurrence
from secagg.types import Rng

__all__ = [
    "PRIME",
    "SECRET_SIZE",
    "SHARE_SIZE",
    "combine",
    "decode",
    "lagrange_at_zero",
    "lie_on_one_polynomial",
    "split",
]

PRIME: Final = 2**256 + 297  # M-18
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
    value = sum(_terms(shares, lagrange_at_zero(tuple(sorted(shares))))) % PRIME
    return value.to_bytes(SECRET_SIZE, "little") if value < 1 << 256 else None


def _terms(shares: Mapping[int, bytes], weights: Sequence[int]) -> list[int]:
    """Return the products of shares, in order of point, and weights; not reduced."""
    if any(len(share) != SHARE_SIZE for share in shares.values()):
        raise LocalProtocolError(f"a share has {SHARE_SIZE} bytes")
    values = [int.from_bytes(shares[point], "little") for point in sorted(shares)]
    return [weight * value for weight, value in zip(weights, values, strict=True)]


def decode(shares: Mapping[int, bytes], threshold: int) -> tuple[bytes, frozenset[int]] | None:
    """Find the secret although some shares are wrong, and which these are.

    If a polynomial of degree below `threshold` misses at most (m - threshold) // 2 of the m
    shares, it is the only one, and it is found. The syndromes of the shares are the power sums of
    the wrong points, so the shortest recurrence through them has these as its roots (Massey 1969).

    Args:
        shares: Point to share, 33 bytes each; m of them.
        threshold: Shares that suffice, 1 to m.

    Returns:
        The secret and the points of the wrong shares; None if there is no such polynomial, or its
        value at 0 is not a 32-byte string. About m (m - threshold) multiplications.

    Raises:
        LocalProtocolError: a size, the threshold or a point is wrong.
    """
    _check_spare(shares, threshold)
    points = sorted(shares)
    value, *syndromes = _syndromes(shares, threshold)
    coefficients = recurrence(syndromes, PRIME)
    if coefficients is None:
        return None
    wrong = frozenset(_roots(coefficients, points))  # M-18
    length = len(coefficients) - 1
    if len(wrong) != length:
        return None
    if wrong:  # what they add to the value at 0 is the recurrence one step back
        window = zip(coefficients[:-1], reversed(syndromes[:length]), strict=True)
        value += sum(c * s for c, s in window) * pow(coefficients[-1], -1, PRIME)
    value %= PRIME
    return (value.to_bytes(SECRET_SIZE, "little"), wrong) if value < 1 << 256 else None


def _check_spare(shares: Mapping[int, bytes], threshold: int) -> None:
    if not 1 <= threshold <= len(shares):
        raise LocalProtocolError(f"threshold {threshold} of {len(shares)} shares")


def _syndromes(shares: Mapping[int, bytes], threshold: int) -> list[int]:
    """Return what the shares times x^j combine to at 0, for j = 0 ... m - threshold.

    For right shares x^j f(x) has degree below m, and from j = 1 it is 0 there.
    """
    points = tuple(sorted(shares))
    terms = _terms(shares, lagrange_at_zero(points))
    syndromes = [sum(terms) % PRIME]
    for _ in range(len(points) - threshold):
        terms = [term * point % PRIME for term, point in zip(terms, points, strict=True)]
        syndromes.append(sum(terms) % PRIME)
    return syndromes


def _roots(coefficients: Sequence[int], points: Sequence[int]) -> list[int]:
    """Return the points x with x^L + c_1 x^(L-1) + ... + c_L = 0."""
    roots = []
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        if value == 0:
            roots.append(point)
    return roots


def lie_on_one_polynomial(shares: Mapping[int, bytes], threshold: int, *, challenge: bytes) -> bool:
    """Tell whether all shares are values of one polynomial of degree below `threshold`.

    All syndromes are checked at once: that polynomial whose coefficients they are has, unless they
    are all 0, at most m zeros in the field, and it is evaluated at a place that whoever chose the
    shares did not know. The weights depend on the points only, so many secrets with the same
    holders cost m multiplications each.

    Args:
        shares: Point to share, 33 bytes each; m of them.
        threshold: Shares that suffice, 1 to m.
        challenge: The place, 32 bytes that follow from all shares; False "yes" have odds of 2^-240.

    Raises:
        LocalProtocolError: a size, the threshold or a point is wrong.
    """
    _check_spare(shares, threshold)
    weights = _check_weights(tuple(sorted(shares)), threshold, challenge)
    return sum(_terms(shares, weights)) % PRIME == 0


@functools.lru_cache(maxsize=8)
def _check_weights(points: tuple[int, ...], threshold: int, challenge: bytes) -> tuple[int, ...]:
    """Return the weights that give the sum over j of syndrome j times challenge^(j-1)."""
    place, spare = int.from_bytes(challenge, "little"), len(points) - threshold
    weights = []
    for point, coefficient in zip(points, lagrange_at_zero(points), strict=True):
        ratio = point * place % PRIME
        powers = (pow(ratio, spare, PRIME) - 1) * pow(ratio - 1, -1, PRIME) if ratio != 1 else spare
        weights.append(coefficient * point * powers % PRIME)
    return tuple(weights)
