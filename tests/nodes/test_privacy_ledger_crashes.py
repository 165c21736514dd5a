"""kill -9 at every call that writes the ledger, at any time, and in any order with all else."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.privacy_ledger import LEDGER, FileLedger, read_ledger
from secagg.dp.ledger import RoundSpentError
from tests.support.ledgers import CALLS, RUN, charge, hook_calls

DELTA: Final = 1e-5
BEFORE: Final = {"new": [], "two": [0, 1], "torn": [0, 1], "ahead": [0, 1, 2]}
"""Rounds that a ledger held before the process that was killed."""


def play(what: str, folder: Path) -> str:
    """Run the processes that die; none of their threads may survive in ours."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.ledgers", what, str(folder)],
        check=True,
        timeout=150,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    ).stdout


@pytest.mark.req("B-04", "B-05", "B-06")
def test_killed_at_any_call_a_ledger_holds_what_returned_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play("calls", tmp_path)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # what follows is only read
    outcomes: dict[str, set[int]] = {start: set() for start in BEFORE}
    for folder in sorted(tmp_path.glob("*-*")):
        start = folder.name.split("-")[0]
        held, path = BEFORE[start], folder / LEDGER
        older = tmp_path / start / LEDGER
        left = path.read_bytes() if path.exists() else b""
        assert left.startswith(older.read_bytes() if older.exists() else b""), folder.name
        ledger = FileLedger(path)
        now = [entry.round_id for entry in ledger.history().entries]
        assert now in (held, [*held, 9]), folder.name
        outcomes[start].add(len(now) - len(held))
        spent = ledger.spent("client", DELTA)
        assert now == held or spent > read_spent(older), folder.name
        if now == held:
            charge(ledger, 9)
        else:
            with pytest.raises(RoundSpentError):
                charge(ledger, 9)
        charge(ledger, 10)
        assert path.read_bytes().startswith(left), folder.name  # nothing was ever taken away
        assert [e.round_id for e in read_ledger(path).history.entries] == [*held, 9, 10]
        assert FileLedger(path).spent("client", DELTA) > spent
    assert outcomes == {start: {0, 1} for start in BEFORE}  # killed before and after the commit


def read_spent(path: Path) -> float:
    return FileLedger(path).spent("client", DELTA)


@pytest.mark.req("B-01", "B-04")
def test_killed_at_any_time_a_ledger_holds_every_charge_that_returned(tmp_path: Path) -> None:
    returned = json.loads(play("time", tmp_path))
    assert returned
    held = [entry.round_id for entry in FileLedger(tmp_path / LEDGER).history().entries]
    assert set(returned) <= set(held)
    assert len(returned) == len(set(returned))
    assert len(held) <= len(returned) + 25  # each of the killed may have been about to return
    charge(FileLedger(tmp_path / LEDGER), 100_000)


class _Killed(BaseException):
    """Stands for SIGKILL within one process: nothing handles it."""


def _die(real: object, name: str, arguments: tuple[Any, ...]) -> None:
    if name == "write":
        os.pwrite(arguments[0], arguments[1][: len(arguments[1]) // 3], 0)  # O_APPEND: to the end
    raise _Killed


STEP = st.one_of(
    st.tuples(st.just("charge"), st.integers(0, 12)),
    st.tuples(st.just("other"), st.integers(0, 12)),
    st.tuples(st.just("crash"), st.integers(0, 12), st.integers(0, 14)),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("litter"), st.binary(min_size=1, max_size=30)),
)


@pytest.mark.req("B-03", "B-04", "B-05", "B-06")
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEP, max_size=14))
def test_whatever_happens_in_whichever_order_no_charge_is_lost_or_made_twice(
    steps: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LEDGER
        ledger, held, spent = FileLedger(path), list[int](), 0.0
        for what, *arguments in steps:
            before = path.read_bytes() if path.exists() else b""
            if what in ("charge", "other"):
                user = ledger if what == "charge" else FileLedger(path)
                if arguments[0] in held:
                    with pytest.raises(RoundSpentError):
                        charge(user, arguments[0])
                else:
                    charge(user, arguments[0])
                    held.append(arguments[0])
            elif what == "crash":
                with pytest.MonkeyPatch.context() as patch:
                    for name in CALLS:
                        patch.setattr(os, name, getattr(os, name))  # put back on leaving
                    hook_calls(arguments[1], _die)
                    with contextlib.suppress(_Killed, RoundSpentError):
                        charge(ledger, arguments[0])
                ledger = FileLedger(path)
            elif what == "litter" and path.exists():
                with path.open("ab") as file:
                    file.write(arguments[0].replace(b"\n", b""))
            elif what == "reopen":
                ledger = FileLedger(path)
            after = path.read_bytes() if path.exists() else b""
            assert after.startswith(before)
            rounds = [entry.round_id for entry in FileLedger(path).history().entries]
            assert rounds[: len(held)] == held
            assert len(rounds) - len(held) <= (what == "crash")
            assert all(entry.run_id == RUN for entry in ledger.history().entries)
            held, now = rounds, ledger.spent("client", DELTA)
            assert now >= spent
            spent = now
