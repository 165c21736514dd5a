"""A sample of N-BaIoT in one numpy archive: all devices, attack rows without a device.

Rows come shuffled and partly double. Rows of the test parts that repeat a training row, and attack
rows that repeat another attack row, are dropped: they would count one observation many times. Since
no attack row names its device, every device is tested against all of them.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_core.data.dataset import DeviceData, Matrix, evenly, seeded
from fl_core.data.folders import VALIDATION_SHARE
from fl_core.errors import DataError

__all__ = ["ARRAYS", "device_names", "load_device", "read_arrays"]

ARRAYS: Final = (
    "X",
    "part",
    "device",
    "dup_in_train",
    "dup_within_part",
    "feature_names",
    "device_names",
)
"""The arrays that must be there: values (n, d), five per row or per name as their names say."""

_TRAIN, _TEST, _ATTACK = 0, 1, 2
_HINT = f"an archive needs the arrays {', '.join(ARRAYS)}, written by numpy.savez without objects"
_KINDS: Final = {
    "part": ("iu", "whole numbers"),
    "device": ("iu", "whole numbers"),
    "dup_in_train": ("b", "True and False"),
    "dup_within_part": ("b", "True and False"),
    "feature_names": ("U", "text"),
    "device_names": ("U", "text"),
}
"""What numpy calls the types that an array of one axis may have, and what messages call them."""
_BROKEN = (  # the last two: a zip that is encrypted, a header that announces too much
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True, eq=False)
class _Archive:
    values: Matrix
    part: NDArray[np.int64]
    device: NDArray[np.int64]
    dup_in_train: NDArray[np.bool_]
    dup_within_part: NDArray[np.bool_]
    feature_names: tuple[str, ...]
    device_names: tuple[str, ...]


def device_names(path: Path) -> tuple[str, ...]:
    """Return the names of the devices that have training rows, sorted.

    Raises:
        DataError: The archive is broken, lacks an array or has no training rows.
    """
    arrays = _read(path, ("part", "device", "device_names"))
    if arrays["device"].shape != arrays["part"].shape:
        raise DataError(f"{path}: device has not one value for each of part", hint=_HINT)
    present = np.unique(arrays["device"][arrays["part"] == _TRAIN])
    names = arrays["device_names"]
    if not present.size:
        raise DataError(f"{path}: part has no training rows, whose number is {_TRAIN}", hint=_HINT)
    if not 0 <= present[0] <= present[-1] < len(names):
        raise DataError(f"{path}: device numbers go beyond device_names", hint=_HINT)
    return tuple(sorted(str(names[i]) for i in present))


def load_device(
    path: Path, device: str, *, seed: int = 0, limit_rows: int | None = None
) -> DeviceData:
    """Load one device.

    Args:
        path: The archive.
        device: One of `device_names(path)`.
        seed: Seed of the validation split.
        limit_rows: At most this many rows of each part, evenly spaced.

    Raises:
        DataError: The archive is broken, does not know the device or has too few rows of it, or
            the seed is negative.
    """
    data = _load(path)
    if device not in data.device_names:
        raise DataError(f"{path}: unknown device {device!r}", hint=", ".join(data.device_names))
    number = data.device_names.index(device)
    own = data.device == number
    benign = np.flatnonzero(own & (data.part == _TRAIN))
    count = int(len(benign) * VALIDATION_SHARE)
    if count < 1:
        raise DataError(
            f"{path}: {device} has {len(benign)} training rows", hint="needs at least 5"
        )
    rng = seeded(seed, number)
    held_out = np.zeros(len(benign), dtype=np.bool_)
    held_out[rng.choice(len(benign), size=count, replace=False)] = True
    rows = {  # F-23
        "train": benign[~held_out],
        "validation": benign[held_out],
        "test_benign": np.flatnonzero(own & (data.part == _TEST) & ~data.dup_in_train),
        "test_attack": np.flatnonzero(
            (data.part == _ATTACK) & ~data.dup_in_train & ~data.dup_within_part
        ),
    }
    parts = {name: data.values[at[evenly(len(at), limit_rows)]] for name, at in rows.items()}
    return DeviceData(
        device=device,
        feature_names=data.feature_names,
        attack_names=np.full(len(parts["test_attack"]), "attack"),
        **parts,
    )


def _load(path: Path) -> _Archive:
    arrays = _read(path, ARRAYS)
    values = arrays["X"]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: X must be a table of numbers, not {values.dtype} {values.shape}")
    count, width = values.shape
    for name in ("part", "device", "dup_in_train", "dup_within_part"):
        if arrays[name].shape != (count,):
            raise DataError(f"{path}: {name} has not one value for each row of X", hint=_HINT)
    names = tuple(str(name) for name in arrays["feature_names"])
    if len(names) != width:
        raise DataError(f"{path}: X has {width} columns, feature_names {len(names)}", hint=_HINT)
    if len(set(names)) < width:
        raise DataError(f"{path}: feature_names repeats a name", hint="give each a name of its own")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{path}: row {row + 1} of X, column {names[column]!r} is {values[row, column]}, "
            "not a finite number",
            hint="replace NaN and infinity by real values, or remove the row",
        )
    return _Archive(
        values=values.astype(np.float64, copy=False),
        part=arrays["part"].astype(np.int64),
        device=arrays["device"].astype(np.int64),
        dup_in_train=arrays["dup_in_train"].astype(np.bool_),
        dup_within_part=arrays["dup_within_part"].astype(np.bool_),
        feature_names=names,
        device_names=tuple(str(name) for name in arrays["device_names"]),
    )


def _read(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Return arrays of this layout, those of one axis with the types that they must have."""
    arrays = read_arrays(path, names)
    for name in names:
        kinds, what = _KINDS.get(name, ("", ""))
        found = arrays[name]
        if kinds and (found.ndim != 1 or found.dtype.kind not in kinds):  # F-20
            raise DataError(
                f"{path}: {name} must be one row of {what}, not {found.dtype} {found.shape}",
                hint=_HINT,
            )
    return arrays


def read_arrays(
    path: Path, names: tuple[str, ...], *, hint: str = _HINT
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays `names` of an npz file; no code is run from it.

    Raises:
        DataError: It cannot be read or lacks an array; its mend is `hint`.
    """
    reading = ""
    try:
        with path.open("rb") as handle:
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: holds one array, not an archive", hint=hint)
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DataError(f"{path}: array {missing[0]!r} is missing", hint=hint)  # F-20
            arrays = {}
            for name in names:
                reading = f"array {name!r}: "
                arrays[name] = file[name]
            return arrays
    except DataError:
        raise
    except _BROKEN as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as npz: {reading}{first}", hint=hint) from None
