"""Rows as they arrive: from a file, a pipe, a file that still grows, or a packet capture.

Rows are taken in bursts: whatever has arrived by now is given out before more is waited for, so a
slow stream is answered at once and a fast one in large batches. Memory is bounded by one burst
(L-20).
"""

from __future__ import annotations

import csv
import errno
import math
import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.capture import Capture
from fl_core.data.extractor import FEATURE_NAMES, Extractor
from fl_core.data.table import Table, parse_time
from fl_core.errors import DataError

__all__ = [
    "CsvRows",
    "OnBad",
    "OnSkipped",
    "RowBatch",
    "capture_batches",
    "csv_batches",
    "follow_bursts",
    "open_batches",
    "read_bursts",
]

BURST_BYTES: Final = 1 << 20
"""Bytes taken at once: some 600 rows of 115 numbers, enough to be fast and little to hold."""

MAX_LINE_BYTES: Final = 1 << 20
"""Longest line: a stream without line ends must not fill the memory."""

CAPTURE_SUFFIXES: Final = (".pcap", ".pcapng", ".cap")
"""Endings that mark a packet capture."""

_CAPTURE_ROWS: Final = 1024
"""Packets scored at once."""

OnBad = Callable[[DataError], None]
"""Called with each row that is skipped; where there is none, a broken row raises."""


OnSkipped = Callable[[str, int], object]
"""Called with a reason for which frames of a capture give no row, and their number."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows that arrived together."""

    numbers: Sequence[int]
    """Row numbers in the input, counted from 1."""

    values: NDArray[np.float64]
    """Shape (n, d), raw, finite."""

    times: Sequence[float | None]
    """Unix seconds of each row, where the input has them."""

    devices: Sequence[str | None]
    """Device of each row, where the input has it."""

    anew: bool = False
    """Whether these are the first rows of another file: of one that was truncated or replaced."""


# ------------------------------------------------------------------------------ bytes to lines


class _Lines:
    """Cuts bytes into whole lines; what is left of the last one waits for its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise DataError(
                f"{self._name}: a line is longer than {MAX_LINE_BYTES} bytes",
                hint="give UTF-8 text with one row a line",
            )
        return lines

    def end(self) -> list[bytes]:
        """Return the last line where the input ends without a line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest.strip() else []


def read_bursts(descriptor: int, name: str) -> Iterator[list[bytes]]:
    """Yield the lines of a pipe or file as they arrive, until it ends.

    Args:
        descriptor: An open file descriptor, such as that of the standard input.
        name: What messages call it.

    Raises:
        DataError: it cannot be read, or a line is too long.
    """
    lines = _Lines(name)
    while data := _gather(descriptor, name):
        yield lines.feed(data)
    yield lines.end()


def follow_bursts(path: Path, wait: Callable[[], object]) -> Iterator[list[bytes] | None]:
    """Yield the lines of a growing file, for ever; a line without its end is kept back.

    Args:
        path: The file; what it holds already comes first.
        wait: Called when there is nothing new; it returns after a while, or raises to end.

    Yields:
        The new lines; None when the file was truncated or replaced, after which it is read from
        its beginning, header first. A file that another takes the place of is read to its end
        before: until there is nothing more in it and something in the other.

    Raises:
        DataError: the file cannot be opened or read, or a line is too long.
    """
    while True:
        descriptor = _open(path)
        lines = _Lines(str(path))
        try:
            while not _is_truncated(descriptor):
                replaced = _is_replaced(path, descriptor)  # asked before what is left is read
                data = _read(descriptor, str(path))
                if data:
                    yield lines.feed(data)
                elif replaced:  # L-22
                    yield lines.end()
                    break
                else:
                    wait()
        finally:
            os.close(descriptor)
        yield None


def _open(path: Path) -> int:
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def _read(descriptor: int, name: str) -> bytes:
    try:
        return os.read(descriptor, BURST_BYTES)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from error


def _gather(descriptor: int, name: str) -> bytes:
    """Read what is there by now, up to a burst; wait only for the first byte."""
    data = _read(descriptor, name)
    while 0 < len(data) < BURST_BYTES and select.select([descriptor], [], [], 0)[0]:
        more = _read(descriptor, name)
        if not more:
            break
        data += more
    return data


