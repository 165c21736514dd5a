"""The privacy ledger as a file, and beside it how long it was when it was last written.

::

    privacy.jsonl       [fragment CANCEL] entry newline, for every round that was charged
    privacy.jsonl.head  {"count":<number>,"hash":"<64 hex digits>"} newline

A charge is written and forced to the disk, then its newline, then the head is replaced. So a
process that is killed leaves a ledger that is whole, one entry ahead of its head, or with a last
line that has no newline and counts for nothing: its round had not left. A ledger that is behind
its head is an older copy. Source: specs/52-ledger.md sections 3 and 4.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from keys.store import write_atomic
from nodes.session.ledger import PrivacyLedger
from nodes.store import sync_folder
from secagg.dp.events import PrivacyEvent
from secagg.dp.ledger import Entry, History, LedgerSetBackError
from secagg.errors import ConfigError, KeyMaterialError

__all__ = ["LEDGER", "FileLedger", "LedgerReading", "head_path", "read_ledger"]

LEDGER: Final = "privacy.jsonl"
"""The ledger's name in a state folder."""

_FULL_HINT: Final = "make room on the disk, or check who owns the state folder"
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]


class _Head(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    count: _Count
    hash: _Digest


@dataclass(frozen=True, slots=True)
class LedgerReading:
    """A ledger as it was at one moment."""

    history: History
    """The committed entries."""
    fragment: bytes
    """What lies behind them: a write that was cut off, or one that goes on at this moment."""


def head_path(path: Path) -> Path:
    """Return where the head of the ledger `path` is."""
    return path.with_name(path.name + ".head")


def read_ledger(path: Path) -> LedgerReading:
    """Read and verify a ledger without a lock, also while a daemon writes it; changes nothing.

    Raises:
        LedgerDamagedError: a line is not an entry or does not follow.
        LedgerSetBackError: the ledger does not fit its head.
        ConfigError: there is no ledger, or it cannot be read.
    """
    history = History(str(path))  # B-12
    before = _read_head(path)  # read first, it cannot be ahead of the ledger by right
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check_regular(path, os.fstat(handle))
            lines, fragment = _read_on(handle, 0)
        finally:
            os.close(handle)
    except OSError as error:
        if before is not None:
            _check_witness(path, history, before)
        hint = "name the state folder of a node or coordinator that took part, or its ledger"
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    for line in lines:
        history.take(line)
    if before is not None:
        _check_witness(path, history, before)
    after = _read_head(path)
    if after is None or after.count <= len(history):
        _check_head(path, history, after)
    return LedgerReading(history, fragment)


class FileLedger(PrivacyLedger):
    """The ledger of one party in a file of its state folder, which must exist.

    Args:
        path: The file; made with mode 0600 at the first charge.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._history = History(str(path))
        self._size = 0  # bytes of committed lines that `_history` holds
        self._last = b""  # the last of them, its newline included

    def check(self) -> int:
        """Return how many rounds were charged, for a start to fail before a round does.

        Raises:
            ConfigError: as `history`.
        """
        return len(self.history())

    def history(self) -> History:
        """Return all charges up to now; see `PrivacyLedger.history`.

        Raises:
            LedgerDamagedError: a line is not an entry or does not follow.
            LedgerSetBackError: the file is an older copy, or was replaced.
            ConfigError: it cannot be read or brought to the disk, or another process has it.
        """
        if not self._size and not self._path.exists():
            _check_head(self._path, self._history, _read_head(self._path))
            return self._history
        with self._opened(0) as handle:
            self._refresh(handle)
        return self._history

    def spend(
        self, run_id: bytes, round_id: int, unit: str, event: PrivacyEvent, *, now: float
    ) -> Entry:
        """Charge a round; see `PrivacyLedger.spend`.

        Raises:
            RoundSpentError: the round was charged before.
            ConfigError: as `history`, or the disk is full; nothing may be sent.
            LocalProtocolError: an argument is out of range.
        """
        with self._opened(os.O_CREAT) as handle:
            fragment = self._refresh(handle)
            line = self._history.draft(run_id, round_id, unit, event, now=now, fragment=fragment)
            for part in (line[len(fragment) :], b"\n"):  # B-04: the newline is written last
                _write(handle, part)
            entry = self._take(line)
            self._commit()
        return entry

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        """Open and lock the file; a lock that another process holds is not waited for (B-13)."""
        try:
            handle = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | flags, 0o600
            )
        except FileNotFoundError:
            if self._size:
                raise self._replaced() from None
            raise ConfigError(f"{self._path}: no such folder", hint=_FULL_HINT) from None
        except OSError as error:
            raise _unusable(self._path, error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield handle
        except BlockingIOError:
            raise ConfigError(
                f"{self._path} is in use by another process",
                hint="stop it: one state folder belongs to one party",
            ) from None
        except OSError as error:
            raise _unusable(self._path, error) from None
        finally:
            os.close(handle)

    def _refresh(self, handle: int) -> bytes:
        """Read what was appended since, check it all, mend the head; return the fragment."""
        _check_regular(self._path, os.fstat(handle))
        last = os.pread(handle, len(self._last), self._size - len(self._last))
        if last != self._last:  # its hash stands for all before it
            raise self._replaced()
        lines, fragment = _read_on(handle, self._size)
        for line in lines:
            self._take(line)
        head = _read_head(self._path)
        _check_head(self._path, self._history, head)
        if len(self._history) > (head.count if head else 0):
            os.fsync(handle)  # killed before it was forced, maybe
            self._commit()
        return fragment

    def _take(self, line: bytes) -> Entry:
        entry = self._history.take(line)
        self._last = line + b"\n"
        self._size += len(self._last)
        return entry

    def _commit(self) -> None:
        """Force the file's name to the disk, then say in the head how long the ledger is."""
        sync_folder(self._path.parent)
        try:
            write_atomic(head_path(self._path), _encode_head(self._history))
        except KeyMaterialError as error:
            raise ConfigError(str(error), hint=error.hint or _FULL_HINT) from None

    def _replaced(self) -> LedgerSetBackError:
        return LedgerSetBackError(
            f"{self._path} was replaced or cut while it was in use",
            hint="stop this party, find out who restores its state folder, and put the newest "
            "whole copy back",
        )


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)


