"""From a plan to an offer, and from an offer to what both sides run: one reading for both.

Source: specs/60-session.md section 4, specs/10-encoding.md section 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nodes.session.events import RunState
from nodes.session.model_transfer import model_digest, to_bytes
from nodes.session.plan import WEIGHT_MODES, RunPlan
from nodes.session.policy import NodePolicy
from nodes.session.terms import terms_of_offer, terms_on_wire
from secagg.assumptions import colluders_among
from secagg.ckks import parameters as ckks
from secagg.encoding import FixedPoint, Segment, ring_bits_for
from secagg.errors import ConfigError, OfferRefused
from secagg.masking.parameters import choose, insecurity
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import NodeId, RefusalReason
from secagg.wire.codec import offer_hash
from secagg.wire.messages import MAX_CHUNK, RoundOffer

__all__ = [
    "SAMPLE_BUCKETS",
    "NodePolicy",
    "build_offer",
    "check_offer",
    "encoding_of",
    "setup_of",
]

SAMPLE_BUCKETS = (0, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Lower ends of the buckets in which nodes count themselves by their number of rows."""
MAX_LOSS = 100.0
"""A node's reported loss is clipped to this; InfoNCE over a batch of m rows stays near log m."""


_LONGEST_REFERENCE = 1.1
"""Greatest mean square of a reference: 1 for a mean of standardised rows, and some rounding. Longer
ones would magnify what a distance tells of the rows it is taken over."""


def build_offer(
    plan: RunPlan,
    state: RunState,
    cohort: tuple[NodeId, ...],
    roster_version: int,
    *,
    members: int = 0,
) -> RoundOffer:
    """Return the offer of the run's next round to `cohort` (sorted), of `members` active nodes."""
    n, population = len(cohort), max(len(cohort), members)
    terms = None
    if plan.scheme == "ckks":
        made = plan.terms(n, members=population)
        terms = terms_on_wire(made, coordinator_weighs=plan.weights == "coordinator")
        thresholds = (made.committee.threshold, made.quorum, n - 1, made.colluders)
    else:
        chosen = choose(n, dropout=plan.dropout, collusion=plan.collusion, population=population)
        thresholds = (chosen.threshold, chosen.quorum, chosen.neighbours, chosen.colluders)
    return RoundOffer(
        round_id=state.next_round,
        rounds_done=state.rounds_done,
        rounds_total=plan.rounds,
        roster_version=roster_version,
        scheme=plan.scheme,
        cohort=cohort,
        threshold=thresholds[0],
        quorum=thresholds[1],
        neighbours=thresholds[2],
        colluders=thresholds[3],
        value_bits=plan.value_bits,
        ring_bits=ring_bits_for(n * plan.max_weight(n), plan.value_bits),
        chunk_values=plan.chunk_values,
        update_bound=plan.update_bound,
        centroid_bound=plan.centroid_bound,
        phase_timeout=plan.phase_timeout,
        input_timeout=plan.input_timeout,
        model_digest=model_digest(state.params),
        model_dim=len(state.params),
        training=plan.training,
        reference=to_bytes(state.reference),
        ckks=terms,
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
        ckks=None if offer.ckks is None else terms_of_offer(offer, offer.ckks),
        coordinator_weighs=offer.ckks is not None and offer.ckks.coordinator_weighs,
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
            f"scheme {offer.scheme!r} is not in policy.schemes = {list(policy.schemes)}: "
            "add it there and start the node again, if you agree",
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
    _check_disclosure(offer, policy)
    heaviest = offer.ckks.max_weight if offer.ckks else 1
    try:
        if offer.ring_bits < ring_bits_for(n * heaviest, offer.value_bits):
            raise OfferRefused(
                RefusalReason.PARAMETERS_UNSAFE, f"a sum over {n} nodes can wrap the ring"
            )
        reference = np.frombuffer(offer.reference[: len(offer.reference) // 4 * 4], dtype="<f4")
        if len(offer.reference) % 4 or not reference.size or not np.isfinite(reference).all():
            raise OfferRefused(RefusalReason.MODEL_UNSUITABLE, "the reference is not a vector")
        if float(reference.astype(np.float64) @ reference) > _LONGEST_REFERENCE * reference.size:
            raise OfferRefused(
                RefusalReason.MODEL_UNSUITABLE,
                "the reference is longer than a mean of standardised embeddings can be",
            )
        return setup_of(offer, run_id, signing_key)
    except ConfigError as error:
        raise OfferRefused(RefusalReason.PARAMETERS_UNSAFE, str(error)) from error


def _check_thresholds(offer: RoundOffer, policy: NodePolicy, members: int) -> None:
    """Refuse an offer that is not private if as many nodes collude as the policy assumes (P-07).

    All that collude may be in the cohort, since the coordinator chooses it (P-09).
    """
    least = colluders_among(members, policy.collusion)
    if offer.colluders < least:
        raise OfferRefused(
            RefusalReason.THRESHOLDS_UNSAFE,
            f"the offer withstands {offer.colluders} colluding nodes, "
            f"policy.collusion = {policy.collusion:g} of {members} members asks for {least}",
        )
    why = _terms_insecurity(offer) if offer.scheme == "ckks" else _graph_insecurity(offer)
    if why:
        raise OfferRefused(RefusalReason.THRESHOLDS_UNSAFE, why)


def _graph_insecurity(offer: RoundOffer) -> str | None:
    if offer.ckks is not None:
        return f"terms of ckks in an offer of {offer.scheme}"
    return insecurity(
        len(offer.cohort),
        neighbours=offer.neighbours,
        threshold=offer.threshold,
        quorum=offer.quorum,
        colluders=offer.colluders,
    )


def _terms_insecurity(offer: RoundOffer) -> str:
    """Return why the terms of a round of ckks are not exact and private, or "" (H-02)."""
    if offer.ckks is None:
        return "an offer of ckks without its terms"
    try:
        ckks.check(terms_of_offer(offer, offer.ckks))
    except ConfigError as error:
        return f"{error}; {error.hint}"
    return ""


def _check_disclosure(offer: RoundOffer, policy: NodePolicy) -> None:
    """Refuse to disclose the consistency distance where the policy does not allow it (H-16)."""
    mode = WEIGHT_MODES[offer.ckks is not None and offer.ckks.coordinator_weighs]
    if mode not in policy.weights:
        raise OfferRefused(
            RefusalReason.WEIGHTS_FORBIDDEN,
            f"weights {mode!r} are not in policy.weights = {list(policy.weights)}: "
            "add it there and start the node again, if you agree",
        )
