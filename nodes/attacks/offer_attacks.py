"""Attacks by what a coordinator offers: whom it asks, at what thresholds, in which graph."""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from nodes.attacks.puppet import Identity
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.attacks.target import TargetStage
from nodes.session.events import RunState
from nodes.session.offer import NodePolicy, RunPlan, build_offer, check_offer
from secagg.errors import OfferRefused
from secagg.masking import adverts
from secagg.masking.graph import build_graph
from secagg.primitives.kdf import digest
from secagg.types import NodeId
from secagg.wire.messages import MAX_ATTEMPTS, RoundOffer

__all__ = ["OFFER_ATTACKS"]

GRIND_TRIES: Final = 3_000
GRIND_NODES: Final = 40
GRIND_DEGREE: Final = 8
_TAG: Final = b"attack-demo"


def _names(n: int) -> tuple[NodeId, ...]:
    return tuple(f"node-{index:02d}" for index in range(n))


def _offer(cohort: tuple[NodeId, ...], **changes: object) -> RoundOffer:
    plan = RunPlan(rounds=1, min_nodes=3, training=b"{}")
    state = RunState(
        run_id=bytes(16),
        next_round=1,
        rounds_done=0,
        params=np.zeros(4, dtype=np.float32),
        reference=np.zeros(2, dtype=np.float32),
        optimiser={},
    )
    offer = build_offer(plan, state, cohort if len(cohort) > 2 else _names(3), 1)
    fields = {name: getattr(offer, name) for name in offer.__struct_fields__}
    return RoundOffer(**{**fields, "cohort": cohort, **changes})


def _refused(offer: RoundOffer, members: tuple[NodeId, ...], elsewhere: str) -> Played:
    """Hold the offer against the default policy of an honest node."""
    identities = {name: Identity(name).public for name in members}
    try:
        setup = check_offer(
            offer,
            bytes(16),
            node_id=members[0],
            policy=NodePolicy(),
            signing_key=identities.get,
            members=len(members),
        )
    except OfferRefused as refused:
        outcome = f"OfferRefused: {refused.reason}: {refused}"
        return Played(elsewhere, NOTHING, outcome, ("coordinator",), revealed=False)
    here = f"the node takes part with quorum {setup.quorum}, threshold {setup.threshold}"
    return Played(elsewhere, here, "the offer is accepted", (), revealed=True)


def _target(n: int, dim: int, seed: int, *, accomplices: int, threshold: int = 0) -> str:
    stage = TargetStage(
        n, dim, seed, rng=os.urandom, accomplices=accomplices, threshold=threshold or None
    )
    stage.run()
    if not threshold:
        stage.ask(stage.names, active=stage.names, dead=[])
    return stage.gained()


def _sybils(n: int, dim: int, seed: int) -> Played:
    """Fill the cohort with nodes that nobody certified."""
    cohort = tuple(sorted(["node-00", *(f"sybil-{index:02d}" for index in range(1, n))]))
    return _refused(_offer(cohort), _names(n), _target(n, dim, seed, accomplices=n - 1))


def _small_cohort(n: int, dim: int, seed: int) -> Played:
    """Ask the victim and two accomplices only: two of three are more than a third of n."""
    offer = _offer(_names(3))
    return _refused(offer, _names(n), _target(3, dim, seed, accomplices=2))


def _cohort_of_two(n: int, dim: int, seed: int) -> Played:
    return _refused(_offer(_names(2)), _names(n), _target(2, dim, seed, accomplices=1))


def _lowered_threshold(n: int, dim: int, seed: int) -> Played:
    elsewhere = _target(n, dim, seed, accomplices=1, threshold=1)
    return _refused(_offer(_names(n), threshold=1), _names(n), elsewhere)


def _lowered_quorum(n: int, dim: int, seed: int) -> Played:
    """Open a sum over the victim and one accomplice."""
    stage = TargetStage(n, dim, seed, rng=os.urandom, accomplices=1)
    stage.run()
    pair = [stage.names[0], *stage.accomplices]
    stage.ask(stage.names, active=pair, dead=[m for m in stage.names if m not in pair])
    return _refused(_offer(_names(n), quorum=2), _names(n), stage.gained(least=2))


