"""Every round in specs/vectors, through the real state machines and through the slow ones."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

from tests.vectors import slow, slow_coordinator, slow_parts
from tests.vectors.files import FOLDER, Operation, Scenario, read, scenario, scenario_names
from tests.vectors.generate import documents
from tests.vectors.real import RealCoordinator, RealNode, setup_of
from tests.vectors.slow import COORDINATOR, Refused, Reply

NAMES = scenario_names()


class Party(Protocol):
    def start(self) -> Reply: ...

    def receive(self, sender: str, data: bytes) -> Reply: ...


World: TypeAlias = Callable[[Scenario], dict[str, Party]]


def real_world(played: Scenario) -> dict[str, Party]:
    setup = setup_of(played.setup)
    parties: dict[str, Party] = {COORDINATOR: RealCoordinator(setup)}
    for me, node in played.nodes.items():
        parties[me] = RealNode(
            setup, me, node=node, encapsulate=lambda peer, key, me=me: played.capsules[me, peer]
        )
    return parties


def slow_world(played: Scenario) -> dict[str, Party]:
    setup = slow_parts.Setup.read(played.setup)
    parties: dict[str, Party] = {COORDINATOR: slow_coordinator.Coordinator(setup)}
    for me, node in played.nodes.items():
        parties[me] = slow.Node(
            setup,
            me,
            secrets=slow.Secrets.read(node),
            vector=node["input"],
            encapsulate=lambda peer, me=me: played.capsules[me, peer],
        )
    return parties


WORLDS = {"real": real_world, "slow": slow_world}


def happens(parties: dict[str, Party], operation: Operation) -> tuple[Operation, Reply | None]:
    """Do one operation; return it with what came of it."""
    party = parties[operation.at]
    plain = Operation(operation.at, operation.do, operation.sender, operation.data)
    try:
        if operation.do == "receive":
            reply = party.receive(operation.sender, operation.data)
        elif operation.do == "start":
            reply = party.start()
        else:
            assert isinstance(party, RealCoordinator | slow_coordinator.Coordinator)
            reply = party.on_timeout()
    except Refused as refusal:
        return Operation(*vars_of(plain)[:4], refused=(refusal.layer, refusal.blames)), None
    events = tuple(tuple(event) for event in reply.events)
    return Operation(*vars_of(plain)[:4], tuple(reply.sends), events), reply


def vars_of(operation: Operation) -> tuple[object, ...]:
    return operation.at, operation.do, operation.sender, operation.data


def by_receiver(sends: tuple[tuple[str, bytes], ...]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for to, data in sends:
        found.setdefault(to, []).append(data)
    return found


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", NAMES)
def test_all_happens_as_written(name: str, world: str) -> None:
    played = scenario(name)
    parties = WORLDS[world](played)
    total = None
    for index, operation in enumerate(played.operations):
        found, reply = happens(parties, operation)
        where = f"operation {index} at {operation.at}"
        assert found.refused == operation.refused, where
        assert found.events == operation.events, where
        assert by_receiver(found.sends) == by_receiver(operation.sends), where
        total = reply.total if reply and reply.total is not None else total
    assert total == played.total
