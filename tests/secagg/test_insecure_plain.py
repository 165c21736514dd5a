"""The oracle of the contract tests: what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.errors import LocalProtocolError, RemoteProtocolError, ReplayError
from secagg.insecure_plain import InsecurePlainScheme
from secagg.steps import (
    InputRejected,
    PeerBlamed,
    RoundFailed,
    SumReady,
)
from secagg.wire.messages import ExcessRequest, Heartbeat, PlainChunk
from tests.support.fleet import Fleet, make_setup
from tests.support.messages import changed
from tests.support.noise import with_levels
from tests.support.scripts import Recording

SETUP = make_setup(4, dim=70)  # chunks of 32, 32 and 6 values; 18 bits
ROUND = Recording(InsecurePlainScheme(), SETUP)
NODE = SETUP.cohort[0]
CHUNKS = [message for sender, message in ROUND.to_coordinator if sender == NODE]


def fresh(*, started: bool = True):
    role = InsecurePlainScheme().coordinator(SETUP)
    if started:
        role.start(0.0)
    return role


def test_its_chunks_are_the_vector_itself() -> None:
    assert all(isinstance(chunk, PlainChunk) for chunk in CHUNKS)
    assert len(CHUNKS) == SETUP.n_chunks


@pytest.mark.req("M-16")
@pytest.mark.parametrize(
    "change", [{"index": 1}, {"data": bytes(71)}, {"data": bytes(73)}, {"index": 2**20}]
)
def test_a_malformed_chunk_costs_its_sender_its_place(change: dict[str, object]) -> None:
    role = fresh()
    step = role.receive(NODE, changed(CHUNKS[0], **change), 0.0)
    assert [event.peer for event in step.events if isinstance(event, PeerBlamed)] == [NODE]
    with pytest.raises(RemoteProtocolError):
        role.receive(NODE, CHUNKS[0], 0.0)


def test_other_rounds_types_and_strangers_change_nothing() -> None:
    role = fresh()
    with pytest.raises(ReplayError):
        role.receive(NODE, changed(CHUNKS[0], round_id=8), 0.0)
    with pytest.raises(RemoteProtocolError):
        role.receive(NODE, Heartbeat(7, ""), 0.0)
    with pytest.raises(RemoteProtocolError):
        role.receive("stranger", CHUNKS[0], 0.0)


def test_a_deadline_closes_with_those_who_answered() -> None:
    role = fresh()
    for sender, message in ROUND.to_coordinator:
        if sender != NODE:
            role.receive(sender, message, 0.0)
    role.receive(NODE, CHUNKS[0], 0.0)  # an upload in progress does not count
    step = role.on_timeout(1.0)
    result = step.events[-1]
    assert isinstance(result, SumReady)
    assert result.contributors == SETUP.cohort[1:]
    assert np.array_equal(result.total, ROUND.fleet.plain_sum(SETUP.cohort[1:]))
    with pytest.raises(RemoteProtocolError):
        role.receive(NODE, CHUNKS[1], 2.0)


def test_too_few_fail() -> None:
    step = fresh().on_timeout(1.0)
    assert isinstance(step.events[-1], RoundFailed)
    assert step.done


def test_it_starts_once_and_waits_for_its_start() -> None:
    role = fresh(started=False)
    assert role.on_timeout(0.0).events == ()
    role.start(0.0)
    with pytest.raises(LocalProtocolError):
        role.start(0.0)


def test_the_client_takes_no_messages() -> None:
    client = ROUND.client(NODE, 0)
    with pytest.raises(RemoteProtocolError):
        client.receive(CHUNKS[0], 0.0)
    step = client.on_timeout(1.0)
    assert step.done
    assert isinstance(step.events[0], InputRejected)


@pytest.mark.req("X-05")
def test_the_client_waits_for_a_request_where_noise_may_be_too_much() -> None:
    fleet = Fleet(InsecurePlainScheme(), with_levels(SETUP, (0, 1)))
    client = fleet.client(NODE)
    step = client.start(1.0)
    assert not step.done
    assert step.deadline == 1.0 + SETUP.input_timeout + 3 * SETUP.phase_timeout
    step = client.receive(ExcessRequest(SETUP.round_id, 4, ()), 2.0)
    assert step.done
    assert [out.message.seeds for out in step.send] == [fleet.excess[NODE]]
    for request in (ExcessRequest(8, 4, ()), ExcessRequest(SETUP.round_id, 2, ()), CHUNKS[0]):
        client = fleet.client(NODE)
        client.start(1.0)
        with pytest.raises(RemoteProtocolError):
            client.receive(request, 2.0)
        with pytest.raises(RemoteProtocolError):
            client.receive(ExcessRequest(SETUP.round_id, 4, ()), 2.0)
