"""Excess noise under every scheme: the sum without it is exact, and nobody's silence matters."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.dp.terms import MECHANISMS
from secagg.errors import LocalProtocolError, RemoteProtocolError, ReplayError
from secagg.roles import Scheme
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, PeersMissed, PhaseEntered, Step, SumReady
from secagg.types import NodeId
from secagg.wire.messages import (
    CipherChunk,
    ExcessRequest,
    ExcessSeeds,
    MaskedChunk,
    Message,
    PlainChunk,
)
from tests.support.fleet import COORDINATOR, Outcome, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.noise import NoisyFleet, with_levels
from tests.support.randomness import InsecureLabelledRng
from tests.support.scripts import CKKS_EXCHANGES, EXCHANGES, deaths, repeated, rewritten, snapshot

SETUP = with_levels(make_setup(10, dim=40))  # quorum 7, three may collude, levels 0 to 3
COHORT = SETUP.cohort
MESSAGES = {
    "masking": (*EXCHANGES, ExcessSeeds),
    "ckks": (*CKKS_EXCHANGES, ExcessSeeds),
    "insecure-plain": (PlainChunk, ExcessSeeds),
}
UPLOADS = (MaskedChunk, CipherChunk, PlainChunk)
each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def phases(outcome: Outcome) -> list[str]:
    return [event.phase for event in outcome.events if isinstance(event, PhaseEntered)]


def seeds_seen(outcome: Outcome) -> dict[NodeId, tuple[bytes, ...]]:
    """Return what nodes gave, once each."""
    given = [(node, m.seeds) for node, m in outcome.seen if isinstance(m, ExcessSeeds)]
    assert len(given) == len(dict(given))
    return dict(given)


@each_scheme
@pytest.mark.req("X-04")
@pytest.mark.req("X-08")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("dropouts", range(4))
def test_only_the_needed_levels_are_left(scheme: Scheme, dropouts: int, mechanism: str) -> None:
    fleet = NoisyFleet(scheme, SETUP, mechanism=mechanism)
    gone = COHORT[:dropouts]
    outcome = fleet.play(lambda sender, to, message: [] if sender in gone else [message])
    assert outcome.contributors == COHORT[dropouts:]
    assert np.array_equal(outcome.total, fleet.plain_sum(outcome.contributors))
    if dropouts < 3:
        assert dict(outcome.excess) == fleet.due(outcome.contributors)
        assert all(len(seeds) == 3 - dropouts for seeds in outcome.excess.values())
    else:
        assert not outcome.excess
    assert np.array_equal(fleet.without_excess(outcome), fleet.sum_with(outcome.contributors))
    assert not outcome.blamed


@each_scheme
@pytest.mark.req("X-04")
def test_where_nothing_is_too_much_nobody_is_asked(scheme: Scheme) -> None:
    for setup, gone in ((SETUP, COHORT[:3]), (with_levels(SETUP, (0, 3)), COHORT[:1])):
        fleet = NoisyFleet(scheme, setup)
        outcome = fleet.play(lambda s, to, m, gone=gone: [] if s in gone else [m])
        assert outcome.total is not None
        assert "excess" not in phases(outcome)
        assert not seeds_seen(outcome)
        assert len(phases(outcome)) == len(set(phases(outcome)))
    fleet = NoisyFleet(scheme, SETUP)
    assert phases(fleet.play())[-1] == "excess"


@each_scheme
@pytest.mark.req("X-08")
@pytest.mark.parametrize("silent", [1, 4, 9, 10])
def test_silence_costs_utility_and_not_the_round(scheme: Scheme, silent: int) -> None:
    """Even if nobody answers, and more than the quorum and the co-signatures allow are gone."""
    fleet, mute = NoisyFleet(scheme, SETUP), COHORT[:silent]
    outcome = fleet.play(deaths(dict.fromkeys(mute, ExcessSeeds)))
    assert outcome.contributors == COHORT
    assert set(outcome.excess) == set(COHORT) - set(mute)
    assert np.array_equal(fleet.without_excess(outcome), fleet.sum_with(COHORT, silent=mute))
    assert PeersMissed("excess", mute) in outcome.events or not scheme.private
    assert not outcome.blamed


@each_scheme
@pytest.mark.req("X-04")
@pytest.mark.req("X-08")
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_dropouts_before_each_message(scheme: Scheme, lost: int) -> None:
    """Who vanishes before its upload is missing; who does later leaves its whole noise in."""
    kinds = MESSAGES[scheme.name]
    uploaded = next(index for index, kind in enumerate(kinds) if kind in UPLOADS)
    for index, kind in enumerate(kinds):
        fleet, gone = NoisyFleet(scheme, SETUP), COHORT[2 : 2 + lost]
        outcome = fleet.play(deaths(dict.fromkeys(gone, kind)))
        missing = gone if index <= uploaded else ()
        assert outcome.contributors == tuple(node for node in COHORT if node not in missing)
        silent = tuple(node for node in gone if node not in missing)
        needed = fleet.level(outcome.contributors)
        assert seeds_seen(outcome) == {
            node: fleet.excess[node][needed:]
            for node in outcome.contributors
            if node not in silent and needed < 3
        }
        left = fleet.sum_with(outcome.contributors, silent=silent)
        assert np.array_equal(fleet.without_excess(outcome), left)


@each_scheme
@pytest.mark.req("X-05")
@pytest.mark.req("X-08")
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_whoever_vanishes_whenever(scheme: Scheme, data: st.DataObject) -> None:
    kinds = MESSAGES[scheme.name]
    fates = data.draw(st.dictionaries(st.sampled_from(COHORT), st.sampled_from(kinds), max_size=5))
    fleet = NoisyFleet(scheme, SETUP)
    outcome = fleet.play(deaths(fates))
    given = seeds_seen(outcome)
    if outcome.total is None:
        assert not given
        return
    needed = fleet.level(outcome.contributors)
    for node, seeds in given.items():  # the last ones, and none of those that are needed
        assert node in outcome.contributors
        assert seeds == fleet.excess[node][needed:] != ()
    assert dict(outcome.excess) == given
    silent = set(outcome.contributors) - set(given) if needed < 3 else ()
    left = fleet.sum_with(outcome.contributors, silent=silent)
    assert np.array_equal(fleet.without_excess(outcome), left)


@each_scheme
@pytest.mark.req("X-07")
@pytest.mark.req("X-08")
def test_seeds_twice_change_nothing(scheme: Scheme) -> None:
    fleet = NoisyFleet(scheme, SETUP)
    outcome = fleet.play(repeated(ExcessSeeds, COHORT[1]))
    assert dict(outcome.excess) == fleet.due(COHORT)
    assert [type(error) for error in outcome.errors] == [ReplayError]


@each_scheme
@pytest.mark.req("X-07")
def test_a_request_twice_is_answered_once(scheme: Scheme) -> None:
    def twice(sender: NodeId, to: NodeId, message: Message) -> list[Message]:
        return [message] * (1 + isinstance(message, ExcessRequest))

    fleet = NoisyFleet(scheme, SETUP)
    outcome = fleet.play(twice)
    assert dict(outcome.excess) == fleet.due(COHORT)
    assert seeds_seen(outcome)


@each_scheme
@pytest.mark.req("X-08")
@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_wrong_number_of_seeds_costs_its_sender_its_say(scheme: Scheme, count: int) -> None:
    def other(sender: NodeId, to: NodeId, message: Message) -> Message | None:
        if sender != COHORT[0] or not isinstance(message, ExcessSeeds):
            return None
        return changed(message, seeds=(bytes(32),) * count)

    fleet = NoisyFleet(scheme, SETUP)
    outcome = fleet.play(rewritten(other))
    assert outcome.blamed == {COHORT[0]}
    assert set(outcome.excess) == set(COHORT[1:])
    left = fleet.sum_with(COHORT, silent=COHORT[:1])
    assert np.array_equal(fleet.without_excess(outcome), left)


class _HaltError(Exception):
    pass


class Halted:
    """A round that is stopped when the coordinator has asked for the excess."""

    def __init__(self, scheme: Scheme) -> None:
        self.fleet = NoisyFleet(scheme, SETUP)
        self.role = self.fleet.coordinator
        receive = self.role.receive

        def halting(sender: NodeId, message: Message, now: float) -> Step:
            if isinstance(message, ExcessSeeds):
                raise _HaltError
            return receive(sender, message, now)

        self.role.receive = halting  # type: ignore[method-assign]
        with pytest.raises(_HaltError):
            self.fleet.play()
        del self.role.receive

    def seeds(self, node: NodeId, **changes: object) -> Message:
        return changed(ExcessSeeds(SETUP.round_id, self.fleet.due(COHORT)[node]), **changes)


@each_scheme
@pytest.mark.req("X-08")
def test_the_sum_is_reported_once_the_last_has_answered_or_left(scheme: Scheme) -> None:
    halted = Halted(scheme)
    for node in COHORT[:8]:
        step = halted.role.receive(node, halted.seeds(node), 0.0)
        assert not step.events
        assert not step.done
    assert not halted.role.drop(COHORT[8], 0.0).done
    step = halted.role.drop(COHORT[9], 0.0)
    assert step.done
    (event,) = step.events
    assert isinstance(event, SumReady)
    assert set(event.excess) == set(COHORT[:8])
    with pytest.raises(RemoteProtocolError):
        halted.role.receive(COHORT[9], halted.seeds(COHORT[9]), 0.0)


@each_scheme
@pytest.mark.req("X-08")
def test_the_deadline_ends_the_phase(scheme: Scheme) -> None:
    halted = Halted(scheme)
    step = halted.role.receive(COHORT[4], halted.seeds(COHORT[4]), 5.0)
    assert step.deadline == SETUP.phase_timeout  # all that was before took no time
    step = halted.role.on_timeout(step.deadline)
    assert step.done
    assert isinstance(step.events[-1], SumReady)
    assert set(step.events[-1].excess) == {COHORT[4]}


@each_scheme
@pytest.mark.req("X-08")
def test_other_rounds_strangers_and_other_messages_change_nothing(scheme: Scheme) -> None:
    halted = Halted(scheme)
    before = snapshot(halted.role)
    for sender, message in (
        ("stranger", halted.seeds(COHORT[0])),
        (COHORT[0], halted.seeds(COHORT[0], round_id=8)),
        (COHORT[0], PlainChunk(SETUP.round_id, 0, b"x")),
        (COHORT[0], ExcessRequest(SETUP.round_id, 10, ())),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            halted.role.receive(sender, message, 0.0)
        assert caught.value.peer == sender
        assert snapshot(halted.role) == before


@each_scheme
@pytest.mark.req("X-08")
def test_seeds_before_they_are_asked_for_are_the_senders_fault(scheme: Scheme) -> None:
    fleet = NoisyFleet(scheme, SETUP)
    fleet.coordinator.start(0.0)
    before = snapshot(fleet.coordinator)
    early = ExcessSeeds(SETUP.round_id, fleet.due(COHORT)[COHORT[0]])
    with pytest.raises(RemoteProtocolError):
        fleet.coordinator.receive(COHORT[0], early, 0.0)
    assert snapshot(fleet.coordinator) == before


@each_scheme
@pytest.mark.req("X-03")
def test_a_client_needs_a_seed_for_each_level_but_the_first(scheme: Scheme) -> None:
    fleet = NoisyFleet(scheme, SETUP)
    for seeds in ((), (bytes(32),) * 2, (bytes(32),) * 4, (bytes(31),) * 3):
        with pytest.raises(LocalProtocolError):
            scheme.client(
                fleet.setup,
                fleet.inputs[COHORT[0]],
                TestSigner(COHORT[0]),
                coordinator=COORDINATOR,
                rng=InsecureLabelledRng(1, "x"),
                excess=seeds,
            )


@each_scheme
@pytest.mark.req("X-05")
def test_who_gets_tired_of_waiting_forgets_its_seeds(scheme: Scheme) -> None:
    fleet = NoisyFleet(scheme, SETUP)
    fleet.play(lambda s, to, m: [] if isinstance(m, ExcessRequest) else [m])
    for client in fleet.clients.values():
        assert client._excess  # type: ignore[attr-defined]
        step = client.on_timeout(1e6)
        assert step == Step(done=True)  # its input may well be in the sum
        assert not client._excess  # type: ignore[attr-defined]
        with pytest.raises(RemoteProtocolError):
            client.receive(ExcessRequest(SETUP.round_id, 10, ()), 1e6)


@each_scheme
@pytest.mark.req("X-05")
def test_a_number_of_contributors_that_is_not_the_sums_gets_nothing(scheme: Scheme) -> None:
    """Under insecure-plain a node has only the coordinator's word; nonsense is refused."""
    for lie in (1, 6, 11, 2**20) if scheme.name == "insecure-plain" else (1, 7, 9, 11, 2**20):
        fleet = NoisyFleet(scheme, SETUP)
        outcome = fleet.play(
            rewritten(
                lambda s, to, m, lie=lie: (
                    changed(m, contributors=lie) if isinstance(m, ExcessRequest) else None
                )
            )
        )
        assert not seeds_seen(outcome)
        assert outcome.contributors == COHORT
        assert len(outcome.errors) == len(COHORT)
        assert all(not client._excess for client in fleet.clients.values())  # type: ignore[attr-defined]


