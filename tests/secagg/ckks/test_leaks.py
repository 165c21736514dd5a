"""What may never get out: into text, into a message, or past the end of the round."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from secagg.ckks import rlwe
from secagg.ckks.client import CkksClient
from secagg.errors import RemoteProtocolError
from secagg.steps import Step
from secagg.types import NodeId
from secagg.wire.codec import encode
from secagg.wire.messages import Message, SealedSecret, SumShare
from tests.support.ckks import CKKS, ByHand, ckks_setup, lie, share_of, terms_in
from tests.support.fleet import Fleet
from tests.support.scripts import CKKS_EXCHANGES, repeated, rewritten, secrets_of

SETUP = ckks_setup(5)


class Watched:
    """A round that keeps all text that its machines give, and all secrets they ever held."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.texts: set[str] = set()
        self.secrets: set[bytes] = set()
        self.sent: list[Message] = []
        fresh, receive, start = rlwe.Secret.fresh, CkksClient.receive, CkksClient.start

        def noted(ring: rlwe.Ring, terms: int) -> rlwe.Secret:
            secret = fresh(ring, terms)
            self.secrets.add(secret.coefficients.tobytes())
            self.secrets.add(secret.coefficients.astype(np.int8).tobytes())
            self.texts |= {repr(secret), str(secret)}
            return secret

        def watched(client: CkksClient, message: Message, now: float) -> Step:
            self.watch(client)
            try:
                step = receive(client, message, now)
            except RemoteProtocolError as error:
                self.texts |= {repr(error), str(error), repr(error.__cause__)}
                raise
            self.watch(client)
            self.note(step)
            return step

        def started(client: CkksClient, now: float) -> Step:
            self.watch(client)
            step = start(client, now)
            self.note(step)
            return step

        patch.setattr(rlwe.Secret, "fresh", noted)
        patch.setattr(CkksClient, "receive", watched)
        patch.setattr(CkksClient, "start", started)

    def watch(self, client: CkksClient) -> None:
        self.secrets |= set(secrets_of(client))
        self.texts.add(repr(client))
        for name in ("_keys", "_member", "_setup", "_terms", "_key", "_upload"):
            self.texts.add(repr(vars(client)[name]))

    def note(self, step: Step) -> None:
        self.texts |= {repr(step), str(step)}
        for out in step.send:
            self.sent.append(out.message)
            self.texts |= {repr(out), str(out.message)}


def traces(secret: bytes) -> Iterator[str]:
    """Yield the ways in which a part of a secret may show in text."""
    part = secret[:32]
    yield part.hex()
    yield repr(part)[2:-1]
    yield str(list(part))[1:-1]
    if len(secret) % 8 == 0:
        yield str(np.frombuffer(secret, np.int64)[:8].tolist())[1:-1]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.req("T-07")
def test_secrets_are_in_no_repr_no_error_and_no_log(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors = 0
    for kind in CKKS_EXCHANGES:
        outcome = Fleet(CKKS, SETUP).play(repeated(kind, SETUP.cohort[0]))
        errors += len(outcome.errors)
    bad = rewritten(
        lambda s, to, m: lie(SETUP, m) if s == "node-0001" and isinstance(m, SumShare) else None
    )
    Fleet(CKKS, SETUP).play(bad)
    by_hand = ByHand(SETUP).deal().cosign()
    for node in SETUP.cohort:
        boxes = dict.fromkeys(SETUP.cohort, bytes(1200))
        by_hand.tell(node, by_hand.dealt(node, boxes=boxes))
        with pytest.raises(RemoteProtocolError):
            by_hand.tell(node, by_hand.request({"node-0000": bytes(64)}))
    assert errors
    assert len(watched.secrets) > 100
    text = "\n".join([*watched.texts, caplog.text])
    shown = [trace for secret in watched.secrets for trace in traces(secret) if trace in text]
    assert not shown


def test_a_talkative_repr_is_caught(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CkksClient, "__repr__", lambda self: repr(list(secrets_of(self))))
    Fleet(CKKS, SETUP).play()
    text = "\n".join(watched.texts)
    assert [trace for secret in watched.secrets for trace in traces(secret) if trace in text]


@pytest.mark.req("H-05")
@pytest.mark.req("H-06")
def test_no_message_carries_a_secret_but_for_the_sum_of_shares(watched: Watched) -> None:
    Fleet(CKKS, SETUP).play()
    sent = b"".join(encode(m) for m in watched.sent if not isinstance(m, SumShare))
    assert any(isinstance(m, SealedSecret) for m in watched.sent)
    assert not [secret for secret in watched.secrets if secret[:64] in sent]


@pytest.mark.req("H-12")
def test_no_single_share_is_in_an_answer() -> None:
    """Not the own one, which is all that a member has in the clear."""
    by_hand = ByHand(SETUP).deal()
    own = {node: by_hand.client(node)._own for node in SETUP.cohort}
    by_hand.cosign()
    for node, share in own.items():
        assert share is not None
        answer = share_of(SETUP, by_hand.answer(node)).astype(np.int64)
        assert (answer != share).mean() > 0.99


@pytest.mark.req("H-06")
def test_a_machine_that_is_over_holds_nothing() -> None:
    fleet = Fleet(CKKS, SETUP)
    fleet.play()
    for client in fleet.clients.values():
        assert isinstance(client, CkksClient)
        assert not list(secrets_of(client))
        assert not client._upload


@pytest.mark.req("H-06")
def test_what_the_coordinator_sees_is_uniform() -> None:
    """Residues of ciphertexts, and the shares in answers, fill their ranges evenly."""
    by_hand = ByHand(SETUP).deal().cosign()
    modulus, prime = by_hand.opening()._ring.modulus, terms_in(SETUP).committee.modulus
    seen: dict[NodeId, tuple[np.ndarray, int]] = {
        f"{node} ciphertext": (by_hand.total({node: 1}).reshape(-1), modulus)
        for node in SETUP.cohort
    }
    seen |= {
        f"{node} answer": (share_of(SETUP, by_hand.answer(node)), prime) for node in SETUP.cohort
    }
    for name, (values, top) in seen.items():
        counts = np.histogram(values.astype(float) / top, bins=16, range=(0, 1))[0]
        assert ((counts - 128) ** 2 / 128).sum() < 60, name  # odds of 1 in 10^6, each
