"""CSV with a header, read in blocks: fast where the text is sound, exact about what is not.

A block of lines goes through numpy's reader. Only when that fails, or gives a value that is not
finite, the block is read again cell by cell to name the row, the line and the column (F-20).

A data row is counted from 1; the header is line 1, so without blank lines row r is line r + 1.
Blank lines are skipped. The separator (comma, semicolon or tab) is the most frequent one in the
header.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fl_core.data.dataset import Matrix, evenly
from fl_core.errors import DataError

__all__ = [
    "BENIGN_LABELS",
    "SIDE_COLUMNS",
    "Block",
    "Table",
    "count_rows",
    "open_table",
    "parse_time",
    "read_evenly",
]

SIDE_COLUMNS = ("time", "timestamp", "device", "label")
"""Columns that say something about a row and are never features."""

BENIGN_LABELS = ("", "0", "0.0", "benign", "normal", "false")
"""What the column `label` says of a benign row, in lower case; anything else is an attack."""

_BLOCK_LINES = 2048
_MAX_LINE = 1 << 20  # bytes; a header longer than this is not a table
_UTF8_HINT = "save it as UTF-8 text with comma-separated columns"


@dataclass(frozen=True, eq=False)
class Block:
    """Some consecutive rows of a table."""

    rows: list[int]
    """The row numbers, counted from 1; not consecutive where only some rows were wanted."""
    values: Matrix
    """Shape (n, d): the wanted columns, finite."""
    side: dict[str, list[str]]
    """Per wanted side column, the n cells as text."""


class _Line(NamedTuple):
    row: int
    number: int
    text: str


class Table:
    """A CSV whose header has been read; its rows are read once, in order.

    Args:
        lines: Raw lines, header first.
        name: What messages call the table, usually the path.

    Attributes:
        columns: All column names of the header.

    Raises:
        DataError: The table is empty, not UTF-8, has no header, or names a column twice.
    """

    def __init__(self, lines: Iterable[bytes], name: str) -> None:
        self.name = name
        self._lines = iter(lines)
        header = next(self._lines, b"")
        text = self._decode(header, 1).lstrip("\ufeff").strip()
        if not text:
            raise DataError(f"{name}: the file is empty", hint="give a CSV with a header line")
        self._separator = max(",;\t", key=text.count)
        self.columns = tuple(cell.strip() for cell in self._split(text))
        self._check_header()

    def _check_header(self) -> None:
        if all(_is_number(cell) for cell in self.columns):
            raise DataError(
                f"{self.name}: line 1 holds numbers, not column names",
                hint="put a header line with the column names first",
            )
        seen: set[str] = set()
        for position, column in enumerate(self.columns, start=1):
            if not column or column in seen:
                what = f"repeats {column!r}" if column else "has no name"
                raise DataError(
                    f"{self.name}: column {position} {what} in line 1",
                    hint="give every column a name of its own",
                )
            seen.add(column)

    @property
    def features(self) -> tuple[str, ...]:
        """All columns but the side columns."""
        return tuple(column for column in self.columns if column not in SIDE_COLUMNS)

    def require(self, names: Sequence[str]) -> None:
        """Check that every column of `names` is there.

        Raises:
            DataError: Names the first that is missing.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"{self.name}: column {missing[0]!r}{more} is missing in line 1",
                hint=f"the file has {len(self.columns)} columns, {self.columns[0]} to "
                f"{self.columns[-1]}; the model or the other files need the missing one",
            )

    def blocks(
        self,
        names: Sequence[str],
        *,
        side: Sequence[str] = (),
        rows: Sequence[int] | None = None,
    ) -> Iterator[Block]:
        """Yield the rows in blocks.

        Args:
            names: The columns wanted as numbers, in the wanted order.
            side: The columns wanted as text.
            rows: Only these rows, counted from 0 and ascending; the others are not parsed.

        Raises:
            DataError: A column is missing, or a cell is not what it must be.
        """
        self.require([*names, *side])
        number = 1  # lines read so far
        row = 0  # data rows read so far
        coming = iter(rows) if rows is not None else count()
        wanted = next(coming, -1)
        while raw := list(islice(self._lines, _BLOCK_LINES)):
            lines: list[_Line] = []
            for line in raw:
                number += 1
                if not line.strip():
                    continue
                row += 1
                if row - 1 == wanted:  # F-22
                    wanted = next(coming, -1)
                    lines.append(_Line(row, number, self._decode(line, number, row)))
            if lines:
                yield self._parse(lines, names, side)

    def read(
        self, names: Sequence[str], *, side: Sequence[str] = (), rows: Sequence[int] | None = None
    ) -> Block:
        """Return all rows, or those of `rows`, as one block (it may be empty)."""
        texts: dict[str, list[str]] = {column: [] for column in side}
        values = np.empty((0 if rows is None else len(rows), len(names)))
        filled = 0
        numbers: list[int] = []
        parts: list[Matrix] = []
        for block in self.blocks(names, side=side, rows=rows):
            if rows is None:
                parts.append(block.values)
            else:  # the size is known: one copy only
                values[filled : filled + len(block.values)] = block.values
            filled += len(block.values)
            numbers += block.rows
            for column in side:
                texts[column] += block.side[column]
        if rows is None and parts:
            values = np.concatenate(parts)
        return Block(numbers, values[:filled], texts)

    # ------------------------------------------------------------------------- one block

    def _parse(self, lines: list[_Line], names: Sequence[str], side: Sequence[str]) -> Block:
        columns = [self.columns.index(name) for name in names]
        commas = len(self.columns) - 1
        texts = [line.text for line in lines]
        values: Matrix | None = None
        if columns and all(t.count(self._separator) == commas and '"' not in t for t in texts):
            try:
                values = np.loadtxt(
                    texts, delimiter=self._separator, usecols=columns, comments=None, ndmin=2
                )
            except ValueError:
                values = None
        if values is None or not np.isfinite(values).all():
            values = self._parse_slowly(lines, columns)
        cells: dict[str, list[str]] = {}
        for column in side:
            at = self.columns.index(column)
            cells[column] = [self._split(text)[at].strip() for text in texts]
        return Block([line.row for line in lines], values, cells)

    def _parse_slowly(self, lines: list[_Line], columns: Sequence[int]) -> Matrix:
        values = np.empty((len(lines), len(columns)))
        for index, line in enumerate(lines):
            where = f"{self.name}: row {line.row} (line {line.number})"
            row = self._split(line.text)
            if len(row) != len(self.columns):
                cut = "" if line.text.endswith("\n") else "; the file may have been cut off"
                raise DataError(
                    f"{where} has {len(row)} columns, the header has {len(self.columns)}",
                    hint=f"give the row one value for each column, or remove it{cut}",
                )
            for at, column in enumerate(columns):
                values[index, at] = _number(row[column].strip(), where, self.columns[column])
        return values

    def _split(self, line: str) -> list[str]:
        if '"' not in line:
            return line.rstrip("\r\n").split(self._separator)
        return next(csv.reader([line], delimiter=self._separator))

    def _decode(self, line: bytes, number: int, row: int = 0) -> str:
        if number == 1 and len(line) >= _MAX_LINE:
            raise DataError(f"{self.name}: line 1 is longer than 1 MiB", hint=_UTF8_HINT)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError:
            where = f"row {row} (line {number})" if row else f"line {number}"
            raise DataError(f"{self.name}: {where} is not UTF-8 text", hint=_UTF8_HINT) from None


