"""What the operator wants of a run, and how large its rounds may be.

Source: specs/60-session.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from nodes.session.privacy import CLIENT, PrivacySettings
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT, colluders_among
from secagg.ckks import parameters as ckks
from secagg.ckks.headroom import affordable_weight
from secagg.encoding import ring_bits_for
from secagg.errors import ConfigError
from secagg.masking.parameters import MAX_DEGREE, choose
from secagg.schemes import scheme_named
from secagg.types import MAX_COHORT
from secagg.wire.messages import MAX_CHUNK

__all__ = ["HEAVIEST", "MIN_NODES", "WEIGHT_MODES", "RunPlan"]

WEIGHT_MODES: Final = ("private", "coordinator")
"""Who applies the consistency weight: the node, before it encrypts or masks, or the coordinator,
which is told the distance instead and multiplies ciphertexts."""

HEAVIEST: Final = 3
"""Greatest weight that a coordinator gives; 2 where 3 costs too much (`affordable_weight`)."""

MIN_NODES: Final = 3
"""Fewest nodes of any round: with two, each knows the other's input from the sum."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What the operator wants of a run."""

    rounds: int
    """Rounds with a result."""
    min_nodes: int
    """Fewest nodes an offer goes to; at least 3."""
    training: bytes
    """Canonical JSON of model and training settings; opaque to the session."""
    scheme: str = "masking"
    weights: str = "private"
    """One of `WEIGHT_MODES`; "coordinator" needs the scheme ckks."""
    value_bits: int = 16
    """Bits of one node's integers; the wire adds log2 of the cohort."""
    update_bound: float = 4.0
    """L2 bound of w·Δθ."""
    centroid_bound: float = 8.0
    """L2 bound of w·centroid."""
    dropout: float = DEFAULT_DROPOUT
    """Fraction of a cohort that may drop out of a round, which still ends with a sum."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may side with a malicious coordinator and learn
    nothing (P-09)."""
    chunk_values: int = 65_536
    join_timeout: float = 20.0
    """Seconds to wait for absent nodes before a round starts without them."""
    give_up: float = 3_600.0
    """Seconds without enough nodes after which the run ends incomplete."""
    phase_timeout: float = 30.0
    input_timeout: float = 600.0
    """Seconds for local training."""
    heartbeat: float = 2.0
    liveness: float = 10.0
    """Seconds of silence after which a node counts as gone."""
    farewell_timeout: float = 30.0
    max_failures: int = 10
    """Aborted rounds in a row after which the run ends incomplete."""
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    """Unit, noise and budget."""

    def least_cohort(self, members: int) -> int:
        """Return the fewest nodes a round starts with, of `members` active ones.

        Beside all that may collude there are two whose inputs hide behind one another (P-09), and
        under ckks as many as it takes to open a sum, give or take an eighth of those.
        """
        hiding = least = self._hiding(members)
        while least < members and not _holds(self, least, members):
            least += 1 + (least - hiding) // 8
        return min(least, max(hiding, members))

    def cohort_size(self, here: int, members: int) -> int:
        """Return how many of the nodes that are here to ask, or 0: some numbers cannot be served.

        With few beyond those that may collude, a committee of ckks may lack the answers it needs.
        """
        sizes = range(min(here, self.max_cohort), self._hiding(members) - 1, -1)
        return next((n for n in sizes if _holds(self, n, members)), 0)

    def _hiding(self, members: int) -> int:
        if not scheme_named(self.scheme).private:
            return self.min_nodes
        return max(self.min_nodes, colluders_among(members, self.collusion) + 2)

    @property
    def max_cohort(self) -> int:
        """Most nodes in one round.

        Beyond them a sum could wrap a 32-bit ring, or everybody would need more neighbours than a
        message has room for.
        """
        heaviest = HEAVIEST if self.weights == "coordinator" else 1
        largest = min(MAX_COHORT, (1 << (32 - self.value_bits)) // heaviest)
        if self.scheme == "ckks":
            return next(n for n in _sizes_below(largest) if n == 3 or self._can_hold(n))
        return largest if self._can_hold(largest) else min(largest, MAX_DEGREE + 1)

    def max_weight(self, n: int) -> int:
        """Return the greatest weight of a node in a sum of `n`."""
        return affordable_weight(n, self.value_bits) if self.weights == "coordinator" else 1

    def _can_hold(self, n: int) -> bool:
        return _holds(self, n, None)

    def check_cohort(self, n: int, members: int | None = None) -> None:
        """Raise ConfigError if no round of `n` nodes withstands what this plan asks for."""
        if self.scheme == "ckks":
            self.terms(n, members=members)
        else:
            choose(n, dropout=self.dropout, collusion=self.collusion, population=members)

    def terms(
        self, n: int, *, members: int | None, value_bits: int | None = None
    ) -> ckks.CkksParameters:
        """Return the terms of a round of ckks; raises as `secagg.ckks.parameters.choose` does.

        Args:
            n: Nodes in the cohort.
            members: Active nodes of the roster, or None for the cohort alone.
            value_bits: Of a node's integers, where noise makes them wider than the plan says.
        """
        return ckks.choose(
            n,
            members=members,
            value_bits=value_bits or self.value_bits,
            max_weight=self.max_weight(n),
            dropout=self.dropout,
            collusion=self.collusion,
        )

    def __post_init__(self) -> None:
        scheme_named(self.scheme)
        _check_ranges(self)
        _check_weights(self)
        _check_privacy(self)
        ring_bits_for(self.min_nodes * self.max_weight(self.min_nodes), self.value_bits)
        if self.min_nodes < MIN_NODES:
            raise ConfigError(
                f"min_nodes is {self.min_nodes}",
                hint=f"a sum over fewer than {MIN_NODES} nodes hides nobody",
            )
        for n in (self.min_nodes, self.max_cohort):
            self.check_cohort(n)
        if self.liveness < 2 * self.heartbeat:
            raise ConfigError(
                f"liveness {self.liveness} s is less than two heartbeats of {self.heartbeat} s",
                hint=f"set liveness to at least {2 * self.heartbeat}",
            )


@lru_cache(maxsize=4096)
def _holds(plan: RunPlan, n: int, members: int | None) -> bool:
    try:
        plan.check_cohort(n, members)
    except ConfigError:
        return False
    return True


def _sizes_below(largest: int) -> tuple[int, ...]:
    """Return sizes of cohorts to try, from the largest on down."""
    sizes = (5000, 2000, 1000, 500, 250, 127, 64, 32, 16, 8, 5, 4, 3)
    return largest, *(n for n in sizes if n < largest)


def _check_weights(plan: RunPlan) -> None:
    if plan.weights not in WEIGHT_MODES:
        raise ConfigError(
            f"weights is {plan.weights!r}", hint=f"use one of: {', '.join(WEIGHT_MODES)}"
        )
    if plan.weights == "coordinator" and plan.scheme != "ckks":
        raise ConfigError(
            f"under {plan.scheme} the coordinator cannot weigh what it does not see",
            hint='set scheme = "ckks", or weights = "private"',
        )


def _check_privacy(plan: RunPlan) -> None:
    """Refuse noise of the unit "client" where it would protect nobody."""
    if plan.privacy.unit != CLIENT:
        return
    if not scheme_named(plan.scheme).private:
        raise ConfigError(
            f"under {plan.scheme} the coordinator sees each node's input, with one node's noise",
            hint='set scheme = "masking" or "ckks", or privacy.unit = "none"',
        )
    if plan.weights == "coordinator":
        raise ConfigError(
            "where the coordinator weighs, nodes disclose a distance that no noise covers",
            hint='set weights = "private", or privacy.unit = "none"',
        )


def _check_ranges(plan: RunPlan) -> None:
    """Refuse numbers that an offer or a welcome could not carry, or that make no sense."""
    for name in (
        "update_bound",
        "centroid_bound",
        "phase_timeout",
        "input_timeout",
        "heartbeat",
        "liveness",
        "give_up",
        "farewell_timeout",
    ):
        if not 0 < getattr(plan, name) <= 1e6:  # NaN is refused as well
            raise ConfigError(
                f"{name} is {getattr(plan, name)}", hint="use a number above 0, at most 1000000"
            )
    for name, least in (("max_failures", 1), ("rounds", 1)):
        if not least <= getattr(plan, name) <= 10**9:
            raise ConfigError(f"{name} is {getattr(plan, name)}", hint=f"use {least} to 1000000000")
    if not 0 <= plan.join_timeout <= 1e6:
        raise ConfigError(f"join_timeout is {plan.join_timeout}", hint="use 0 to 1000000")
    if plan.chunk_values < 8 or plan.chunk_values % 8 or plan.chunk_values * 4 > MAX_CHUNK:
        raise ConfigError(
            f"chunk_values is {plan.chunk_values}",
            hint=f"use a multiple of 8 up to {MAX_CHUNK // 4}",
        )
