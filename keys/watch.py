"""A roster file that a daemon polls: new versions are taken up, old ones never come back.

Beside the file lies its floor, `roster.version`: the newest version ever accepted and its digest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from keys.roster import MAX_ROSTER_BYTES, Roster, verify_roster
from keys.store import locked, read_public, write_atomic
from secagg.errors import KeyMaterialError

__all__ = ["RosterFile", "check_roster", "raise_floor", "read_floor"]

_FLOOR: Final = re.compile(rb"([1-9][0-9]{0,9}) ([0-9a-f]{64})\n")


class RosterFile:
    """Reads `path` again and again; keeps the last roster that held.

    Args:
        path: `roster.json` of a party's folder; the folder must be writable, for the floor.
        root_key: The pinned root key, 32 bytes.
    """

    def __init__(self, path: Path, root_key: bytes) -> None:
        self._path = path
        self._root_key = root_key
        self._current: Roster | None = None
        self._bytes = b""

    @property
    def current(self) -> Roster | None:
        """The last roster that `reload` accepted, or None before the first."""
        return self._current

    @property
    def document(self) -> bytes:
        """The bytes of `current`, to be passed on: the file itself may have changed since."""
        return self._bytes

    def reload(self) -> Roster | None:
        """Read the file; blocks for a few file operations at most.

        Returns:
            The new roster, or None if the file has not changed since the last call that returned.

        Raises:
            KeyMaterialError: The file is missing, damaged, rolled back or at odds with what was
                seen; `current` stays, and the next call looks again (K-19).
        """
        data = read_public(self._path, MAX_ROSTER_BYTES)
        if data == self._bytes:
            return None
        with locked(self._path.parent):
            roster = check_roster(self._path, data, self._root_key)
            raise_floor(self._path, roster)  # on the disk before the roster is used (K-19)
        self._bytes = data
        if self._current is not None and roster.digest == self._current.digest:
            return None
        self._current = roster
        return roster


def read_floor(path: Path) -> tuple[int, bytes] | None:
    """Return version and digest of the newest roster ever accepted for `path`, None at first.

    Raises:
        KeyMaterialError: The floor file is damaged.
    """
    floor = _floor_path(path)
    if not floor.exists():
        return None
    match = _FLOOR.fullmatch(read_public(floor, 128))
    if match is None:
        raise KeyMaterialError(
            f"{floor}: damaged",
            hint=f"check that the roster is the root's newest, then remove {floor}",
        )
    return int(match[1]), bytes.fromhex(match[2].decode())


def check_roster(path: Path, data: bytes, root_key: bytes, *, source: str | None = None) -> Roster:
    """Verify `data` against the floor of `path`.

    Raises:
        KeyMaterialError: The roster does not hold, or is older than the floor (K-17, K-18).
    """
    return verify_roster(data, root_key, known=read_floor(path), source=source or str(path))


def raise_floor(path: Path, roster: Roster) -> None:
    """Remember that `roster` was seen; it passed `check_roster` under the same lock."""
    known = read_floor(path)
    if known is None or roster.version > known[0]:
        line = f"{roster.version} {roster.digest.hex()}\n"
        write_atomic(_floor_path(path), line.encode())


def _floor_path(path: Path) -> Path:
    return path.with_name(path.stem + ".version")
