"""What may never get out: into text, into a message, or from one round into another.

The statistics of what the coordinator sees are in test_secrecy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from secagg import ring
from secagg.masking.pairs import PairSecret
from secagg.primitives import kem
from secagg.roles import ClientRole
from secagg.round_setup import RoundSetup
from secagg.steps import Step
from secagg.types import NodeId
from secagg.wire.codec import encode
from secagg.wire.messages import MaskedChunk, Message, RoundMessage, UnmaskAnswer
from tests.support.fleet import COORDINATOR, make_setup
from tests.support.messages import changed
from tests.support.schedules import (
    Arrival,
    Network,
    Round,
    check,
    faithful,
    late,
    random_inputs,
    stage_of,
)


def secrets_of(client: ClientRole) -> Iterator[bytes]:
    """Yield every secret byte string that a masking client holds now."""
    held = vars(client)
    yield from (held[name] for name in ("_round_secret", "_self_seed", "_coin_seed") if held[name])
    if held["_keys"] is not None:
        keys = vars(held["_keys"]._keys)
        yield keys["_agreement"].private_bytes_raw()
        yield keys["_kem"].private_bytes_raw()
    for pair in held["_pairs"].values():
        yield from (pair.mask_seed, pair._root)
    yield from held["_excess"]
    for shares in held["_held"].values():
        yield from shares


class Watched(Round):
    """A round that keeps all text that its machines give, and all secrets they ever held."""

    def __init__(self, setup: RoundSetup, **options: Any) -> None:
        self.texts: list[str] = []
        self.secrets: set[bytes] = set()
        super().__init__(setup, **options)

    def take(self, party: NodeId, step: Step) -> None:
        self.texts += [repr(step), str(step)]
        super().take(party, step)

    def deliver(self, arrival: Arrival) -> None:
        self.watch()
        super().deliver(arrival)
        self.watch()

    def watch(self) -> None:
        for client in self.clients.values():
            self.secrets |= set(secrets_of(client))
            state = vars(client)
            self.texts += [repr(client), repr(state["_keys"]), repr(state["_pairs"])]
            self.texts.append(repr(state["_advert"]))
        coordinator = vars(self.coordinator)
        self.texts += [repr(self.coordinator), repr(coordinator["_seen"])]
        self.texts += [repr(coordinator["_recovery"]), repr(coordinator["_uploads"])]

    def text(self) -> str:
        errors = [each for error in self.errors for each in (repr(error), str(error))]
        events = [repr(event) for event in self.events]
        messages = [each for _, m in self.sent for each in (repr(m), str(m))]
        return "\n".join([*dict.fromkeys(self.texts), *errors, *events, *messages])


def traces(secret: bytes) -> list[str]:
    """Return the ways in which a secret may show in text."""
    return [secret.hex(), repr(secret)[2:-1], str(list(secret))[1:-1]]


def watched_rounds() -> Iterator[Watched]:
    """A plain round, two with repeated messages, and one with a death and a late upload."""
    setup = make_setup(4, dim=40)
    yield Watched(setup)
    for receivers in ({COORDINATOR}, {setup.cohort[0]}):
        yield Watched(setup, network=twice(receivers))
    setup = make_setup(6, dim=40)
    slow = late(MaskedChunk, setup.cohort[:1], 2 * setup.phase_timeout)
    yield Watched(setup, network=slow, dies={setup.cohort[1]: stage_of(UPLOAD)}, announced=True)


def twice(receivers: set[NodeId]) -> Network:
    """Return a network that brings these everything twice."""

    def network(sender: NodeId, receiver: NodeId, message: Message) -> tuple[float, ...]:
        return (0.0, 0.0) if receiver in receivers else (0.0,)

    return network


UPLOAD = MaskedChunk(0, 0, b"", b"")


@pytest.mark.req("T-07")
@pytest.mark.req("M-20")
def test_secrets_are_in_no_repr_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors = 0
    for played in watched_rounds():
        played.play()
        errors += len(played.errors)
        text = played.text() + caplog.text
        assert len(played.secrets) > 10 * len(played.setup.cohort)
        for secret in played.secrets:
            assert not [trace for trace in traces(secret) if trace in text]
        for vector in played.inputs.values():
            assert str(vector[0]) + " " not in text
    assert errors > 10


@pytest.mark.req("M-20")
def test_that_search_finds_a_planted_secret() -> None:
    secret = bytes(range(32))
    for text in (f"key={secret.hex()}", f"{secret!r}", f"{list(secret)}"):
        assert any(trace in text for trace in traces(secret))


@pytest.mark.req("M-20")
def test_a_talkative_repr_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a pair's secret that shows its seed."""
    monkeypatch.setattr(PairSecret, "__repr__", lambda self: f"PairSecret({self.mask_seed!r})")
    played = Watched(make_setup(4, dim=40))
    played.play()
    text = played.text()
    assert any(trace in text for secret in played.secrets for trace in traces(secret))


@pytest.mark.req("M-05")
@pytest.mark.req("M-12")
@pytest.mark.req("T-07")
def test_no_message_carries_a_secret_but_for_the_shares_in_answers() -> None:
    for played in watched_rounds():
        played.play()
        shares = {
            share
            for _, message in played.sent
            if isinstance(message, UnmaskAnswer)
            for _, share in (*message.self_shares, *message.key_shares)
        }
        for _, message in played.sent:
            data = encode(message)
            found = {secret for secret in played.secrets if secret in data}
            assert found <= (shares if isinstance(message, UnmaskAnswer) else set())


