"""What a node agrees to, and how an offer is held against it: every refusal names the line.

The coordinator cannot override a policy: it comes from a file of the node's operator, and is read
at no other time than the start. Source: specs/56-policy.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from fl_core.parameters import ParamSpec
from nodes.session.plan import WEIGHT_MODES
from nodes.session.training_settings import settings_of
from secagg.assumptions import DEFAULT_COLLUSION, colluders_among
from secagg.errors import OfferRefused
from secagg.types import NodeId, RefusalReason
from secagg.wire.messages import RoundOffer

__all__ = [
    "DAY",
    "PROTECTIONS",
    "NodePolicy",
    "PolicyFacts",
    "PolicyOrigin",
    "TrainingFacts",
    "Violation",
    "check_policy",
    "difference_refusal",
    "facts_of_training",
    "rounds_today",
    "violations",
]

DAY: Final = 86_400.0
"""Seconds over which `max_rounds_a_day` counts."""
PROTECTIONS: Final = ("none", "client", "record")
"""Whom a policy may require noise to protect: nobody, a whole node, one row of its data."""
_SHOWN: Final = 2
"""Entries of a list that a refusal spells out: an explanation has room for 500 characters."""


@dataclass(frozen=True, slots=True)
class PolicyOrigin:
    """The file a policy was read from, for refusals to point into."""

    file: str = ""
    """Name without folders: refusals go to the coordinator, which need not know those."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key to the line it is written in, counted from 1; keys left out have their default."""
    prefix: str = "policy."
    """Before each key, where the policy is a table of a larger file."""

    def where(self, key: str) -> str:
        """Return ``line 7``, or ``(default)`` for a key that is not in the file."""
        return f"line {self.lines[key]}" if key in self.lines else "(default)"

    def cite(self, key: str, value: object) -> str:
        """Return ``policy.toml line 7: min_cohort = 5``; no place if there is no file (G-02)."""
        setting = f"{self.prefix}{key} = {_short(value)}"
        return f"{self.file} {self.where(key)}: {setting}" if self.file else setting


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """What a node agrees to; the coordinator cannot override it.

    `nodes.policy_file` checks the ranges; a limit that is None sets none.
    """

    min_cohort: int = 3
    """Fewest nodes an offer may have gone to."""
    schemes: tuple[str, ...] = ("masking",)
    """Schemes this node takes part in."""
    collusion: float = DEFAULT_COLLUSION
    """Fraction of the roster's active nodes that may collude with the coordinator (P-09): what the
    round must withstand."""
    weights: tuple[str, ...] = ("private",)
    """Of `WEIGHT_MODES`, those this node takes part in: under "coordinator" it discloses how far
    its data stand from the others' (H-16)."""
    require: str = "none"
    """One of `PROTECTIONS`: the unit that a round's noise must protect."""
    epsilon: float | None = None
    """Budget of that unit over all that this node's ledger holds, at `delta`."""
    delta: float | None = None
    """Probability with which the bound of `epsilon` may fail."""
    architectures: tuple[str, ...] | None = None
    """Models this node trains: SHA-256 of kind, names and shapes (`ParamSpec.digest`), hexadecimal
    in lower case."""
    max_learning_rate: float | None = None
    max_steps: int | None = None
    """Most optimiser steps in one round."""
    min_difference: int = 0
    """Fewest nodes by which two cohorts in a row may differ if they are not the same."""
    max_rounds_a_day: int | None = None
    """Most rounds in any `DAY`."""
    origin: PolicyOrigin = field(default=PolicyOrigin(), compare=False)


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """What a policy limits of an offer's training settings."""

    architecture: str
    """`ParamSpec.digest` of the model, hexadecimal in lower case."""
    dim: int
    """Parameters of that model."""
    learning_rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What a policy is held against beside the offer; the defaults suit a policy without limits.

    Nothing of the node's rows may be in it, since a refusal shows (S-06).
    """

    members: int = 0
    """Active nodes of the roster; the cohort's size where that is more."""
    previous: tuple[NodeId, ...] | None = None
    """Contributors of the last sum that this node was in, or None if it never was in one."""
    rounds_today: int = 0
    """Rounds this node began in the `DAY` before the offer, by `rounds_today`."""
    unit: str = "none"
    """Of `PROTECTIONS`, what the noise of this round protects."""
    epsilon_after: float = math.inf
    """What the node's ledger holds of the unit, with this round, at the policy's `delta`."""
    training: TrainingFacts | None = None
    """None where the settings cannot be read: then each limit on training refuses (G-06)."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of a policy that forbids an offer."""

    reason: RefusalReason
    key: str
    """The setting of `NodePolicy`."""
    why: str
    """In words, with the line of the policy."""
    hint: str


