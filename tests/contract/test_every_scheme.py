"""One contract for every scheme: the sum is exact, and a bad message changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.encoding import ring_bits_for
from secagg.errors import RemoteProtocolError
from secagg.ring import to_signed
from secagg.roles import Scheme
from secagg.schemes import SCHEMES
from secagg.steps import Outgoing, PeerBlamed, Step
from secagg.wire.codec import decode, encode
from secagg.wire.messages import CipherChunk, MaskedChunk, Message, PlainChunk
from tests.support.fleet import Fleet, as_inputs, make_setup, with_ckks_terms
from tests.support.messages import any_message, changed
from tests.support.noise import with_levels
from tests.support.scripts import Recording, repeated, snapshot

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


@each_scheme
@pytest.mark.req("M-01")
@pytest.mark.req("H-01")
@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize("dim", [1, 7, 8, 31, 32, 33, 96, 100])
def test_the_sum_is_exact(scheme: Scheme, n: int, dim: int) -> None:
    fleet = Fleet(scheme, make_setup(n, dim=dim), seed=n * 1000 + dim)
    outcome = fleet.play()
    assert outcome.total is not None
    assert outcome.total.dtype == np.uint32
    assert outcome.contributors == fleet.setup.cohort
    assert np.array_equal(outcome.total, fleet.plain_sum())
    assert not outcome.blamed


@each_scheme
@pytest.mark.req("M-01")
@pytest.mark.req("H-01")
@pytest.mark.parametrize("ring_bits", [8, 9, 17, 24, 31, 32])
def test_every_ring_size(scheme: Scheme, ring_bits: int) -> None:
    fleet = Fleet(scheme, make_setup(4, dim=75, ring_bits=ring_bits))
    outcome = fleet.play()
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum())


@each_scheme
@pytest.mark.req("E-05")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [3, 8, 9])
def test_constant_vectors_at_the_extreme(scheme: Scheme, n: int, sign: int) -> None:
    """Random vectors hide a wrap; n times the largest value does not."""
    value_bits, dim = 16, 40
    setup = make_setup(n, dim=dim, value_bits=value_bits)
    largest = sign * ((1 << (value_bits - 1)) - 1)
    fleet = Fleet(scheme, setup, inputs=as_inputs(setup, dict.fromkeys(setup.cohort, largest)))
    outcome = fleet.play()
    assert outcome.total is not None
    assert to_signed(outcome.total, ring_bits_for(n, value_bits)).tolist() == [n * largest] * dim


@each_scheme
@pytest.mark.req("M-14")
@pytest.mark.req("H-15")
def test_silent_nodes_are_left_out_down_to_the_quorum(scheme: Scheme) -> None:
    for silent in range(4):
        fleet = Fleet(scheme, make_setup(6, dim=20))
        gone = set(fleet.setup.cohort[:silent])
        outcome = fleet.play(
            lambda sender, to, message, gone=gone: [] if sender in gone else [message]
        )
        if 6 - silent >= fleet.setup.quorum:
            assert outcome.contributors == fleet.setup.cohort[silent:]
            assert outcome.total is not None
            assert np.array_equal(outcome.total, fleet.plain_sum(outcome.contributors))
        else:
            assert outcome.total is None
            assert outcome.failed is not None
            assert (outcome.failed.alive, outcome.failed.needed) == (6 - silent, 4)


@each_scheme
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
def test_duplicates_are_blamed_and_change_nothing(scheme: Scheme) -> None:
    kinds = {
        type(message) for _, message in Recording(scheme, make_setup(4, dim=70)).to_coordinator
    }
    for kind in kinds:
        fleet = Fleet(scheme, make_setup(4, dim=70))
        outcome = fleet.play(repeated(kind, fleet.setup.cohort[1]))
        assert outcome.contributors == fleet.setup.cohort
        assert outcome.total is not None
        assert np.array_equal(outcome.total, fleet.plain_sum())


@each_scheme
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
def test_a_chunk_twice_in_a_row_names_its_sender(scheme: Scheme) -> None:
    # Three chunks: of 32 values, or of one polynomial, which carries thousands.
    recording = Recording(scheme, make_setup(4, dim=10_000 if scheme.name == "ckks" else 70))
    chunks = [
        count
        for count, (_, message) in enumerate(recording.to_coordinator, start=1)
        if isinstance(message, MaskedChunk | CipherChunk | PlainChunk)
    ]
    assert len(chunks) == 4 * 3
    for count in chunks:
        sender, message = recording.to_coordinator[count - 1]
        role = recording.coordinator(count)
        before = snapshot(role)
        with pytest.raises(RemoteProtocolError) as caught:
            role.receive(sender, message, 0.0)
        assert caught.value.peer == sender
        assert snapshot(role) == before


SMALL = make_setup(3, dim=40)
SPARSE = make_setup(10, dim=40, neighbours=4, threshold=2, colluders=1, quorum=6)
"""More nodes than may upload at a time, and a graph that takes coins."""
RECORDINGS = {name: Recording(scheme, SMALL) for name, scheme in SCHEMES.items()}
RECORDINGS["masking, sparse"] = Recording(SCHEMES["masking"], SPARSE)
RECORDINGS["ckks, weighing"] = Recording(
    SCHEMES["ckks"], with_ckks_terms(make_setup(10, dim=40), max_weight=2, weighs=True)
)
RECORDINGS |= {
    f"{name}, excess": Recording(scheme, with_levels(make_setup(4, dim=40), (0, 2)))
    for name, scheme in SCHEMES.items()
}
each_round = pytest.mark.parametrize("name", RECORDINGS)


@each_round
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
def test_a_message_out_of_phase_is_the_senders_fault(name: str) -> None:
    recording = RECORDINGS[name]
    for count in range(len(recording.to_coordinator) + 1):
        role = recording.coordinator(count)
        before = snapshot(role)
        for sender, message in recording.to_coordinator[:count]:
            with pytest.raises(RemoteProtocolError) as caught:
                role.receive(sender, message, 0.0)
            assert caught.value.peer == sender
        assert snapshot(role) == before


@st.composite
def probes(draw: st.DrawFn) -> tuple[str, Message]:
    """A sender and a message: anything at all, or an honest one with a field or two replaced."""
    sender = draw(st.sampled_from([*SPARSE.cohort, "stranger", ""]))
    message = draw(any_message)
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(RECORDINGS)))
        recording = RECORDINGS[name]
        honest = [m for _, m in recording.to_coordinator]
        honest += [m for received in recording.to_client.values() for m in received]
        message = draw(st.sampled_from(honest))
        fields = draw(st.sets(st.sampled_from(message.__struct_fields__), max_size=2))
        other = draw(st.sampled_from([m for m in honest if type(m) is type(message)]))
        message = changed(message, **{field: getattr(other, field) for field in fields})
    elif hasattr(message, "round_id") and draw(st.booleans()):
        message = changed(message, round_id=SMALL.round_id)
    return sender, message


def outcome_of(receive: Callable[[], Step]) -> Step | RemoteProtocolError:
    """Return the step or the one error that is allowed; any other exception fails the test."""
    try:
        return receive()
    except RemoteProtocolError as error:
        return error


@each_round
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
@pytest.mark.req("T-03")
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_message_in_any_phase_at_the_coordinator(name: str, data: st.DataObject) -> None:
    """Invariant: a Step, or a RemoteProtocolError that leaves the state as it was."""
    recording = RECORDINGS[name]
    role = recording.coordinator(data.draw(st.integers(0, len(recording.to_coordinator))))
    for _ in range(data.draw(st.integers(1, 3))):
        sender, message = data.draw(probes())
        before = snapshot(role)
        arrived = decode(encode(message), sender=sender)
        result = outcome_of(partial(role.receive, sender, arrived, 0.0))
        if isinstance(result, RemoteProtocolError):
            assert result.peer == sender
            assert snapshot(role) == before
        else:
            assert all(
                event.peer == sender for event in result.events if isinstance(event, PeerBlamed)
            )


@each_round
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_any_message_in_any_phase_at_a_client(name: str, data: st.DataObject) -> None:
    """Invariant: a Step, or a RemoteProtocolError after which the role takes nothing more."""
    recording = RECORDINGS[name]
    node = data.draw(st.sampled_from(recording.setup.cohort))
    received = recording.to_client.get(node, [])
    role = recording.client(node, data.draw(st.integers(0, len(received))))
    _, message = data.draw(probes())
    arrived = decode(encode(message), sender="coordinator")
    result = outcome_of(partial(role.receive, arrived, 0.0))
    if isinstance(result, RemoteProtocolError):
        assert result.peer == "coordinator"
        for honest in received:
            with pytest.raises(RemoteProtocolError):
                role.receive(honest, 0.0)


@each_scheme
def test_clients_speak_to_the_coordinator_only_and_the_coordinator_to_the_cohort(
    scheme: Scheme,
) -> None:
    fleet = Fleet(scheme, make_setup(4, dim=8))
    seen: set[tuple[bool, str]] = set()

    def note(sender: str, receiver: str, message: Message) -> list[Message]:
        seen.add((sender == "coordinator", receiver))
        return [message]

    fleet.play(note)
    assert {receiver for from_coordinator, receiver in seen if not from_coordinator} == {
        "coordinator"
    }
    assert {receiver for from_coordinator, receiver in seen if from_coordinator} <= set(
        fleet.setup.cohort
    )


@each_scheme
@pytest.mark.req("M-15")
def test_dropping_everybody_ends_the_round(scheme: Scheme) -> None:
    role = Fleet(scheme, SMALL).coordinator
    role.start(0.0)
    steps = [role.drop(node, 0.0) for node in SMALL.cohort]
    assert steps[-1].done
    assert all(not isinstance(out, Outgoing) for step in steps for out in step.send)


@each_scheme
@pytest.mark.req("M-21")
@pytest.mark.req("H-17")
def test_before_the_start_nothing_is_accepted(scheme: Scheme) -> None:
    role = Fleet(scheme, SMALL).coordinator
    before = snapshot(role)
    with pytest.raises(RemoteProtocolError):
        role.receive(*RECORDINGS[scheme.name].to_coordinator[0], 0.0)
    assert snapshot(role) == before
