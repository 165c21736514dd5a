"""The coordinator's peak memory, by cohort and dimension.

::

    python -m bench.memory --nodes 10 100 1000 --dims 100000 1000000

plays masked rounds in which nobody drops out. The coordinator's role has a process of its own
(`bench.coordinator_process`); the nodes are played here, and but for 8 at a time they have no
vector in memory. Those 8 upload side by side, all ending late, which is the worst for the
coordinator. A figure is the process's greatest resident size (VmHWM), the interpreter and its
libraries included. They alone are the column `imports`.

It seals its messages and keeps its spool as the daemon does. Sockets and their queues are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.cohort import COORDINATOR, Identity, make_setup
from bench.common import BenchError, describe_machine
from bench.coordinator_process import REPORT, read_frames, write_frame
from bench.masking import settings_for
from secagg import ring
from secagg.errors import SecAggError
from secagg.masking.client import MaskingClient
from secagg.masking.parameters import MaskingParameters
from secagg.round_setup import RoundSetup
from secagg.steps import Step
from secagg.types import NodeId, RingVector
from secagg.wire.codec import decode, encode
from secagg.wire.messages import UPLOAD_SLOTS, Message, PeerShares, UploadTurn

__all__ = ["Peak", "main", "measure"]

VALUE_BITS = 16
TARGET = 1.3
"""The largest cohort's peak over the smallest's."""


class LateClient(MaskingClient):
    """A client that makes its vector when it is to be masked, so that a thousand fit."""

    def __init__(self, setup: RoundSetup, node: NodeId) -> None:
        nothing = np.zeros(setup.dim, dtype=np.uint32)
        super().__init__(
            setup, nothing, Identity(node), coordinator=COORDINATOR, rng=np.random.bytes
        )
        self._vector = nothing[:0]

    def _masked_chunks(self) -> list[Message]:
        self._vector = input_of(self._me, self._setup)
        return super()._masked_chunks()


def input_of(node: NodeId, setup: RoundSetup) -> RingVector:
    """Return a node's input: other integers for every node, cheaply made."""
    number = setup.cohort.index(node)
    signed = (np.arange(number, number + setup.dim) % 201 - 100).astype(np.int32)
    return ring.from_signed(signed, setup.ring_bits)


def sum_of_inputs(setup: RoundSetup) -> str:
    """Return the SHA-256 of the sum that the coordinator has to find, in hexadecimal."""
    total = np.zeros(setup.dim, dtype=np.uint32)
    for node in setup.cohort:
        total += input_of(node, setup)
    return hashlib.sha256(ring.reduce(total, setup.ring_bits).data).hexdigest()


@dataclass(frozen=True)
class Peak:
    """What one round took of the coordinator's process, in bytes.

    Attributes:
        n: Nodes.
        dim: Coordinates.
        neighbours: Degree of the graph.
        imports: Peak before the round.
        after: What ended -> the greatest size until then.
        peak: Peak of the whole process.
        exact: Whether the sum is that of all inputs, bit for bit.
    """

    n: int
    dim: int
    neighbours: int
    imports: int
    after: dict[str, int]
    peak: int
    exact: bool


