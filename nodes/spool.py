"""A round's capsules and sealed shares on disk instead of in the coordinator's memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

from secagg.errors import ConfigError

__all__ = ["FileSpool"]


class FileSpool:
    """A `secagg.relay.Spool` in a file without a name, gone with this object or process.

    Args:
        folder: Where the file lies; a folder of the coordinator's own, on a disk.

    Raises:
        ConfigError: no file can be made there; so does `append` when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._size = folder, 0
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                self._handle = os.dup(file.fileno())
        except OSError as error:
            raise self._unusable(error) from None
        weakref.finalize(self, os.close, self._handle)

    def append(self, data: bytes) -> int:
        """Store `data`; return what to call it: where it begins."""
        start, rest = self._size, memoryview(data)
        while rest:
            try:
                written = os.pwrite(self._handle, rest, self._size)
            except OSError as error:
                raise self._unusable(error) from None
            self._size += written
            rest = rest[written:]
        return start

    def read(self, name: int, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on of what `append` called `name`."""
        try:
            data = os.pread(self._handle, size, name + start)
        except OSError as error:
            raise self._unusable(error) from None
        if len(data) < size:
            raise ConfigError(
                f"a temporary file in {self._folder} was cut short",
                hint="check the disk, and start the coordinator again",
            )
        return data

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"cannot keep a round's messages in {self._folder}: {error.strerror}",
            hint="free space on its disk, or choose another coordinator.state folder",
        )
