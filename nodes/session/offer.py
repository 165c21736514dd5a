"""From a plan to an offer, and from an offer to what both sides run: one reading for both.

Source: specs/60-session.md section 4, specs/10-encoding.md section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from nodes.session.epoch_terms import EpochStart, epoch_fault, epoch_multiplier, first_terms
from nodes.session.events import RunState
from nodes.session.model_transfer import model_digest, to_bytes
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyFacts, check_policy
from nodes.session.privacy import (
    CLIENT,
    exposure,
    multiplier_of,
    private_encoding,
    terms_of_round,
)
from nodes.session.terms import terms_of_offer, terms_on_wire
from nodes.session.training_settings import settings_of
from secagg.ckks import parameters as ckks
from secagg.dp.encoding import PrivateEncoding
from secagg.dp.events import PrivacyEvent
from secagg.encoding import FixedPoint, Segment, ring_bits_for
from secagg.errors import ConfigError, OfferRefused
from secagg.masking.parameters import choose, insecurity
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import NodeId, RefusalReason
from secagg.wire.codec import offer_hash
from secagg.wire.messages import MAX_CHUNK, DpTerms, RoundOffer

__all__ = [
    "SAMPLE_BUCKETS",
    "SURE",
    "build_offer",
    "check_offer",
    "encoding_of",
    "noised_encoding_of",
    "setup_of",
    "thresholds_of",
]

SAMPLE_BUCKETS = (0, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Lower ends of the buckets in which nodes count themselves by their number of rows."""
MAX_LOSS = 100.0
"""A node's reported loss is clipped to this; InfoNCE over a batch of m rows stays near log m."""


SURE = 3.0
"""Standard deviations of its noise that a sum of weights must be above: dividing by noise would
make a model of noise (S-13)."""
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
    spent: Sequence[PrivacyEvent] = (),
    epoch: DpTerms | None = None,
) -> RoundOffer:
    """Return the offer of the run's next round.

    Args:
        plan: What the operator wants.
        state: The run so far.
        cohort: Whom it goes to, sorted.
        roster_version: Of the newest roster.
        members: Active nodes in it.
        spent: What the coordinator's ledger holds of the plan's unit.
        epoch: Terms of this round if it goes on with an epoch of correlated noise.

    Raises:
        ConfigError: no round of that cohort does what the plan asks for.
    """
    n, population = len(cohort), max(len(cohort), members)
    threshold, quorum, neighbours, colluders = thresholds_of(plan, n, population)
    quorum = max(quorum, epoch.honest + colluders) if epoch else quorum  # C-17
    dp, value_bits = None, plan.value_bits
    ring_bits = ring_bits_for(n * plan.max_weight(n), value_bits)
    if plan.privacy.unit == CLIENT:
        members_asked = plan.terms(n, members=population) if plan.scheme == "ckks" else None
        dp = epoch or _noise(
            plan,
            state,
            n,
            quorum=quorum,
            colluders=colluders,
            exposed=exposure(
                neighbours, n, members_asked.committee.size if members_asked else None
            ),
            spent=spent,
        )
        noised = private_encoding(
            dp, model_dim=len(state.params), embedding_dim=len(state.reference)
        )
        if dp.correlated is None:
            _check_use(noised, n, plan)
        value_bits, ring_bits = noised.value_bits(), noised.ring_bits(n)
        if plan.scheme == "ckks":
            ring_bits = ring_bits_for(n, value_bits)
    terms = None
    if plan.scheme == "ckks":
        made = plan.terms(n, members=population, value_bits=value_bits)
        terms = terms_on_wire(made, coordinator_weighs=plan.weights == "coordinator")
    return RoundOffer(
        round_id=state.next_round,
        rounds_done=state.rounds_done,
        rounds_total=plan.rounds,
        roster_version=roster_version,
        scheme=plan.scheme,
        cohort=cohort,
        threshold=threshold,
        quorum=quorum,
        neighbours=neighbours,
        colluders=colluders,
        value_bits=value_bits,
        ring_bits=ring_bits,
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
        dp=dp,
    )


def thresholds_of(plan: RunPlan, n: int, population: int) -> tuple[int, int, int, int]:
    """Return threshold, quorum, neighbours and colluders of a round of `n` nodes."""
    if plan.scheme == "ckks":
        made = plan.terms(n, members=population)
        return made.committee.threshold, made.quorum, n - 1, made.colluders
    chosen = choose(n, dropout=plan.dropout, collusion=plan.collusion, population=population)
    return chosen.threshold, chosen.quorum, chosen.neighbours, chosen.colluders


def _noise(
    plan: RunPlan,
    state: RunState,
    n: int,
    *,
    quorum: int,
    colluders: int,
    exposed: float,
    spent: Sequence[PrivacyEvent],
) -> DpTerms:
    """Return the noise of the run's next round, or of the first of an epoch."""
    if plan.privacy.epoch_rounds:
        start = EpochStart(
            run_id=state.run_id,
            round_id=state.next_round,
            nodes=n,
            honest=quorum - colluders,
            dim=len(state.params),
            rounds=plan.rounds - state.rounds_done,
            clip=state.clip or plan.privacy.clip,
        )
        multiplier = state.noise_multiplier or epoch_multiplier(
            plan.privacy, start, planned=plan.privacy.planned_rounds(start.rounds), spent=spent
        )
        return first_terms(plan.privacy, start, multiplier)
    made = partial(
        terms_of_round,
        plan.privacy,
        clip=state.clip or plan.privacy.clip,
        n=n,
        quorum=quorum,
        honest=quorum - colluders,
        dim=len(state.params),
    )
    multiplier = state.noise_multiplier or multiplier_of(
        plan.privacy,
        rounds=plan.rounds,
        terms=lambda multiplier: made(multiplier=multiplier),
        sizes=(len(state.params), len(state.reference)),
        cohort=(n, colluders),
        exposed=exposed,
        spent=spent,
    )
    return made(multiplier=multiplier)


