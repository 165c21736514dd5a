"""The package and the slow implementation in one round of ckks, with SEAL's own randomness."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

from secagg.ckks.client import CkksClient
from tests.vectors import slow_ckks, slow_ckks_coordinator, slow_ckks_parts, slow_parts
from tests.vectors.ckks_cast import FIVE, OUTSIDER, WEIGHTED, CkksCast, ckks_casts, stream
from tests.vectors.real import RealNode, TestIdentity
from tests.vectors.slow import COORDINATOR, Reply


class Party(Protocol):
    def start(self) -> Reply: ...

    def receive(self, sender: str, data: bytes) -> Reply: ...


def real_node(cast: CkksCast, me: str) -> Party:
    """Return a node of the package: its keys are the cast's, secret and errors are SEAL's."""
    written = cast.nodes[me]
    vector = np.array(written["input"], dtype=np.uint32)
    identity = TestIdentity(me, bytes.fromhex(written["identity"]))
    return RealNode(
        lambda draw: CkksClient(
            cast.checked,
            vector,
            identity,
            coordinator=COORDINATOR,
            rng=draw,
            distance=written.get("distance"),
        ),
        stream=bytes.fromhex(written["agreement"]) + stream("together", me, size=100_000),
        encapsulate=lambda _, key: MLKEM768PublicKey.from_public_bytes(key).encapsulate(),
    )


def slow_node(cast: CkksCast, me: str) -> Party:
    """Return a slow node; only what ML-KEM draws is not in the cast."""
    written: Mapping[str, Any] = cast.nodes[me]
    keys = {
        node: slow_parts.public_keys(bytes.fromhex(each["agreement"]))[1]
        for node, each in cast.nodes.items()
    }
    return slow_ckks.Node(
        slow_ckks_parts.Setup.read(cast.setup),
        me,
        secrets=slow_ckks.Secrets.read(written),
        vector=written["input"],
        encapsulate=lambda node: MLKEM768PublicKey.from_public_bytes(keys[node]).encapsulate(),
        distance=written.get("distance"),
    )


def real_coordinator(cast: CkksCast) -> Party:
    return cast.coordinator()


def slow_coordinator(cast: CkksCast) -> Party:
    setup = slow_ckks_parts.Setup.read(cast.setup)
    return slow_ckks_coordinator.Coordinator(setup, cast.setup.get("weights"))


def total_of(coordinator: Party, nodes: Mapping[str, Party]) -> list[int] | None:
    """Play until nothing is on its way; return the sum."""
    parties, total = {COORDINATOR: coordinator, **nodes}, None
    queue: deque[tuple[str, str, bytes]] = deque()
    for name, party in parties.items():
        queue.extend((name, to, data) for to, data in party.start().sends)
    while queue:
        sender, receiver, data = queue.popleft()
        reply = parties[receiver].receive(sender, data)
        assert not any(event[0] == "blamed" for event in reply.events)
        queue.extend((receiver, to, each) for to, each in reply.sends)
        total = reply.total or total
    return total


@pytest.mark.req("H-01")
@pytest.mark.req("H-13")
@pytest.mark.parametrize("base", [FIVE, OUTSIDER, WEIGHTED])
@pytest.mark.parametrize("coordinator", [real_coordinator, slow_coordinator])
@pytest.mark.parametrize("slow_ones", ["", "bd", "abcde"])
def test_they_sum_up_together(
    base: str, coordinator: Callable[[CkksCast], Party], slow_ones: str
) -> None:
    cast = ckks_casts()[base]
    nodes = {
        node: (slow_node if node[-1] in slow_ones else real_node)(cast, node)
        for node in cast.cohort
    }
    weights = cast.setup.get("weights", dict.fromkeys(cast.cohort, 1))
    columns = zip(*(cast.nodes[node]["input"] for node in cast.cohort), strict=True)
    plain = [
        sum(weights[node] * x for node, x in zip(cast.cohort, column, strict=True))
        for column in columns
    ]
    modulus = 1 << cast.checked.ring_bits
    assert total_of(coordinator(cast), nodes) == [value % modulus for value in plain]
