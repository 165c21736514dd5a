"""Every round in specs/vectors, through the real state machines and through the slow ones."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

from secagg.types import AbortReason
from tests.vectors import (
    slow,
    slow_ckks,
    slow_ckks_coordinator,
    slow_ckks_parts,
    slow_coordinator,
    slow_parts,
)
from tests.vectors.failures import failures
from tests.vectors.files import FOLDER, Operation, Scenario, scenario, scenario_names
from tests.vectors.generate import documents
from tests.vectors.real import RealCoordinator, RealMaskingNode, setup_of
from tests.vectors.real_ckks import RealCkksNode
from tests.vectors.slow import COORDINATOR, Refused, Reply
from tests.vectors.stage import Recording

NAMES = scenario_names()
SLOW = sorted(Path(__file__).parent.glob("slow*.py"))


class Party(Protocol):
    def start(self) -> Reply: ...

    def receive(self, sender: str, data: bytes) -> Reply: ...


World: TypeAlias = Callable[[Scenario], dict[str, Party]]


def real_world(played: Scenario) -> dict[str, Party]:
    setup = setup_of(played.setup)
    weights = played.setup.get("weights")
    parties: dict[str, Party] = {COORDINATOR: RealCoordinator(setup, weights)}
    role = RealCkksNode if setup.ckks else RealMaskingNode
    for me, node in played.nodes.items():
        parties[me] = role(
            setup, me, node=node, encapsulate=lambda peer, key, me=me: played.capsules[me, peer]
        )
    return parties


def slow_world(played: Scenario) -> dict[str, Party]:
    return slow_ckks_world(played) if "ckks" in played.setup else slow_masking_world(played)


def slow_masking_world(played: Scenario) -> dict[str, Party]:
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


def slow_ckks_world(played: Scenario) -> dict[str, Party]:
    setup = slow_ckks_parts.Setup.read(played.setup)
    weights = played.setup.get("weights")
    parties: dict[str, Party] = {COORDINATOR: slow_ckks_coordinator.Coordinator(setup, weights)}
    for me, node in played.nodes.items():
        parties[me] = slow_ckks.Node(
            setup,
            me,
            secrets=slow_ckks.Secrets.read(node),
            vector=node["input"],
            encapsulate=lambda peer, me=me: played.capsules[me, peer],
            distance=node.get("distance"),
        )
    return parties


COORDINATORS = (RealCoordinator, slow_coordinator.Coordinator, slow_ckks_coordinator.Coordinator)
WORLDS = {"real": real_world, "slow": slow_world}


def happens(parties: dict[str, Party], operation: Operation) -> tuple[Operation, list[int] | None]:
    """Do one operation; return what came of it, and the sum if there is one."""
    party = parties[operation.at]
    nothing = replace(operation, sends=(), events=(), refused=None)
    try:
        if operation.do == "receive":
            reply = party.receive(operation.sender, operation.data)
        elif operation.do == "start":
            reply = party.start()
        else:
            assert isinstance(party, COORDINATORS)
            reply = party.on_timeout()
    except Refused as refusal:
        return replace(nothing, refused=(refusal.layer, refusal.blames)), None
    events = tuple(tuple(event) for event in reply.events)
    return replace(nothing, sends=tuple(reply.sends), events=events), reply.total


def by_receiver(sends: tuple[tuple[str, bytes], ...]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for to, data in sends:
        found.setdefault(to, []).append(data)
    return found


@pytest.mark.req("M-01")
@pytest.mark.req("M-02")
@pytest.mark.req("M-03")
@pytest.mark.req("M-04")
@pytest.mark.req("M-05")
@pytest.mark.req("M-06")
@pytest.mark.req("M-07")
@pytest.mark.req("M-08")
@pytest.mark.req("M-09")
@pytest.mark.req("M-10")
@pytest.mark.req("M-11")
@pytest.mark.req("M-12")
@pytest.mark.req("M-13")
@pytest.mark.req("M-14")
@pytest.mark.req("M-15")
@pytest.mark.req("M-16")
@pytest.mark.req("M-17")
@pytest.mark.req("M-18")
@pytest.mark.req("M-19")
@pytest.mark.req("M-21")
@pytest.mark.req("M-22")
@pytest.mark.req("M-24")
@pytest.mark.req("M-25")
@pytest.mark.req("M-26")
@pytest.mark.req("M-27")
@pytest.mark.req("M-28")
@pytest.mark.req("H-01")
@pytest.mark.req("H-03")
@pytest.mark.req("H-04")
@pytest.mark.req("H-05")
@pytest.mark.req("H-06")
@pytest.mark.req("H-08")
@pytest.mark.req("H-09")
@pytest.mark.req("H-10")
@pytest.mark.req("H-11")
@pytest.mark.req("H-12")
@pytest.mark.req("H-13")
@pytest.mark.req("H-14")
@pytest.mark.req("H-15")
@pytest.mark.req("H-16")
@pytest.mark.req("H-17")
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", NAMES)
def test_all_happens_as_written(name: str, world: str) -> None:
    played = scenario(name)
    parties = WORLDS[world](played)
    total = None
    for index, operation in enumerate(played.operations):
        found, summed = happens(parties, operation)
        where = f"operation {index} at {operation.at}"
        assert found.refused == operation.refused, where
        assert found.events == operation.events, where
        assert by_receiver(found.sends) == by_receiver(operation.sends), where
        total = total or summed
    assert total == played.total


@pytest.mark.req("M-01")
@pytest.mark.req("H-01")
@pytest.mark.parametrize("name", NAMES)
def test_sums_are_those_of_the_inputs(name: str) -> None:
    played = scenario(name)
    if "sum" not in played.expect:
        assert played.total is None
        return
    modulus = 1 << played.setup["ring_bits"]
    weights = played.setup.get("weights", dict.fromkeys(played.nodes, 1))
    inputs = [
        [weights[node] * value for value in played.nodes[node]["input"]]
        for node in played.expect["sum"]
    ]
    assert played.total == [sum(column) % modulus for column in zip(*inputs, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_expect_says_what_the_operations_say(name: str) -> None:
    played = scenario(name)
    assert Recording(list(played.operations)).outcome() == played.expect


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_the_failures_it_should(name: str) -> None:
    """So many messages arrive that were not sent, or not as the next one: one, or none.

    Only where several members lie there are more.
    """
    played, foreign = scenario(name), 0
    on_the_way: dict[tuple[str, str], list[bytes]] = {}
    delivered: set[bytes] = set()
    for operation in played.operations:
        channel = on_the_way.get((operation.sender, operation.at), [])
        if operation.do == "receive":
            is_next = channel[:1] == [operation.data]
            foreign += not is_next
            if is_next or operation.data not in delivered:
                del channel[:1]
            delivered.add(operation.data)
        for to, data in operation.sends:
            on_the_way.setdefault((operation.at, to), []).append(data)
    assert foreign == sum(len(case.changes) for case in failures() if case.name == name)


def test_every_rule_that_a_file_is_about_is_carried() -> None:
    marks = test_all_happens_as_written.pytestmark  # type: ignore[attr-defined]
    carried = {mark.args[0] for mark in marks if mark.name == "req"}
    assert carried == {rule for name in NAMES for rule in scenario(name).rules}


def test_every_reason_to_fail_a_round_has_a_file() -> None:
    found = {scenario(name).expect.get("failed") for name in NAMES} - {None}
    of_the_session = {
        AbortReason.TOO_FEW_NODES,
        AbortReason.ZERO_WEIGHT,
        AbortReason.DROWNED_IN_NOISE,
    }
    assert found == set(AbortReason) - of_the_session


def test_the_files_are_what_the_generator_writes() -> None:
    """A difference is a new wire format or catalogue: `python -m tests.vectors.generate`.

    A new wire format needs a new PROTOCOL_VERSION from the first release on (W-11).
    """
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    written = documents()
    assert set(committed) == set(written)
    assert [name for name in written if written[name] != committed[name]] == []


def test_the_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < 3_000_000


@pytest.mark.parametrize("path", SLOW, ids=lambda path: path.name)
def test_the_slow_implementation_shares_no_code(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    allowed = {*sys.stdlib_module_names, "cryptography"}
    ours = {name for name in imported if name.split(".")[0] not in allowed}
    assert not {name for name in ours if not re.match(r"tests\.vectors\.slow", name)}
    assert not {"importlib", "runpy"} & {name.split(".")[0] for name in imported}


def test_there_is_a_slow_implementation() -> None:
    assert {path.name for path in SLOW} >= {"slow.py", "slow_parts.py", "slow_wire.py"}
