"""Ring, secret, committee and quorum of a round of `ckks`, computed from what it must withstand.

`choose` takes the cohort, the bits of a value, the greatest weight and the fractions that may
collude and drop out; it returns the smallest ring in which no sum can wrap, and the smallest
committee that keeps a secret and still answers. `check` judges a setting that somebody else chose.

Source: specs/35-ckks-parameters.md, which derives every figure.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from secagg.assumptions import (
    DEFAULT_COLLUSION,
    DEFAULT_DROPOUT,
    colluders_among,
    fraction_of,
    shortened,
)
from secagg.ckks.committees import (
    SHARE_PRIMES,
    CommitteeParameters,
    Sharing,
    check_committee,
    smallest_committee,
)
from secagg.ckks.headroom import RingParameters, check_ring, smallest_ring
from secagg.errors import ConfigError
from secagg.types import MAX_COHORT

__all__ = ["CkksParameters", "check", "choose"]


@dataclass(frozen=True, slots=True)
class CkksParameters:
    """What a round of `ckks` takes, and what it withstands."""

    nodes: int
    """n: size of the cohort."""
    value_bits: int
    """v: a value is an integer from −2^(v−1) to 2^(v−1) − 1."""
    max_weight: int
    """W: greatest integer by which a node's ciphertext is multiplied before it is added."""
    ring: RingParameters
    """Polynomials, what lies in a coefficient, widths of secret and error."""
    committee: CommitteeParameters
    """Who holds shares of a secret, and how."""
    quorum: int
    """Fewest survivors that a member opens a sum of."""
    cosigners: int
    """c: signatures over one survivor set and weighting that a member asks for."""
    colluders: int
    """A: nodes of the roster that may collude; all of them may be in the cohort."""
    dropouts: int
    """D: nodes of the cohort that may vanish at any time."""

    @property
    def value_bytes(self) -> float:
        """Return the upload for a value, in bytes."""
        return self.ring.modulus_bits / self.ring.values_per_coefficient / 8

    @property
    def share_length(self) -> int:
        """Return the field elements in the share of one holder."""
        return self.ring.degree // self.committee.pack

    @property
    def share_bytes(self) -> int:
        """Return the bytes of the share of one holder."""
        return -(-self.share_length // 8) * 8 * SHARE_PRIMES[self.committee.modulus]


def choose(
    n: int,
    *,
    members: int | None = None,
    value_bits: int = 16,
    max_weight: int = 1,
    dropout: float = DEFAULT_DROPOUT,
    collusion: float = DEFAULT_COLLUSION,
) -> CkksParameters:
    """Return the parameters of a round of `n` nodes.

    Args:
        n: Size of the cohort, 3 to `MAX_COHORT`.
        members: Active nodes of the roster, by default n: those that collude are counted among
            them. Where given, the round withstands as many dropouts as that leaves room for.
        value_bits: Bits of a value with its sign, 8 to 24.
        max_weight: Greatest public weight, 1 to 4; 1 where nodes weigh their own values.
        dropout: Fraction of the cohort that may vanish, in [0, 1/2).
        collusion: Fraction of the roster that may collude, in [0, 1/2).

    Raises:
        ConfigError: a number is out of range, a sum could wrap in every ring that is secure, or no
            quorum or committee withstands that much; the hint names the nearest that would do.
    """
    population = n if members is None else members
    _check_sizes(n, population)
    for name, value in (("dropout", dropout), ("collusion", collusion)):
        if not 0 <= value < 0.5:
            raise ConfigError(
                f"{name} {value:g} is out of range",
                hint="use 0 up to, but not including, 0.5: no quorum outlasts half of the nodes",
            )
    ring = smallest_ring(n, value_bits, max_weight)
    sharing = Sharing(ring.degree, n * max_weight * ring.secret_terms)
    colluders = colluders_among(population, collusion)
    wanted = math.floor(dropout * n + 1e-9)

    def committee(colluding: int, lost: int) -> CommitteeParameters | None:
        if colluding + 2 * lost >= n or max(3, n - lost) - colluding < 2:
            return None
        return smallest_committee(n, colluders=colluding, silent=lost, sharing=sharing)

    def most_dropouts(most: int) -> int:
        return bisect_left(range(most + 1), True, key=lambda d: committee(colluders, d) is None) - 1

    dropouts = wanted if members is None else most_dropouts(wanted)
    found = committee(colluders, dropouts) if dropouts >= 0 else None
    if found is None:
        least = wanted if members is None else 0
        loyal = bisect_left(range(colluders), True, key=lambda a: committee(a, least) is None) - 1
        ways = []
        if (fewer := most_dropouts(wanted)) >= 0:
            nearest = fraction_of(fewer, n)
            ways.append(f"with collusion {shortened(collusion)} use dropout {nearest}")
        if loyal >= 0:
            nearest = fraction_of(loyal, population)
            ways.append(f"with dropout {shortened(dropout)} use collusion {nearest}")
        raise ConfigError(
            f"{n} nodes cannot withstand {colluders} that collude and {wanted} that drop out",
            hint=", or ".join(ways) or "lower both collusion and dropout",
        )
    quorum = max(3, n - dropouts)
    return CkksParameters(
        nodes=n,
        value_bits=value_bits,
        max_weight=max_weight,
        ring=ring,
        committee=found,
        quorum=quorum,
        cosigners=(n + colluders) // 2 + 1,
        colluders=colluders,
        dropouts=n - quorum,
    )


def check(made: CkksParameters) -> None:
    """Judge a setting that somebody else chose, for the colluding nodes that it names.

    It judges privacy and exactness, and refuses what can never end with a sum; how many dropouts
    the setting withstands it does not judge.

    Raises:
        ConfigError: a sum could wrap, the estimate is below 128 bits, or colluding nodes could open
            a secret or a second sum; the hint names the nearest number that is allowed.
    """
    n, colluders = made.nodes, made.colluders
    _check_sizes(n, n)
    if not 0 <= colluders <= n - 2:
        raise ConfigError(
            f"{colluders} colluding nodes of {n} leave nothing to hide",
            hint=f"assume 0 to {n - 2}",
        )
    check_ring(made.ring, n, value_bits=made.value_bits, max_weight=made.max_weight)
    sharing = Sharing(made.ring.degree, n * made.max_weight * made.ring.secret_terms)
    check_committee(made.committee, n, colluders=colluders, sharing=sharing)
    shared = (n + colluders) // 2 + 1
    for name, value, least, why in (
        ("cosigners", made.cosigners, shared, "two sets of them need not share an honest node"),
        ("quorum", made.quorum, max(3, colluders + 2), "fewer than two honest nodes are in a sum"),
        ("quorum", made.quorum, made.cosigners, "fewer survivors than co-signers"),
    ):
        if value < least:
            raise ConfigError(f"{name} {value} of {n} nodes: {why}", hint=f"use at least {least}")
    if made.quorum > n:
        raise ConfigError(f"quorum {made.quorum} of {n} nodes is never met", hint=f"use {n}")


def _check_sizes(n: int, members: int) -> None:
    if not 3 <= n <= MAX_COHORT:
        raise ConfigError(
            f"a cohort of {n} cannot be summed privately",
            hint=f"use 3 to {MAX_COHORT} nodes: of two, each could subtract its own input",
        )
    if not n <= members <= MAX_COHORT:
        raise ConfigError(
            f"a roster of {members} active nodes for a cohort of {n}",
            hint=f"use {n} to {MAX_COHORT}",
        )