def check_policy(offer: RoundOffer, policy: NodePolicy, facts: PolicyFacts) -> None:
    """Hold an offer against a policy.

    Args:
        offer: What the coordinator offers.
        policy: What this node agrees to.
        facts: What the rules need to know beside the offer.

    Raises:
        OfferRefused: with the first rule that forbids it, and its line (G-01, G-02).
    """
    for found in violations(offer, policy, facts):
        raise OfferRefused(found.reason, found.why, hint=found.hint)


def violations(offer: RoundOffer, policy: NodePolicy, facts: PolicyFacts) -> list[Violation]:
    """Return every rule that forbids an offer, in the order in which they are checked."""
    case, found = _Case(offer, policy, facts), []
    for key, (reason, rule) in _RULES.items():
        if why := rule(case):
            cited = f"{policy.origin.cite(key, getattr(policy, key))}: {why}"
            found.append(Violation(reason, key, cited, _hint(policy, key)))
    return found


def difference_refusal(
    previous: Iterable[NodeId] | None, contributors: Iterable[NodeId], policy: NodePolicy
) -> str:
    """Return why a node must not co-sign a sum over `contributors`, or "" if it may (G-09).

    Args:
        previous: Contributors of the last sum that this node was in, or None.
        contributors: Whose inputs would be in the sum, this node's among them.
        policy: What this node agrees to.
    """
    why = _closeness(previous, contributors, policy.min_difference)
    return f"{policy.origin.cite('min_difference', policy.min_difference)}: {why}" if why else ""


def facts_of_training(training: bytes) -> TrainingFacts | None:
    """Return what a policy limits of an offer's training settings, or None if they are malformed.

    Args:
        training: The canonical JSON of the offer.
    """
    settings = settings_of(training)
    if settings is None:
        return None
    spec = ParamSpec.from_model(settings.model)
    train = settings.train
    return TrainingFacts(spec.digest.hex(), spec.dim, train.learning_rate, train.steps)


def rounds_today(starts: Iterable[float], wall_time: float) -> int:
    """Return how many rounds began less than a `DAY` before `wall_time` (G-08).

    Args:
        starts: Wall times at which rounds began, in any order, Unix seconds.
        wall_time: Now, Unix seconds. Starts after it count: a clock that was set back clears
            nothing.
    """
    return sum(not start <= wall_time - DAY for start in starts)


@dataclass(frozen=True, slots=True)
class _Case:
    """What a rule looks at; it returns why the offer is against the policy, or ""."""

    offer: RoundOffer
    policy: NodePolicy
    facts: PolicyFacts


def _scheme(case: _Case) -> str:
    scheme = case.offer.scheme
    return "" if scheme in case.policy.schemes else f"the round uses {scheme!r}"


def _cohort(case: _Case) -> str:
    n = len(case.offer.cohort)
    return "" if n >= case.policy.min_cohort else f"the cohort has {n} nodes"


def _collusion(case: _Case) -> str:
    """All that collude may be in the cohort, since the coordinator chooses it (P-09)."""
    members = max(len(case.offer.cohort), case.facts.members)
    least, offered = colluders_among(members, case.policy.collusion), case.offer.colluders
    if offered >= least:
        return ""
    return f"the offer withstands {offered} colluding nodes, of {members} members {least} may be"


def _weights(case: _Case) -> str:
    terms = case.offer.ckks
    mode = WEIGHT_MODES[terms is not None and terms.coordinator_weighs]  # H-16
    return "" if mode in case.policy.weights else f"the weights of this round are {mode!r}"


def _unit(case: _Case) -> str:
    """Units are not exchanged for one another: an epsilon of one says nothing of the other."""
    if case.policy.require in ("none", case.facts.unit):
        return ""
    return f"the noise of this round protects {_PROTECTS.get(case.facts.unit, 'an unknown unit')}"


