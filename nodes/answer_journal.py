"""The journal of views as a file: one line each, appended, on the disk before it is co-signed.

::

    {"run":"<32 hex digits>","round":<number>,"digest":"<64 hex digits>"}

The file is opened, locked and read anew at each claim, so that processes which share it (a second
start, a fork, a memory snapshot that was resumed) see each other's claims. A round adds about
140 bytes and nothing is ever removed. Source: specs/60-session.md section 6 (S-14, S-15).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nodes.session.journal import AnswerJournal
from nodes.store import sync_folder
from secagg.errors import ConfigError, LocalProtocolError

__all__ = ["FileJournal"]

_RUN_SIZE: Final = 16
_DIGEST_SIZE: Final = 32
_HEAD: Final = re.compile(rb'\{"run":"([0-9a-f]{32})","round":(0|[1-9][0-9]{0,19}),')
_LABEL: Final = b'"digest":"'
_LINE: Final = re.compile(_HEAD.pattern + _LABEL + rb'[0-9a-f]{64}"\}')
_FULL_HINT: Final = "make room on the disk, or check who owns the state folder"


class FileJournal(AnswerJournal):
    """Views of one node in a file of its state folder, which must exist.

    Args:
        path: The file; made with mode 0600 at the first claim.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0  # bytes; a file that grows shorter is not the one we wrote
        self._named = False  # whether the file's name is on the disk

    def check(self) -> int:
        """Return how many rounds were claimed, for a start to fail before a round does.

        Raises:
            ConfigError: the file cannot be read or is damaged; the hint says how to mend it.
        """
        if not self._path.exists():
            return 0
        with self._opened() as handle:
            return len(self._read(handle)[0])

    def claim(self, run_id: bytes, round_id: int, digest: bytes) -> bool:
        """Take the one view of a round; see `AnswerJournal.claim`.

        Raises:
            ConfigError: the disk is full, the file cannot be used or is damaged, or another process
                is claiming at this moment.
            LocalProtocolError: the run id or the digest has another size.
        """
        if len(run_id) != _RUN_SIZE or len(digest) != _DIGEST_SIZE:
            raise LocalProtocolError("a claim takes a run id of 16 bytes and a digest of 32")
        with self._opened() as handle:
            claimed, repair = self._read(handle)
            if (run_id, round_id) in claimed:
                return False
            self._append(handle, repair + _line(run_id, round_id, digest))
        return True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open and lock the file; closing gives the lock back.

        The lock is not waited for: another claim at this moment is another process on this folder,
        and a stopped one would hold the round up for ever (S-03).
        """
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield handle
        except BlockingIOError:
            raise ConfigError(
                f"{self._path} is in use by another process",
                hint="stop it: one state folder belongs to one node",
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(handle)

    def _read(self, handle: int) -> tuple[set[tuple[bytes, int]], bytes]:
        """Return what was claimed, and what makes a torn last line whole."""
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{self._path} is not a file", hint="move it away")
        if status.st_size < self._seen or not os.path.samestat(status, self._path.stat()):
            raise ConfigError(
                f"{self._path} was replaced or cut while this node ran",
                hint="stop the node, find out who restores its state folder, and start it again",
            )
        data = b""
        while part := os.read(handle, 1 << 20):
            data += part
        *lines, tail = data.split(b"\n")
        claimed: set[tuple[bytes, int]] = set()
        for number, line in enumerate(lines, start=1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise self._damaged(number, "is not an answer")  # S-16
            claimed.add((bytes.fromhex(match[1].decode()), int(match[2])))
        repair = b""
        if tail:
            run_id, round_id, repair = self._torn(tail, len(lines) + 1)
            claimed.add((run_id, round_id))
        self._seen = len(data)
        return claimed, repair

    def _torn(self, tail: bytes, number: int) -> tuple[bytes, int, bytes]:
        """Attribute a line that a crash or a full disk cut off: its round counts as claimed (S-16).

        Returns:
            Run id, round id, and the bytes that complete the line with zeros for lost digits.
        """
        match = _HEAD.match(tail)
        if match is not None:
            run_id, round_id = bytes.fromhex(match[1].decode()), int(match[2])
            whole = _line(run_id, round_id, bytes(_DIGEST_SIZE))
            digits = match.end() + len(_LABEL)
            if whole.startswith(tail[:digits] + re.sub(rb"[0-9a-f]", b"0", tail[digits:])):
                return run_id, round_id, whole[len(tail) :]
        raise self._damaged(number, "was cut off while it was written, so its answer never left")

    def _append(self, handle: int, data: bytes) -> None:
        """Add `data` and force it, and the file's name, to the disk; leave no part of it if not."""
        size = self._seen
        try:
            left = data
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
            if not self._named:
                sync_folder(self._path.parent)
                self._named = True
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
        self._seen = size + len(data)

    def _damaged(self, number: int, how: str) -> ConfigError:
        return ConfigError(
            f"{self._path}: line {number} {how}",
            hint=f"stop every process that runs from this folder, then remove that line "
            f"(sed -i '{number}d' {self._path}): a restarted node holds no secrets of an older "
            "round, and its memory keeps it out of the rounds it was offered",
        )

    def _unusable(self, error: OSError) -> ConfigError:
        reason = (error.strerror or "cannot be used").lower()
        return ConfigError(f"{self._path}: {reason}", hint=_FULL_HINT)


def _line(run_id: bytes, round_id: int, digest: bytes) -> bytes:
    text = f'{{"run":"{run_id.hex()}","round":{round_id},"digest":"{digest.hex()}"}}\n'
    return text.encode()
