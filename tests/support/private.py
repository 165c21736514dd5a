"""Rounds under client-level noise that eight nodes are enough for, in tests of the session.

Nobody colludes and δ is a tenth, so that ε = 40 is two rounds and the sum of eight weights of 1 is
clear of its noise. No setting for real data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fl_core.training import LocalUpdate
from nodes.session.events import TrainRequested
from nodes.session.guard import Guard
from nodes.session.ledger import MemoryLedger
from nodes.session.offer import build_offer
from nodes.session.plan import RunPlan
from nodes.session.policy import NodePolicy, PolicyOrigin
from nodes.session.privacy import CLIENT, PrivacySettings
from secagg.types import NodeId
from secagg.wire.messages import DpTerms, RoundOffer
from tests.support.fleet import TestSigner
from tests.support.run import Run, constant_update, make_plan, make_state

N: Final = 8
EPSILON: Final = 40.0
"""What two rounds at `MULTIPLIER` fit into, and three do not."""
DELTA: Final = 0.1
MULTIPLIER: Final = 0.19
LINES: Final = {
    "schemes": 2,
    "collusion": 3,
    "require": 4,
    "epsilon": 5,
    "delta": 6,
    "min_difference": 7,
    "max_rounds_a_day": 8,
}
"""Key to the line of `policy.toml` that it is said to stand in."""
RUN: Final = b"R" * 16
NAMES: Final = tuple(f"node-{index}" for index in range(N))
KEYS: Final = {name: TestSigner(name).public for name in NAMES}
SCHEMES: Final = ("masking", "ckks")


def make_settings(**changes: object) -> PrivacySettings:
    values: dict[str, object] = {
        "unit": CLIENT,
        "epsilon": EPSILON,
        "delta": DELTA,
        "noise_multiplier": MULTIPLIER,
        "spare": 0.0,
        **changes,
    }
    return PrivacySettings(**values)  # type: ignore[arg-type]


def private_plan(*, privacy: PrivacySettings | None = None, **changes: object) -> RunPlan:
    values: dict[str, object] = {"rounds": 2, "collusion": 0.0, "dropout": 0.1, **changes}
    return make_plan(privacy=privacy or make_settings(), **values)


def private_policy(**changes: object) -> NodePolicy:
    values: dict[str, object] = {
        "schemes": ("masking", "ckks", "insecure-plain"),
        "weights": ("private", "coordinator"),
        "collusion": 0.0,
        "require": CLIENT,
        "epsilon": EPSILON,
        "delta": DELTA,
        "origin": PolicyOrigin("policy.toml", LINES, prefix=""),
        **changes,
    }
    return NodePolicy(**values)  # type: ignore[arg-type]


def full_weight(node: NodeId, request: TrainRequested) -> LocalUpdate:
    return replace(constant_update(node, request), weight=1.0)


def private_run(n: int = N, **changes: object) -> Run:
    """A run of nodes that all require what the plan gives."""
    policy = changes.pop("policy", None) or private_policy()
    names = [f"node-{index}" for index in range(n)]
    values: dict[str, object] = {
        "plan": private_plan(),
        "policies": dict.fromkeys(names, policy),
        "trainer": full_weight,
        **changes,
    }
    return Run(n, **values)  # type: ignore[arg-type]


def private_offer(scheme: str = "masking", n: int = N) -> RoundOffer:
    """The first offer that an honest coordinator makes."""
    cohort = tuple(f"node-{index}" for index in range(n))
    return build_offer(private_plan(scheme=scheme), make_state(), cohort, 1)


def noise_of(offer: RoundOffer) -> DpTerms:
    assert offer.dp is not None
    return offer.dp


def guard(policy: NodePolicy | None = None, ledger: MemoryLedger | None = None) -> Guard:
    """What stands before node-0 of N."""
    names = [f"node-{index}" for index in range(N)]
    keys = {name: TestSigner(name).public for name in names}
    return Guard(
        names[0],
        policy or private_policy(),
        ledger or MemoryLedger(),
        signing_key=keys.get,
        members=lambda: N,
    )
