"""A real federation for tests: keys on disk, processes of our own commands, CURVE on loopback."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keys import Identity, load_identity, provision
from nodes.templates import coordinator_toml, node_toml

Record = dict[str, Any]
REPO = Path(__file__).parents[2]
N_FEATURES = 6
WAIT = 90.0  # seconds; a federation on a busy machine starts in five to fifteen


def write_site(path: Path, seed: int, *, rows: int = 120) -> None:
    """A small labelled CSV: benign rows around a site's own centre, attacks far from it."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0.0, 1.0, N_FEATURES)
    benign = centre + rng.normal(0.0, 1.0, (rows, N_FEATURES))
    attack = centre + 8.0 + rng.normal(0.0, 1.0, (rows // 4, N_FEATURES))
    lines = [",".join([*(f"f{i}" for i in range(N_FEATURES)), "label"])]
    for values, label in ((benign, "benign"), (attack, "flood")):
        lines += [",".join([*(f"{v:.6f}" for v in row), label]) for row in values]
    path.write_text("\n".join(lines) + "\n")


class Process:
    """One process; its event lines can be waited for."""

    def __init__(self, module: str, arguments: list[str], log: Path) -> None:
        self._log = log.open("ab")
        environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--events", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self.log, self.seen = log, list[Record]()
        self._queue: queue.Queue[Record | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def wait_for(self, event: str, seconds: float = WAIT, **fields: object) -> Record:
        """Return the next record of that name and those fields."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                record = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                record = None
            if record is None:
                tail = self.log.read_text()[-2000:]
                raise AssertionError(f"no {event} {fields}; saw {self.seen[-8:]}; log: {tail}")
            self.seen.append(record)
            if record["event"] == event and all(record[k] == v for k, v in fields.items()):
                return record

    def drain(self, seconds: float = WAIT) -> list[Record]:
        """Wait for the end of the process's output and return every record ever seen."""
        self.popen.wait(seconds)
        self._reader.join(seconds)
        while (record := self._queue.get()) is not None:
            self.seen.append(record)
        return self.seen

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(10)

    def terminate(self, seconds: float = 15) -> int:
        self.popen.terminate()
        return self.popen.wait(seconds)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(10)
        self._reader.join(10)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._log.close()


class Federation:
    """`n` nodes with small data; nothing runs until it is started."""

    def __init__(
        self,
        folder: Path,
        n: int,
        *,
        rounds: int = 3,
        privacy: Mapping[str, object] | None = None,
        **run: object,
    ) -> None:
        self.folder, self.names = folder, [f"site-{index}" for index in range(n)]
        self.places = provision(
            folder / "keys", "test", "hub", self.names, now=int(time.time()), rng=os.urandom
        )
        self._run = {
            "rounds": rounds,
            "min_nodes": 3,
            "heartbeat": 0.5,
            "liveness": 3.0,
            "join_timeout": 60.0,
            "phase_timeout": 20.0,
            "input_timeout": 60.0,
            "give_up": 120.0,
            **run,
        }
        self._privacy = {} if privacy is None else {"privacy": dict(privacy)}
        self.coordinator: Process
        self.nodes: dict[str, Process] = {}
        self.endpoint = ""
        self._processes: list[Process] = []

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self._processes:
            process.close()

    def coordinator_config(self, bind: str = "tcp://127.0.0.1:*") -> Path:
        path = self.folder / "coordinator.toml"
        values = {
            "coordinator": {"keys": "keys/coordinator", "state": "hub-state", "bind": bind},
            "run": self._run,
            "model": {"input_dim": N_FEATURES, "hidden": (16,), "embedding_dim": 8},
            "train": {"steps": 4, "batch_size": 32},
            **self._privacy,
        }
        path.write_text(coordinator_toml(values))
        return path

    def start_coordinator(self, bind: str = "tcp://127.0.0.1:*") -> Process:
        config = str(self.coordinator_config(bind))
        arguments = ["coordinator", "--config", config, "--log-level", "debug"]
        self.coordinator = self._start("nodes", arguments, "hub")
        self.endpoint = self.coordinator.wait_for("coordinator.listening")["endpoint"]
        return self.coordinator

    def node_config(self, name: str, **policy: object) -> Path:
        path, data = self.folder / f"{name}.toml", self.folder / f"{name}.csv"
        scheme, weights = self._run.get("scheme", "masking"), self._run.get("weights", "private")
        if not data.exists():
            write_site(data, seed=self.names.index(name))
        values = {
            "node": {
                "keys": f"keys/nodes/{name}",
                "state": f"{name}-state",
                "coordinator": self.endpoint,
            },
            "data": {"source": str(data), "device": name},
            "policy": {"schemes": [scheme], "weights": [weights], **policy},
        }
        path.write_text(node_toml(values))
        return path

    def start_node(self, name: str, *faults: str, **policy: object) -> Process:
        """Start a node; `faults` are arguments of tests.support.faulty_node."""
        config = str(self.node_config(name, **policy))
        if faults:
            process = self._start("tests.support.faulty_node", [config, *faults], name)
        else:
            arguments = ["node", "--config", config, "--log-level", "debug"]
            process = self._start("nodes", arguments, name)
        self.nodes[name] = process
        return process

    def start_all(self) -> None:
        self.start_coordinator()
        for name in self.names:
            self.start_node(name)

    def identity(self, name: str) -> Identity:
        folder = self.places.coordinator if name == "hub" else self.places.nodes[name]
        return load_identity(folder)

    def report(self, name: str) -> Record:
        report: Record = json.loads((self.folder / f"{name}-state/report.json").read_bytes())
        return report

    def _start(self, module: str, arguments: list[str], name: str) -> Process:
        process = Process(module, arguments, self.folder / f"{name}.log")
        self._processes.append(process)
        return process
