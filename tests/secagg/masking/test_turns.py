"""The input phase of the coordinator: eight uploads at a time, no gap in the circle after."""

from __future__ import annotations

import pytest

from secagg.errors import RemoteProtocolError
from secagg.masking.coordinator import MaskingCoordinator, Phase
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, PeersMissed, Step
from secagg.types import AbortReason
from secagg.wire.messages import UPLOAD_SLOTS, MaskedChunk, Survivors, UploadTurn
from tests.secagg.masking.test_uploads import buffered
from tests.support.fleet import make_setup
from tests.support.scripts import Recording, deaths, snapshot

MANY = make_setup(20, dim=70)
CROWD = Recording(SCHEMES["masking"], MANY)
UPLOADS = {
    node: [m for n, m in CROWD.to_coordinator if n == node and isinstance(m, MaskedChunk)]
    for node in MANY.cohort
}
FIRST = next(i for i, (_, m) in enumerate(CROWD.to_coordinator) if isinstance(m, MaskedChunk))


def uploading() -> MaskingCoordinator:
    """Return a coordinator of twenty nodes that waits for the first uploads."""
    role = CROWD.coordinator(FIRST)
    assert isinstance(role, MaskingCoordinator)
    assert role.phase is Phase.INPUT
    return role


def invited(step: Step) -> list[str]:
    return [out.to for out in step.send if isinstance(out.message, UploadTurn)]


@pytest.mark.req("M-22")
def test_eight_nodes_at_a_time_are_asked_for_their_uploads() -> None:
    role = CROWD.coordinator(FIRST - 1)
    sender, message = CROWD.to_coordinator[FIRST - 1]
    assert invited(role.receive(sender, message, 0.0)) == list(MANY.cohort[:UPLOAD_SLOTS])
    for index, node in enumerate(MANY.cohort):
        for chunk in UPLOADS[node][:-1]:
            assert not role.receive(node, chunk, 0.0).send
        step = role.receive(node, UPLOADS[node][-1], 0.0)
        assert invited(step) == list(MANY.cohort[UPLOAD_SLOTS + index :][:1])
    assert [type(out.message) for out in step.send] == [Survivors] * 20


@pytest.mark.req("M-22")
@pytest.mark.req("M-21")
def test_a_chunk_before_its_turn_is_refused_and_changes_nothing() -> None:
    role, early = uploading(), MANY.cohort[-1]
    before = snapshot(role)
    for chunk in UPLOADS[early]:
        with pytest.raises(RemoteProtocolError, match="before its turn") as caught:
            role.receive(early, chunk, 0.0)
        assert caught.value.peer == early
    assert snapshot(role) == before


@pytest.mark.req("M-22")
@pytest.mark.parametrize("how", ["dropped", "blamed", "late"])
def test_a_slot_that_gets_free_goes_to_the_next_in_line(how: str) -> None:
    role, node = uploading(), MANY.cohort[3]
    role.receive(node, UPLOADS[node][0], 0.0)
    if how == "dropped":
        step, expected = role.drop(node, 1.0), [MANY.cohort[8]]
    elif how == "blamed":
        step = role.receive(node, UPLOADS[node][2], 1.0)
        assert [e.peer for e in step.events if isinstance(e, PeerBlamed)] == [node]
        expected = [MANY.cohort[8]]
    else:
        step, expected = role.on_timeout(MANY.phase_timeout), list(MANY.cohort[8:16])
        assert step.events == (PeersMissed("input", MANY.cohort[:8]),)
    assert invited(step) == expected
    assert buffered(role._uploads) == 0
    with pytest.raises(RemoteProtocolError):
        role.receive(node, UPLOADS[node][1], 1.0)


@pytest.mark.req("M-15")
@pytest.mark.req("M-22")
def test_only_turns_that_are_over_are_missed() -> None:
    """One node stalls; those after it upload in time and all but it are in the sum."""
    role, stalled, now = uploading(), MANY.cohort[2], 0.0
    missed, first = [], MANY.phase_timeout
    for node in MANY.cohort:
        if node == stalled:
            continue
        now += 1.0
        for chunk in UPLOADS[node]:
            step = role.receive(node, chunk, now)
    assert role.phase is Phase.INPUT
    assert step.deadline == first  # that of the turn that was given at the start
    step = role.on_timeout(first)
    missed = [event for event in step.events if isinstance(event, PeersMissed)]
    assert missed == [PeersMissed("input", (stalled,))]
    assert role.phase is Phase.SIGNATURES
    assert step.deadline == first + MANY.phase_timeout
    shown = step.send[0].message
    assert isinstance(shown, Survivors)
    assert shown.survivors == tuple(node for node in MANY.cohort if node != stalled)


@pytest.mark.req("M-15")
def test_a_later_turn_is_not_missed_with_an_earlier_one() -> None:
    role = uploading()
    for chunk in UPLOADS[MANY.cohort[0]]:
        step = role.receive(MANY.cohort[0], chunk, 10.0)
    assert invited(step) == [MANY.cohort[8]]
    step = role.on_timeout(30.0)
    assert step.events == (PeersMissed("input", MANY.cohort[1:8]),)
    assert step.deadline == 40.0  # of the one that got its turn at 10
    step = role.on_timeout(40.0)
    assert step.events == (PeersMissed("input", (MANY.cohort[8],)),)
    assert step.deadline == 60.0


