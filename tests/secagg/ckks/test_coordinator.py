"""The coordinator's rules: phases close as they must, and faults are their senders'."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.ckks import coordinator as coordinator_module
from secagg.ckks.coordinator import CkksCoordinator, Phase
from secagg.errors import RemoteProtocolError, ReplayError
from secagg.round_setup import RoundSetup
from secagg.steps import PeerBlamed, PeersMissed, PhaseEntered, RoundFailed, Step, SumReady
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import (
    UPLOAD_SLOTS,
    Announcement,
    CipherChunk,
    CommitteeKeys,
    DealtShares,
    Message,
    OpenRequest,
    SealedSecret,
    SumShare,
    SurvivorSignature,
    UploadTurn,
)
from tests.support.ckks import CKKS, ByHand, ckks_setup, terms_in
from tests.support.fleet import Fleet
from tests.support.messages import changed
from tests.support.scripts import CKKS_EXCHANGES, Recording, deaths, snapshot

SETUP = ckks_setup(5)
COHORT = SETUP.cohort
WEIGHING = ckks_setup(6, max_weight=4, weighs=True)


def blamed(step: Step) -> list[NodeId]:
    return [event.peer for event in step.events if isinstance(event, PeerBlamed)]


def failure(step: Step) -> RoundFailed | None:
    return next((event for event in step.events if isinstance(event, RoundFailed)), None)


def started(setup: RoundSetup = SETUP) -> CkksCoordinator:
    role = CkksCoordinator(setup)
    role.start(0.0)
    return role


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.req("H-04")
@pytest.mark.parametrize("bad", ["other's", "forged", "other round", "suite", "small order"])
def test_a_bad_key_costs_its_sender_the_round(bad: str) -> None:
    role, by_hand = started(), ByHand(SETUP)
    keys = by_hand.keys
    evil = {
        "other's": keys[COHORT[1]],
        "forged": changed(keys[COHORT[1]], node_id=COHORT[0]),  # type: ignore[arg-type]
        "other round": ByHand(ckks_setup(5, round_id=8)).keys[COHORT[0]],
        "suite": changed(keys[COHORT[0]], suite=2),  # type: ignore[arg-type]
        "small order": changed(keys[COHORT[0]], agreement_key=bytes(32)),  # type: ignore[arg-type]
    }[bad]
    step = role.receive(COHORT[0], Announcement(7, evil, None), 0.0)  # type: ignore[arg-type]
    assert blamed(step) == [COHORT[0]]
    for node in COHORT[1:]:
        step = role.receive(node, by_hand.announcements[node], 0.0)
    assert role.phase is Phase.INPUT
    shown = [out.message for out in step.send if isinstance(out.message, CommitteeKeys)]
    assert len(shown) == 4
    assert {key.node_id for message in shown for key in message.keys} == set(COHORT[1:])


@pytest.mark.req("H-16")
@pytest.mark.parametrize("distance", [0, 20, 64])
def test_a_distance_that_nobody_asked_for_costs_its_sender_the_round(distance: int) -> None:
    key = ByHand(SETUP).keys[COHORT[0]]
    step = started().receive(COHORT[0], Announcement(7, key, distance), 0.0)
    assert blamed(step) == [COHORT[0]]


@pytest.mark.req("H-16")
def test_no_distance_where_one_is_due_costs_its_sender_the_round() -> None:
    node = WEIGHING.cohort[0]
    role = CkksCoordinator(WEIGHING, weigh=lambda given: dict.fromkeys(given, 1))
    role.start(0.0)
    key = ByHand(WEIGHING).keys[node]
    assert blamed(role.receive(node, Announcement(7, key, None), 0.0)) == [node]


@pytest.mark.req("H-15")
def test_with_too_few_members_the_round_fails() -> None:
    """A quorum is there, but not t + l nodes of the committee."""
    setup = ckks_setup(10, committee={"size": 6, "threshold": 3, "pack": 2})
    by_hand, role = ByHand(setup), started(setup)
    away = by_hand.committee[:2]
    for node in setup.cohort:
        if node not in away:
            role.receive(node, by_hand.announcements[node], 0.0)
    step = role.on_timeout(setup.input_timeout)
    assert failure(step) == RoundFailed(AbortReason.COMMITTEE_TOO_SMALL, 4, 5)
    assert step.done
    assert step.send == ()


@pytest.mark.req("H-15")
def test_nodes_that_are_gone_after_their_keys_are_no_part_of_the_quorum() -> None:
    by_hand, role = ByHand(SETUP), started()
    for node in COHORT[:4]:
        role.receive(node, by_hand.announcements[node], 0.0)
    for node in COHORT[:2]:
        role.drop(node, 0.0)
    step = role.on_timeout(SETUP.input_timeout)
    assert failure(step) == RoundFailed(AbortReason.TOO_FEW_KEYS, 2, 4)
    assert step.send == ()


# --- phases ---------------------------------------------------------------------------------------

REASONS = {
    Announcement: AbortReason.TOO_FEW_KEYS,
    SealedSecret: AbortReason.TOO_FEW_INPUTS,
    CipherChunk: AbortReason.TOO_FEW_INPUTS,
    SurvivorSignature: AbortReason.TOO_FEW_SIGNATURES,
    SumShare: AbortReason.TOO_FEW_ANSWERS,
}


def needed(kind: type[Message], setup: RoundSetup) -> int:
    if kind is SumShare:
        return terms_in(setup).committee.answers
    return setup.cosigners if kind is SurvivorSignature else setup.quorum


@pytest.mark.req("H-15")
@pytest.mark.parametrize("kind", CKKS_EXCHANGES)
@pytest.mark.parametrize("alive", range(6))
def test_a_phase_closes_with_those_who_answered(kind: type[Message], alive: int) -> None:
    silent = COHORT[alive:]
    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(deaths(dict.fromkeys(silent, kind)))
    if alive >= needed(kind, SETUP):
        inputs = COHORT[:alive] if kind in CKKS_EXCHANGES[:3] else COHORT
        assert outcome.contributors == inputs
        assert outcome.total is not None
        assert np.array_equal(outcome.total, fleet.plain_sum(inputs))
        assert outcome.weights == (1,) * len(inputs)
    else:
        assert outcome.total is None
        assert outcome.failed == RoundFailed(REASONS[kind], alive, needed(kind, SETUP))
        assert not any(isinstance(event, SumReady) for event in outcome.events)
    if silent:
        missed = [event for event in outcome.events if isinstance(event, PeersMissed)]
        assert missed[0].peers == silent
    assert not outcome.blamed


@pytest.mark.req("H-15")
def test_phases_are_entered_in_order_with_deadlines() -> None:
    recording = Recording(CKKS, SETUP)
    entered = [e.phase for e in recording.outcome.events if isinstance(e, PhaseEntered)]
    assert entered == ["keys", "input", "signatures", "opening"]
    role = CkksCoordinator(SETUP)
    assert role.start(100.0).deadline == 100.0 + SETUP.input_timeout
    for count, (sender, message) in enumerate(recording.to_coordinator, start=1):
        step = role.receive(sender, message, 200.0)
        if count < len(recording.to_coordinator):
            expected = 100.0 + SETUP.input_timeout if role.phase is Phase.KEYS else 230.0
            assert step.deadline == expected
    assert step.done
    assert role.phase is Phase.OVER


@pytest.mark.req("H-15")
def test_nodes_that_are_gone_are_waited_for_no_more() -> None:
    """Nobody's deadline passes: with the last one gone, a phase closes at once."""
    recording = Recording(CKKS, SETUP)
    received = recording.to_coordinator
    gone = COHORT[0]  # the first to answer: it is gone before others have
    for count in range(len(received)):
        role = recording.coordinator(count)
        step = role.drop(gone, 0.0)
        uploaded = any(s == gone and isinstance(m, CipherChunk) for s, m in received[:count])
        if not uploaded:  # what follows in the recording is of another sum
            assert step.deadline is not None
            continue
        for sender, message in received[count:]:
            if sender != gone:
                step = role.receive(sender, message, 0.0)
        (ready,) = [event for event in step.events if isinstance(event, SumReady)]
        assert ready.contributors == COHORT
        assert np.array_equal(ready.total, recording.fleet.plain_sum())


