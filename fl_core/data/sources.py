"""Where rows come from: the built-in simulator, an N-BaIoT archive, N-BaIoT folders, or any CSV.

=================  ==============================================================================
source             layout
=================  ==============================================================================
"builtin"          `fl_core.data.builtin`: nine simulated devices
``x.npz``          arrays X, part, device, dup_in_train, dup_within_part, feature_names,
                   device_names (a sample of N-BaIoT)
folder of folders  UCI: ``Danmini_Doorbell/benign_traffic.csv``,
                   ``Danmini_Doorbell/mirai_attacks/syn.csv``
one such folder    one device; other CSV files beside ``benign_traffic.csv`` count as attacks
flat folder        Kaggle: ``1.benign.csv``, ``1.mirai.syn.csv``; numbers are N-BaIoT's devices
folder of series   SKAB or ASD, see `fl_core.data.series_files`: a device is an experiment or a
                   server; a folder of SKAB such as ``valve1`` is a device too, of all in it
``x.csv``          any CSV with a header, in time order; a `device` column splits it into devices,
                   a `label` column (0 or benign, anything else is the attack) into parts
=================  ==============================================================================

Benign rows are split in time order: the first 60 % train, the next 20 % validate, the last 20 %
test. The archive has its own test part, and no order: there 20 % of a device's training rows, drawn
from the seed, validate.

With `window` above 1 a row is that many time steps of a series (`fl_core.data.series`). A folder of
series is always read as such; a CSV in time order is read as one where a window is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from fl_core.data import archive, builtin, folders
from fl_core.data.dataset import DeviceData, drop_columns, evenly, kept_columns, thin
from fl_core.data.folders import benign_parts, feature_names
from fl_core.data.series import Series, device_windows, drop_channels, pool
from fl_core.data.series_files import list_groups, list_series, load_series, read_csv
from fl_core.data.table import BENIGN_LABELS, count_rows, open_table
from fl_core.errors import DataError

__all__ = [
    "BUILTIN",
    "is_series_folder",
    "list_devices",
    "load_all_series",
    "load_device",
    "load_devices",
]

BUILTIN: Final = "builtin"
"""The source that needs no files."""

_UNNAMED_ATTACKS = ("1", "1.0", "true", "anomaly")


def list_devices(source: str, *, limit: int | None = None) -> tuple[str, ...]:
    """Return the names of the devices that a source has.

    Args:
        source: "builtin" or a path.
        limit: At most this many, the first ones.

    Raises:
        DataError: The source does not exist or has none of the known layouts.
    """
    if source == BUILTIN:
        names = builtin.device_names()
    else:
        path = _existing(source)
        if path.suffix == ".npz":
            names = archive.device_names(path)
        elif path.is_dir():
            names = list_series(path) or folders.device_names(path)
        else:
            names = _csv_devices(path)
    return names[:limit]


def load_device(
    source: str,
    device: str,
    *,
    seed: int = 0,
    limit_rows: int | None = None,
    window: int = 1,
    drop: Sequence[str] = (),
) -> DeviceData:
    """Load one device's data; rows of other devices are not kept in memory.

    Args:
        source: "builtin" or a path.
        device: One of `list_devices(source)`, or a group of SKAB such as "valve1".
        seed: Seed of the simulator, and of the validation split where rows have no order.
        limit_rows: At most this many rows of each part, evenly spaced over time.
        window: Time steps in a row, oldest first; above 1 the source must be in time order.
        drop: Shell patterns of columns to leave out; of a CSV whose rows stand alone they are not
            read, so they may hold what they will.

    Raises:
        DataError: The device is unknown, a pattern matches no column or all of them, the source has
            no order for a window, or the data are broken; says where and how to mend it.
    """
    if limit_rows is not None and limit_rows < 1:
        raise DataError(f"limit_rows is {limit_rows}", hint="use at least 1, or no limit")
    if window < 1:
        raise DataError(f"window is {window}", hint="use at least 1 time step")
    known = list_devices(source)
    path = Path(source)
    groups = list_groups(path) if source != BUILTIN and path.is_dir() else {}
    if device not in known and device not in groups:
        raise DataError(
            f"{source}: unknown device {device!r}", hint="known devices: " + ", ".join(known)
        )
    if is_series_folder(source):
        names = groups.get(device, (device,))
        parts = [device_windows(load_series(path, name), window) for name in names]
        data = thin(pool(parts, device), limit_rows)
    elif window > 1:
        data = _load_windows(source, device, window, limit_rows)
    elif source == BUILTIN:
        data = builtin.build_device(device, seed=seed, limit_rows=limit_rows)
    elif path.suffix == ".npz":
        data = archive.load_device(path, device, seed=seed, limit_rows=limit_rows)
    elif path.is_dir():
        data = folders.load_device(path, device, limit_rows=limit_rows)
    else:
        return _load_csv_device(path, device, limit_rows, drop)
    return drop_columns(data, drop)


def is_series_folder(source: str) -> bool:
    """Say whether a source is a folder of series, in the layout of SKAB or ASD."""
    return source != BUILTIN and Path(source).is_dir() and bool(list_series(Path(source)))


def load_devices(source: str, drop: Sequence[str] = (), *, seed: int = 0) -> list[DeviceData]:
    """Load every device of a source without the columns that match a pattern.

    Args:
        source: "builtin" or a path.
        drop: Shell patterns of columns to leave out.
        seed: Draws validation rows where the source does not say which they are.

    Raises:
        DataError: as `load_device`.
    """
    names = list_devices(source)
    return [load_device(source, name, seed=seed, drop=drop) for name in names]


def load_all_series(source: str, drop: Sequence[str] = ()) -> tuple[Series, ...]:
    """Load every series of a source: of a folder, or each device of a CSV in time order.

    Args:
        source: A path.
        drop: Shell patterns of channels to leave out.

    Raises:
        DataError: The source has no order, or the data are broken; says where. A pattern matches
            no channel, or all of them.
    """
    names = list_devices(source)
    if is_series_folder(source):
        found = [load_series(Path(source), name) for name in names]
    else:
        return tuple(read_csv(_in_order(source), name, drop) for name in names)
    return tuple(drop_channels(each, drop) for each in found)


def _load_windows(source: str, device: str, window: int, limit: int | None) -> DeviceData:
    return thin(device_windows(read_csv(_in_order(source), device), window), limit)


def _in_order(source: str) -> Path:
    """Return the path of a source whose rows may be in time order.

    Raises:
        DataError: They are not.
    """
    path = Path(source)
    if source == BUILTIN or path.suffix == ".npz" or path.is_dir():
        raise DataError(
            f"{source}: its rows are no series, so they have no windows",
            hint="use window = 1, or a CSV in time order, or a folder of SKAB or ASD",
        )
    return path


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"{source}: no such file or folder", hint=f'check the path, or use "{BUILTIN}"'
        )
    return path


# ------------------------------------------------------------------------------ one plain CSV


def _csv_devices(path: Path) -> tuple[str, ...]:
    table = open_table(path)
    if "device" not in table.columns:
        return (path.stem,)
    found: dict[str, None] = {}
    for block in table.blocks([], side=["device"]):
        found.update(dict.fromkeys(block.side["device"]))
        if "" in found:
            row = block.rows[block.side["device"].index("")]
            raise DataError(
                f"{path}: row {row}, column 'device' is empty",
                hint="name the device, or remove the row",
            )
    if not found:
        raise DataError(f"{path}: a header but no rows", hint="give a file with at least one row")
    return tuple(found)


def _load_csv_device(path: Path, device: str, limit: int | None, drop: Sequence[str]) -> DeviceData:
    side = [column for column in ("device", "label") if column in open_table(path).columns]
    benign: list[int] = []
    attack: list[int] = []
    names: list[str] = []
    if side:
        for block in open_table(path).blocks([], side=side):
            owners = block.side.get("device", [device] * len(block.rows))
            labels = block.side.get("label", [""] * len(block.rows))
            for row, owner, label in zip(block.rows, owners, labels, strict=True):
                if owner != device:
                    continue
                if label.lower() in BENIGN_LABELS:
                    benign.append(row - 1)
                else:
                    attack.append(row - 1)
                    names.append("attack" if label.lower() in _UNNAMED_ATTACKS else label)
    else:
        benign = list(range(count_rows(path)))
    parts = benign_parts(len(benign), f"{path}: device {device!r}", limit)
    wanted = [np.array(benign, dtype=np.intp)[part] for part in parts]
    chosen = evenly(len(attack), limit)
    wanted.append(np.array(attack, dtype=np.intp)[chosen])
    rows = np.sort(np.concatenate(wanted))  # blocks come in file order
    every = feature_names(path)
    features = tuple(every[i] for i in kept_columns(every, drop, device))
    values = open_table(path).read(features, rows=rows.tolist()).values
    train, validation, test, attacks = (values[np.searchsorted(rows, part)] for part in wanted)
    return DeviceData(
        device=device,
        feature_names=features,
        train=train,
        validation=validation,
        test_benign=test,
        test_attack=attacks,
        attack_names=np.array([names[i] for i in chosen], dtype=np.str_),
    )
