"""Per-node normalisation: raw feature rows to bounded, comparable inputs of the encoder.

Traffic statistics span 25 decades and some columns never change on some devices, so a row goes
through a signed logarithm, then is centred and scaled by the node's own training rows, then
clipped. Nothing of it leaves the node except inside the head of a saved detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import DataError, ModelError

__all__ = ["CLIP", "MIN_SCALE", "Normaliser", "checked_rows", "signed_log1p"]

CLIP: Final = 20.0
"""Largest normalised magnitude, in node standard deviations: an attack stays tellable from a
merely unusual row, and one absurd value cannot drown the other columns."""

MIN_SCALE: Final = 1e-3
"""Smallest standard deviation of a column after the logarithm: a constant column stays 0 for equal
values, and reacts to a relative change of 2 % by its clip."""


def signed_log1p(rows: ArrayLike) -> NDArray[np.float64]:
    """Return sign(x) * log(1 + |x|), elementwise; finite for every finite x."""
    values = np.asarray(rows, dtype=np.float64)
    return np.sign(values) * np.log1p(np.abs(values))


def checked_rows(rows: ArrayLike, width: int | None, name: str) -> NDArray[np.float64]:
    """Return `rows` as float64 of shape (n, width).

    Args:
        rows: Raw feature rows.
        width: Columns expected; None takes any number.
        name: What the rows are, for the error.

    Raises:
        DataError: not a table of numbers, another width, or a NaN or infinity in it.
    """
    array = np.asarray(rows)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{name}: need a table of numbers, got shape {array.shape} {array.dtype}")
    if width is not None and array.shape[1] != width:
        raise DataError(
            f"{name}: {array.shape[1]} columns, the model takes {width}",
            hint="give the feature columns that the model was trained on",
        )
    values = array.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise DataError(
            f"{name}: row {row} column {column} is not a finite number", hint="mend or drop the row"
        )
    return values


@dataclass(frozen=True, slots=True, eq=False)
class Normaliser:
    """Location and scale of one node's training rows after the signed logarithm."""

    location: NDArray[np.float64]
    """Shape (d,): mean of signed_log1p of the training rows."""

    scale: NDArray[np.float64]
    """Shape (d,): their standard deviation, at least `MIN_SCALE`."""

    def __post_init__(self) -> None:
        if self.location.ndim != 1 or self.location.shape != self.scale.shape:
            raise ModelError("a normaliser needs one location and one scale a column")
        if not (np.isfinite(self.location).all() and np.isfinite(self.scale).all()):
            raise ModelError("a normaliser holds a NaN or an infinity")
        if (self.scale < MIN_SCALE).any():
            raise ModelError(f"a normaliser has a scale below {MIN_SCALE}")

    @classmethod
    def fit(cls, rows: ArrayLike) -> Normaliser:
        """Fit to training rows of shape (n, d), n >= 1.

        Raises:
            DataError: no rows, or rows that are not finite numbers.
        """
        values = checked_rows(rows, None, "training rows")
        if len(values) == 0:
            raise DataError("training rows: there are none", hint="give the node some benign rows")
        logs = signed_log1p(values)
        return cls(logs.mean(axis=0), np.maximum(logs.std(axis=0), MIN_SCALE))  # L-03

    def apply(self, rows: ArrayLike, name: str = "rows") -> NDArray[np.float32]:
        """Normalise rows of shape (n, d).

        Returns:
            Shape (n, d), float32, every value in [-CLIP, CLIP].

        Raises:
            DataError: wrong width, or a value that is not finite.
        """
        values = checked_rows(rows, len(self.location), name)
        scaled = (signed_log1p(values) - self.location) / self.scale
        clipped: NDArray[np.float32] = np.clip(scaled, -CLIP, CLIP).astype(np.float32)  # L-03
        return clipped
