"""Starts this program's own commands as processes, follows them, and ends them cleanly."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from nodes.telemetry import Record

__all__ = ["Fleet", "Worker", "stop_on_signals"]

GRACE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""


class Worker:
    """One process of ours, its log file, and the records it prints."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, *, events: bool) -> None:
        self.name, self.log = name, log
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nodes", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if events else self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the demo only, which then ends all in order
        )
        self.records: queue.Queue[Record | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        if events:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def log_tail(self, lines: int = 5) -> str:
        """Return the end of the log, for an error message."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(text[-lines:])

    def close(self) -> None:
        """Release the files of an ended process."""
        self.process.wait()
        if self._reader is not None:
            self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self.records.put(json.loads(line))
        self.records.put(None)


class Fleet:
    """All processes of a demo; leaving the block ends every one of them."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def start(
        self, name: str, arguments: Sequence[str], log: Path, *, events: bool = False
    ) -> Worker:
        """Start ``secagg <arguments>``."""
        worker = Worker(name, arguments, log, events=events)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self.workers:
            if worker.running:
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
            worker.close()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM and SIGHUP too, so that `Fleet` ends its processes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
