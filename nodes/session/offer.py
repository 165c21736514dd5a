"""From a plan to an offer, and from an offer to what both sides run: one reading for both.

Source: specs/60-session.md section 4, specs/10-encoding.md section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nodes.session.events import RunState
from nodes.session.model_transfer import model_digest, to_bytes
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT, colluders_among
from secagg.encoding import FixedPoint, Segment, ring_bits_for
from secagg.errors import ConfigError, OfferRefused
from secagg.masking.parameters import MAX_DEGREE, choose, insecurity
from secagg.schemes import SCHEMES, scheme_named
from secagg.types import MAX_COHORT, NodeId, RefusalReason, RoundSetup
from secagg.wire.codec import offer_hash
from secagg.wire.messages import MAX_CHUNK, RoundOffer

__all__ = [
    "SAMPLE_BUCKETS",
    "NodePolicy",
    "RunPlan",
    "build_offer",
    "check_offer",
    "encoding_of",
    "setup_of",
]

SAMPLE_BUCKETS = (0, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Lower ends of the buckets in which nodes count themselves by their number of rows."""
MAX_LOSS = 100.0
"""A node's reported loss is clipped to this; InfoNCE over a batch of m rows stays near log m."""


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

    def least_cohort(self, members: int) -> int:
        """Return the fewest nodes a round starts with, of `members` active ones.

        Beside all that may collude there are two whose inputs hide behind one another (P-09).
        """
        if not scheme_named(self.scheme).private:
            return self.min_nodes
        return max(self.min_nodes, colluders_among(members, self.collusion) + 2)

    @property
    def max_cohort(self) -> int:
        """Most nodes in one round.

        Beyond them a sum could wrap a 32-bit ring, or everybody would need more neighbours than a
        message has room for.
        """
        largest = min(MAX_COHORT, 1 << (32 - self.value_bits))
        try:
            choose(largest, dropout=self.dropout, collusion=self.collusion)
        except ConfigError:
            return min(largest, MAX_DEGREE + 1)
        return largest

    def __post_init__(self) -> None:
        scheme_named(self.scheme)
        _check_ranges(self)
        ring_bits_for(self.min_nodes, self.value_bits)
        if self.min_nodes < 3:
            raise ConfigError(
                f"min_nodes is {self.min_nodes}", hint="a sum over fewer than 3 nodes hides nobody"
            )
        for n in (self.min_nodes, self.max_cohort):
            choose(n, dropout=self.dropout, collusion=self.collusion)
        if self.liveness < 2 * self.heartbeat:
            raise ConfigError(
                f"liveness {self.liveness} s is less than two heartbeats of {self.heartbeat} s",
                hint=f"set liveness to at least {2 * self.heartbeat}",
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


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What a node agrees to; the coordinator cannot override it."""

    min_cohort: int = 3
    """Fewest nodes an offer may have gone to."""
    schemes: tuple[str, ...] = ("masking",)
    """Schemes this node takes part in."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may collude with the coordinator (P-09): what the
    round must withstand."""


def build_offer(
    plan: RunPlan,
    state: RunState,
    cohort: tuple[NodeId, ...],
    roster_version: int,
    *,
    members: int = 0,
) -> RoundOffer:
    """Return the offer of the run's next round to `cohort` (sorted), of `members` active nodes."""
    n = len(cohort)
    population = max(n, members)
    chosen = choose(n, dropout=plan.dropout, collusion=plan.collusion, population=population)
    return RoundOffer(
        round_id=state.next_round,
        rounds_done=state.rounds_done,
        rounds_total=plan.rounds,
        roster_version=roster_version,
        scheme=plan.scheme,
        cohort=cohort,
        threshold=chosen.threshold,
        quorum=chosen.quorum,
        neighbours=chosen.neighbours,
        colluders=chosen.colluders,
        value_bits=plan.value_bits,
        ring_bits=ring_bits_for(n, plan.value_bits),
        chunk_values=plan.chunk_values,
        update_bound=plan.update_bound,
        centroid_bound=plan.centroid_bound,
        phase_timeout=plan.phase_timeout,
        input_timeout=plan.input_timeout,
        model_digest=model_digest(state.params),
        model_dim=len(state.params),
        training=plan.training,
        reference=to_bytes(state.reference),
        ckks=None,
    )


def encoding_of(offer: RoundOffer) -> FixedPoint:
    """Return the layout of the summed vector that an offer prescribes."""
    segments = (
        Segment("update", offer.model_dim, offer.update_bound),
        Segment("centroid", max(1, len(offer.reference) // 4), offer.centroid_bound),
        Segment("weight", 1, 1.0),
        Segment("loss", 1, MAX_LOSS),
        Segment("samples", len(SAMPLE_BUCKETS), 1.0),
        Segment("clipped", 1, 1.0),
    )
    return FixedPoint(segments, offer.value_bits, offer.ring_bits)


def setup_of(
    offer: RoundOffer, run_id: bytes, signing_key: Callable[[NodeId], bytes | None]
) -> RoundSetup:
    """Return the round's set-up; both sides call this with their own roster.

    Raises:
        ConfigError: the offer's numbers are at odds, or its cohort is not in the roster.
    """
    keys = {node: key for node in offer.cohort if (key := signing_key(node)) is not None}
    if offer.chunk_values * 4 > MAX_CHUNK:
        raise ConfigError(f"chunks of {offer.chunk_values} values do not fit a message")
    return RoundSetup(
        run_id=run_id,
        round_id=offer.round_id,
        offer_hash=offer_hash(run_id, offer),
        cohort=offer.cohort,
        signing_keys=keys,
        dim=encoding_of(offer).dim,
        ring_bits=offer.ring_bits,
        threshold=offer.threshold,
        quorum=offer.quorum,
        neighbours=offer.neighbours,
        colluders=offer.colluders,
        phase_timeout=offer.phase_timeout,
        input_timeout=offer.input_timeout,
        chunk_values=offer.chunk_values,
    )


def check_offer(
    offer: RoundOffer,
    run_id: bytes,
    *,
    node_id: NodeId,
    policy: NodePolicy,
    signing_key: Callable[[NodeId], bytes | None],
    members: int = 0,
) -> RoundSetup:
    """Hold an offer against this node's policy and roster; return what to run (S-06).

    Args:
        offer: What the coordinator offers.
        run_id: The run it belongs to.
        node_id: This node.
        policy: What this node agrees to.
        signing_key: Active node of the roster to Ed25519 key.
        members: Active nodes of the roster; the coordinator chooses which of them it asks.

    Raises:
        OfferRefused: with the rule that forbids it.
    """
    n = len(offer.cohort)
    if offer.scheme not in policy.schemes or offer.scheme not in SCHEMES:
        raise OfferRefused(
            RefusalReason.SCHEME_FORBIDDEN,
            f"scheme {offer.scheme!r} is not in policy.schemes = {list(policy.schemes)}",
        )
    if n < policy.min_cohort:
        raise OfferRefused(
            RefusalReason.COHORT_TOO_SMALL,
            f"a cohort of {n} is below policy.min_cohort = {policy.min_cohort}",
        )
    if node_id not in offer.cohort:
        raise OfferRefused(RefusalReason.NOT_IN_COHORT, "this node is not in the offered cohort")
    unknown = [node for node in offer.cohort if signing_key(node) is None]
    if unknown:
        raise OfferRefused(
            RefusalReason.UNKNOWN_MEMBER, f"not active nodes of the roster: {', '.join(unknown)}"
        )
    _check_thresholds(offer, policy, max(n, members))
    try:
        if offer.ring_bits < ring_bits_for(n, offer.value_bits):
            raise OfferRefused(
                RefusalReason.PARAMETERS_UNSAFE, f"a sum over {n} nodes can wrap the ring"
            )
        reference = np.frombuffer(offer.reference[: len(offer.reference) // 4 * 4], dtype="<f4")
        if len(offer.reference) % 4 or not reference.size or not np.isfinite(reference).all():
            raise OfferRefused(RefusalReason.MODEL_UNSUITABLE, "the reference is not a vector")
        return setup_of(offer, run_id, signing_key)
    except ConfigError as error:
        raise OfferRefused(RefusalReason.PARAMETERS_UNSAFE, str(error)) from error


def _check_thresholds(offer: RoundOffer, policy: NodePolicy, members: int) -> None:
    """Refuse an offer that is not private if as many nodes collude as the policy assumes (P-07).

    All that collude may be in the cohort, since the coordinator chooses it (P-09).
    """
    n = len(offer.cohort)
    least = colluders_among(members, policy.collusion)
    if offer.colluders < least:
        raise OfferRefused(
            RefusalReason.THRESHOLDS_UNSAFE,
            f"the offer withstands {offer.colluders} colluding nodes, "
            f"policy.collusion = {policy.collusion:g} of {members} members asks for {least}",
        )
    why = insecurity(
        n,
        neighbours=offer.neighbours,
        threshold=offer.threshold,
        quorum=offer.quorum,
        colluders=offer.colluders,
    )
    if why:
        raise OfferRefused(RefusalReason.THRESHOLDS_UNSAFE, why)
