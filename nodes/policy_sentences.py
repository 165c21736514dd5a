"""A policy in plain sentences, and what is weak about it. Source: specs/56-policy.md section 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nodes.session.policy import NodePolicy

__all__ = ["Remark", "explain", "weaknesses"]

_LARGE_EPSILON: Final = 10.0
"""Above it a bound says little: it allows odds to change by a factor of 22 000."""
_LARGE_DELTA: Final = 1e-3
_SMALL_COHORT: Final = 5
_SMALL_COLLUSION: Final = 0.1


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence about one setting."""

    key: str
    sentence: str


def explain(policy: NodePolicy) -> list[Remark]:
    """Return what each setting of a policy means, one plain sentence each (G-10)."""
    sentences = {
        "min_cohort": "This node takes part only in rounds offered to at least "
        f"{policy.min_cohort} nodes.",
        "schemes": f"It takes part in rounds that are summed by {_either(policy.schemes)}.",
        "weights": _weights(policy),
        "collusion": f"A round must withstand that {100 * policy.collusion:g} % of the roster's "
        "active nodes side with the coordinator.",
        "require": _protection(policy),
        **_budget(policy),
        "architectures": _models(policy),
        "max_learning_rate": "It trains at any learning rate."
        if policy.max_learning_rate is None
        else f"It refuses a learning rate above {policy.max_learning_rate:g}.",
        "max_steps": "A round may ask for any number of training steps."
        if policy.max_steps is None
        else f"It refuses a round of more than {policy.max_steps} training steps.",
        "min_difference": _difference(policy),
        "max_rounds_a_day": "It takes part in any number of rounds a day."
        if policy.max_rounds_a_day is None
        else f"It begins at most {policy.max_rounds_a_day} rounds within 24 hours.",
    }
    return [Remark(key, sentence) for key, sentence in sentences.items()]


def weaknesses(policy: NodePolicy, *, colluders: int | None = None) -> list[Remark]:
    """Return what a policy leaves open, gravest first (G-10).

    Args:
        policy: What the node agrees to.
        colluders: Nodes of an offer's cohort that may collude, if there is an offer.
    """
    found = (_open_to_reading(policy), _open_to_differences(policy, colluders), _unlimited(policy))
    return [remark for remarks in found for remark in remarks]


def _open_to_reading(policy: NodePolicy) -> Iterator[Remark]:
    if "insecure-plain" in policy.schemes:
        yield Remark("schemes", "under insecure-plain the coordinator reads every update")
    if policy.require == "none":
        yield Remark("require", "no noise is required: nothing bounds what sums and models tell")
    if policy.epsilon is not None and policy.epsilon > _LARGE_EPSILON:
        yield Remark("epsilon", f"a budget above {_LARGE_EPSILON:g} promises little")
    if policy.delta is not None and policy.delta > _LARGE_DELTA:
        yield Remark("delta", f"above {_LARGE_DELTA:g} the bound may fail for somebody")
    if policy.min_cohort < _SMALL_COHORT:
        others = policy.min_cohort - 1
        yield Remark("min_cohort", f"a sum may hide this node among {others} others only")
    if policy.collusion < _SMALL_COLLUSION:
        yield Remark("collusion", "few colluding nodes are enough to open this node's input")
    if "coordinator" in policy.weights:
        yield Remark("weights", "this node's distance from the others is disclosed each round")


def _open_to_differences(policy: NodePolicy, colluders: int | None) -> Iterator[Remark]:
    if policy.min_difference < 2:
        yield Remark(
            "min_difference",
            "two sums over cohorts that differ by one node tell nearly what that node gave"
            + (", up to the noise" if policy.require == "client" else ""),
        )
    elif colluders is not None and policy.min_difference < colluders + 2:
        yield Remark(
            "min_difference",
            f"{colluders} colluding nodes and one honest one can be all by which two cohorts "
            f"differ; it takes {colluders + 2}",
        )


def _unlimited(policy: NodePolicy) -> Iterator[Remark]:
    if policy.architectures is None:
        yield Remark("architectures", "the coordinator chooses the model, also one made to leak")
    if policy.max_steps is None:
        yield Remark("max_steps", "one round may ask for 100000 steps, hours of this machine")
    if policy.max_learning_rate is None:
        yield Remark("max_learning_rate", "a round may ask for a learning rate of up to 10")
    if policy.max_rounds_a_day is None:
        yield Remark("max_rounds_a_day", "rounds may follow one another without end")


def _weights(policy: NodePolicy) -> str:
    if policy.weights == ("private",):
        return "It applies its consistency weight itself and discloses nothing for it."
    also = "may also apply" if "private" in policy.weights else "has to apply"
    return (
        f"The coordinator {also} this node's weight, and is told for that how far its data stand "
        "from the others'."
    )


def _protection(policy: NodePolicy) -> str:
    match policy.require:
        case "client":
            return "The noise of a round must protect all of this node's data together."
        case "record":
            return "The noise of a round must protect each single row of this node's data."
        case _:
            return "It takes part in rounds without noise."


def _budget(policy: NodePolicy) -> dict[str, str]:
    if policy.require == "none":
        return {}
    return {
        "epsilon": "It refuses a round that would bring what its ledger holds, over all runs, "
        f"above an epsilon of {policy.epsilon:g}.",
        "delta": f"That bound may fail with a probability of {policy.delta:g}.",
    }


def _models(policy: NodePolicy) -> str:
    if policy.architectures is None:
        return "It trains any model."
    count = len(policy.architectures)
    return f"It trains only {'the model' if count == 1 else f'the {count} models'} in the list."


def _difference(policy: NodePolicy) -> str:
    if policy.min_difference < 2:
        return "It takes part with any cohort, whatever the last one was."
    return (
        "Unless the cohort is that of the last sum it was in, it must differ from that by at "
        f"least {policy.min_difference} nodes."
    )


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names)
