"""Feature rows of a packet stream, and their CSV: `time` and the 115 columns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from fl_core.data.extractor import FEATURE_NAMES, Extractor
from fl_core.data.packets import Packet
from fl_core.errors import DataError

__all__ = ["PROGRESS_PACKETS", "atomic_text", "feature_rows", "write_features"]

PROGRESS_PACKETS: Final = 1000
"""Packets between two calls of `on_progress`."""

_LINE: Final = "%.6f" + ",%.10g" * len(FEATURE_NAMES) + "\n"


def feature_rows(
    packets: Iterable[Packet], *, extractor: Extractor, sources: Collection[str] = ()
) -> Iterator[tuple[Packet, list[float]]]:
    """Yield packets with their rows of 115 statistics.

    Args:
        packets: In the order of capture.
        extractor: Sees every packet.
        sources: Only rows of packets sent by one of these MAC or IP addresses; empty for all.
    """
    for packet in packets:
        row = extractor.update(packet)
        if not sources or packet.src_mac in sources or packet.src_ip in sources:
            yield packet, row


def write_features(
    packets: Iterable[Packet],
    out: TextIO,
    *,
    extractor: Extractor,
    sources: Collection[str] = (),
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write the rows as CSV, each as soon as its packet is read.

    Args:
        packets: In the order of capture.
        out: Where to; times have microseconds, statistics ten significant digits.
        extractor: Sees every packet.
        sources: As in `feature_rows`.
        on_progress: Called with the number of rows every `PROGRESS_PACKETS` rows.

    Returns:
        How many rows were written.
    """
    out.write(",".join(("time", *FEATURE_NAMES)) + "\n")
    written = 0
    for packet, row in feature_rows(packets, extractor=extractor, sources=sources):
        out.write(_LINE % (packet.time, *row))  # F-14
        written += 1
        if on_progress is not None and written % PROGRESS_PACKETS == 0:
            on_progress(written)
    return written


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under its name only when all of it is written (F-14).

    It is written under another name in the same folder and renamed at the end; when the block
    fails, nothing is left and an older file stays as it was.

    Raises:
        DataError: The folder is not there or not writable.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder", hint="give the name of a file to write")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror}", hint="give a folder you may write to"
        ) from None
    part = Path(name)
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123  (a handle)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