def _understated(n: int, dim: int, seed: int) -> Played:
    """Offer a threshold that two accomplices reach, and say that nobody colludes."""
    elsewhere = _target(n, dim, seed, accomplices=2, threshold=2)
    return _refused(_offer(_names(n), colluders=0), _names(n), elsewhere)


def _sparse_offer(n: int, dim: int, seed: int) -> Played:
    """Offer a graph of two neighbours, both of whom collude by chance or by choice."""
    n = max(n, 7)
    stage = TargetStage(n, dim, seed, rng=os.urandom, accomplices=2, threshold=2)
    victim, bad = stage.names[0], stage.accomplices
    around = {name: {m for m in stage.names if m != name and m != victim} for name in stage.names}
    for name in bad:
        around[name].add(victim)
    around[victim] = set(bad)
    stage.run(neighbours=around)
    offer = _offer(_names(n), neighbours=2, threshold=2)
    return _refused(offer, _names(n), stage.gained())


def _grind(n: int, dim: int, seed: int) -> Played:
    """Leave adverts out until the graph gathers accomplices around the victim."""
    del n, dim
    names = _names(GRIND_NODES)
    victim, bad = names[0], set(names[-6:])
    rng = np.random.default_rng(seed)
    digests = {name: digest(_TAG, name.encode(), bytes([seed % 256])) for name in names}

    def gathered(listed: tuple[NodeId, ...], coins: tuple[bytes, ...]) -> int:
        pairs = [(name, digests[name]) for name in listed]
        graph_seed = adverts.graph_seed(bytes(32), pairs, coins)
        graph = build_graph(listed, degree=GRIND_DEGREE, seed=graph_seed)
        return len(graph.neighbours(victim) & bad)

    most = tries = 0
    while most < 5 and tries < GRIND_TRIES:
        tries += 1
        left_out = set(rng.choice(names[1:-6], size=4, replace=False))
        listed = tuple(name for name in names if name not in left_out)
        most = max(most, gathered(listed, ()))
    # Here the list is fixed before any coin is known; withheld coins give a few graphs at most.
    here = 0
    for attempt in range(1, MAX_ATTEMPTS + 1):
        coins = tuple(
            adverts.coin_at(digest(_TAG, digests[name], b"coin"), attempt) for name in names
        )
        here = max(here, gathered(names, coins))
    return Played(
        elsewhere=f"{most} of the victim's {GRIND_DEGREE} neighbours collude, after {tries} tries",
        here=f"{here} of {GRIND_DEGREE} neighbours collude" if here >= 5 else NOTHING,
        outcome=f"{here} of {GRIND_DEGREE} collude in the worst of {MAX_ATTEMPTS} graphs",
        blamed=(),
        revealed=here >= 5,
    )


OFFER_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "sybil-cohort",
        "coordinator",
        "fill the cohort with nodes that nobody certified",
        ("S-06",),
        _sybils,
    ),
    Attack(
        "small-cohort",
        "coordinator and nodes",
        "ask the victim and two accomplices only",
        ("P-09",),
        _small_cohort,
    ),
    Attack(
        "cohort-of-two",
        "coordinator and nodes",
        "ask the victim and one accomplice",
        ("M-03", "P-07"),
        _cohort_of_two,
    ),
    Attack(
        "lowered-threshold",
        "coordinator and nodes",
        "offer a threshold of one share",
        ("P-07",),
        _lowered_threshold,
    ),
    Attack(
        "lowered-quorum",
        "coordinator and nodes",
        "offer a quorum of two nodes",
        ("P-07",),
        _lowered_quorum,
    ),
    Attack(
        "understated-collusion",
        "coordinator and nodes",
        "offer thresholds that withstand nobody",
        ("P-07",),
        _understated,
    ),
    Attack(
        "sparse-offer",
        "coordinator and nodes",
        "offer a graph in which two accomplices are all of the victim's neighbours",
        ("P-07",),
        _sparse_offer,
    ),
    Attack(
        "grinding",
        "coordinator and nodes",
        "leave adverts out until the graph gathers accomplices around the victim",
        ("M-06",),
        _grind,
    ),
)
