"""Messages for many nodes are held once, and made when they are sent."""

from __future__ import annotations

from collections import Counter

from nodes.session.events import RoundStarted, SessionStep
from nodes.session.outbox import Outbox
from secagg.steps import Lazy, Outgoing
from secagg.types import NodeId
from secagg.wire.codec import encode
from secagg.wire.envelope import NO_RUN, Envelope, open_envelope
from secagg.wire.messages import Heartbeat, ModelChunk, Welcome
from tests.support.fleet import COORDINATOR, TestSigner
from tests.support.run import Run

HUB, RUN = TestSigner("hub"), b"r" * 16
NODES = ("node-a", "node-b", "node-c")


def opened(to: NodeId, envelope: Envelope, run_id: bytes = RUN) -> bytes:
    frame = bytes(envelope)
    found = open_envelope(frame, sender="hub", key=HUB.public, receiver=to, run_id=run_id)
    return encode(found.message)


def test_all_receivers_share_one_body() -> None:
    chunks = [ModelChunk(1, index, bytes([index]) * 1000) for index in range(2)]
    step = Outbox(HUB, RUN).to_all(NODES, chunks)
    sent = list(step.send)
    assert [to for to, _ in sent] == [*NODES, *NODES]
    for (to, envelope), chunk in zip(sent, [c for c in chunks for _ in NODES], strict=True):
        assert opened(to, envelope) == encode(chunk)
    assert len({id(envelope.body) for _, envelope in sent}) == len(chunks)
    assert len({envelope.head for _, envelope in sent}) == len(sent)


def test_a_role_is_asked_for_a_message_when_it_is_sent() -> None:
    made: list[NodeId] = []

    def outgoing(node: NodeId) -> Outgoing:
        made.append(node)
        return Outgoing(node, Heartbeat(1, "idle"))

    step = Outbox(HUB, RUN).of_role(Lazy(lambda node=node: outgoing(node) for node in NODES))  # type: ignore[misc]
    assert made == []
    sent = iter(step.send)
    to, envelope = next(sent)
    assert opened(to, envelope) == encode(Heartbeat(1, "idle"))
    assert made == ["node-a"]


def test_a_welcome_names_no_run() -> None:
    welcome = Welcome(RUN, "0.1", 1, 0.0, 1.0, 0, 5)
    ((to, envelope),) = Outbox(HUB, RUN).to("node-a", welcome).send
    assert opened(to, envelope, NO_RUN) == encode(welcome)


def test_a_coordinator_holds_an_offer_and_its_model_once() -> None:
    run = Run(n=5)
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    offered: list[Envelope] = []
    receive = run.coordinator.receive

    def watched(peer: NodeId, frame: bytes, now: float) -> SessionStep:
        step = receive(peer, frame, now)
        if any(isinstance(event, RoundStarted) for event in step.events):
            offered.extend(envelope for _, envelope in step.send)
        return step

    run.coordinator.receive = watched  # type: ignore[method-assign]
    run.play(5.0)
    bodies = Counter(id(envelope.body) for envelope in offered[-10:])
    assert sorted(bodies.values()) == [5, 5]
