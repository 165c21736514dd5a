"""Packed Shamir sharing of vectors of small integers.

A polynomial over a small prime field carries `pack` secrets, at 0, -1, ..., and the shares of the
holders 0, 1, 2, ... at 1, 2, 3, .... Its degree is threshold + pack - 1. So `threshold` holders
together learn nothing, threshold + pack of them know everything, and what lies between learns some
linear combinations of the secrets. Secrecy is information-theoretic. Shares are additive: weighted
sums of shares are shares of the weighted sums.

The shares of one polynomial are a word of a Reed-Solomon code. With m answers and
spare = m - threshold - pack, up to spare // 2 liars are always found and corrected, whatever they
know. An answer that names w holders is the truth if at most spare - w lied. One liar more, and it
may be another word, which no reader of the shares can tell from the truth, as the liars choose how
far it is off. Who assumes at most A liars therefore asks for w + A <= spare. A dealer whose shares
are on no polynomial looks like lying holders, here and in sums.

Source: Shamir 1979; Franklin and Yung 1992 (packing); McEliece and Sarwate 1981 (decoding).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives import field
from secagg.types import Rng

__all__ = [
    "Opened",
    "Share",
    "decode",
    "encode",
    "open_shares",
    "share",
    "share_length",
    "smallest_field",
    "weighted_sum",
]

Share: TypeAlias = NDArray[np.uint32]
"""Shape (share_length,), dtype uint32, values below the prime: what one holder has of a vector."""
_LEAST_BITS: Final = 8  # that `ring.pack` gives a value


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A vector that shares determined."""

    secret: NDArray[np.int64] = dataclasses.field(repr=False)
    """Shape (size,), dtype int64, each value within the bound."""
    wrong: frozenset[int]
    """Holders whose share differs from the polynomials in one place or more."""


def smallest_field(bound: int, holders: int, pack: int) -> int:
    """Return the smallest prime above 2 bound + holders + pack.

    In it, integers from -bound to bound are distinct, and so are all points.

    Args:
        bound: Largest magnitude of a value that is opened (a weighted sum, say), at least 1.
        holders: How many get a share.
        pack: Secrets of one polynomial.

    Raises:
        ConfigError: it is not below 2^31.
        LocalProtocolError: an argument is below 1.
    """
    if min(bound, holders, pack) < 1:
        raise LocalProtocolError("bound, holders and pack are at least 1")
    prime = next(filter(field.is_prime, itertools.count(2 * bound + holders + pack + 1)))
    if prime >= field.PRIME_LIMIT:
        raise ConfigError(
            f"no field below 2^31 holds sums up to {bound}",
            hint="use fewer nodes or smaller weights",
        )
    return prime


