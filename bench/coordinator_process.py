"""A process that holds nothing but the coordinator's role of one masked round.

::

    python -m bench.coordinator_process '{"n": 10, "dim": 1000, ...}'

`bench.memory` starts it, plays the nodes, and reads what it needed. It seals what it sends and
keeps its spool in a file as the daemon does; signatures of what it receives are not checked, and
pipes take the sockets' place. On both pipes every frame is a node's number in the cohort and a
length, both little-endian uint32, and a message of the protocol. Frames to nobody (`REPORT`) carry
JSON: after the imports, at each new phase, and at the end.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from bench.cohort import COORDINATOR, Identity, make_setup
from bench.common import BenchError, resident_bytes
from nodes.session.outbox import Outbox
from nodes.spool import FileSpool
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.parameters import MaskingParameters
from secagg.steps import PeerBlamed, PhaseEntered, RoundFailed, Step, SumReady
from secagg.wire.codec import decode

__all__ = ["REPORT", "main", "read_frames", "write_frame"]

REPORT: Final = 0xFFFF_FFFF
_HEADER: Final = struct.Struct("<II")


def write_frame(pipe: IO[bytes], number: int, data: bytes) -> None:
    """Write a frame; it may stay in the pipe's buffer until the next flush."""
    pipe.write(_HEADER.pack(number, len(data)))
    pipe.write(data)


def read_frames(pipe: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield numbers and data until the pipe is closed.

    Raises:
        BenchError: it was closed in the middle of a frame.
    """
    while len(header := pipe.read(_HEADER.size)) == _HEADER.size:
        number, size = _HEADER.unpack(header)
        data = pipe.read(size)
        if len(data) < size:
            raise BenchError("a pipe was closed in the middle of a frame")
        yield number, data


class _Server:
    """The role between its pipes."""

    def __init__(self, role: MaskingCoordinator, cohort: tuple[str, ...]) -> None:
        self._role, self._cohort = role, cohort
        self._outbox = Outbox(Identity(COORDINATOR), b"r" * 16)
        self._number = {node: number for number, node in enumerate(cohort)}
        self._answers = sys.stdout.buffer

    def run(self) -> None:
        """Play the round to its end."""
        self._report("imports")
        self._act(self._role.start(0.0))
        for number, data in read_frames(sys.stdin.buffer):
            sender = self._cohort[number]
            message = decode(data, sender=sender)
            del data  # as in a daemon, only the message lives on
            if self._act(self._role.receive(sender, message, 0.0)):
                return

    def _act(self, step: Step) -> bool:
        """Send what a step says; tell whether the round is over."""
        for to, envelope in self._outbox.of_role(step.send).send:
            write_frame(self._answers, self._number[to], envelope.body)
        for event in step.events:
            match event:
                case PhaseEntered(phase, _):
                    self._report(phase)
                case SumReady(total, contributors):
                    sum_of = hashlib.sha256(total.data).hexdigest()
                    self._report("end", sum=sum_of, contributors=len(contributors))
                case RoundFailed(reason) | PeerBlamed(_, reason):
                    raise BenchError(f"the round was disturbed: {reason}")
        self._answers.flush()
        return step.done

    def _report(self, begins: str, **result: Any) -> None:
        body = {"begins": begins, "peak": resident_bytes(peak=True), "now": resident_bytes()}
        write_frame(self._answers, REPORT, json.dumps({**body, **result}).encode())
        self._answers.flush()


def main() -> None:
    """Serve one round on standard input and output."""
    case = json.loads(sys.argv[1])
    parameters = MaskingParameters(**case["parameters"])
    setup = make_setup(case["n"], case["dim"], parameters, value_bits=case["value_bits"])
    folder = Path(tempfile.gettempdir())
    role = MaskingCoordinator(setup, spool=lambda: FileSpool(folder))
    _Server(role, setup.cohort).run()


if __name__ == "__main__":
    main()
