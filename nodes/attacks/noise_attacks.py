"""Attacks on noise: seeds that a sum needs, offers that cost more than is allowed, differences.

The coordinator wants sums with less noise than is due, more of them than a budget allows, or two
that differ by one node. Source: specs/50-dp.md, specs/52-ledger.md, specs/55-excess-noise.md,
specs/56-policy.md.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.ckks_puppet import CkksPuppet
from nodes.attacks.coordinator_attacks import without
from nodes.attacks.noise_stage import LEAST, NoiseStage
from nodes.attacks.offer_attacks import make_offer, names
from nodes.attacks.report import NOTHING, Attack, Played
from nodes.ephemeral import EphemeralIdentity
from nodes.privacy_ledger import LEDGER, FileLedger, head_path
from nodes.session.guard import Guard
from nodes.session.ledger import MemoryLedger, PrivacyLedger
from nodes.session.offer import noised_encoding_of, setup_of
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy
from nodes.session.privacy import CLIENT, NONE, PrivacySettings, components_of, cost_of
from secagg import ring
from secagg.ckks.views import sign_view, view_digest
from secagg.dp.excess import draw_noise, new_seeds
from secagg.dp.receipts import make_receipt
from secagg.errors import ConfigError, LocalProtocolError, OfferRefused
from secagg.masking import views
from secagg.schemes import SCHEMES
from secagg.steps import SumReady
from secagg.types import NodeId, RingVector
from secagg.wire.messages import Message, RoundOffer

__all__ = ["noise_attacks"]

_RUN: Final = b"attack-demo-run-"
_LEAST: Final = 8
"""Nodes that a noised mean can be read of, if none of them collude."""
_EPSILON: Final = 40.0
_DELTA: Final = 0.1
"""Far too much for real data: a budget that two rounds of few nodes fit into."""
_MULTIPLIER: Final = 0.19


# --- seeds of noise ------------------------------------------------------------------------------


def _one_missing(stage: NoiseStage) -> tuple[NodeId, ...]:
    """Open the sum without one honest node, as it should be; return the others."""
    members = without(stage.puppet.nodes, stage.puppet.nodes[1:2])
    signed = stage.cosign(dict.fromkeys(members, members))
    stage.open(members, signed)
    return members


def _fewer_dropouts(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Say that nobody dropped out: then more components were superfluous."""
    stage = NoiseStage(scheme, max(n, LEAST), dim, seed)
    members = _one_missing(stage)
    honest = stage.honest(members)
    stage.trusting.ask(honest, len(stage.puppet.nodes))
    stage.ask(honest, len(stage.puppet.nodes), stage.puppet.tape.cosigned)
    return stage.judge(members)


