"""Degree, modulus and packing in which no sum wraps; how wide secrets and errors have to be.

Source: specs/35-ckks-parameters.md, sections 2 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from secagg.ckks.seal import ERROR_BOUND
from secagg.errors import ConfigError
from secagg.primitives.field import is_prime

__all__ = [
    "MAX_WEIGHT",
    "MODULUS_BITS",
    "SECRET_TERMS",
    "RingParameters",
    "affordable_weight",
    "check_ring",
    "ring_modulus",
    "smallest_ring",
]

MODULUS_BITS: Final = {2048: 52, 4096: 60}
"""Degree N to the longest modulus: the first by the security of section 3, the second by SEAL."""
SECRET_TERMS: Final = 4
"""Ternary keys that a secret is the sum of, for weights up to 1 (section 4)."""
MAX_WEIGHT: Final = 4
"""Weights up to 4 take 13 errors a block already."""
VALUE_BITS: Final = range(8, 25)


@dataclass(frozen=True, slots=True)
class RingParameters:
    """R_q = Z_q[X]/(X^N + 1), what lies in a coefficient, and how wide secrets and errors are."""

    degree: int
    """N: coefficients of a polynomial."""
    modulus_bits: int
    """Bits of q, which is `ring_modulus` of both; those of a coefficient on the wire."""
    values_per_coefficient: int
    """r."""
    field_bits: int
    """B: bits that a summed value takes; the k-th is shifted by noise_bits + k·B."""
    noise_bits: int
    """Bits below the values, which hold the sum of the errors and its sign."""
    secret_terms: int
    """Ternary keys in a node's secret; no coefficient of it is greater."""
    error_terms: int
    """SEAL's errors in each block: encryptions of zero that are added up."""


@lru_cache(maxsize=256)
def smallest_ring(n: int, value_bits: int, max_weight: int) -> RingParameters:
    """Return the ring with the fewest bits a value, of several the one of least degree.

    Args:
        n: Nodes in the sum.
        value_bits: v, 8 to 24; a value is an integer from −2^(v−1) to 2^(v−1) − 1.
        max_weight: W, 1 to `MAX_WEIGHT`: the greatest integer that a ciphertext is multiplied by.

    Raises:
        ConfigError: a number is out of range, or a sum could wrap in every ring.
    """
    ring = _smallest(n, value_bits, max_weight)
    if ring is not None:
        return ring
    fewer = [v for v in VALUE_BITS if v < value_bits and _smallest(n, v, max_weight)]
    lighter = [w for w in range(1, max_weight) if _smallest(n, value_bits, w)]
    ways = [f"value_bits {max(fewer)}"] if fewer else []
    ways += [f"max_weight {max(lighter)}"] if lighter else []
    raise ConfigError(
        f"{n} nodes with {value_bits}-bit values and weights up to {max_weight} can wrap the "
        f"longest modulus, {max(MODULUS_BITS.values())} bits",
        hint=f"use {' or '.join(ways) or 'fewer nodes'}",
    )


def affordable_weight(n: int, value_bits: int) -> int:
    """Return the greatest weight that a coordinator should give, 2 or 3.

    3 unless it takes more than a fifth more ciphertext than 2: then fewer values share a
    coefficient, and there are more blocks to encrypt with more errors each.

    Raises:
        ConfigError: as `smallest_ring`, for a weight of 2.
    """
    two, three = smallest_ring(n, value_bits, 2), _smallest(n, value_bits, 3)
    if three is None:
        return 2
    bits = [ring.modulus_bits / ring.values_per_coefficient for ring in (two, three)]
    return 3 if bits[1] <= 1.2 * bits[0] else 2


