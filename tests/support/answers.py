"""A run stopped just before one node's answer, and that node killed or forked there.

Usage: python -m tests.support.answers kill|fork FOLDER
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from nodes.answer_journal import FileJournal
from nodes.node_daemon import ANSWERS, MEMORY
from nodes.session.events import RoundEnded, SessionStep
from nodes.store import load_memory, save_memory
from secagg.types import NodeId
from secagg.wire.messages import Message, RoundMessage, Survivors
from tests.support.fleet import COORDINATOR
from tests.support.run import Run, make_plan, make_state, message_of

NODE = "node-0"
RUN = b"R" * 16
LINE = b'{"run":"' + b"52" * 16 + b'","round":7,"digest":"' + b"31" * 32 + b'"}\n'
"""A claim of round 7 of this run, as it is in the journal."""


def run_on(folder: Path, n: int = 4) -> Run:
    """A one-round run whose `NODE` has its memory and its journal in `folder`."""
    run = Run(n=n, plan=make_plan(rounds=1), state=make_state())
    run.journals[NODE] = FileJournal(folder / ANSWERS)
    memory = load_memory(folder / MEMORY)
    if memory is not None:
        run.disk[NODE] = memory
    return run


def stop_before_answer(
    run: Run, request: type[RoundMessage] = Survivors
) -> tuple[bytes, list[Message]]:
    """Play until one more frame makes `NODE` fix its view, or do what `request` asks for.

    Returns:
        That frame, and all that `NODE` has sent; what it sends later is added to the list.
    """
    held: list[bytes] = []
    sent: list[Message] = []

    def hold(sender: NodeId, to: NodeId, frame: bytes) -> list[bytes]:
        message = message_of(run, frame, sender)
        if sender == NODE:
            sent.append(message)
        if to == NODE and isinstance(message, request) and not held:
            held.append(frame)
            return []
        return [frame]

    run.deliver = hold
    run.boot()
    run.take(COORDINATOR, run.coordinator.start(run.now, run.now))
    run.settle()
    return held[0], sent


def kill_after_claim(folder: Path) -> None:
    """Die as by kill -9 once the claim is made, before anything is sent."""

    class Deadly(FileJournal):
        def claim(self, run_id: bytes, round_id: int, digest: bytes) -> bool:
            if super().claim(run_id, round_id, digest):
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    run = run_on(folder)
    run.journals[NODE] = Deadly(folder / ANSWERS)
    frame, _ = stop_before_answer(run)
    save_memory(folder / MEMORY, run.disk[NODE])
    step = run.participants[NODE].receive(frame, run.now)
    os.write(1, report(step).encode() + b"\n")


def fork_before_answer(folder: Path) -> None:
    """Let two images of one process, secrets and all, answer the same round."""
    run = run_on(folder)
    frame, _ = stop_before_answer(run)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.write(writer, b"go")
    else:
        os.read(reader, 2)
    step = run.participants[NODE].receive(frame, run.now)
    os.write(1, report(step).encode() + b"\n")
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def report(step: SessionStep) -> str:
    ended = [event.outcome for event in step.events if isinstance(event, RoundEnded)]
    return json.dumps({"sent": len(step.send), "ended": ended})


if __name__ == "__main__":
    {"kill": kill_after_claim, "fork": fork_before_answer}[sys.argv[1]](Path(sys.argv[2]))
