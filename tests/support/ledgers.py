"""Privacy ledgers for tests, and processes that are killed while they charge one.

Usage: python -m tests.support.ledgers calls|time FOLDER
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nodes.privacy_ledger import LEDGER, FileLedger
from secagg.dp.events import PrivacyEvent, SampledGaussian, SumNoise, Unprotected
from secagg.dp.ledger import History

RUN: Final = b"R" * 16
OTHER: Final = b"Q" * 16
NOW: Final = 1_700_000_000.5
SUM: Final = SumNoise("discrete-gaussian", 4e4, 10, 60.0, 300.0, 100)
STEPS: Final = SampledGaussian(1.2, 0.01, 100)
CALLS: Final = ("open", "write", "fsync", "replace")
"""What changes a disk."""


def charge(ledger: FileLedger, round_id: int, event: PrivacyEvent = SUM) -> None:
    unit = {SumNoise: "client", SampledGaussian: "record", Unprotected: "none"}[type(event)]
    ledger.spend(RUN, round_id, unit, event, now=NOW + round_id)


def filled(path: Path, rounds: int) -> FileLedger:
    """A ledger with rounds 0, 1, … of `RUN`."""
    ledger = FileLedger(path)
    for round_id in range(rounds):
        charge(ledger, round_id)
    return ledger


def lines(count: int) -> list[bytes]:
    """The first lines of a ledger, without newlines."""
    history = History()
    made: list[bytes] = []
    for index in range(count):
        made.append(history.draft(RUN, index, "client", SUM, now=NOW + index))
        history.take(made[-1])
    return made


def hook_calls(at: int, action: Callable[[Callable[[], Any], str, tuple[Any, ...]], Any]) -> None:
    """Have the `at`-th call that changes a disk, counted from 0, done by `action`."""
    count = -1

    def hooked(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                return action(lambda: real(*arguments, **named), name, arguments)
            return real(*arguments, **named)

        return call

    for name in CALLS:
        setattr(os, name, hooked(name, getattr(os, name)))


def kill_before(real: Callable[[], Any], name: str, arguments: tuple[Any, ...]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_after(real: Callable[[], Any], name: str, arguments: tuple[Any, ...]) -> None:
    real()
    os.kill(os.getpid(), signal.SIGKILL)


def kill_halfway(real: Callable[[], Any], name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":
        handle, data = arguments
        with os.fdopen(handle, "ab", buffering=0, closefd=False) as file:
            file.write(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


KILLS: Final = {"before": kill_before, "after": kill_after, "halfway": kill_halfway}


def prepare(path: Path, start: str) -> None:
    """Leave a ledger as something left it that is not the process to be killed."""
    path.parent.mkdir(parents=True)
    if start == "new":
        return
    filled(path, 2)
    if start == "torn":
        with path.open("ab") as file:
            file.write(b'{"event":{"dim"')
    if start == "ahead":
        head = path.with_name(LEDGER + ".head")
        older = head.read_bytes()
        charge(FileLedger(path), 2)
        head.write_bytes(older)


def kill_at_every_call(folder: Path) -> None:
    """For every start, way to die and call: a folder with what the killed process left."""
    for start in ("new", "two", "torn", "ahead"):
        prepare(folder / start / LEDGER, start)
        for how, action in KILLS.items():
            at, died = 0, True
            while died:
                path = folder / f"{start}-{how}-{at}" / LEDGER
                shutil.copytree(folder / start, path.parent)
                child = os.fork()
                if not child:
                    ledger = FileLedger(path)
                    hook_calls(at, action)
                    charge(ledger, 9)
                    os._exit(0)
                _, status = os.waitpid(child, 0)
                died = os.WIFSIGNALED(status)
                at += 1


def kill_at_any_time(folder: Path) -> None:
    """Kill one charging process after another; print the rounds whose charge had returned."""
    draw, returned = random.Random(5), []
    for _ in range(25):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            ledger = FileLedger(folder / LEDGER)
            taken = {entry.round_id for entry in ledger.history().entries}
            for round_id in (number for number in range(100_000) if number not in taken):
                charge(ledger, round_id)
                os.write(writer, f"{round_id}\n".encode())
        os.close(writer)
        time.sleep(draw.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            returned += [int(line) for line in pipe]
    sys.stdout.write(json.dumps(returned))


if __name__ == "__main__":
    {"calls": kill_at_every_call, "time": kill_at_any_time}[sys.argv[1]](Path(sys.argv[2]))