def check_ring(ring: RingParameters, n: int, *, value_bits: int, max_weight: int) -> None:
    """Judge a ring that somebody else chose.

    Raises:
        ConfigError: a sum of n values could wrap, or the estimate is below 128 bits; the hint names
            the nearest number that is allowed.
    """
    _check_numbers(value_bits, max_weight)
    most = MODULUS_BITS.get(ring.degree)
    if most is None:
        raise ConfigError(f"degree {ring.degree}", hint=f"use one of {sorted(MODULUS_BITS)}")
    if ring.modulus_bits > most:
        raise ConfigError(
            f"a modulus of {ring.modulus_bits} bits with degree {ring.degree} is not known to keep "
            "128 bits",
            hint=f"use at most {most} bits",
        )
    spread = _spread(max_weight)
    for name, value, least in (
        ("secret_terms", ring.secret_terms, SECRET_TERMS * spread),
        ("error_terms", ring.error_terms, spread),
    ):
        if value < least:
            raise ConfigError(
                f"{name} is {value}: with all but two nodes colluding less than 128 bits are left",
                hint=f"use at least {least} for weights up to {max_weight}",
            )
        if value > 2 * least:
            raise ConfigError(
                f"{name} is {value}: it costs the nodes time and room for nothing",
                hint=f"use {least} for weights up to {max_weight}",
            )
    noise = n * max_weight * ERROR_BOUND * ring.error_terms
    for name, value, least in (
        ("values_per_coefficient", ring.values_per_coefficient, 1),
        ("field_bits", ring.field_bits, value_bits + (n * max_weight - 1).bit_length()),
        ("noise_bits", ring.noise_bits, noise.bit_length() + 1),
    ):
        if not least <= value <= most:
            raise ConfigError(
                f"{name} is {value}: sums could wrap",
                hint=f"use {least} to {most}",
            )
    bound = 2 * _greatest_sum(ring, n, value_bits=value_bits, max_weight=max_weight)
    if ring_modulus(ring.degree, ring.modulus_bits) <= bound:
        raise ConfigError(
            f"a modulus of {ring.modulus_bits} bits: sums could wrap",
            hint=f"use at least {_enough_bits(ring.degree, bound)} bits, or fewer values in one",
        )


def ring_modulus(degree: int, bits: int) -> int:
    """Return q: the greatest prime below 2^bits that is 1 modulo 2N, which is SEAL's choice too.

    Raises:
        ConfigError: there is none of so many bits.
    """
    step = 2 * degree
    last = ((1 << max(bits, 1)) - 2) // step * step + 1
    for candidate in range(last, 1 << max(bits - 1, 1), -step):
        if is_prime(candidate):
            return candidate
    raise ConfigError(f"no modulus of {bits} bits for degree {degree}", hint="use more bits")


def _smallest(n: int, value_bits: int, max_weight: int) -> RingParameters | None:
    _check_numbers(value_bits, max_weight)
    spread = _spread(max_weight)
    field_bits = value_bits + (n * max_weight - 1).bit_length()
    noise_bits = (n * max_weight * ERROR_BOUND * spread).bit_length() + 1
    found: list[RingParameters] = []
    for degree, most in MODULUS_BITS.items():
        for count in range(1, most // field_bits + 1):
            bare = RingParameters(
                degree, 0, count, field_bits, noise_bits, SECRET_TERMS * spread, spread
            )
            bound = 2 * _greatest_sum(bare, n, value_bits=value_bits, max_weight=max_weight)
            bits = _enough_bits(degree, bound)
            if bits <= most:
                found.append(replace(bare, modulus_bits=bits))
    return min(
        found,
        key=lambda ring: (ring.modulus_bits / ring.values_per_coefficient, ring.degree),
        default=None,
    )


def _enough_bits(degree: int, bound: int) -> int:
    """Return the fewest bits of a modulus above `bound`."""
    bits = bound.bit_length()
    return bits if ring_modulus(degree, bits) > bound else bits + 1


def _greatest_sum(ring: RingParameters, n: int, *, value_bits: int, max_weight: int) -> int:
    """Return the greatest absolute value that Δ·Σ w m + Σ w e can take."""
    value = n * max_weight << (value_bits - 1)
    stacked = sum(value << (ring.field_bits * k) for k in range(ring.values_per_coefficient))
    return (stacked << ring.noise_bits) + n * max_weight * ERROR_BOUND * ring.error_terms


def _spread(max_weight: int) -> int:
    """Return by what secrets and errors must be wider for weights up to W (section 4).

    w₁s₁ + w₂s₂ leaves 1/(w₁² + w₂²) of the variance, least for the coprime W and W − 1; for equal
    weights, as good as 1 and 1, it is 1/2.
    """
    return max(1, -(-(max_weight**2 + (max_weight - 1) ** 2) // 2))


def _check_numbers(value_bits: int, max_weight: int) -> None:
    if value_bits not in VALUE_BITS:
        raise ConfigError(f"value_bits is {value_bits}", hint="use 8 to 24; 16 is the default")
    if not 1 <= max_weight <= MAX_WEIGHT:
        raise ConfigError(
            f"max_weight is {max_weight}",
            hint=f"use 1 to {MAX_WEIGHT}, or 1 and let the nodes weigh their own values",
        )