def measure(n: int, dim: int, *, parameters: MaskingParameters | None = None) -> Peak:
    """Play one round against a coordinator in a process of its own.

    Raises:
        BenchError: the round did not end with a sum.
    """
    parameters = parameters or settings_for(n, 0.0)
    setup = make_setup(n, dim, parameters, value_bits=VALUE_BITS)
    case: dict[str, Any] = {"n": n, "dim": dim, "value_bits": VALUE_BITS}
    case["parameters"] = asdict(parameters)
    command = [sys.executable, "-m", "bench.coordinator_process", json.dumps(case)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            reports = list(_Nodes(setup, process).play())
        except BrokenPipeError:
            raise BenchError("the coordinator ended early", hint="see its traceback") from None
        finally:
            process.kill()
    if not reports or reports[-1]["begins"] != "end":
        raise BenchError("the coordinator ended early", hint="see its traceback")
    ended = ["imports", *(report["begins"] for report in reports[1:-1])]
    return Peak(
        n=n,
        dim=dim,
        neighbours=parameters.neighbours,
        imports=reports[0]["peak"],
        after={name: r["peak"] for name, r in zip(ended, reports[1:], strict=False)},
        peak=reports[-1]["peak"],
        exact=reports[-1]["sum"] == sum_of_inputs(setup) and reports[-1]["contributors"] == n,
    )


class _Nodes:
    """All nodes of a round, one at work at a time."""

    def __init__(self, setup: RoundSetup, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise BenchError("no pipe to the coordinator")
        self._to_server, self._from_server = process.stdin, process.stdout
        self._frames: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._clients = [LateClient(setup, node) for node in setup.cohort]
        self._shares: dict[int, Message] = {}  # kept back until the upload is due
        self._last: deque[tuple[int, Step]] = deque()  # chunks that would complete an upload
        self._left = len(self._clients)  # uploads that are not complete

    def play(self) -> Iterator[dict[str, Any]]:
        """Answer the coordinator until it ends; yield its reports."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()  # a coordinator that cannot write does not read either
        for number, client in enumerate(self._clients):
            self._send(number, client.start(0.0))
        while (frame := self._frames.get()) is not None:
            number, data = frame
            if number == REPORT:
                yield json.loads(data)
            else:
                self._deliver(number, decode(data, sender=COORDINATOR))
        reader.join()

    def _read(self) -> None:
        for frame in read_frames(self._from_server):
            self._frames.put(frame)
        self._frames.put(None)

    def _deliver(self, number: int, message: Message) -> None:
        client = self._clients[number]
        if isinstance(message, PeerShares):
            self._shares[number] = message
            return
        if isinstance(message, UploadTurn):
            self._send(number, client.receive(self._shares.pop(number), 0.0))
            self._upload(number, client.receive(message, 0.0))
            return
        self._send(number, client.receive(message, 0.0))

    def _upload(self, number: int, step: Step) -> None:
        """Send all but the last chunk; end the oldest upload when as many as can be are open."""
        self._send(number, Step(step.send[:-1]))
        self._last.append((number, Step(step.send[-1:])))
        while self._last and len(self._last) == min(UPLOAD_SLOTS, self._left):
            self._left -= 1
            self._send(*self._last.popleft())

    def _send(self, number: int, step: Step) -> None:
        for out in step.send:
            write_frame(self._to_server, number, encode(out.message))
        self._to_server.flush()


def _row(peak: Peak, smallest: Peak) -> str:
    cells = [
        str(peak.n),
        str(peak.dim),
        str(peak.neighbours),
        f"{peak.imports / 2**20:.0f}",
        ", ".join(_growth(peak)),
        f"{peak.peak / 2**20:.0f}",
        f"{peak.peak / smallest.peak:.2f}",
        "yes" if peak.exact else "NO",
    ]
    return "| " + " | ".join(cells) + " |"


def _growth(peak: Peak) -> Iterator[str]:
    """Name the phases in which the peak grew by more than 1 MB."""
    before = peak.imports
    for phase, size in peak.after.items():
        if size - before > 1 << 20:
            yield f"{phase} +{(size - before) / 2**20:.0f}"
        before = size


HEADER = (
    "| n | d | k | imports MB | grows in, MB | peak MB | × smallest n | exact |\n"
    "|--:|--:|--:|--:|---|--:|--:|---|"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--dims", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    found: list[Peak] = []
    if not options.json:
        print(HEADER, flush=True)
    try:
        for dim in options.dims:
            smallest = measure(options.nodes[0], dim)
            for n in options.nodes:
                peak = smallest if n == options.nodes[0] else measure(n, dim)
                found.append(peak)
                if not options.json:
                    print(_row(peak, smallest), flush=True)
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")
    if options.json:
        peaks = [asdict(peak) for peak in found]
        print(json.dumps({"machine": asdict(describe_machine()), "target": TARGET, "peaks": peaks}))
    else:
        print(f"\nTarget: the largest cohort within {TARGET} of the smallest.")


if __name__ == "__main__":
    main()
