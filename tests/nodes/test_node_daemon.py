"""The node's loop, without a network around it."""

from typing import Any

from nodes.node_daemon import NodeDaemon
from nodes.session.events import SessionStep
from nodes.session.participant import State
from secagg.wire.envelope import Envelope


class Overdue:
    """A session whose heartbeat is overdue and which the next frame finishes."""

    state = State.FETCHING
    deadline = 0.0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, now: float, wall_time: float) -> SessionStep:
        self.calls.append("start")
        return SessionStep()

    def receive(self, frame: bytes, now: float) -> SessionStep:
        self.calls.append("receive")
        self.state = State.FINISHED
        return SessionStep(send=(("hub", Envelope(b"fare", b"well")),))

    def on_timeout(self, now: float) -> SessionStep:
        self.calls.append("on_timeout")
        return SessionStep(send=(("hub", Envelope(b"heart", b"beat")),))


class Wire:
    """A socket with one frame to receive, and a waiter that never waits."""

    socket = None
    stopping = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def wait(self, source: object, seconds: float) -> None:
        pass

    def receive(self) -> list[bytes]:
        return [b"the last of the model"]

    def connection_change(self) -> None:
        return None

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


def test_nothing_follows_the_farewell() -> None:
    daemon: Any = object.__new__(NodeDaemon)
    wire, session = Wire(), Overdue()
    daemon._session, daemon._waiter, daemon._training = session, wire, None
    daemon._next_roster_look = float("inf")
    daemon._serve(wire)
    assert wire.sent == [b"farewell"]
    assert session.calls == ["start", "receive"]
