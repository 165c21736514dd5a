"""N-BaIoT as folders of CSV files: the UCI layout, and the flat one of its Kaggle copy.

Source: Meidan et al. 2018, "N-BaIoT: Network-based Detection of IoT Botnet Attacks Using Deep
Autoencoders"; UCI machine learning repository, data set 442.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.dataset import DeviceData, Matrix, evenly
from fl_core.data.table import SIDE_COLUMNS, count_rows, open_table, read_evenly
from fl_core.errors import DataError

__all__ = [
    "FLAT_NUMBERS",
    "DeviceFiles",
    "benign_parts",
    "device_names",
    "feature_names",
    "load_device",
]

FLAT_NUMBERS: Final[dict[int, str]] = {
    1: "Danmini_Doorbell",
    2: "Ecobee_Thermostat",
    3: "Ennio_Doorbell",
    4: "Philips_B120N10_Baby_Monitor",
    5: "Provision_PT_737E_Security_Camera",
    6: "Provision_PT_838_Security_Camera",
    7: "Samsung_SNH_1011_N_Webcam",
    8: "SimpleHome_XCS7_1002_WHT_Security_Camera",
    9: "SimpleHome_XCS7_1003_WHT_Security_Camera",
}
"""Device numbers of the flat layout (F-24)."""

TRAIN_SHARE: Final = 0.6
VALIDATION_SHARE: Final = 0.2

_BENIGN = "benign_traffic.csv"
_FLAT = re.compile(r"([1-9])\.(benign|[a-z]+\.[a-z]+)\.csv")
_LAYOUTS = (
    "a folder holds Device/benign_traffic.csv with Device/mirai_attacks/*.csv, or 1.benign.csv "
    "with 1.mirai.syn.csv"
)


@dataclass(frozen=True)
class DeviceFiles:
    """Where one device's rows lie."""

    benign: Path
    """The CSV of benign rows in time order."""
    attacks: tuple[tuple[str, Path], ...]
    """Attack name and CSV, in order of name."""


def device_names(root: Path) -> tuple[str, ...]:
    """Return the devices of a folder in the UCI or the flat layout.

    Raises:
        DataError: The folder has neither layout, or cannot be read.
    """
    return tuple(_find(root))


def load_device(root: Path, device: str, *, limit_rows: int | None = None) -> DeviceData:
    """Load one device of a folder.

    Args:
        root: The folder.
        device: One of `device_names(root)`.
        limit_rows: At most this many rows of each part, evenly spaced; the attacks share theirs
            equally. Rows that are not wanted are not parsed.

    Raises:
        DataError: A file is broken, or its columns are not those of the benign file.
    """
    files = _find(root)[device]
    names = feature_names(files.benign)
    parts = benign_parts(count_rows(files.benign), str(files.benign), limit_rows)
    rows = np.concatenate(parts)
    benign = open_table(files.benign).read(names, rows=rows.tolist()).values
    train, validation, test = np.split(benign, np.cumsum([len(part) for part in parts])[:-1])
    attack_rows, attack_names = _read_attacks(files, names, limit_rows)
    return DeviceData(
        device=device,
        feature_names=names,
        train=train,
        validation=validation,
        test_benign=test,
        test_attack=attack_rows,
        attack_names=attack_names,
    )


def benign_parts(count: int, where: str, limit: int | None) -> tuple[NDArray[np.intp], ...]:
    """Split `count` rows in time order into train, validation and test (F-22).

    Returns:
        Three ascending arrays of indices below `count`, each of at most `limit`.

    Raises:
        DataError: There are too few rows for three parts.
    """
    train = int(count * TRAIN_SHARE)
    validation = int(count * VALIDATION_SHARE)
    if validation < 1:
        raise DataError(
            f"{where}: {count} benign rows are too few to split into train, validation and test",
            hint="give at least 5 benign rows; a useful detector needs hundreds",
        )
    edges = (0, train, train + validation, count)
    return tuple(a + evenly(b - a, limit) for a, b in pairwise(edges))


def feature_names(path: Path) -> tuple[str, ...]:
    """Return the feature columns of a CSV (F-21).

    Raises:
        DataError: It has none.
    """
    names = open_table(path).features
    if not names:
        raise DataError(f"{path}: no feature column", hint="add columns of numbers")
    odd = [name for name in names if name.lower() in SIDE_COLUMNS]
    if odd:
        raise DataError(
            f"{path}: column {odd[0]!r} would count as a feature",
            hint=f"write {odd[0].lower()!r} if it says that of a row, and give it another name if "
            "it is a feature",
        )
    return names


def _read_attacks(
    files: DeviceFiles, names: tuple[str, ...], limit: int | None
) -> tuple[Matrix, NDArray[np.str_]]:
    count = len(files.attacks)
    parts: list[Matrix] = [np.empty((0, len(names)))]
    labels: list[str] = []
    for index, (name, path) in enumerate(files.attacks):
        share = None if limit is None else limit // count + (index < limit % count)
        if share == 0:
            continue
        extra = set(feature_names(path)) - set(names)
        if extra:
            raise DataError(
                f"{path}: column {min(extra)!r} is not in {files.benign.name}",
                hint="every file of a device needs the same columns",
            )
        part = read_evenly(path, names, share)
        parts.append(part)
        labels += [name] * len(part)
    return np.concatenate(parts), np.array(labels, dtype=np.str_)


def _find(root: Path) -> dict[str, DeviceFiles]:
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise DataError(
            f"{root}: cannot be read: {error.strerror}", hint="check its permissions"
        ) from None
    if (root / _BENIGN).is_file():
        return {root.resolve().name: _uci_device(root)}
    found = {entry.name: _uci_device(entry) for entry in entries if (entry / _BENIGN).is_file()}
    found = found or _flat_devices(root, entries)
    if not found:
        raise DataError(f"{root}: no layout that can be read", hint=_LAYOUTS)
    return found


def _uci_device(folder: Path) -> DeviceFiles:
    attacks = {
        f"{sub.name.removesuffix('_attacks')}.{path.stem}": path  # F-24
        for sub in folder.glob("*_attacks")
        for path in sub.glob("*.csv")
    }
    beside = {path.stem: path for path in folder.glob("*.csv") if path.name != _BENIGN}
    return DeviceFiles(folder / _BENIGN, tuple(sorted((attacks | beside).items())))


def _flat_devices(root: Path, entries: list[Path]) -> dict[str, DeviceFiles]:
    benign: dict[int, Path] = {}
    attacks: dict[int, list[tuple[str, Path]]] = {}
    for path in entries:
        match = _FLAT.fullmatch(path.name)
        if match is None:
            continue
        number, kind = int(match[1]), match[2]
        if kind == "benign":
            benign[number] = path
        else:
            attacks.setdefault(number, []).append((kind, path))
    orphans = sorted(set(attacks) - set(benign))
    if orphans:
        raise DataError(
            f"{root}: {orphans[0]}.benign.csv is missing",
            hint=f"put the benign rows of device {orphans[0]} beside its attack files",
        )
    return {
        FLAT_NUMBERS[number]: DeviceFiles(path, tuple(attacks.get(number, ())))
        for number, path in benign.items()
    }
