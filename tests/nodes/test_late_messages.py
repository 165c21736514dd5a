"""What comes late, or is not expected, changes nothing at the coordinator."""

from __future__ import annotations

import pytest

from nodes.session.coordinator import State
from nodes.session.events import FinalModel, Joined, Left, PeerRejected, ReceiptKept
from secagg.dp.ledger import History
from secagg.dp.receipts import make_receipt
from secagg.wire.envelope import NO_RUN
from secagg.wire.messages import Heartbeat, Hello, KeyAdvert
from tests.support.fleet import COORDINATOR
from tests.support.frames import sealed
from tests.support.run import Run, make_plan, message_of

RUN_ID = b"R" * 16


@pytest.mark.req("S-12")
def test_a_late_message_of_a_node_counted_out_does_not_cost_it_the_final_model() -> None:
    run = Run(n=5, plan=make_plan(rounds=2, farewell_timeout=60.0))
    late: list[bytes] = []

    def stall(sender: str, to: str, frame: bytes) -> list[bytes]:
        last = run.coordinator.run.rounds_done == 1
        if sender == "node-4" and last and isinstance(message_of(run, frame, sender), KeyAdvert):
            run.down.add("node-4")
            late.append(frame)
        return [] if "node-4" in (sender, to) and "node-4" in run.down else [frame]

    run.deliver = stall
    run.boot()
    run.play(20.0)
    assert Left("node-4", "silent") in run.of(Left)
    assert run.coordinator.state is State.CLOSING
    run.down.clear()  # its network is back, and brings first what waited there
    step = run.coordinator.receive("node-4", late[0], run.now)
    assert len(step.send) == 0
    (event,) = step.events
    assert isinstance(event, PeerRejected)
    assert "not open" in event.reason
    back = run.now
    run.play()
    assert Joined("node-4", 2) in run.of(Joined)
    assert run.of(FinalModel, "node-4")
    assert run.now < back + 10  # not at the end of the time for farewells


@pytest.mark.req("S-12")
def test_a_late_message_into_the_open_round_does_not_count_its_sender_in() -> None:
    run = Run(n=5, plan=make_plan(rounds=1, input_timeout=600.0))
    held: dict[str, bytes] = {}

    def hold(sender: str, to: str, frame: bytes) -> list[bytes]:
        if sender in ("node-3", "node-4") and isinstance(message_of(run, frame, sender), KeyAdvert):
            held[sender] = frame
            return []
        return [frame]

    run.deliver = hold
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    run.settle()
    run.take(COORDINATOR, run.coordinator.unreachable(["node-4"], run.now))
    assert run.coordinator.state is State.ROUND  # node-3 is still waited for
    for _ in range(2):
        (event,) = run.coordinator.receive("node-4", held["node-4"], run.now).events
        assert isinstance(event, PeerRejected)
        assert "counted out" in event.reason
    beat = sealed(Heartbeat(0, "idle"), run.signers["node-4"], to=COORDINATOR, run_id=RUN_ID)
    assert Joined("node-4", 0) in run.coordinator.receive("node-4", beat, run.now).events


@pytest.mark.req("S-12")
def test_a_hello_of_another_version_leaves_no_receipt_behind() -> None:
    run = Run(n=3)
    run.take(COORDINATOR, run.coordinator.start(0.0, 0.0))
    signer = run.signers["node-0"]
    receipt = make_receipt(signer, History()).to_bytes()
    events = []
    for version in (99, 1):
        hello = Hello("0", version, 1, 0.0, receipt)
        frame = sealed(hello, signer, to=COORDINATOR, run_id=NO_RUN)
        events.append(run.coordinator.receive("node-0", frame, 0.0).events)
    assert [type(event) for event in events[0]] == [PeerRejected]
    assert ReceiptKept("node-0", receipt) in events[1]
