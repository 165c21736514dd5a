"""The ring of specs/35 a second time, one integer at a time; nothing of `secagg`.

Polynomials are tuples of N integers modulo q: their coefficients, or their values at the odd powers
of a root of X^N + 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

from tests.vectors import slow_parts as parts

Polynomial: TypeAlias = tuple[int, ...]


def is_prime(n: int) -> bool:
    """Miller and Rabin's test by the first twelve primes, a proof below 3·10^23."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if n < 2 or any(n % base == 0 for base in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(
        pow(base, odd, n) == 1 or any(pow(base, odd << k, n) == n - 1 for k in range(twos))
        for base in bases
    )


@functools.cache
def modulus(degree: int, bits: int) -> int:
    """Return the greatest prime of so many bits that is 1 modulo 2N."""
    q = (1 << bits) - 1
    q -= (q - 1) % (2 * degree)
    while not is_prime(q):
        q -= 2 * degree
    return q


@functools.cache
def root(degree: int, q: int) -> int:
    """Return the least ψ with ψ^N = −1."""
    found = (pow(x, (q - 1) // (2 * degree), q) for x in range(2, q))
    first = next(each for each in found if pow(each, degree, q) == q - 1)
    odd = itertools.accumulate(range(degree - 1), lambda x, _: x * first * first % q, initial=first)
    return min(odd)


def _reversed_bits(count: int) -> list[int]:
    """Return for each index the one with its bits in the opposite order."""
    places = [0]
    while len(places) < count:
        places = [2 * each for each in places] + [2 * each + 1 for each in places]
    return places


def _fourier(values: list[int], omega: int, q: int) -> list[int]:
    """Return the values of a polynomial at 1, ω, ω², …."""
    if len(values) == 1:
        return values
    even = _fourier(values[::2], omega * omega % q, q)
    odd = _fourier(values[1::2], omega * omega % q, q)
    twisted, power = [], 1
    for value in odd:
        twisted.append(power * value % q)
        power = power * omega % q
    return [(a + b) % q for a, b in zip(even, twisted, strict=True)] + [
        (a - b) % q for a, b in zip(even, twisted, strict=True)
    ]


@functools.cache
def to_points(coefficients: Polynomial, q: int) -> Polynomial:
    """Return f(ψ^(2k + 1)) at place i, the bits of k those of i in the opposite order."""
    degree, power, twisted = len(coefficients), 1, []
    psi = root(degree, q)
    for value in coefficients:
        twisted.append(value * power % q)
        power = power * psi % q
    values = _fourier(twisted, psi * psi % q, q)
    return tuple(values[k] for k in _reversed_bits(degree))


@functools.cache
def to_coefficients(points: Polynomial, q: int) -> Polynomial:
    """Invert `to_points`."""
    degree = len(points)
    psi = root(degree, q)
    values = [0] * degree
    for place, k in enumerate(_reversed_bits(degree)):
        values[k] = points[place]
    twisted = _fourier(values, pow(psi, -2, q), q)
    power, out, back = pow(degree, -1, q), [], pow(psi, -1, q)
    for value in twisted:
        out.append(value * power % q)
        power = power * back % q
    return tuple(out)


@functools.cache
def elements(seed: bytes, blocks: int, degree: int, q: int) -> tuple[Polynomial, ...]:
    """Return a_0, a_1, …, coefficients: the 64-bit words of the keystream, cut, that are below q.

    At least half of the words are, so twice as many and some are enough but for bad luck.
    """
    mask = (1 << q.bit_length()) - 1
    halves = parts.keystream(seed, 4 * blocks * degree + 2000)
    words = (low + (high << 32) & mask for low, high in zip(halves[::2], halves[1::2], strict=True))
    kept = list(itertools.islice((word for word in words if word < q), blocks * degree))
    return tuple(tuple(kept[start : start + degree]) for start in range(0, len(kept), degree))


def encrypt(
    message: Sequence[Polynomial],
    secret: Polynomial,
    errors: Sequence[Polynomial],
    *,
    seed: bytes,
    q: int,
) -> list[Polynomial]:
    """Return c_j = −a_j·s + e_j + m_j, values at the points."""
    s = to_points(secret, q)
    cipher = []
    public = elements(seed, len(message), len(secret), q)
    for a, m, e in zip(public, message, errors, strict=True):
        clear = to_points(tuple((x + y) % q for x, y in zip(m, e, strict=True)), q)
        product = zip(clear, to_points(a, q), s, strict=True)
        cipher.append(tuple((c - x * y) % q for c, x, y in product))
    return cipher


def open_blocks(
    total: Sequence[Polynomial], secret: Polynomial, *, seed: bytes, q: int
) -> list[list[int]]:
    """Return Σ w·m + Σ w·e of the blocks, coefficients of least magnitude."""
    s = to_points(tuple(x % q for x in secret), q)
    opened = []
    for a, c in zip(elements(seed, len(total), len(secret), q), total, strict=True):
        product = zip(c, to_points(a, q), s, strict=True)
        clear = to_coefficients(tuple((z + x * y) % q for z, x, y in product), q)
        opened.append([x - q if 2 * x > q else x for x in clear])
    return opened


def pack_residues(values: Sequence[int], bits: int) -> bytes:
    """Return the residues of a chunk; 33 to 39 bits are 16 and the rest, so that none is lost."""
    if 32 < bits < 40:
        low = parts.pack([value % (1 << 16) for value in values], 16)
        return low + parts.pack([value >> 16 for value in values], bits - 16)
    return parts.pack(values, bits)


def unpack_residues(data: bytes, count: int, bits: int, q: int) -> list[int] | None:
    """Invert `pack_residues`; None if the length is wrong, or a residue is not below q."""
    if len(data) != count * bits // 8:
        return None
    low_bits = 16 if 32 < bits < 40 else 0
    low = [0] * count
    if low_bits:
        low = parts.unpack(data[: 2 * count], count, low_bits) or low
    high = parts.unpack(data[low_bits * count // 8 :], count, bits - low_bits) or low
    values = [a + (b << low_bits) for a, b in zip(low, high, strict=True)]
    return values if max(values) < q else None