@each_scheme
@pytest.mark.req("X-08")
def test_the_blamed_keep_their_input_in_the_sum(scheme: Scheme) -> None:
    halted = Halted(scheme)
    step = halted.role.receive(COHORT[0], halted.seeds(COHORT[0], seeds=()), 0.0)
    assert [event.peer for event in step.events if isinstance(event, PeerBlamed)] == [COHORT[0]]
    step = halted.role.on_timeout(1e6)
    assert isinstance(step.events[-1], SumReady)
    assert step.events[-1].contributors == COHORT


@each_scheme
@pytest.mark.req("X-03")
def test_seeds_are_in_no_repr_no_error_and_no_log(
    scheme: Scheme, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fleet = NoisyFleet(scheme, SETUP)
    outcome = fleet.play(repeated(ExcessSeeds, COHORT[0]))
    again = NoisyFleet(scheme, SETUP)
    refused = again.play(
        rewritten(
            lambda s, to, m: changed(m, contributors=3) if isinstance(m, ExcessRequest) else m
        )
    )
    texts = [repr(event) for event in (*outcome.events, *refused.events)]
    texts += [repr(error) for error in (*outcome.errors, *refused.errors)]
    texts += [repr(role) for role in (*fleet.clients.values(), fleet.coordinator)]
    texts += [repr(message) for _, message in outcome.seen]
    text = "\n".join([*texts, caplog.text])
    for seeds in fleet.excess.values():
        for seed in seeds:
            assert repr(seed)[2:-1] not in text
            assert seed.hex() not in text