def _seeds_twice(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Ask for what is due, and again with fewer dropouts."""
    stage = NoiseStage(scheme, max(n, LEAST), dim, seed)
    members = _one_missing(stage)
    honest, signed = stage.honest(members), dict(stage.puppet.tape.cosigned)
    for contributors in (len(members), len(stage.puppet.nodes)):
        stage.trusting.ask(honest, contributors)
        stage.ask(honest, contributors, signed)
    return stage.judge(members)


def _seeds_for_another_view(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Open the sum without one node, and tell the victim alone that nobody is missing."""
    stage = NoiseStage(scheme, max(n, LEAST), dim, seed)
    puppet = stage.puppet
    everybody, victim = puppet.nodes, puppet.victim
    members = without(everybody, everybody[1:2])
    others = without(members, [victim])
    due = stage.cosign(dict.fromkeys(others, members))
    stage.open(others, due)
    stage.trusting.ask(stage.honest(others), len(members))
    stage.ask(stage.honest(others), len(members), due)  # these seeds are due
    signed = stage.cosign({victim: everybody})
    signed |= {helper: _accomplice_signs(stage, helper, everybody) for helper in puppet.accomplices}
    stage.open([victim], signed)
    stage.trusting.ask([victim], len(everybody))
    stage.ask([victim], len(everybody), signed)
    return stage.judge(members)


def _accomplice_signs(stage: NoiseStage, helper: NodeId, members: tuple[NodeId, ...]) -> bytes:
    puppet = stage.puppet
    held = vars(puppet.clients[helper])
    if isinstance(puppet, CkksPuppet):
        digest = view_digest(held["_keys_digest"], members, bytes(puppet.view(members).values()))
        return sign_view(puppet.setup_at(helper), held["_signer"], digest)
    view = views.view_digest(held["_sharers_digest"], members)
    return views.sign_survivors(puppet.setup, held["_signer"], view)


# --- offers and ledgers --------------------------------------------------------------------------


def _offer(scheme: str, n: int, unit: str = CLIENT, **changes: object) -> RoundOffer:
    privacy = PrivacySettings(
        unit=unit, epsilon=_EPSILON, delta=_DELTA, noise_multiplier=_MULTIPLIER, spare=0.0
    )
    plan = RunPlan(1, 3, b"{}", scheme, collusion=0.0, dropout=0.1, privacy=privacy)
    return make_offer(names(n), plan=plan, **changes)


def _weaker(offer: RoundOffer, multiplier: float) -> RoundOffer:
    if offer.dp is None:
        raise LocalProtocolError("an offer without noise")
    noise = msgspec.structs.replace(offer.dp, noise_multiplier=multiplier)
    return msgspec.structs.replace(offer, dp=noise)


def _guard(scheme: str, n: int, ledger: PrivacyLedger, policy: NodePolicy | None = None) -> Guard:
    """Return what stands between an honest node and the coordinator."""
    keys = {name: EphemeralIdentity(name).public for name in names(n)}
    required = NodePolicy(
        schemes=(scheme,), collusion=0.0, require=CLIENT, epsilon=_EPSILON, delta=_DELTA
    )
    members = len(keys)
    return Guard(
        names(n)[0], policy or required, ledger, signing_key=keys.get, members=lambda: members
    )


def _take(guard: Guard, offers: Iterator[RoundOffer]) -> str:
    """Offer rounds until one is refused; return how that was said."""
    for offer in offers:
        try:
            guard.judge(offer, _RUN, 1.7e9)
        except OfferRefused as refused:
            return f"OfferRefused: {refused.reason}: {refused}"
        unpaid = guard.charge(_RUN, offer, 1.7e9)
        if unpaid:
            return unpaid
    return "all rounds are taken"


def _overspent(offers: list[RoundOffer]) -> str:
    """Say what rounds cost that a node took, "" if that is within the budget."""
    ledger = MemoryLedger()
    for offer in offers:
        cost = cost_of(offer)
        ledger.spend(_RUN, offer.round_id, cost.unit, cost.event, now=1.7e9)
    spent = ledger.history().spent(CLIENT, _DELTA)
    if spent <= _EPSILON:
        return ""
    said = "epsilon above all bounds" if math.isinf(spent) else f"epsilon {spent:.3g}"
    return f"{len(offers)} rounds of {said} together, where {_EPSILON:g} is allowed"


def _numbered(offer: RoundOffer, rounds: range) -> list[RoundOffer]:
    return [msgspec.structs.replace(offer, round_id=round_id) for round_id in rounds]


def _held(offers: list[RoundOffer], guard: Guard) -> Played:
    """Offer rounds to a node that would take any, and to an honest one."""
    before = len(guard.ledger.history())
    outcome = _take(guard, iter(offers))
    taken = offers[: len(guard.ledger.history()) - before]
    here = _overspent(taken) or NOTHING
    blamed = () if here != NOTHING else (COORDINATOR,)
    return Played(_overspent(offers) or NOTHING, here, outcome, blamed, revealed=False)


def _weaker_noise(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Offer a round whose noise the policy does not allow."""
    del dim, seed
    n = max(n, _LEAST)
    return _held([_weaker(_offer(scheme, n), 0.1)], _guard(scheme, n, MemoryLedger()))


def _beyond_budget(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Offer round after round."""
    del dim, seed
    n = max(n, _LEAST)
    offers = _numbered(_offer(scheme, n), range(1, 6))
    return _held(offers, _guard(scheme, n, MemoryLedger()))


def _set_back(scheme: str, n: int, dim: int, seed: int, *, both: bool) -> Played:
    """Offer rounds until the budget is spent, have the ledger set back, and offer more.

    Args:
        scheme: Of the rounds.
        n: Nodes.
        dim: Unused.
        seed: Unused.
        both: Its head is set back as well, and an honest coordinator shows the node its receipt.
    """
    del dim, seed
    n = max(n, _LEAST)
    offers = _numbered(_offer(scheme, n), range(1, 5))
    me = EphemeralIdentity(names(n)[0])
    with tempfile.TemporaryDirectory() as name:
        ledger, old = Path(name) / LEDGER, Path(name) / "old"
        old.mkdir()
        first = _guard(scheme, n, FileLedger(ledger))
        _take(first, iter(offers[:1]))
        kept = (ledger, head_path(ledger)) if both else (ledger,)
        for file in kept:
            shutil.copy(file, old / file.name)
        _take(first, iter(offers[1:2]))
        receipt = make_receipt(me, first.ledger.history()).to_bytes()
        for file in kept:
            shutil.copy(old / file.name, file)
        again = _guard(scheme, n, FileLedger(ledger))
        outcome = again.set_back(receipt, me.public) if both else ""
        taken = offers[:2]
        if not outcome:
            outcome = _take(again, iter(offers[2:]))
            taken = offers[: 2 + _taken(again, offers[2:])]
    here = _overspent(taken) or NOTHING
    outcome = outcome.replace(f"{name}/", "")
    return Played(_overspent(offers) or NOTHING, here, outcome, (), revealed=False)


def _taken(guard: Guard, offers: list[RoundOffer]) -> int:
    """Return how many of the offers the node charged itself."""
    try:
        history = guard.ledger.history()
    except ConfigError:
        return 0  # a ledger that cannot be read charges nothing
    return sum(history.has(_RUN, offer.round_id) for offer in offers)


# --- two sums that differ by one node ------------------------------------------------------------


def _sum(
    offer: RoundOffer, inputs: Mapping[NodeId, NDArray[np.int64]], *, noised: bool
) -> RingVector:
    """Play an honest round over real state machines and return its sum."""
    identities = {name: EphemeralIdentity(name) for name in offer.cohort}
    setup = setup_of(offer, _RUN, {name: each.public for name, each in identities.items()}.get)
    scheme = SCHEMES[offer.scheme]
    clients = {}
    for node in offer.cohort:
        vector, excess = inputs[node], tuple[bytes, ...]()
        if noised and offer.dp is not None:
            encoding = noised_encoding_of(offer, offer.dp)
            parts = components_of(encoding, len(offer.cohort), offer.colluders)
            excess = new_seeds(parts, os.urandom)
            vector = vector + draw_noise(parts, setup.dim, os.urandom, excess)
        clients[node] = scheme.client(
            setup,
            ring.from_signed(vector, setup.ring_bits),
            identities[node],
            coordinator=COORDINATOR,
            rng=os.urandom,
            excess=excess,
        )
    hub = scheme.coordinator(setup)
    queue: deque[tuple[NodeId, NodeId, Message]] = deque()
    for to, message in ((out.to, out.message) for out in hub.start(0.0).send):
        queue.append((COORDINATOR, to, message))
    for node, client in clients.items():
        queue += [(node, out.to, out.message) for out in client.start(0.0).send]
    while queue:
        sender, to, message = queue.popleft()
        if to != COORDINATOR:
            queue += [(to, out.to, out.message) for out in clients[to].receive(message, 0.0).send]
            continue
        step = hub.receive(sender, message, 0.0)
        queue += [(COORDINATOR, out.to, out.message) for out in step.send]
        for event in step.events:
            if isinstance(event, SumReady):
                return event.total
    raise LocalProtocolError("an honest round without a sum")


def _difference(scheme: str, n: int, seed: int, *, noised: bool) -> str:
    """Subtract two sums, one of them without the victim; return what that gives of its input."""
    unit = CLIENT if noised else NONE
    wide = {"ring_bits": 20} if scheme == "masking" else {}
    cohorts = names(n), names(n)[1:]
    offers = []
    for cohort in cohorts:
        made = _offer(scheme, len(cohort), unit, **wide)
        offers.append(msgspec.structs.replace(made, cohort=cohort))
    sizes = [_setup_dim(offer) for offer in offers]
    rng = np.random.default_rng(seed)
    inputs = {node: rng.integers(-1000, 1000, sizes[0]) for node in cohorts[0]}
    totals = [_sum(offer, inputs, noised=noised) for offer in offers]
    signed = [
        ring.to_signed(total, offer.ring_bits).astype(np.int64)
        for total, offer in zip(totals, offers, strict=True)
    ]
    error = np.abs(signed[0] - signed[1] - inputs[cohorts[0][0]])
    if np.mean(error == 0) < 0.5:
        return ""
    return f"input of {cohorts[0][0]} recovered, max error {int(error.max())}"


def _setup_dim(offer: RoundOffer) -> int:
    keys = {name: EphemeralIdentity(name).public for name in offer.cohort}
    return setup_of(offer, _RUN, keys.get).dim


def _intersection(scheme: str, n: int, dim: int, seed: int) -> Played:
    """Ask for the sum of all nodes, then for that without the victim; there is no noise."""
    del dim
    n = max(n, _LEAST + 1)
    elsewhere = _difference(scheme, n, seed, noised=False)
    policy = NodePolicy(schemes=(scheme,), collusion=0.0, min_difference=2)
    guard = _guard(scheme, n, MemoryLedger(), policy)
    guard.previous = names(n)
    offer = _offer(scheme, n - 1, NONE)
    outcome = _take(guard, iter([offer]))
    taken = len(guard.ledger.history())
    here = (_difference(scheme, n, seed, noised=False) if taken else "") or NOTHING
    return Played(elsewhere, here, outcome, (COORDINATOR,), revealed=here != NOTHING)


def _under_noise(scheme: str, n: int, dim: int, seed: int) -> Played:
    """The same where nodes noise what they give, and no rule forbids the second cohort."""
    del dim
    n = max(n, _LEAST + 1)
    elsewhere = _difference(scheme, n, seed, noised=False)
    here = _difference(scheme, n, seed, noised=True) or NOTHING
    outcome = f"two sums, of {n} nodes and {n - 1}, whose difference has the noise of both"
    return Played(elsewhere, here, outcome, (), revealed=here != NOTHING)


_Play = Callable[[str, int, int, int], Played]
_ROWS: Final[tuple[tuple[str, str, tuple[str, ...], _Play], ...]] = (
    (
        "fewer-dropouts",
        "ask for seeds of noise that the sum needs, as if nobody had dropped out",
        ("X-05",),
        _fewer_dropouts,
    ),
    (
        "seeds-twice",
        "ask for the seeds that are due, and once more for others",
        ("X-05", "X-07"),
        _seeds_twice,
    ),
    (
        "seeds-for-another-view",
        "tell the victim alone that nobody dropped out, and ask it for its seeds",
        ("X-06",),
        _seeds_for_another_view,
    ),
    ("weaker-noise", "offer weaker noise than the policy allows", ("G-05",), _weaker_noise),
    (
        "beyond-budget",
        "offer rounds until nothing is left, and more",
        ("G-05",),
        _beyond_budget,
    ),
    (
        "older-ledger",
        "the same after the node's ledger was set back",
        ("B-06",),
        functools.partial(_set_back, both=False),
    ),
    (
        "older-ledger-and-head",
        "the same with its head, before an honest coordinator",
        ("B-07",),
        functools.partial(_set_back, both=True),
    ),
    ("intersection", "sum all nodes, then all but the victim", ("G-07",), _intersection),
    ("intersection-under-noise", "the same under noise", ("D-10",), _under_noise),
)


def noise_attacks(scheme: str) -> tuple[Attack, ...]:
    """Return the attacks on noise of a scheme."""
    return tuple(
        Attack(name, "coordinator", summary, rules, functools.partial(play, scheme))
        for name, summary, rules, play in _ROWS
    )
