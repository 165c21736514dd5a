"""Who gets through to the coordinator: sockets on loopback, keys of the roster only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from zmq.utils import z85

from nodes.transport import CoordinatorSocket, NodeSocket
from secagg.wire.envelope import Envelope

WAIT = 5_000  # ms; reached only where something is broken


def curve() -> tuple[bytes, bytes]:
    """Return (secret, public), raw."""
    public, secret = zmq.curve_keypair()
    return z85.decode(secret), z85.decode(public)


class Hall:
    """A coordinator's socket with a roster that a test may change."""

    def __init__(self) -> None:
        self.secret, self.public = curve()
        self.roster: dict[bytes, str] = {}
        self.socket = CoordinatorSocket(
            "tcp://127.0.0.1:*", secret=self.secret, public=self.public, lookup=self.roster.get
        )

    def enter(self, *, listed_as: str | None = None, server: bytes | None = None) -> NodeSocket:
        secret, public = curve()
        if listed_as is not None:
            self.roster[public] = listed_as
        return NodeSocket(
            self.socket.endpoint, secret=secret, public=public, server=server or self.public
        )

    def hears(self) -> list[tuple[str, bytes]]:
        self.socket.socket.poll(WAIT)
        return self.socket.receive()


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    yield hall
    hall.socket.close()


def says(node: NodeSocket, frame: bytes) -> None:
    """Send once the node is let in: before, nothing is queued."""
    assert node.socket.poll(WAIT, zmq.POLLOUT)
    assert node.send(frame)


def outcome(node: NodeSocket) -> str:
    """Wait for the handshake to end; return what became of it."""
    for _ in range(100):
        node._monitor.poll(WAIT // 100)
        change = node.connection_change()
        if change and change != "nobody listens there yet":
            return change
    raise AssertionError("the handshake did not end")


@pytest.mark.req("W-07")
@pytest.mark.req("T-02")
def test_a_listed_key_gets_in_under_the_name_of_the_roster(hall: Hall) -> None:
    node = hall.enter(listed_as="node-7")
    try:
        says(node, b"I am somebody else")
        assert hall.hears() == [("node-7", b"I am somebody else")]
        assert hall.socket.send("node-7", Envelope(b"ans", b"wer"))
        node.socket.poll(WAIT)
        assert node.receive() == [b"answer"]
    finally:
        node.close()


@pytest.mark.req("W-07")
def test_an_unlisted_key_is_turned_away_and_reported(hall: Hall) -> None:
    node = hall.enter()
    try:
        assert not node.send(b"hello")
        assert "does not admit" in outcome(node)
        assert not node.send(b"hello")
        assert len(hall.socket.strangers()) == 1
        assert hall.socket.receive() == []
    finally:
        node.close()


@pytest.mark.req("W-07")
def test_a_key_that_was_revoked_since_it_connected_is_not_heard(hall: Hall) -> None:
    node, other = hall.enter(listed_as="node-1"), hall.enter(listed_as="node-2")
    try:
        says(node, b"before")
        assert hall.hears() == [("node-1", b"before")]
        for key, name in list(hall.roster.items()):
            if name == "node-1":
                del hall.roster[key]
        says(node, b"after")
        says(other, b"mine")
        heard = hall.hears()
        while ("node-2", b"mine") not in heard:
            heard += hall.hears()
        hall.socket.socket.poll(WAIT // 50)  # for a frame that comes late
        heard += hall.socket.receive()
        assert b"after" not in [frame for _, frame in heard]
    finally:
        node.close()
        other.close()


@pytest.mark.req("W-07")
def test_a_node_does_not_talk_to_another_server_key(hall: Hall) -> None:
    _, other = curve()
    node = hall.enter(listed_as="node-1", server=other)
    try:
        assert not node.send(b"secret")
        assert outcome(node) != "connected"
        assert not node.send(b"secret")
        assert hall.socket.receive() == []
    finally:
        node.close()


@pytest.mark.req("W-07")
def test_a_refused_node_gets_in_once_the_roster_lists_it(hall: Hall) -> None:
    """It was started before its certificate reached the coordinator: nobody restarts it."""
    secret, public = curve()
    node = NodeSocket(hall.socket.endpoint, secret=secret, public=public, server=hall.public)
    try:
        assert "does not admit" in outcome(node)
        hall.roster[public] = "node-9"
        for _ in range(75):
            node.connection_change()  # as the daemon does at every turn
            node.send(b"hello")
            hall.socket.socket.poll(WAIT // 25)
            heard = hall.socket.receive()
            if heard:
                break
        assert ("node-9", b"hello") in heard
    finally:
        node.close()


def test_one_body_for_many_nodes_arrives_whole_at_each(hall: Hall) -> None:
    nodes = {name: hall.enter(listed_as=name) for name in ("node-1", "node-2", "node-3")}
    body = bytes(range(256)) * 1024
    try:
        for node in nodes.values():
            says(node, b"here")
        heard: list[tuple[str, bytes]] = []
        while len(heard) < len(nodes):
            assert hall.socket.socket.poll(WAIT)
            heard += hall.socket.receive()
        for name in nodes:
            assert hall.socket.send(name, Envelope(name.encode(), body))
        for name, node in nodes.items():
            assert node.socket.poll(WAIT)
            assert node.receive() == [name.encode() + body]
    finally:
        for node in nodes.values():
            node.close()
    assert hall.socket.traffic.sent == dict.fromkeys(nodes, len(body) + len("node-1"))
