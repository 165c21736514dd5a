"""A federation of real daemons to be measured: its processes, its model, the times of its rounds.

`bench.sockets` runs several and compares them.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.common import BenchError
from fl_core.config import ModelConfig
from keys import provision
from nodes.supervisor import Fleet
from nodes.telemetry import Record
from nodes.templates import coordinator_toml, node_toml

__all__ = ["Federation", "RoundTime", "model_of", "rounds_of"]

INPUT_DIM: Final = 4
EMBEDDING_DIM: Final = 8
ROWS: Final = 20
_DISTURBANCES: Final = ("round.lost", "peer.rejected", "node.refused", "silent", "unreachable")


def model_of(dim: int) -> ModelConfig:
    """Return the encoder with two hidden layers whose parameters come nearest to `dim`.

    Raises:
        BenchError: nothing comes near.
    """
    side = int(dim**0.5)
    best, distance = None, dim
    for first in range(max(1, side - 40), side + 1):
        for second in range(max(1, side - 40), side + 41):
            model = ModelConfig(INPUT_DIM, hidden=(first, second), embedding_dim=EMBEDDING_DIM)
            off = abs(_size(model) - dim)
            if off < distance:
                best, distance = model, off
    if best is None or distance > 0.01 * dim:
        raise BenchError(f"no model has about {dim} parameters", hint="use 1000 or more")
    return best


def _size(model: ModelConfig) -> int:
    widths = (model.input_dim, *model.hidden, model.embedding_dim)
    layers = sum(a * b + b for a, b in itertools.pairwise(widths))
    return layers + model.input_dim * model.embedding_dim


@dataclass(frozen=True)
class RoundTime:
    """One round, in seconds.

    Attributes:
        wall_s: From the end of the round before to the end of this one.
        phases: Phase to its part of `wall_s`.
        coordinator_cpu_s: Of the coordinator's process.
        nodes_cpu_s: Of all nodes together, in steps of 10 ms a node.
        received: Bytes that the coordinator received.
        sent: Bytes that it sent.
    """

    wall_s: float
    phases: dict[str, float]
    coordinator_cpu_s: float
    nodes_cpu_s: float
    received: int
    sent: int


class Federation:
    """One federation from provisioning to the end of its run."""

    def __init__(self, folder: Path, scheme: str, model: ModelConfig, *, n: int, rounds: int):
        self._folder, self._scheme = folder, scheme
        self._names = [f"site-{index:03d}" for index in range(n)]
        provision(
            folder / "keys", "bench", "hub", self._names, now=int(time.time()), rng=os.urandom
        )
        values: dict[str, dict[str, Any]] = {
            "coordinator": {
                "keys": "keys/coordinator",
                "state": "hub",
                "bind": "tcp://127.0.0.1:*",
            },
            "run": {
                "rounds": rounds,
                "min_nodes": n,
                "scheme": scheme,
                "allow_insecure": scheme == "insecure-plain",
                "join_timeout": 120.0,
                "give_up": 180.0,
                "liveness": 60.0,  # what else runs here may hold a node up
            },
            "model": model.to_dict(),
            "train": {"steps": 1, "batch_size": 2},
        }
        self._config = folder / "coordinator.toml"
        self._config.write_text(coordinator_toml(values))

    def records(self) -> Generator[Record, None, None]:
        """Run; yield the coordinator's records, those at a round's end with the nodes' CPU time."""
        command = [sys.executable, "-m", "bench.timed_coordinator", str(self._config)]
        log = self._folder / "hub.log"
        with (
            Fleet() as fleet,
            log.open("wb") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as coordinator,
        ):
            try:
                if coordinator.stdout is None:
                    raise BenchError("no pipe to the coordinator")
                for line in coordinator.stdout:
                    record: Record = json.loads(line)
                    if record["event"] == "coordinator.listening":
                        self._start_nodes(fleet, record["endpoint"])
                    if record["event"] == "round.done":
                        record["nodes_cpu"] = sum(_cpu_s(w.process.pid) for w in fleet.workers)
                    yield record
                    if record["event"] == "run.over":
                        return
            finally:
                coordinator.terminate()
        raise BenchError("the coordinator ended early", hint=log.read_text()[-500:])

    def _start_nodes(self, fleet: Fleet, endpoint: str) -> None:
        rng = np.random.default_rng(0)
        for name in self._names:
            data, path = self._folder / f"{name}.csv", self._folder / f"{name}.toml"
            header = ",".join(f"f{column}" for column in range(INPUT_DIM))
            np.savetxt(data, rng.normal(size=(ROWS, INPUT_DIM)), "%.5f", ",", header=header)
            data.write_text(data.read_text().removeprefix("# "))
            node = {
                "keys": f"keys/nodes/{name}",
                "state": f"{name}-state",
                "coordinator": endpoint,
            }
            values: dict[str, dict[str, Any]] = {
                "node": node,
                "data": {"source": str(data)},
                "policy": {"schemes": [self._scheme]},
            }
            path.write_text(node_toml(values))
            fleet.start(name, ["node", "--config", str(path)], self._folder / f"{name}.log")


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, all threads and the kernel's share (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class _Open:
    """A round that is going on: when its current phase began, and what the others took."""

    begun: Record
    phase: str = "offer"
    since: float = 0.0
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def enter(self, phase: str, at: float) -> None:
        self.phases[self.phase] += at - self.since
        self.phase, self.since = phase, at


def rounds_of(records: Iterator[Record]) -> Iterator[RoundTime]:
    """Yield every round but the first, from a coordinator's stamped records.

    Raises:
        BenchError: a round was lost, or somebody broke the protocol.
    """
    current: _Open | None = None
    for record in records:
        event = record["event"]
        if event in _DISTURBANCES or record.get("reason") in _DISTURBANCES:
            raise BenchError(f"the run was disturbed: {record}")
        if event == "round.done":
            if current is not None:
                current.enter("", record["at"])
                yield _closed(current, record)
            current = _Open(record, since=record["at"])
        elif current is not None and event == "phase.changed":
            current.enter(record["phase"], record["at"])
        elif current is not None and event == "server.step":
            current.enter("server step", record["at"])


def _closed(round_: _Open, done: Record) -> RoundTime:
    begun = round_.begun
    return RoundTime(
        wall_s=done["at"] - begun["at"],
        phases=dict(round_.phases),
        coordinator_cpu_s=done["cpu"] - begun["cpu"],
        nodes_cpu_s=done["nodes_cpu"] - begun["nodes_cpu"],
        received=done["bytes_received"] - begun["bytes_received"],
        sent=done["bytes_sent"] - begun["bytes_sent"],
    )