def _read_on(handle: int, start: int) -> tuple[list[bytes], bytes]:
    """Return the committed lines from byte `start` on, and what lies behind the last newline."""
    parts: list[bytes] = []
    while part := os.pread(handle, 1 << 20, start):
        parts.append(part)
        start += len(part)
    *lines, fragment = b"".join(parts).split(b"\n")
    return lines, fragment


def _read_head(path: Path) -> _Head | None:
    name = head_path(path)
    try:
        return msgspec.json.decode(name.read_bytes(), type=_Head)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(name, error) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ConfigError(
            f"{name} is damaged", hint="move it away: the next start says how to write it anew"
        ) from None


def _check_witness(path: Path, history: History, head: _Head) -> None:
    history.check_witness(head.count, bytes.fromhex(head.hash), str(head_path(path)))


def _check_head(path: Path, history: History, head: _Head | None) -> None:
    """Refuse a ledger that is behind its head, and one that is ahead by more than one (B-06)."""
    if head is not None:
        _check_witness(path, history, head)
    seen = head.count if head is not None else 0
    if len(history) <= seen + 1:
        return
    name, anew = head_path(path), _encode_head(history).decode().strip()
    raise LedgerSetBackError(
        f"{path} has {len(history)} entries, but {name} "
        + (f"knows only {seen}: it was set back" if seen else "is missing"),
        hint=f"put the newest copies of both back; only if you are sure that no line is missing "
        f"from the ledger, write the other anew: echo '{anew}' > {name}",
    )


def _encode_head(history: History) -> bytes:
    return msgspec.json.encode(_Head(len(history), history.head.hex())) + b"\n"


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file", hint="move it away")


def _unusable(path: Path, error: OSError) -> ConfigError:
    reason = (error.strerror or "cannot be used").lower()
    return ConfigError(f"{path}: {reason}", hint=_FULL_HINT)