@pytest.mark.req("M-12")
def test_a_machine_that_is_over_holds_no_share_no_seed_and_no_input() -> None:
    for played in watched_rounds():
        played.play()
        for node, client in played.clients.items():
            if node not in played.dead:
                state = vars(client)
                assert not [
                    state[n] for n in ("_round_secret", "_self_seed", "_coin_seed") if state[n]
                ]
                assert state["_keys"] is None
                assert not state["_held"]
                assert not state["_pairs"]
                assert not state["_upload"]
                assert not len(state["_vector"])


# --- independence of everything but the masked input ---------------------------------------------


class ReplayedKem:
    """ML-KEM capsules that come again after `rewind`, so that a round can be played again."""

    def __init__(self) -> None:
        self._honest = kem.encapsulate
        self._made: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}
        self._count: dict[bytes, int] = {}

    def rewind(self) -> None:
        self._count.clear()

    def __call__(self, peer: str, public: bytes) -> tuple[bytes, bytes]:
        index = self._count[public] = self._count.get(public, 0) + 1
        if (public, index) not in self._made:
            self._made[public, index] = self._honest(peer, public)
        return self._made[public, index]


@pytest.mark.req("T-01")
@pytest.mark.req("T-05")
@pytest.mark.req("M-23")
@pytest.mark.parametrize("faults", ["none", "a death and a late upload"])
def test_all_that_depends_on_an_input_is_the_masked_vector_and_that_by_addition(
    faults: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With equal randomness and other inputs, uploads differ by the difference of the inputs.

    So masks do not depend on inputs, and nothing else that is sent does: number, order, size and
    content of all other messages are the same. Whether masks are uniform is for test_secrecy.
    """
    replayed = ReplayedKem()
    monkeypatch.setattr(kem, "encapsulate", replayed)
    setup = make_setup(6, dim=40)
    options: dict[str, Any] = {}
    if faults != "none":
        slow = late(MaskedChunk, setup.cohort[:1], 2 * setup.phase_timeout)
        options = {"network": slow, "dies": {setup.cohort[1]: stage_of(UPLOAD)}}
    rounds = []
    for seed in (1, 2):
        replayed.rewind()
        rounds.append(Round(setup, inputs=random_inputs(setup, seed), **options).play())
    one, two = rounds
    assert len(one.sent) == len(two.sent)
    for (sender, a), (other, b) in zip(one.sent, two.sent, strict=True):
        assert sender == other
        if not isinstance(a, MaskedChunk) or not isinstance(b, MaskedChunk):
            assert encode(a) == encode(b)
            continue
        assert encode(changed(a, data=b"0")) == encode(changed(b, data=b"0"))
        part = slice(a.index * setup.chunk_values, (a.index + 1) * setup.chunk_values)
        plain = one.inputs[sender][part] - two.inputs[sender][part]
        seen = [ring.unpack(m.data, len(plain), setup.ring_bits) for m in (a, b)]
        assert seen[0] is not None
        assert seen[1] is not None
        difference = ring.reduce(seen[0] - seen[1], setup.ring_bits)
        assert np.array_equal(difference, ring.reduce(plain, setup.ring_bits))
        assert not np.array_equal(seen[0], seen[1])


# --- an earlier round ----------------------------------------------------------------------------


class Replaying(Round):
    """A round in which one message is replaced by the like message of an earlier round."""

    old: RoundMessage
    sender: NodeId
    receiver: NodeId

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        if (sender, receiver) == (self.sender, self.receiver) and type(message) is type(self.old):
            message = self.old
        super()._send(sender, receiver, message)


def earlier_messages() -> list[tuple[NodeId, NodeId, RoundMessage]]:
    """Return (sender, receiver, message) of all that one node was sent and sent in round 6."""
    kept: list[tuple[NodeId, NodeId, RoundMessage]] = []
    setup = make_setup(6, dim=8, chunk_values=8, round_id=6)

    def network(sender: NodeId, receiver: NodeId, message: Message) -> tuple[float, ...]:
        if setup.cohort[2] in (sender, receiver) and isinstance(message, RoundMessage):
            kept.append((sender, receiver, message))
        return (0.0,)

    Round(setup, network=network, seed=2).play()
    return kept


@pytest.mark.req("M-13")
@pytest.mark.req("M-21")
@pytest.mark.parametrize("rewritten", [False, True], ids=["as it is", "with the new round id"])
def test_a_message_of_an_earlier_round_never_counts(rewritten: bool) -> None:
    """The sum stays exact without whoever it concerns, or the round fails."""
    ends = set()
    for sender, receiver, old in earlier_messages():
        setup = make_setup(6, dim=8, chunk_values=8, round_id=7)
        played = Replaying(setup, network=faithful)
        played.old = changed(old, round_id=7) if rewritten else old  # type: ignore[assignment]
        played.sender, played.receiver = sender, receiver
        played.play()
        check(played)
        name = type(old).__name__
        if not rewritten or name != "UploadTurn":  # which says nothing but "your turn"
            assert played.errors or played.blamed or played.refused, name
        if name == "MaskedChunk":
            assert sender not in played.contributors
        ends.add(played.reason)
    assert None in ends


def test_those_are_messages_of_every_type() -> None:
    names = [type(message).__name__ for _, _, message in earlier_messages()]
    assert names == [
        "KeyAdvert",
        "PeerKeys",
        "Encapsulations",
        "PeerEncapsulations",
        "SealedShares",
        "PeerShares",
        "UploadTurn",
        "MaskedChunk",
        "Survivors",
        "SurvivorSignature",
        "UnmaskRequest",
        "UnmaskAnswer",
    ]
    assert COORDINATOR not in make_setup(6).cohort
