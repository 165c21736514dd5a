"""Arithmetic in prime fields: matrices over small ones, and recurrences over any.

Elements of small fields, whose order is below 2^31, are int64 arrays of residues, so that numpy
does the work and no product wraps. Recurrences are sought in Python's integers.

Source: Massey 1969 (recurrences); Jaeschke 1993 (primality); Berrut and Trefethen 2004 (Lagrange).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.types import Rng

__all__ = [
    "PRIME_LIMIT",
    "Residues",
    "denominators",
    "inverses",
    "is_prime",
    "lagrange_matrix",
    "matrix_product",
    "recurrence",
    "uniform",
    "zeros",
]

PRIME_LIMIT: Final = 2**31
"""Small fields are smaller, so that an int64 holds the sum of two products."""
Residues: TypeAlias = NDArray[np.int64]
"""Elements of a small field, dtype int64, from 0 to below the prime."""
_WORD: Final = 2**32  # values of the words that are drawn
_BASES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""Miller and Rabin's test with these is a proof below 3.18e23 (Sorenson and Webster 2015)."""


@functools.lru_cache(maxsize=64)
def is_prime(n: int) -> bool:
    """Tell whether `n`, below 3.18e23, is a prime."""
    if n < 2 or any(n % base == 0 for base in _BASES):
        return n in _BASES
    twos = ((n - 1) & -(n - 1)).bit_length() - 1
    for base in _BASES:
        x = pow(base, (n - 1) >> twos, n)
        if x != 1 and all(pow(x, 1 << power, n) != n - 1 for power in range(twos)):
            return False
    return True


def uniform(count: int, prime: int, rng: Rng) -> Residues:
    """Draw `count` elements: words of 32 bits below the largest multiple of the prime, reduced."""
    limit = _WORD - _WORD % prime
    drawn = np.empty(count, dtype=np.int64)
    have = 0
    while have < count:
        words = np.frombuffer(rng(4 * (count - have)), dtype="<u4").astype(np.int64)
        words = words[words < limit]
        drawn[have : have + words.size] = words
        have += words.size
    return drawn % prime


# --- matrices ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)  # the same holders share all vectors of a round
def lagrange_matrix(points: tuple[int, ...], targets: tuple[int, ...], prime: int) -> Residues:
    """Return the matrix that takes values at `points` to values at `targets`.

    Entry (i, j) is the product over k of y_i - x_k, over y_i - x_j and all x_j - x_k.

    Args:
        points: The x, distinct modulo the prime.
        targets: The y, none of them a point.
        prime: Order of the field, below 2^31.

    Returns:
        Shape (targets, points), read-only.
    """
    x = np.array(points, dtype=np.int64)
    y = np.array(targets, dtype=np.int64)
    differences = (y[:, np.newaxis] - x) % prime
    below = differences * denominators(x, prime) % prime
    matrix = _along(differences, prime)[:, np.newaxis] * inverses(below, prime) % prime
    matrix.setflags(write=False)
    return matrix


def denominators(x: Residues, prime: int) -> Residues:
    """Return for each point the product of its differences to the others."""
    differences = (x[:, np.newaxis] - x) % prime
    np.fill_diagonal(differences, 1)
    return _along(differences, prime)


def _along(factors: Residues, prime: int) -> Residues:
    """Return the products of the rows."""
    product = np.ones(len(factors), dtype=np.int64)
    for column in factors.T:
        product = product * column % prime
    return product


def inverses(values: Residues, prime: int) -> Residues:
    """Return the inverses of values of any shape, by Fermat's little theorem; 0 for 0."""
    result = np.ones_like(values)
    for bit in f"{prime - 2:b}":
        result = result * result % prime
        if bit == "1":
            result = result * values % prime
    return result


def matrix_product(left: Residues, right: Residues, prime: int) -> Residues:
    """Return the product of two matrices; as many terms are added unreduced as an int64 holds."""
    together = (2**63 - 1 - prime) // (prime - 1) ** 2
    total = np.zeros((left.shape[0], right.shape[1]), dtype=np.int64)
    for start in range(0, left.shape[1], together):
        part = slice(start, start + together)
        total = (total + left[:, part] @ right[part]) % prime
    return total


def zeros(coefficients: Sequence[int], x: Residues, prime: int) -> list[int]:
    """Return the rows of those `x` at which a polynomial, highest power first, is 0."""
    values = np.zeros_like(x)
    for coefficient in coefficients:
        values = (values * x + coefficient) % prime
    return np.flatnonzero(values == 0).tolist()


# --- recurrences ---------------------------------------------------------------------------------


def recurrence(sequence: Sequence[int], prime: int) -> list[int] | None:
    """Return the shortest linear recurrence of a sequence, by the Berlekamp-Massey algorithm.

    Args:
        sequence: The s, values modulo the prime.
        prime: Order of the field, of any size.

    Returns:
        c_0 = 1, c_1 ... c_L with the sum over i of c_i s_(n-i) = 0 for all n from L on; None if
        L is more than half the sequence, when another recurrence may be as short.
    """
    current, previous = [1], [1]
    length, gap, inverse = 0, 0, 1  # steps since previous was replaced, 1 / its discrepancy
    for n in range(len(sequence)):
        gap += 1
        window = reversed(sequence[n - length : n + 1])
        discrepancy = sum(c * s for c, s in zip(current, window, strict=True)) % prime
        if discrepancy == 0:
            continue
        factor = discrepancy * inverse % prime
        both = itertools.zip_longest(current, [0] * gap + previous, fillvalue=0)
        updated = [(c - factor * p) % prime for c, p in both]
        if 2 * length <= n:
            length, gap = n + 1 - length, 0
            inverse, previous = pow(discrepancy, -1, prime), current
        current = updated
        if 2 * length > len(sequence):
            return None
    return current