def _check_use(noised: PrivateEncoding, n: int, plan: RunPlan) -> None:
    """Refuse a round whose mean nobody could read: the sum of weights drowns in its noise."""
    most = n / (2 * SURE)  # weights are near 1/2; at the limit every other round drowns
    found = noised.std("weight", n)
    if found > most:
        raise ConfigError(
            f"with {n} nodes epsilon = {plan.privacy.epsilon:g} over {plan.rounds} rounds takes "
            f"noise {found / most:.1f} times too strong to read a mean",
            hint="use more nodes, fewer rounds or a larger privacy.epsilon, or privacy.unit = "
            '"record", which suits few nodes; `secagg privacy plan` shows what fits',
        )


def encoding_of(offer: RoundOffer) -> FixedPoint:
    """Return the layout of the summed vector that an offer without noise prescribes (E-09)."""
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
    """Return the round's set-up; both sides call this with their own roster (S-01).

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
        dim=_dim_of(offer),
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
        noise_levels=offer.dp.drop_levels if offer.dp else (),
    )


def noised_encoding_of(offer: RoundOffer, dp: DpTerms) -> PrivateEncoding:
    """Return the layout of the summed vector that an offer with noise prescribes (E-09)."""
    return private_encoding(
        dp, model_dim=offer.model_dim, embedding_dim=max(1, len(offer.reference) // 4)
    )


def _dim_of(offer: RoundOffer) -> int:
    return (noised_encoding_of(offer, offer.dp) if offer.dp else encoding_of(offer)).dim


def check_offer(
    offer: RoundOffer,
    run_id: bytes,
    *,
    node_id: NodeId,
    policy: NodePolicy,
    signing_key: Callable[[NodeId], bytes | None],
    facts: PolicyFacts | None = None,
) -> RoundSetup:
    """Hold an offer against this node's policy and roster; return what to run (S-06).

    Args:
        offer: What the coordinator offers.
        run_id: The run it belongs to.
        node_id: This node.
        policy: What this node agrees to.
        signing_key: Active node of the roster to Ed25519 key.
        facts: What the policy's rules need to know beside the offer.

    Raises:
        OfferRefused: with the rule that forbids it.
    """
    n = len(offer.cohort)
    if offer.scheme not in SCHEMES:
        raise OfferRefused(
            RefusalReason.SCHEME_FORBIDDEN, f"there is no scheme {offer.scheme!r} here"
        )
    check_policy(offer, policy, facts or PolicyFacts())
    if node_id not in offer.cohort:
        raise OfferRefused(RefusalReason.NOT_IN_COHORT, "this node is not in the offered cohort")
    unknown = [node for node in offer.cohort if signing_key(node) is None]
    if unknown:
        raise OfferRefused(
            RefusalReason.UNKNOWN_MEMBER, f"not active nodes of the roster: {', '.join(unknown)}"
        )
    known = facts.training if facts else None
    if known is not None and known.dim != offer.model_dim:
        raise OfferRefused(
            RefusalReason.MODEL_UNSUITABLE,
            f"the model has {known.dim} parameters, the offer sums {offer.model_dim}",
        )
    why = _terms_insecurity(offer) if offer.scheme == "ckks" else _graph_insecurity(offer)
    if why:  # P-07
        raise OfferRefused(RefusalReason.THRESHOLDS_UNSAFE, why)
    try:
        if offer.ring_bits < _least_ring(offer):
            raise OfferRefused(
                RefusalReason.PARAMETERS_UNSAFE, f"a sum over {n} nodes can wrap the ring"
            )
        if offer.dp is not None:
            _check_noise(offer, offer.dp)
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


def _least_ring(offer: RoundOffer) -> int:
    """Return the bits of the smallest ring that holds the offer's sum (E-05, D-11)."""
    n = len(offer.cohort)
    if offer.dp is not None and offer.ckks is None:
        return noised_encoding_of(offer, offer.dp).ring_bits(n)
    return ring_bits_for(n * (offer.ckks.max_weight if offer.ckks else 1), offer.value_bits)


def _check_noise(offer: RoundOffer, dp: DpTerms) -> None:
    """Refuse noise that would not be there, or would not fit (S-19)."""
    n, sure = len(offer.cohort), offer.quorum - offer.colluders
    why = ""
    if not SCHEMES[offer.scheme].private:
        why = f"under {offer.scheme} the coordinator sees inputs with one node's noise only"
    elif (training := settings_of(offer.training)) is not None and training.train.private:
        why = "a round is charged for one unit: noise for nodes and for rows do not go together"
    elif offer.ckks is not None and offer.ckks.coordinator_weighs:
        why = "where the coordinator weighs, nodes disclose a distance that no noise covers"
    elif dp.honest > sure:
        why = f"the noise counts on {dp.honest} honest nodes, a sum has {sure} for certain"
    elif dp.drop_levels and dp.drop_levels[-1] < n - offer.quorum:
        why = f"noise for {dp.drop_levels[-1]} dropouts, {n - offer.quorum} may happen"
    elif fault := epoch_fault(offer, dp):
        why = fault
    elif offer.ckks is not None and (offer.value_bits < noised_encoding_of(offer, dp).value_bits()):
        why = f"noised values do not fit {offer.value_bits} bits"
    if why:
        raise OfferRefused(RefusalReason.PARAMETERS_UNSAFE, why)


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
