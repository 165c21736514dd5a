"""Attacks on `ckks` by what a coordinator offers: to whom, by what terms, how often it draws."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from nodes.attacks.base_puppet import new_identities
from nodes.attacks.ckks_moves import two_views
from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.ckks_setting import ckks_setup
from nodes.attacks.coordinator_attacks import without
from nodes.attacks.offer_attacks import PLAN, make_offer, names, offered
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.session.policy import NodePolicy
from nodes.session.terms import terms_of_offer
from secagg.ckks.parameters import choose
from secagg.ckks.views import committee_of
from secagg.errors import LocalProtocolError
from secagg.types import NodeId
from secagg.wire.messages import CkksTerms, RoundOffer

__all__ = ["OFFER_ATTACKS"]

_PLAN: Final = dataclasses.replace(PLAN, scheme="ckks")
_POLICY: Final = NodePolicy(schemes=("ckks",))
_DRAWN_COHORT: Final = 500
"""A cohort that is large enough for a committee to be drawn."""
_DRAWS: Final = 1 << 20
_REAL_DRAWS: Final = 64
"""Draws made by the hash itself; the others by the distribution that the hash has."""
_T_OF_TWO: Final = 7
"""Least nodes of which two may collude."""


def _offer(cohort: tuple[NodeId, ...], **changes: object) -> RoundOffer:
    return make_offer(cohort, plan=_PLAN, **changes)


def _with_committee(offer: RoundOffer, *, threshold: int) -> CkksTerms:
    """Return the terms of an offer with another threshold, one secret to a polynomial."""
    if offer.ckks is None:
        raise LocalProtocolError("an offer without terms of ckks")
    return msgspec.structs.replace(offer.ckks, committee_threshold=threshold, committee_pack=1)


def _round(
    offer: RoundOffer,
    dim: int,
    seed: int,
    *,
    accomplices: int,
    move: Callable[[CkksPuppet], None] = CkksPuppet.finish,
    trusting: bool = False,
) -> Callable[[], Played]:
    """Return what plays a round by the numbers of an offer that was taken."""

    def play() -> Played:
        made = terms_of_offer(offer, offer.ckks) if offer.ckks else choose(len(offer.cohort))
        terms = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        puppet = CkksPuppet(
            len(offer.cohort), dim, seed, trusting=trusting, accomplices=accomplices, terms=terms
        )
        puppet.until_upload()
        move(puppet)
        return puppet.judge("")

    return play


def _held_against(
    offer: RoundOffer,
    n: int,
    *,
    sizes: tuple[int, int],
    accomplices: int,
    target: RoundOffer | None = None,
    move: Callable[[CkksPuppet], None] = CkksPuppet.finish,
) -> Played:
    """Hold an offer against an honest node of a roster of `n`, and play it where it is taken.

    Args:
        offer: Of the coordinator.
        n: Active nodes.
        sizes: Coordinates, and the seed of the inputs.
        accomplices: Nodes of the cohort, the last ones.
        target: What trusting nodes play, by default the same.
        move: What follows the uploads.
    """
    dim, seed = sizes
    play = _round(offer, dim, seed, accomplices=accomplices, move=move)
    trusting = _round(target or offer, dim, seed, accomplices=accomplices, move=move, trusting=True)
    return offered(offer, names(n), trusting().here, play=play, policy=_POLICY)


def _sybils(n: int, dim: int, seed: int) -> Played:
    """Fill the cohort with nodes that nobody certified."""
    offer = _offer(tuple(sorted(["node-00", *(f"sybil-{index:02d}" for index in range(1, n))])))
    return _held_against(offer, n, sizes=(dim, seed), accomplices=n - 1)


def _small_cohort(n: int, dim: int, seed: int) -> Played:
    """Ask the victim and two accomplices only."""
    return _held_against(_offer(names(3)), n, sizes=(dim, seed), accomplices=2)


def _lowered_threshold(n: int, dim: int, seed: int) -> Played:
    """Offer a committee of which two members open any secret."""
    n = max(n, _T_OF_TWO)
    offer = _offer(names(n))
    low = _offer(names(n), ckks=_with_committee(offer, threshold=1))
    return _held_against(low, n, sizes=(dim, seed), accomplices=choose(n).colluders)


def _lowered_quorum(n: int, dim: int, seed: int) -> Played:
    """Open a sum over the victim and one accomplice."""

    def move(puppet: CkksPuppet) -> None:
        puppet.ask(puppet.view([puppet.victim, *puppet.accomplices]))

    return _held_against(
        _offer(names(n), quorum=2),
        n,
        sizes=(dim, seed),
        accomplices=1,
        target=_offer(names(n)),
        move=move,
    )


def _understated(n: int, dim: int, seed: int) -> Played:
    """Offer what withstands nobody, and show two views that as few have to sign."""
    bare = choose(n, collusion=0.0)
    offer = _offer(names(n), colluders=0, quorum=bare.quorum)
    terms = _with_committee(offer, threshold=bare.committee.threshold)

    def move(puppet: CkksPuppet) -> None:
        two_views(puppet, puppet.view(), puppet.view(without(puppet.nodes, [puppet.victim])))

    offer = _offer(names(n), colluders=0, quorum=bare.quorum, ckks=terms)
    enough = max(2, 2 * bare.cosigners - n)
    return _held_against(offer, n, sizes=(dim, seed), accomplices=enough, move=move)


def _grinding(n: int, dim: int, seed: int) -> Played:
    """Write offer after offer, and make the one whose committee holds most accomplices."""
    del n, dim
    made = choose(_DRAWN_COHORT)
    committee, bad = made.committee, made.colluders
    identities = new_identities(_DRAWN_COHORT)
    setup = ckks_setup(_DRAWN_COHORT, 8, identities)
    accomplices = set(setup.cohort[-bad:])
    real = max(
        len(accomplices & set(committee_of(dataclasses.replace(setup, offer_hash=os.urandom(32)))))
        for _ in range(_REAL_DRAWS)
    )
    rng = np.random.default_rng(seed)
    drawn = rng.hypergeometric(bad, _DRAWN_COHORT - bad, committee.size, _DRAWS)
    most = max(real, int(drawn.max()))
    outcome = (
        f"the fullest of 2^20 committees of {committee.size} holds {most} of {bad} accomplices, "
        f"{real} the fullest of {_REAL_DRAWS} by the hash; shares of {committee.threshold} say "
        "nothing"
    )
    named = _filled(min(bad, committee.size), committee.threshold)
    return Played(
        elsewhere=named,
        here=_filled(most, committee.threshold),
        outcome=outcome,
        blamed=(),
        revealed=False,
    )


def _filled(accomplices: int, threshold: int) -> str:
    if accomplices <= threshold:
        return NOTHING
    return f"a committee with {accomplices} accomplices, where {threshold} are withstood"


OFFER_ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        "committee-grinding",
        "coordinator and nodes",
        "write 2^20 offers and make the one whose committee holds most accomplices",
        ("R-05",),
        _grinding,
    ),
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
        "lowered-threshold",
        "coordinator and nodes",
        "offer a committee of which two members open any secret",
        ("H-02", "R-05"),
        _lowered_threshold,
    ),
    Attack(
        "lowered-quorum",
        "coordinator and nodes",
        "offer a quorum of two nodes",
        ("H-02", "R-04"),
        _lowered_quorum,
    ),
    Attack(
        "understated-collusion",
        "coordinator and nodes",
        "offer terms that withstand nobody, and show two views",
        ("H-02",),
        _understated,
    ),
)
