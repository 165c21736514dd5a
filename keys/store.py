"""Files: written whole or not at all, secrets for their owner alone.

A write goes to a new file beside the old one (mode 0600 from its first byte), is forced to the
disk, takes the name in one step, and the folder is forced to the disk as well. A crash at any
point leaves the old file or the new one (specs/70-keys.md section 5).
"""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from secagg.errors import ConfigError, KeyMaterialError

__all__ = [
    "check_private_folder",
    "create_once",
    "locked",
    "make_private_folder",
    "read_public",
    "read_secret",
    "write_atomic",
]

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077
_serial = itertools.count()


def make_private_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, or check that it has it.

    Raises:
        ConfigError: It is no folder, or others can enter it and it is not empty.
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
            if any(folder.iterdir()):
                raise ConfigError(
                    f"{folder}: others can enter this folder", hint=f"chmod 700 {folder}"
                )
            folder.chmod(_FOLDER_MODE)
    except OSError as error:
        raise _unusable(folder, error, ConfigError) from None


def check_private_folder(folder: Path) -> None:
    """Refuse a folder that others can enter: who can write there can swap what lies there.

    Raises:
        KeyMaterialError: It is missing, or its mode is wider than 0700 (K-21).
    """
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise _unusable(folder, error) from None
    if mode & _OTHERS:
        raise KeyMaterialError(
            f"{folder}: mode {mode:04o} lets others into this folder", hint=f"chmod 700 {folder}"
        )


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by a file of mode 0600 that holds `data`, or leave it as it was (K-20).

    Raises:
        KeyMaterialError: The folder cannot be written.
    """
    _publish(path, data, may_exist=True)


def create_once(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet; never overwrites, also when two try at once.

    Raises:
        KeyMaterialError: It exists, or the folder cannot be written.
    """
    _publish(path, data, may_exist=False)


def read_secret(path: Path, max_bytes: int) -> bytes:
    """Read a file that only its owner may read.

    Args:
        path: The file; its mode is checked on the open file, not on the name.
        max_bytes: Longer files are refused unread.

    Raises:
        KeyMaterialError: Missing, too long, or open to group or others (K-21).
    """
    with _opened(path) as file:
        mode = stat.S_IMODE(os.fstat(file).st_mode)
        if mode & _OTHERS:
            raise KeyMaterialError(
                f"{path}: mode {mode:04o} lets others at this secret", hint=f"chmod 600 {path}"
            )
        return _read(path, file, max_bytes)


def read_public(path: Path, max_bytes: int) -> bytes:
    """Read a file that anyone may read; its signature is what counts.

    Raises:
        KeyMaterialError: Missing or too long.
    """
    with _opened(path) as file:
        return _read(path, file, max_bytes)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: of two writers the second waits (K-22).

    Raises:
        KeyMaterialError: The folder is missing or cannot be written.
    """
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # closing gives the lock back


def _publish(path: Path, data: bytes, *, may_exist: bool) -> None:
    try:
        temporary = _write_new(path, data)
        try:
            if may_exist:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # unlike a rename, fails where the name is taken
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        _sync_folder(path.parent)
    except FileExistsError:
        raise KeyMaterialError(
            f"{path}: exists already and is never overwritten", hint="use another folder"
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None


def _write_new(path: Path, data: bytes) -> Path:
    """Write `data` under a temporary name beside `path` and return that name."""
    temporary, handle = _open_new(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _open_new(path: Path) -> tuple[Path, int]:
    """Open a name that is free: a killed writer of the same process id may have left some."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_serial)}.tmp")
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return temporary, os.open(temporary, flags, _FILE_MODE)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:  # a FIFO in the file's place must not block us
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        yield handle
    except OSError as error:
        raise _unusable(path, error) from None
    finally:
        os.close(handle)


def _read(path: Path, handle: int, max_bytes: int) -> bytes:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise KeyMaterialError(f"{path}: not a file", hint="name the file itself")
    parts: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (part := os.read(handle, left)):
        parts.append(part)
        left -= len(part)
    if left == 0:
        raise KeyMaterialError(
            f"{path}: longer than {max_bytes} bytes", hint="this is not a file of secagg keys"
        )
    return b"".join(parts)


def _unusable(
    path: Path, error: OSError, kind: type[KeyMaterialError] | type[ConfigError] = KeyMaterialError
) -> KeyMaterialError | ConfigError:
    hint = {
        FileNotFoundError: "check the path; `secagg keys` says which command makes this file",
        PermissionError: "check who owns the file and its folder, and as whom you run this",
    }.get(type(error), "check the path and the file system")
    return kind(f"{path}: {(error.strerror or 'cannot be used').lower()}", hint=hint)
