"""Checks of a privacy ledger before a run: whole, not set back, and with a budget that is left.

They change nothing that a round depends on. Source: specs/52-ledger.md, specs/56-policy.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from nodes.config import CoordinatorConfig, NodeConfig
from nodes.context import Membership
from nodes.coordinator_daemon import CHECKPOINT, fresh_run
from nodes.loop import wall_clock
from nodes.node_daemon import MEMORY, OFFER
from nodes.privacy_ledger import LEDGER, FileLedger, head_path, read_ledger
from nodes.session.budget import Budget, NoOffer, check_charged
from nodes.session.epoch_terms import as_first
from nodes.session.events import ParticipantState
from nodes.session.guard import Guard
from nodes.session.privacy import NONE
from nodes.store import load_memory, load_offer, load_run
from secagg.dp.ledger import History
from secagg.dp.receipts import Receipt, check_receipt
from secagg.errors import ConfigError, OfferRefused, RemoteProtocolError
from secagg.wire.messages import Welcome

__all__ = ["hub_ledger", "last_offer", "ledger_receipt", "next_round", "node_ledger"]


def node_ledger(config: NodeConfig) -> str:
    """Check that the ledger is whole, and say what the policy leaves of its budget."""
    history, policy = _history(config.folder / config.node.state), config.node_policy()
    if policy.require == "none" or policy.epsilon is None or policy.delta is None:
        return f"{len(history)} rounds; the policy sets no budget"
    return _left(history, policy.require, policy.epsilon, policy.delta, "policy.epsilon")


def hub_ledger(config: CoordinatorConfig) -> str:
    """Check that the ledger is whole and as long as the run, and say what is left of the budget."""
    folder = config.folder / config.coordinator.state
    history, wanted = _history(folder), config.privacy_settings()
    stored = load_run(folder / CHECKPOINT, config.plan().training)
    if stored is not None:
        check_charged(stored, history)
    if wanted.unit == NONE:
        return f"{len(history)} rounds; [privacy] protects nobody"
    if stored is not None and stored.finished:
        return f"{history.rounds(wanted.unit)} rounds of unit {wanted.unit!r}; the run is complete"
    return _left(history, wanted.unit, wanted.epsilon, wanted.delta, "privacy.epsilon")


def next_round(config: CoordinatorConfig, members: Membership) -> str:
    """Make the next offer as the coordinator would to everybody, and say what it costs."""
    folder, plan = config.folder / config.coordinator.state, config.plan()
    roster = members.view(wall_clock())
    everybody = tuple(sorted(roster.signing_keys))
    run = load_run(folder / CHECKPOINT, plan.training) or fresh_run(config, os.urandom)
    if run.finished:
        return "the run is complete"
    cohort = everybody[: plan.cohort_size(len(everybody), len(everybody))]
    budget = Budget(plan.privacy, FileLedger(folder / LEDGER))
    offer = budget.next_offer(plan, run, cohort, everybody, roster)
    if isinstance(offer, NoOffer):
        raise ConfigError(
            offer.reason, hint="`secagg privacy plan` shows which nodes, rounds and budget fit"
        )
    after = budget.spent_with(offer)
    return (
        f"a round of {len(offer.cohort)} nodes takes epsilon to {after:.3g} of "
        f"{plan.privacy.epsilon:g}; a policy of a node must allow it"
    )


def last_offer(config: NodeConfig, members: Membership, welcome: Welcome) -> str:
    """Hold the newest offer of the coordinator's run against policy and ledger as they are now."""
    state = config.folder / config.node.state
    memory = load_memory(state / MEMORY) or ParticipantState({})
    offer = load_offer(state / OFFER)
    if offer is None or memory.rounds.get(welcome.run) != offer.round_id:
        return "none of this run has come yet"
    view = members.view(wall_clock())
    guard = Guard(
        members.identity.node_id,
        config.node_policy(),
        FileLedger(state / LEDGER),
        signing_key=view.signing_keys.get,
        members=lambda: len(view.signing_keys),
    )
    guard.previous = memory.last_sum
    try:
        guard.judge(as_first(offer), welcome.run, wall_clock())  # a daemon that starts has no epoch
    except OfferRefused as refused:
        raise ConfigError(
            f"this node would refuse another round like the last: {refused}", hint=refused.hint
        ) from refused
    return f"another round like round {offer.round_id} would be taken"


def ledger_receipt(config: NodeConfig, members: Membership, receipt: bytes) -> str:
    """Hold this node's ledger against the receipt that the coordinator kept of it (B-07)."""
    if not receipt:
        return "the coordinator has none yet"
    me, history = members.identity, _history(config.folder / config.node.state)
    try:
        read = Receipt.from_bytes(receipt, sender=members.roster.coordinator.node_id)
        check_receipt(history, read, me.node_id, members.roster.member(me.node_id).signing_key)
    except RemoteProtocolError:
        return "the coordinator's is not of this key; it counts for nothing"  # B-11
    return f"the ledger has the {read.count} rounds that the coordinator has a receipt for"


def _history(state: Path) -> History:
    """Read a ledger without a lock; a folder without one has an empty ledger, and no head."""
    path = state / LEDGER
    if not path.exists() and not head_path(path).exists():
        return History(str(path))
    return read_ledger(path).history


def _left(history: History, unit: str, epsilon: float, delta: float, name: str) -> str:
    spent, rounds = history.spent(unit, delta), history.rounds(unit)
    if not spent < epsilon:
        raise ConfigError(
            f"{rounds} rounds of unit {unit!r} have spent epsilon {spent:.3g} at delta {delta:g}, "
            f"and {name} is {epsilon:g}: no round is left",
            hint=f"what was spent stays spent: raise {name} only if you accept that much of it, "
            "`secagg privacy show` lists the rounds",
        )
    return (
        f"{rounds} rounds of unit {unit!r}, epsilon {spent:.3g} of {epsilon:g} spent at "
        f"delta {delta:g}"
    )