def _is_truncated(descriptor: int) -> bool:
    """Tell whether the open file has become shorter than what was read."""
    return os.fstat(descriptor).st_size < os.lseek(descriptor, 0, os.SEEK_CUR)


def _is_replaced(path: Path, descriptor: int) -> bool:
    """Tell whether another file has taken the open one's name and has something in it.

    A name that is gone for a moment, as while a log is rotated, is not yet a replacement, nor is an
    empty file: who writes may not have turned to it yet.
    """
    held = os.fstat(descriptor)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    other = (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)
    return other and named.st_size > 0


# ------------------------------------------------------------------------------ lines to rows


class CsvRows:
    """Parses the lines under one CSV header.

    Args:
        header: The first line.
        feature_names: Columns wanted, found by name.
        name: What messages call the input.

    Raises:
        DataError: the header is not one, or a column is missing.
    """

    def __init__(self, header: bytes, feature_names: Sequence[str], name: str) -> None:
        table = Table([header], name)
        table.require(feature_names)
        self._name = name
        self._separator = max(",;\t", key=header.decode("utf-8").count)
        self._columns = table.columns
        self._wanted = [table.columns.index(feature) for feature in feature_names]
        sides = [c for c in ("time", "timestamp") if c in table.columns]
        self._time = table.columns.index(sides[0]) if sides else -1
        self._device = table.columns.index("device") if "device" in table.columns else -1
        self._line = 1
        self._row = 0

    def parse(
        self, lines: Iterable[bytes], bad: OnBad | None = None
    ) -> tuple[RowBatch, DataError | None]:
        """Parse the next lines; blank ones are skipped.

        Args:
            lines: Lines in the order of the input.
            bad: Called with the error of each broken row, which is then left out.

        Returns:
            The rows, and None; where `bad` is None, those before the first broken row and its
            error.
        """
        failed: DataError | None = None
        numbers: list[int] = []
        values: list[list[float]] = []
        times: list[float | None] = []
        devices: list[str | None] = []
        for raw in lines:
            self._line += 1
            if not raw.strip():
                continue
            self._row += 1
            try:
                row, time, device = self._parse(raw)
            except DataError as error:  # L-21
                if bad is None:
                    failed = error
                    break
                bad(error)
                continue
            numbers.append(self._row)
            values.append(row)
            times.append(time)
            devices.append(device)
        table = np.array(values, dtype=np.float64).reshape(len(values), len(self._wanted))
        return RowBatch(numbers, table, times, devices), failed

    def _parse(self, raw: bytes) -> tuple[list[float], float | None, str | None]:
        where = f"{self._name}: row {self._row} (line {self._line})"
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise DataError(f"{where} is not UTF-8 text") from None
        cells = text.split(self._separator)
        if '"' in text:
            cells = next(csv.reader([text], delimiter=self._separator), [])
        if len(cells) != len(self._columns):
            raise DataError(
                f"{where} has {len(cells)} columns, the header has {len(self._columns)}",
                hint="give the row one value for each column, or remove it",
            )
        row = self._numbers(cells, where, plain="_" not in text)
        time = None
        if self._time >= 0:
            column = self._columns[self._time]
            time = parse_time(cells[self._time].strip(), f"{where}, column {column!r}")
        return row, time, cells[self._device].strip() if self._device >= 0 else None

    def _numbers(self, cells: Sequence[str], where: str, *, plain: bool) -> list[float]:
        """Convert the wanted cells; one by one, with their names, only where one may be broken."""
        try:
            row = [float(cells[at]) for at in self._wanted]
        except ValueError:
            row = [math.nan]
        if plain and math.isfinite(sum(row)):  # no NaN and no infinity: either would be in the sum
            return row
        return [self._number(cells, at, where) for at in self._wanted]

    def _number(self, cells: Sequence[str], at: int, where: str) -> float:
        try:
            value = float(cells[at])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in cells[at]:  # Python's own: 1_000
            raise DataError(
                f"{where}, column {self._columns[at]!r}: {cells[at][:40]!r} is not a finite number",
                hint="correct the cell, or remove the row",
            )
        return value