@pytest.mark.req("H-15")
@pytest.mark.parametrize("before", CKKS_EXCHANGES)
def test_no_deadline_passes_for_a_node_that_is_known_to_be_gone(before: type[Message]) -> None:
    fleet = Fleet(CKKS, SETUP)
    gone = COHORT[2]
    coordinator = fleet.coordinator
    told: list[Step] = []

    def fault(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if sender == gone and isinstance(message, before) and not told:
            told.append(coordinator.drop(gone, 0.0))
        return [] if told and gone in (sender, to) else [message]

    outcome = fleet.play(fault)
    assert told
    assert not any(isinstance(event, PeersMissed) for event in outcome.events)
    inputs = tuple(n for n in COHORT if n != gone or before in CKKS_EXCHANGES[3:])
    assert outcome.contributors == inputs
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(inputs))


@pytest.mark.req("H-15")
def test_uploads_take_turns_that_end() -> None:
    setup = ckks_setup(20, committee={"size": 5, "threshold": 1, "pack": 1})
    by_hand, role = ByHand(setup), started(setup)
    for node in setup.cohort:
        step = role.receive(node, by_hand.announcements[node], 0.0)
    turns = [out.to for out in step.send if isinstance(out.message, UploadTurn)]
    assert turns == list(setup.cohort[:UPLOAD_SLOTS])
    assert step.deadline == setup.phase_timeout
    step = role.on_timeout(setup.phase_timeout)
    assert PeersMissed("input", setup.cohort[:UPLOAD_SLOTS]) in step.events
    turns = [out.to for out in step.send if isinstance(out.message, UploadTurn)]
    assert turns == list(setup.cohort[UPLOAD_SLOTS : 2 * UPLOAD_SLOTS])
    assert step.deadline == 2 * setup.phase_timeout


