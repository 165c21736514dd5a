"""The node's loop, without a network around it."""

from concurrent.futures import Future
from typing import Any

import pytest

from fl_core.errors import ModelError
from fl_core.training import LocalUpdate
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
        return SessionStep(send=(("hub", Envelope(b"hel", b"lo")),))

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
        self.waits: list[tuple[bool, int]] = []

    def wait(self, source: object, seconds: float, *, to_send: bool = False) -> None:
        self.waits.append((to_send, len(self.sent)))

    def receive(self) -> list[bytes]:
        return [b"the last of the model"]

    def connection_change(self) -> None:
        return None

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


def test_a_hello_waits_for_a_connection_and_nothing_follows_the_farewell() -> None:
    daemon: Any = object.__new__(NodeDaemon)
    wire, session = Wire(), Overdue()
    daemon._session, daemon._waiter, daemon._training = session, wire, None
    daemon._next_roster_look = float("inf")
    daemon._serve(wire)
    assert wire.waits[0] == (True, 0), "said before it, a hello is lost"
    assert wire.sent == [b"hello", b"farewell"]
    assert session.calls == ["start", "receive"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ModelError("the loss is nan"), "the loss is nan"), (ValueError("0.7311"), "ValueError")],
)
def test_a_crash_in_training_ends_no_daemon_and_quotes_nothing(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    future: Future[LocalUpdate] = Future()
    future.set_exception(error)
    told: list[str] = []

    class Abstaining:
        def abstain(self, round_id: int, why: str, now: float) -> SessionStep:
            told.append(why)
            return SessionStep()

    daemon: Any = object.__new__(NodeDaemon)
    daemon._session, daemon._training, daemon._emit = Abstaining(), (3, future), None
    daemon._collect_training(Wire())
    assert daemon._training is None
    assert reason in told[0]
    if reason == "ValueError":
        assert "training.crashed round=3 error=ValueError" in caplog.text
    assert "0.7311" not in told[0] + caplog.text