def _budget(case: _Case) -> str:
    """What was spent stays out of it: it tells of runs with other coordinators too (G-05)."""
    limit = case.policy.epsilon
    if case.policy.require == "none":
        return ""
    fits = limit is not None and case.facts.epsilon_after <= limit  # NaN does not fit
    return "" if fits else "the round would spend more than is left"


def _architecture(case: _Case) -> str:
    if case.policy.architectures is None:
        return ""
    found = case.facts.training
    if found is None:
        return _UNREADABLE
    if found.architecture not in case.policy.architectures:
        return f"the model of this round is {found.architecture}"
    if case.offer.model_dim != found.dim:
        return f"that model has {found.dim} parameters, the offer sums {case.offer.model_dim}"
    return ""


def _learning_rate(case: _Case) -> str:
    if case.policy.max_learning_rate is None:
        return ""
    if case.facts.training is None:
        return _UNREADABLE
    rate = case.facts.training.learning_rate
    fits = rate <= case.policy.max_learning_rate  # NaN does not
    return "" if fits else f"the learning rate is {rate:g}"


def _steps(case: _Case) -> str:
    if case.policy.max_steps is None:
        return ""
    if case.facts.training is None:
        return _UNREADABLE
    steps = case.facts.training.steps
    return "" if steps <= case.policy.max_steps else f"the round takes {steps} steps"


def _difference(case: _Case) -> str:
    return _closeness(case.facts.previous, case.offer.cohort, case.policy.min_difference)


def _rounds(case: _Case) -> str:
    limit, begun = case.policy.max_rounds_a_day, case.facts.rounds_today
    if limit is None or begun < limit:
        return ""
    return f"this node began {begun} rounds within the last 24 hours"


def _closeness(
    previous: Iterable[NodeId] | None, cohort: Iterable[NodeId], min_difference: int
) -> str:
    """Say so if two cohorts are not the same and differ by fewer nodes than they must."""
    if previous is None:
        return ""
    apart = len(set(previous) ^ set(cohort))
    if apart == 0 or apart >= min_difference:  # G-07
        return ""
    nodes = "one node" if apart == 1 else f"{apart} nodes"
    return f"the cohort differs by {nodes} from that of the last sum"


_Rule: TypeAlias = Callable[[_Case], str]
_RULES: Final[dict[str, tuple[RefusalReason, _Rule]]] = {
    "schemes": (RefusalReason.SCHEME_FORBIDDEN, _scheme),
    "min_cohort": (RefusalReason.COHORT_TOO_SMALL, _cohort),
    "collusion": (RefusalReason.THRESHOLDS_UNSAFE, _collusion),
    "weights": (RefusalReason.WEIGHTS_FORBIDDEN, _weights),
    "require": (RefusalReason.PRIVACY_REQUIRED, _unit),
    "architectures": (RefusalReason.ARCHITECTURE_FORBIDDEN, _architecture),
    "max_learning_rate": (RefusalReason.LEARNING_RATE_TOO_HIGH, _learning_rate),
    "max_steps": (RefusalReason.TRAINING_TOO_LONG, _steps),
    "min_difference": (RefusalReason.COHORT_TOO_SIMILAR, _difference),
    "max_rounds_a_day": (RefusalReason.TOO_MANY_ROUNDS, _rounds),
    "epsilon": (RefusalReason.BUDGET_SPENT, _budget),
}
"""Setting to the code of its refusal and to the rule behind it; the budget, which takes a sum over
the whole ledger, comes last."""
_UNREADABLE: Final = "the training settings of the offer cannot be read"
_PROTECTS: Final = {
    "none": "nobody",
    "client": "whole nodes (unit 'client')",
    "record": "single rows (unit 'record')",
}


def _hint(policy: NodePolicy, key: str) -> str:
    where = f"{key} in {policy.origin.file}" if policy.origin.file else f"policy.{key}"
    return f"if you agree to such rounds, change {where} and start the node again"


def _short(value: object) -> str:
    """Return a setting as TOML has it, long lists cut."""
    match value:
        case None:
            return "unset"
        case tuple():
            shown = ", ".join(_short(item) for item in value[:_SHOWN])
            more = f", and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
            return f"[{shown}{more}]"
        case str():
            return f'"{value}"'
        case float():
            return f"{value:g}"
        case _:
            return str(value)