@pytest.mark.req("M-15")
def test_nodes_known_to_be_gone_get_no_turn() -> None:
    role = CROWD.coordinator(FIRST - 1)
    gone = {MANY.cohort[0], MANY.cohort[10]}
    for node in gone:
        role.drop(node, 0.0)
    sender, message = CROWD.to_coordinator[FIRST - 1]
    given = invited(role.receive(sender, message, 0.0))
    assert given == list(MANY.cohort[1:9])
    for node in MANY.cohort:
        if node not in gone:
            for chunk in UPLOADS[node]:
                step = role.receive(node, chunk, 0.0)
                given += invited(step)
    assert given == [node for node in MANY.cohort if node not in gone]
    assert any(isinstance(out.message, Survivors) for out in step.send)


@pytest.mark.req("M-22")
def test_at_most_eight_uploads_are_buffered_and_none_after_the_phase() -> None:
    """All nodes push as fast as they may, the last chunks last: the most that can be held."""
    role, pending = uploading(), {node: list(chunks) for node, chunks in UPLOADS.items()}
    most, whole = 0, sum(len(chunk.data) for chunk in UPLOADS[MANY.cohort[0]][:-1])
    while any(pending.values()):
        order = sorted(pending, key=lambda node: -len(pending[node]))
        for node in order:
            if not pending[node] or node not in role._uploads._turns._until:
                continue
            role.receive(node, pending[node].pop(0), 0.0)
            most = max(most, buffered(role._uploads))
            assert len(role._uploads._chunks) <= UPLOAD_SLOTS
            break
    assert most == UPLOAD_SLOTS * whole
    assert buffered(role._uploads) == 0
    assert role.phase is Phase.SIGNATURES


LONG = make_setup(33, dim=9, neighbours=4, threshold=2, colluders=1, quorum=18)
"""Five turns one after the other, when each is used up."""


@pytest.mark.req("M-15")
@pytest.mark.req("M-22")
def test_nobody_gives_up_while_each_turn_is_used_up_to_its_deadline() -> None:
    """The first nodes wait for the survivors for as long as the last ones for their turn."""
    script = Recording(SCHEMES["masking"], LONG)
    chunk = {n: m for n, m in script.to_coordinator if isinstance(m, MaskedChunk)}
    first = next(i for i, (_, m) in enumerate(script.to_coordinator) if isinstance(m, MaskedChunk))
    role, now, step = script.coordinator(first), 0.0, Step()
    before = [type(message) for message in script.to_client[LONG.cohort[0]]].index(UploadTurn)
    after: dict[str, float] = {}
    pending, turns = list(LONG.cohort[:UPLOAD_SLOTS]), 0
    while pending:
        group, pending, given = pending, [], now
        now, turns = now + LONG.phase_timeout - 0.001, turns + 1
        for node in group:
            client = script.client(node, before - 1)
            waits = client.receive(script.to_client[node][before - 1], 0.0).deadline
            assert waits is not None
            assert waits > given  # it was there when its turn came
            uploaded = client.receive(UploadTurn(7), given)
            assert uploaded.deadline is not None
            after[node] = uploaded.deadline
            step = role.receive(node, chunk[node], now)
            pending += invited(step)
    assert turns == 5
    assert {type(out.message) for out in step.send} == {Survivors}
    assert min(after.values()) > now  # and all are there for the survivors


# --- gaps in the circle --------------------------------------------------------------------------

CIRCLE = make_setup(24, dim=9, neighbours=8, threshold=5, colluders=0, quorum=13)
"""Windows of four places, of which three must survive."""


@pytest.mark.req("M-25")
@pytest.mark.parametrize("steps", [(0,), (0, 4), (0, 4, 8), (0, 1), (0, 3), (0, 2, 9)], ids=str)
def test_a_gap_in_the_circle_ends_the_round(steps: tuple[int, ...]) -> None:
    """Two of four places lost are too many, one of four are not; that is the node's rule, too."""
    circle = Recording(SCHEMES["masking"], CIRCLE).coordinator(24 + 24)
    assert isinstance(circle, MaskingCoordinator)
    order = circle._seen.graph.circle
    assert len(order) == 24
    lost = {order[step + 5] for step in steps}
    too_thin = any(0 < b - a < 4 for a in steps for b in steps)
    script = Recording(SCHEMES["masking"], CIRCLE, fault=deaths(dict.fromkeys(lost, MaskedChunk)))
    outcome = script.outcome
    assert not outcome.errors
    if too_thin:
        assert outcome.failed is not None
        assert outcome.failed.reason is AbortReason.GRAPH_TOO_THIN
        assert (outcome.failed.alive, outcome.failed.needed) == (24 - len(lost), 13)
        sent = {type(m) for received in script.to_client.values() for m in received}
        assert Survivors not in sent
    else:
        assert outcome.contributors == tuple(n for n in CIRCLE.cohort if n not in lost)
