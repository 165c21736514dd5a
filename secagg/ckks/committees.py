"""How many hold shares of a secret, how many may collude or be silent, and what that costs.

A committee is drawn from the cohort by public randomness. The tails are counted in integers, as for
the graph of `masking`. Source: specs/35-ckks-parameters.md, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from secagg.assumptions import FAILURE_BITS, SECURITY_BITS, SPARSE_FROM
from secagg.errors import ConfigError
from secagg.tails import bars

__all__ = [
    "OFFER_DRAWS_BITS",
    "SHARE_BYTES",
    "SHARE_PRIMES",
    "CommitteeParameters",
    "Sharing",
    "check_committee",
    "smallest_committee",
]

OFFER_DRAWS_BITS: Final = 64
"""log2 of the committees that a coordinator may draw, by new offers, before it settles for one."""
LIARS: Final = 1
"""Wrong answers that a committee smaller than the cohort corrects with all its silent missing."""
LARGEST: Final = 4096
"""Largest committee; the keys of a larger one would not fit a message."""
SHARE_BYTES: Final = 200_000
"""Most bytes of field elements that a node sends to all members together."""
SHARE_PRIMES: Final = {65_521: 2, 16_777_213: 3}
"""Fields of the shares, the greatest primes of 16 and 24 bits, to the bytes of an element."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What is shared: one secret of a node, and how great the sum of all of them can be."""

    degree: int
    """Coefficients of the secret."""
    greatest: int
    """n·W·terms: bound on the absolute value of a coefficient of Σ w s."""


@dataclass(frozen=True, slots=True)
class CommitteeParameters:
    """Packed Shamir sharing (Franklin and Yung 1992) among m nodes of the cohort."""

    size: int
    """m: share holders, the whole cohort if it is as many."""
    threshold: int
    """t: any t members' shares of a node's secret say nothing about it."""
    pack: int
    """l: coefficients in one polynomial; t + l answers open the sum."""
    silent: int
    """Members that may fail to answer."""
    modulus: int
    """p: the field of the shares, one of `SHARE_PRIMES`."""

    @property
    def answers(self) -> int:
        """Return t + l, the answers that open a sum if all are right."""
        return self.threshold + self.pack

    def correctable(self, answers: int) -> int:
        """Return e: how many of `answers` may be wrong and the sum is still found, and by whom.

        A polynomial of degree below t + l at that many points is a Reed-Solomon codeword of
        distance answers − (t + l) + 1, so that t + l + 2e answers correct e.
        """
        return max(0, (answers - self.answers) // 2)


@lru_cache(maxsize=1024)
def smallest_committee(
    members: int, *, colluders: int, silent: int, sharing: Sharing
) -> CommitteeParameters | None:
    """Return the smallest committee that keeps a secret and answers; None if there is none.

    Args:
        members: Nodes of the cohort.
        colluders: Those of them that may collude.
        silent: Those of them that may not answer, whichever they are.
        sharing: What is shared.
    """
    if members >= SPARSE_FROM:
        most = min(members - 1, LARGEST)
        private = bars(members, max(colluders, 1), odds=_odds(SECURITY_BITS), most=most)
        live = bars(members, silent, odds=1 << FAILURE_BITS, most=most)
        for size, (held, lost) in enumerate(zip(private, live, strict=True), start=1):
            found = _packed(size, max(1, held - 1), silent=lost - 1, sharing=sharing)
            if found and found.correctable(size - found.silent) >= LIARS:
                return found
    if members > LARGEST:
        return None
    return _packed(members, max(1, colluders), silent=silent, sharing=sharing)


def check_committee(
    made: CommitteeParameters, members: int, *, colluders: int, sharing: Sharing
) -> None:
    """Judge a committee that somebody else chose.

    Raises:
        ConfigError: it is not private, its field or its pack is another than the rule gives, or it
            can never open a sum; the hint names the nearest number that is allowed.
    """
    largest = min(members, LARGEST)
    if not 1 <= made.size <= largest:
        raise ConfigError(f"a committee of {made.size} of {members}", hint=f"use 1 to {largest}")
    if made.size == members:
        least, why = colluders, "the colluding nodes hold more shares"
    else:
        most = min(members - 1, max(made.size, 1))
        caps = bars(members, max(colluders, 1), odds=_odds(SECURITY_BITS), most=most)
        least = caps[made.size - 1] - 1
        why = f"more colluding members are likelier than 2^-{SECURITY_BITS}"
    if made.threshold < max(1, least):
        raise ConfigError(
            f"threshold {made.threshold} of {made.size} members: {why}",
            hint=f"use at least {max(1, least)}",
        )
    if made.pack < 1 or sharing.degree % made.pack:
        raise ConfigError(
            f"{made.pack} coefficients in one polynomial of {sharing.degree}",
            hint="use a power of two",
        )
    if made.answers > made.size:
        raise ConfigError(
            f"{made.size} members never give {made.answers} answers",
            hint=f"use a committee of at least {made.answers}",
        )
    field = _field(made.size, sharing)
    if made.modulus not in SHARE_PRIMES or field is None or made.modulus < field:
        raise ConfigError(
            f"shares modulo {made.modulus}: the sum of secrets could wrap",
            hint=f"use {field}" if field else "use fewer nodes",
        )
    if made.modulus > field:
        raise ConfigError(
            f"shares modulo {made.modulus}: wider than the sum of secrets needs",
            hint=f"use {field}",
        )
    pack = _least_pack(made.size, made.modulus, sharing)
    if made.pack < pack:
        raise ConfigError(
            f"{made.size} shares of a secret take more than {SHARE_BYTES} bytes",
            hint=f"use a pack of at least {pack}",
        )
    if made.pack > pack:
        raise ConfigError(
            f"{made.pack} coefficients in one polynomial: fewer wrong answers are corrected than "
            f"could be within {SHARE_BYTES} bytes",
            hint=f"use {pack}",
        )


def _odds(security_bits: int) -> int:
    return 1 << (security_bits + OFFER_DRAWS_BITS)


def _packed(
    size: int, threshold: int, *, silent: int, sharing: Sharing
) -> CommitteeParameters | None:
    """Return the committee with the least pack that fits in `SHARE_BYTES`: it corrects most."""
    modulus = _field(size, sharing)
    if modulus is None:
        return None
    pack = _least_pack(size, modulus, sharing)
    if pack > sharing.degree or threshold + pack > size - silent:
        return None
    return CommitteeParameters(size, threshold, pack, silent, modulus)


def _least_pack(size: int, modulus: int, sharing: Sharing) -> int:
    """Return the least power of two for which all shares fit in `SHARE_BYTES` (R-07)."""
    whole = size * sharing.degree * SHARE_PRIMES[modulus]
    return 1 << (-(-whole // SHARE_BYTES) - 1).bit_length()


def _field(size: int, sharing: Sharing) -> int | None:
    """Return the least of `SHARE_PRIMES` above 2·n·W·terms + m + N: no wrap, distinct points."""
    least = 2 * sharing.greatest + size + sharing.degree
    return next((prime for prime in SHARE_PRIMES if prime > least), None)
