"""Series on disk: folders in the layouts of SKAB and ASD, and any CSV in time order.

========  =====================================================================================
layout    files
========  =====================================================================================
SKAB      ``valve1/0.csv``, …: separated by semicolons, with the columns `datetime`, `anomaly` and
          `changepoint` beside the channels; each file is one experiment. A folder
          ``anomaly-free`` has no labels and is left out.
ASD       ``omi-1.npz``, …: arrays `train` (T, C), `test` (T', C) and `test_label` (T',)
``.csv``  as `fl_core.data.sources` reads it, with its columns `device` and `label`
========  =====================================================================================

An experiment of SKAB is normal for its first 400 rows, so these train and the others test. One,
``other/2.csv``, has an anomaly within them; there the normal part ends before it. A CSV trains on
the first 80 % of its benign rows, or up to its first attack if that comes earlier.

Sources: Katser and Kozitsin 2020, "Skoltech Anomaly Benchmark"; Li et al. 2021, "Multivariate Time
Series Anomaly Detection and Interpretation using Hierarchical Inter-Metric and Temporal Embedding".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.archive import read_arrays
from fl_core.data.dataset import Matrix, kept_columns
from fl_core.data.folders import feature_names
from fl_core.data.series import Series
from fl_core.data.table import BENIGN_LABELS, open_table
from fl_core.errors import DataError

__all__ = ["SKAB_TRAIN_ROWS", "list_groups", "list_series", "load_series", "read_csv"]

SKAB_TRAIN_ROWS: Final = 400
"""Rows at the start of an experiment that the usual protocol of SKAB trains on."""

CSV_TRAIN_SHARE: Final = 0.8
"""Share of a CSV's benign rows, the earliest, that are its normal part."""

_LABEL = "anomaly"
_MARKS = frozenset({_LABEL, "changepoint"})
_NO_CHANNELS = _MARKS | {"datetime"}
_UNLABELLED = "anomaly-free"
_ARRAYS = ("train", "test", "test_label")
_ARRAYS_HINT = f"a server's file needs the arrays {', '.join(_ARRAYS)}, written by numpy.savez"


def list_series(root: Path) -> tuple[str, ...]:
    """Return the names of the series in a folder, ``valve1-0`` or ``omi-1``; () if it has none."""
    return tuple(_find(root))