@pytest.mark.req("H-15")
@pytest.mark.req("H-18")
def test_members_open_in_turns_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way to members does not grow with the committee."""
    monkeypatch.setattr(coordinator_module, "_IN_FLIGHT", 1)
    setup = ckks_setup(20)
    recording = Recording(CKKS, setup)
    count = next(i for i, (_, m) in enumerate(recording.to_coordinator) if isinstance(m, SumShare))
    role = recording.coordinator(count - 1)
    assert isinstance(role, CkksCoordinator)
    step = role.receive(*recording.to_coordinator[count - 1], 5.0)
    while role.phase is not Phase.OPENING:
        step = role.receive(*recording.to_coordinator[count], 5.0)
        count += 1
    first, second = setup.cohort[:UPLOAD_SLOTS], setup.cohort[UPLOAD_SLOTS : 2 * UPLOAD_SLOTS]
    assert {out.to for out in step.send} == set(first)
    assert step.deadline == 5.0 + setup.phase_timeout
    step = role.on_timeout(40.0)
    assert PeersMissed("opening", first) in step.events
    assert {out.to for out in step.send} == set(second)
    assert step.deadline == 40.0 + setup.phase_timeout
    step = role.drop(second[0], 41.0)
    assert {out.to for out in step.send} == {setup.cohort[2 * UPLOAD_SLOTS]}


@pytest.mark.req("H-15")
@pytest.mark.req("H-17")
def test_who_comes_late_is_not_heard_and_not_in_the_sum() -> None:
    late = COHORT[0]
    held: list[Message] = []

    def hold(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if sender == late and isinstance(message, CipherChunk):
            held.append(message)
            return []
        return [message, *held] if sender == late and held else [message]

    fleet = Fleet(CKKS, SETUP)
    outcome = fleet.play(hold)
    assert outcome.contributors == COHORT[1:]
    assert [error.peer for error in outcome.errors] == [late] * len(outcome.errors) != []
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(COHORT[1:]))


@pytest.mark.req("H-17")
def test_faults_change_nothing_and_are_their_senders() -> None:
    recording = Recording(CKKS, SETUP)
    for count, (sender, message) in enumerate(recording.to_coordinator):
        role = recording.coordinator(count)
        before = snapshot(role)
        for who, what in (
            ("stranger", message),
            (sender, changed(message, round_id=8)),
            (sender, UploadTurn(7)),
        ):
            with pytest.raises(RemoteProtocolError) as caught:
                role.receive(who, what, 0.0)
            assert caught.value.peer == who
        assert snapshot(role) == before


@pytest.mark.req("H-17")
@pytest.mark.parametrize("kind", [Announcement, SurvivorSignature, SumShare])
def test_a_second_message_is_a_replay(kind: type[Message]) -> None:
    recording = Recording(CKKS, SETUP)
    count = next(i for i, (_, m) in enumerate(recording.to_coordinator) if isinstance(m, kind))
    role = recording.coordinator(count + 1)
    before = snapshot(role)
    with pytest.raises(ReplayError):
        role.receive(*recording.to_coordinator[count], 0.0)
    assert snapshot(role) == before


@pytest.mark.req("H-10")
@pytest.mark.parametrize("signature", ["zeros", "another's"])
def test_a_bad_co_signature_is_not_passed_on(signature: str) -> None:
    recording = Recording(CKKS, SETUP)
    first = next(
        i for i, (_, m) in enumerate(recording.to_coordinator) if isinstance(m, SurvivorSignature)
    )
    role = recording.coordinator(first)
    sender = recording.to_coordinator[first][0]
    other = recording.to_coordinator[first + 1][1]
    assert isinstance(other, SurvivorSignature)
    bad = bytes(64) if signature == "zeros" else other.signature
    step = role.receive(sender, SurvivorSignature(7, bad), 0.0)
    assert blamed(step) == [sender]
    for node, message in recording.to_coordinator[first + 1 :]:
        step = role.receive(node, message, 0.0)
        if role.phase is Phase.OPENING:
            break
    requests = [out for out in step.send if isinstance(out.message, OpenRequest)]
    assert {out.to for out in requests} == set(COHORT) - {sender}
    for out in requests:
        assert isinstance(out.message, OpenRequest)
        assert sender not in dict(out.message.signatures)
        assert len(out.message.signatures) == SETUP.cosigners


@pytest.mark.req("H-12")
def test_each_member_is_dealt_what_was_sealed_for_it() -> None:
    setup = ckks_setup(7, committee={"size": 4, "threshold": 1, "pack": 1})
    dealt: dict[NodeId, list[DealtShares]] = {}
    asked: list[NodeId] = []

    def note(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        if isinstance(message, DealtShares):
            dealt.setdefault(to, []).append(message)
        if isinstance(message, OpenRequest):
            asked.append(to)
        return [message]

    fleet = Fleet(CKKS, setup)
    outcome = fleet.play(note)
    committee = ByHand(setup).committee
    assert sorted(asked) == sorted(dealt) == list(committee)
    assert all(sum(len(m.shares) for m in messages) == 6 for messages in dealt.values())
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())
    assert not outcome.blamed