def csv_batches(
    bursts: Iterable[list[bytes] | None],
    *,
    name: str,
    feature_names: Sequence[str],
    bad: OnBad | None = None,
) -> Iterator[RowBatch]:
    """Parse bursts of lines, header first; None among them means that a new header follows.

    Raises:
        DataError: no header at all, a bad header, or a broken row while `bad` is None.
    """
    rows: CsvRows | None = None
    seen = anew = False
    for burst in bursts:
        if burst is None:
            rows, anew = None, True
            continue
        if rows is None and burst:
            rows, burst, seen = CsvRows(burst[0], feature_names, name), burst[1:], True
        if rows is not None:
            batch, failed = rows.parse(burst, bad)
            if batch.numbers:
                yield replace(batch, anew=anew)
                anew = False
            if failed is not None:  # L-20: what came before it has been given out
                raise failed
    if not seen:
        raise DataError(f"{name}: the input is empty", hint="give a CSV with a header line")


def capture_batches(
    stream: BinaryIO, *, name: str, feature_names: Sequence[str], skipped: OnSkipped | None = None
) -> Iterator[RowBatch]:
    """Turn a packet capture into rows, one a packet, in bounded memory.

    Args:
        stream: The capture, open for reading bytes.
        name: What messages call it.
        feature_names: Columns wanted.
        skipped: Told at the end why frames gave no row, and how many.

    Raises:
        DataError: not a capture, or a model that needs columns a capture does not give.
    """
    missing = sorted(set(feature_names) - set(FEATURE_NAMES))
    if missing:
        raise DataError(
            f"{name}: the model needs the column {missing[0]!r}, which a capture does not give",
            hint="give the model's own columns as CSV",
        )
    columns = [FEATURE_NAMES.index(feature) for feature in feature_names]
    extractor = Extractor()
    capture = Capture(stream, name)
    packets = iter(capture)
    first = 1
    while taken := list(islice(packets, _CAPTURE_ROWS)):
        values = np.array([extractor.update(packet) for packet in taken])[:, columns]
        times = [packet.time for packet in taken]
        yield RowBatch(range(first, first + len(taken)), values, times, [None] * len(taken))
        first += len(taken)
    for reason, count in sorted(capture.skipped.items()):
        if skipped is not None:  # F-13
            skipped(reason, count)


def _standard_input() -> int:
    if sys.stdin is None:
        raise DataError("the standard input is closed", hint="give it rows, or name a file")
    return sys.stdin.fileno()


@contextmanager
def open_batches(
    data: str,
    feature_names: Sequence[str],
    *,
    wait: Callable[[], object] | None = None,
    bad: OnBad | None = None,
    skipped: OnSkipped | None = None,
) -> Iterator[Iterator[RowBatch]]:
    """Open an input by its name and give its rows; it is closed at the end of the block.

    Args:
        data: "-" for CSV on the standard input, a capture by its ending, otherwise a CSV file.
        feature_names: Columns wanted.
        wait: Given to follow a CSV file as it grows; see `follow_bursts`.
        bad: Called with each broken CSV row, which is left out; None raises.
        skipped: Of `capture_batches`.

    Raises:
        DataError: it cannot be read, or is not what its name says.
    """
    capture = Path(data).suffix.lower() in CAPTURE_SUFFIXES
    if capture and wait is not None:
        raise DataError(f"{data}: a capture is not followed", hint="follow a growing CSV file")
    descriptor = _standard_input() if data == "-" else _open(Path(data))
    name = "standard input" if data == "-" else data
    with os.fdopen(descriptor, "rb", closefd=data != "-") as file:
        if capture:
            yield capture_batches(file, name=name, feature_names=feature_names, skipped=skipped)
        elif wait is not None and data != "-":
            growing = follow_bursts(Path(data), wait)
            yield csv_batches(growing, name=name, feature_names=feature_names, bad=bad)
        else:
            lines = read_bursts(descriptor, name)
            yield csv_batches(lines, name=name, feature_names=feature_names, bad=bad)