def list_groups(root: Path) -> dict[str, tuple[str, ...]]:
    """Return the groups of a folder in SKAB's layout: each of its folders, with its experiments.

    One client may be an experiment, or a group: then it has the rows of all its experiments.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for name, path in _find(root).items():
        if path.suffix == ".csv":
            group = path.parent.resolve().name
            groups[group] = (*groups.get(group, ()), name)
    return groups


def load_series(root: Path, name: str) -> Series:
    """Load one series of a folder (L-36).

    Args:
        root: A folder in the layout of SKAB or of ASD.
        name: One of `list_series(root)`.

    Raises:
        DataError: There is no such series, or its file is broken: names file, row and column.
    """
    files = _find(root)
    if name not in files:
        raise DataError(
            f"{root}: unknown series {name!r}",
            hint="known series: " + (", ".join(files) or "none; not the layout of SKAB or ASD"),
        )
    path = files[name]
    return _read_experiment(path, name) if path.suffix == ".csv" else _read_server(path, name)


def read_csv(path: Path, device: str, drop: Sequence[str] = ()) -> Series:
    """Read the rows of one device of a CSV in time order as a series (L-36).

    Args:
        path: A CSV with a header. Its column `device` picks the rows; without one all are taken.
        device: Name of the series.
        drop: Shell patterns of columns to leave out; they are not read.

    Raises:
        DataError: A cell is broken, a pattern matches no column or all of them, or the device has
            no normal rows at its start.
    """
    table = open_table(path)
    side = [column for column in ("device", "label") if column in table.columns]
    every = feature_names(path)
    channels = tuple(every[i] for i in kept_columns(every, drop, device))
    block = table.read(channels, side=side)
    own = np.ones(len(block.values), dtype=np.bool_)
    if "device" in block.side:
        own = np.array(block.side["device"], dtype=np.str_) == device
    labels = np.zeros(len(block.values), dtype=np.int8)
    if "label" in block.side:
        attack = [label.lower() not in BENIGN_LABELS for label in block.side["label"]]
        labels = np.array(attack, dtype=np.int8)
    values, labels = block.values[own], labels[own]
    benign = np.flatnonzero(labels == 0)
    share = int(len(benign) * CSV_TRAIN_SHARE)
    cut = min(_first(labels), int(benign[share])) if share else 0
    if cut == 0:
        raise DataError(
            f"{path}: device {device!r} has no normal rows at its start",
            hint="give rows in time order that start with benign ones",
        )
    return Series(device, channels, values[:cut], values[cut:], labels[cut:])


# ------------------------------------------------------------------------------ layouts


def _find(root: Path) -> dict[str, Path]:
    """Return name to file, in natural order; empty where the folder has neither layout."""
    tables = [*_sorted(root, "*.csv"), *_sorted(root, "*/*.csv")]
    if any(_is_experiment(path) for path in tables):
        kept = [path for path in tables if path.parent.name != _UNLABELLED]
        return {f"{path.parent.resolve().name}-{path.stem}": path for path in kept}
    archives = [] if tables else _sorted(root, "*.npz")
    return {path.stem: path for path in archives}


def _sorted(root: Path, pattern: str) -> list[Path]:
    def natural(path: Path) -> list[tuple[bool, int, str]]:
        pieces = re.split(r"(\d+)", path.relative_to(root).as_posix())
        return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in pieces]

    return sorted(root.glob(pattern), key=natural)


def _is_experiment(path: Path) -> bool:
    try:
        return _MARKS.issubset(open_table(path).columns)
    except DataError:  # whoever reads the file says what is wrong with it
        return False


# ------------------------------------------------------------------------------ files


def _read_experiment(path: Path, name: str) -> Series:
    table = open_table(path)
    table.require([_LABEL])
    channels = tuple(column for column in table.columns if column not in _NO_CHANNELS)
    if not channels:
        raise DataError(f"{path}: no channel in line 1", hint="add columns of numbers")
    block = table.read((*channels, _LABEL))
    labels = _checked_labels(block.values[:, -1], f"{path}: column {_LABEL!r}", block.rows)
    cut = min(SKAB_TRAIN_ROWS, _first(labels))
    if cut == 0 or cut >= len(labels):
        what = "no normal rows at its start" if cut == 0 else "no rows after its normal part"
        raise DataError(
            f"{path}: {what}, of {len(labels)}",
            hint=f"an experiment starts with {SKAB_TRAIN_ROWS} normal rows, and rows to test on "
            "follow",
        )
    values = block.values[:, :-1]
    return Series(name, channels, values[:cut].copy(), values[cut:].copy(), labels[cut:])


def _read_server(path: Path, name: str) -> Series:
    arrays = read_arrays(path, _ARRAYS, hint=_ARRAYS_HINT)
    train, test = (_checked_part(arrays[part], f"{path}: {part}") for part in _ARRAYS[:2])
    if train.shape[1] != test.shape[1]:
        raise DataError(
            f"{path}: train has {train.shape[1]} columns, test {test.shape[1]}", hint=_ARRAYS_HINT
        )
    raw = arrays["test_label"]
    if raw.shape != (len(test),) or raw.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: test_label has not one number for each row of test", hint=_ARRAYS_HINT
        )
    labels = _checked_labels(raw, f"{path}: test_label", list(range(1, len(test) + 1)))
    channels = tuple(f"metric{column + 1}" for column in range(train.shape[1]))
    return Series(name, channels, train, test, labels)


def _checked_part(values: NDArray[np.generic], where: str) -> Matrix:
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(
            f"{where} must be a table of numbers, not {values.dtype} {values.shape}",
            hint=_ARRAYS_HINT,
        )
    part = values.astype(np.float64)
    bad = np.argwhere(~np.isfinite(part))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{where}: row {row + 1}, column {column + 1} is {part[row, column]}, not a finite "
            "number",
            hint="replace NaN and infinity by real values, or remove the row",
        )
    return part


def _checked_labels(values: NDArray[np.generic], where: str, rows: list[int]) -> NDArray[np.int8]:
    odd = np.flatnonzero(~np.isin(values, (0, 1)))
    if len(odd):
        raise DataError(
            f"{where}: row {rows[odd[0]]} is {values[odd[0]]}, not a label",
            hint="write 0 for normal and 1 for anomalous",
        )
    return values.astype(np.int8)


def _first(labels: NDArray[np.int8]) -> int:
    """Return the index of the first anomaly, or the length if there is none."""
    found = np.flatnonzero(labels)
    return int(found[0]) if len(found) else len(labels)