def share_length(size: int, pack: int) -> int:
    """Return how many field elements one holder's share of `size` secrets has."""
    return -(-size // pack)


def _check_code(prime: int, threshold: int, pack: int, holders: int) -> None:
    if not 2 < prime < field.PRIME_LIMIT or not field.is_prime(prime):
        raise LocalProtocolError("the field's order is not an odd prime below 2^31")
    if threshold < 1 or pack < 1:
        raise LocalProtocolError(f"threshold {threshold} and {pack} secrets of one polynomial")
    if holders + pack > prime:
        raise LocalProtocolError(f"the field is too small for {holders} holders")


def share(
    secret: NDArray[np.int64],
    *,
    prime: int,
    threshold: int,
    pack: int,
    holders: int,
    rng: Rng,
) -> Share:
    """Share the integers of `secret` among `holders`.

    Secrets i, i + share_length, i + 2 share_length, ... are on polynomial i, zeros where there are
    no more. The shares of the first `threshold` holders are what is drawn. They and the secrets
    determine the polynomial, and so do any `threshold` others, hence those are uniform too.

    Args:
        secret: Shape (size,), dtype int64, magnitudes up to (prime - 1) / 2.
        prime: Order of the field.
        threshold: Most holders that learn nothing, at least 1.
        pack: Secrets of one polynomial; threshold + pack holders can open.
        holders: How many get a share, at least threshold + pack.
        rng: Source of 4 threshold share_length bytes, and of a few more.

    Returns:
        Row by row the holders' shares, shape (holders, share_length), dtype uint32.

    Raises:
        LocalProtocolError: a number or the secret is out of its range.
    """
    _check_code(prime, threshold, pack, holders)
    if threshold + pack > holders:
        raise LocalProtocolError(f"{holders} holders cannot open what needs {threshold + pack}")
    if secret.ndim != 1 or secret.dtype != np.int64 or not secret.size:
        raise LocalProtocolError("a secret is a vector of int64")
    most = (prime - 1) // 2
    if secret.max() > most or secret.min() < -most:
        raise LocalProtocolError("a secret value is too large for the field")
    length = share_length(secret.size, pack)
    known = np.zeros((pack + threshold, length), dtype=np.int64)
    known[:pack].reshape(-1)[: secret.size] = secret
    known[pack:] = field.uniform(threshold * length, prime, rng).reshape(threshold, length)
    points = (*_secret_points(pack), *range(1, threshold + 1))
    others = field.lagrange_matrix(points, tuple(range(threshold + 1, holders + 1)), prime)
    return np.vstack([known[pack:], field.matrix_product(others, known, prime)]).astype(np.uint32)


def _secret_points(pack: int) -> tuple[int, ...]:
    return tuple(range(0, -pack, -1))


def weighted_sum(
    shares: Sequence[Share], *, prime: int, weights: Sequence[int] | None = None
) -> Share:
    """Return one holder's share of the weighted sum of vectors, from its shares of the vectors.

    Args:
        shares: At least one, all of the same length.
        prime: Order of the field.
        weights: As many integers, of either sign; all 1 if None.

    Raises:
        LocalProtocolError: there is no share, or the lengths differ.
    """
    factors = [1] * len(shares) if weights is None else weights
    if len(factors) != len(shares) or len({one.shape for one in shares}) != 1:
        raise LocalProtocolError("a sum takes shares of one length, and a weight for each")
    total = np.zeros(shares[0].shape, dtype=np.int64)
    for one, factor in zip(shares, factors, strict=True):
        total = (total + one.astype(np.int64) * (factor % prime)) % prime
    return total.astype(np.uint32)


def encode(one: Share, prime: int) -> bytes:
    """Pack a share into the bits that the field needs, 8 at least, for each begun eight values."""
    return ring.pack(one, _bits(prime))


def decode(data: bytes, prime: int, length: int) -> Share | None:
    """Invert `encode`; None if the size is wrong, or a value is not below the prime."""
    one = ring.unpack(data, length, _bits(prime))
    return None if one is None or (one >= prime).any() else one


def _bits(prime: int) -> int:
    return max(_LEAST_BITS, (prime - 1).bit_length())


def open_shares(
    shares: Mapping[int, Share],
    *,
    prime: int,
    threshold: int,
    pack: int,
    size: int,
    bound: int,
) -> Opened | None:
    """Find the vector although some holders lie, and who they are.

    There are no odds: at the end every share of the others has been seen to fit everywhere. At
    most spare // 2 rounds of a matrix product, since each finds a liar more.

    Args:
        shares: Holder, from 0, to its share; decoded, so values are below the prime.
        prime: Order of the field.
        threshold: As shared.
        pack: As shared.
        size: Length of the vector.
        bound: Largest magnitude that an honest value has, up to (prime - 1) / 2.

    Returns:
        The vector and the holders whose share is wrong; None if there are too few shares, if more
        than (shares - threshold - pack) // 2 are wrong on any reading, or if a value is not within
        the bound.

    Raises:
        LocalProtocolError: a number is out of its range, or a share is nothing that `decode` gives.
    """
    holders = sorted(shares)
    _check_code(prime, threshold, pack, holders[-1] + 1 if holders else 1)
    if not 0 <= bound <= (prime - 1) // 2 or size < 1 or (holders and holders[0] < 0):
        raise LocalProtocolError("the bound, the size or a holder is out of range")
    if len(holders) < threshold + pack:
        return None
    words = _stack([shares[holder] for holder in holders], prime, share_length(size, pack))
    points = tuple(holder + 1 for holder in holders)
    missed = _missed(words, points, threshold + pack, prime)
    if missed is None:
        return None
    good = [row for row in range(len(points)) if row not in missed][: threshold + pack]
    chosen = tuple(points[row] for row in good)
    opening = field.lagrange_matrix(chosen, _secret_points(pack), prime)
    values = field.matrix_product(opening, words[good], prime)
    secret = values.reshape(-1)[:size]
    secret[secret > prime // 2] -= prime
    if np.abs(secret).max() > bound:
        return None
    return Opened(secret, frozenset(holders[row] for row in missed))


def _stack(shares: Sequence[Share], prime: int, length: int) -> field.Residues:
    if any(one.shape != (length,) or one.dtype != np.uint32 for one in shares):
        raise LocalProtocolError(f"a share has {length} values of type uint32")
    words = np.stack(shares).astype(np.int64)
    if words.max() >= prime:
        raise LocalProtocolError("a share has values that are not in the field")
    return words


def _missed(
    words: field.Residues, points: tuple[int, ...], degree: int, prime: int
) -> frozenset[int] | None:
    """Return the rows without which every column lies on a polynomial of degree below `degree`.

    A column that does not fit is decoded by itself, which finds wrong rows that were not known,
    or shows that there are too many.

    Args:
        words: Shape (points, columns), values modulo the prime.
        points: Where the rows are values.
        degree: At most the number of points.
        prime: Order of the field.

    Returns:
        At most (points - degree) // 2 rows; then no other rows would do. None if there are none.
    """
    missed: frozenset[int] = frozenset()
    while True:
        rest = [row for row in range(len(points)) if row not in missed]
        kept = tuple(points[row] for row in rest)
        others = field.lagrange_matrix(kept[:degree], kept[degree:], prime)
        expected = field.matrix_product(others, words[rest[:degree]], prime)
        unfit = (expected != words[rest[degree:]]).any(axis=0)
        if not unfit.any():
            return missed
        words = words[:, unfit]  # columns that fit without fewer rows fit without more
        found = _errors(words[:, 0], points, degree, prime)
        if found is None or 2 * len(missed | found) > len(points) - degree:
            return None
        missed |= found


def _errors(
    word: field.Residues, points: tuple[int, ...], degree: int, prime: int
) -> frozenset[int] | None:
    """Return the rows that a polynomial misses, if they are few enough to correct; None otherwise.

    The syndromes are the power sums of the wrong points, so the shortest recurrence through them
    has these as its roots (Massey 1969).
    """
    x = np.array(points, dtype=np.int64)
    terms = word * field.inverses(field.denominators(x, prime), prime) % prime
    syndromes = []
    for _ in range(len(points) - degree):
        syndromes.append(int(terms.sum() % prime))
        terms = terms * x % prime
    coefficients = field.recurrence(syndromes, prime)
    if coefficients is None:
        return None
    roots = field.zeros(coefficients, x, prime)
    return frozenset(roots) if len(roots) == len(coefficients) - 1 else None
