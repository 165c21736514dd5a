"""Attacks by what a coordinator offers: whom it asks, at what thresholds, in which graph."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.coordinator_attacks import new_puppet, two_views
from nodes.attacks.puppet import Puppet
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.attacks.target_puppet import TargetPuppet
from nodes.ephemeral import EphemeralIdentity
from nodes.session.events import RunState
from nodes.session.offer import build_offer, check_offer
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyFacts
from secagg.errors import ConfigError, OfferRefused
from secagg.masking.parameters import choose
from secagg.types import NodeId
from secagg.wire.messages import RoundOffer

__all__ = ["OFFER_ATTACKS", "make_offer", "names", "offered"]

PLAN: Final = RunPlan(rounds=1, min_nodes=3, training=b"{}")


def names(n: int) -> tuple[NodeId, ...]:
    """Return the nodes of a roster."""
    return tuple(f"node-{index:02d}" for index in range(n))


def make_offer(
    cohort: tuple[NodeId, ...], *, plan: RunPlan = PLAN, **changes: object
) -> RoundOffer:
    """Return the offer that a plan makes to a cohort, with other fields than it would have."""
    state = RunState(
        run_id=bytes(16),
        next_round=1,
        rounds_done=0,
        params=np.zeros(4, dtype=np.float32),
        reference=np.zeros(2, dtype=np.float32),
        optimiser={},
    )
    offer = build_offer(plan, state, cohort if len(cohort) > 2 else names(3), 1)
    fields = {name: getattr(offer, name) for name in offer.__struct_fields__}
    return RoundOffer(**{**fields, "cohort": cohort, **changes})


Move: TypeAlias = Callable[[Puppet], None]


def offered(
    offer: RoundOffer,
    members: tuple[NodeId, ...],
    elsewhere: str,
    *,
    play: Callable[[], Played],
    policy: NodePolicy = NodePolicy(),  # noqa: B008 - frozen
) -> Played:
    """Hold an offer against the policy of an honest node; if it takes it, play on.

    Args:
        offer: What a coordinator offers.
        members: Active nodes of the roster.
        elsewhere: What the move gained against the target.
        play: Plays a round by the numbers of the offer.
        policy: Of the node.
    """
    identities = {name: EphemeralIdentity(name).public for name in members}
    try:
        check_offer(
            offer,
            bytes(16),
            node_id=members[0],
            policy=policy,
            signing_key=identities.get,
            facts=PolicyFacts(members=len(members)),
        )
        return dataclasses.replace(play(), elsewhere=elsewhere)
    except OfferRefused as refused:
        outcome = f"OfferRefused: {refused.reason}: {refused}"
    except ConfigError as error:
        outcome = f"ConfigError: {error}"
    return Played(elsewhere, NOTHING, outcome, (COORDINATOR,), revealed=False)


def _round(
    offer: RoundOffer, dim: int, seed: int, *, accomplices: int, move: Move = Puppet.finish
) -> Callable[[], Played]:
    """Return what plays a round by the numbers of an offer that was taken."""

    def play() -> Played:
        fields = ("threshold", "quorum", "neighbours", "colluders")
        puppet = new_puppet(
            len(offer.cohort),
            dim,
            seed,
            accomplices=accomplices,
            changes={name: getattr(offer, name) for name in fields},
        )
        puppet.until_upload()
        move(puppet)
        return puppet.judge("")

    return play


def _target(n: int, dim: int, seed: int, *, accomplices: int, threshold: int = 0) -> str:
    stage = TargetPuppet(
        n, dim, seed, rng=os.urandom, accomplices=accomplices, threshold=threshold or None
    )
    stage.run()
    if not threshold:
        stage.ask(stage.names, active=stage.names, dead=[])
    return stage.gained()


def _sybils(n: int, dim: int, seed: int) -> Played:
    """Fill the cohort with nodes that nobody certified."""
    offer = make_offer(tuple(sorted(["node-00", *(f"sybil-{index:02d}" for index in range(1, n))])))
    elsewhere = _target(n, dim, seed, accomplices=n - 1)
    play = _round(offer, dim, seed, accomplices=n - 1)
    return offered(offer, names(n), elsewhere, play=play)


def _small_cohort(n: int, dim: int, seed: int) -> Played:
    """Ask the victim and two accomplices only: two of three are more than a third of n."""
    offer = make_offer(names(3))
    elsewhere = _target(3, dim, seed, accomplices=2)
    play = _round(offer, dim, seed, accomplices=2)
    return offered(offer, names(n), elsewhere, play=play)


def _cohort_of_two(n: int, dim: int, seed: int) -> Played:
    offer = make_offer(names(2))
    elsewhere = _target(2, dim, seed, accomplices=1)
    play = _round(offer, dim, seed, accomplices=1)
    return offered(offer, names(n), elsewhere, play=play)


def _lowered_threshold(n: int, dim: int, seed: int) -> Played:
    offer = make_offer(names(n), threshold=1)
    elsewhere = _target(n, dim, seed, accomplices=1, threshold=1)
    play = _round(offer, dim, seed, accomplices=1)
    return offered(offer, names(n), elsewhere, play=play)


def _lowered_quorum(n: int, dim: int, seed: int) -> Played:
    """Open a sum over the victim and one accomplice."""
    stage = TargetPuppet(n, dim, seed, rng=os.urandom, accomplices=1)
    stage.run()
    pair = [stage.names[0], *stage.accomplices]
    stage.ask(stage.names, active=pair, dead=[m for m in stage.names if m not in pair])
    offer = make_offer(names(n), quorum=2)

    def move(puppet: Puppet) -> None:
        alive = tuple(sorted({puppet.victim, *puppet.accomplices}))
        puppet.survivors(dict.fromkeys(alive, alive))
        puppet.unmask(dict.fromkeys(alive, alive))

    play = _round(offer, dim, seed, accomplices=1, move=move)
    return offered(offer, names(n), stage.gained(least=2), play=play)


def _understated(n: int, dim: int, seed: int) -> Played:
    """Offer what withstands nobody, and show two views that as few have to sign."""
    bare = choose(n, collusion=0.0)
    bad = max(2, 2 * bare.cosigners - n)
    offer = make_offer(
        names(n), colluders=0, threshold=n // 2 + 1, quorum=bare.quorum, neighbours=n - 1
    )

    def move(puppet: Puppet) -> None:
        two_views(puppet, [puppet.victim])

    play = _round(offer, dim, seed, accomplices=bad, move=move)
    elsewhere = _target(n, dim, seed, accomplices=bad, threshold=bad)
    return offered(offer, names(n), elsewhere, play=play)


def _sparse_offer(n: int, dim: int, seed: int) -> Played:
    """Offer so few neighbours that two accomplices are enough beside some node of seven."""
    del n
    stage = TargetPuppet(7, dim, seed, rng=os.urandom, accomplices=2, threshold=2)
    victim, bad = stage.names[0], stage.accomplices
    around = {name: {m for m in stage.names if m not in (name, victim)} for name in stage.names}
    for name in bad:
        around[name].add(victim)
    around[victim] = set(bad)
    stage.run(neighbours=around)
    offer = make_offer(names(7), neighbours=4, threshold=2)
    play = _round(offer, dim, seed, accomplices=2)
    return offered(offer, names(7), stage.gained(), play=play)


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
        ("P-07", "M-02"),
        _lowered_threshold,
    ),
    Attack(
        "lowered-quorum",
        "coordinator and nodes",
        "offer a quorum of two nodes",
        ("P-07", "M-02", "M-03", "M-11"),
        _lowered_quorum,
    ),
    Attack(
        "understated-collusion",
        "coordinator and nodes",
        "offer thresholds that withstand nobody, and show two views",
        ("P-07",),
        _understated,
    ),
    Attack(
        "sparse-offer",
        "coordinator and nodes",
        "offer so few neighbours that two accomplices are enough",
        ("P-07", "M-02"),
        _sparse_offer,
    ),
)