def open_table(path: Path) -> Table:
    """Open a CSV file and read its header.

    Raises:
        DataError: The file is not there or cannot be read, or its header is wrong.
    """
    return Table(_lines_of(path), str(path))


def count_rows(path: Path) -> int:
    """Return the number of data rows: lines that are not blank, less the header."""
    return max(sum(1 for line in _lines_of(path) if line.strip()) - 1, 0)


def read_evenly(path: Path, names: Sequence[str], limit: int | None) -> Matrix:
    """Return the columns `names` of at most `limit` rows, evenly spaced over the file, in order."""
    rows = evenly(count_rows(path), limit)
    return open_table(path).read(names, rows=rows.tolist()).values


def parse_time(text: str, where: str) -> float:
    """Return Unix seconds from a number or an ISO 8601 time (UTC where it names no zone).

    Raises:
        DataError: It is neither.
    """
    try:
        value = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise DataError(
                f"{where}: {text[:40]!r} is not a time",
                hint="use seconds since 1970 or ISO 8601 such as 2024-05-01T12:00:00",
            ) from None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise DataError(f"{where}: time is {text!r}", hint="use seconds since 1970 or ISO 8601")
    return value


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield file.readline(_MAX_LINE)
            yield from file
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, where: str, column: str) -> float:
    where = f"{where}, column {column!r}"
    if not cell:
        raise DataError(f"{where} is empty", hint="fill in a number, or remove the row")
    try:
        value = float(cell)
    except ValueError:
        value = None
    if value is None or "_" in cell:
        raise DataError(
            f"{where}: {cell[:40]!r} is not a number",
            hint="correct the cell, remove the row, or leave the column out (data.drop, --drop)",
        )
    if not math.isfinite(value):
        raise DataError(
            f"{where} is {cell[:40]}, not a finite number",
            hint="replace NaN and infinity by real values, or remove the row",
        )
    return value
