"""Public rows that stand in for what private training may not read off a node's own rows.

A normaliser fitted to a node's rows makes the gradient of every row depend on every other. Under
record-level privacy all rows are therefore normalised by the same public rows, the bank, which also
serve as negatives. The bank is built in for the damped traffic statistics, from the simulated
devices; for other columns somebody has to supply one that holds no row of any node. All nodes must
use the same: its digest stands in the training settings.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.errors import ModelError
from fl_core.normalise import CLIP, MIN_SCALE, Normaliser, checked_rows, signed_log1p

__all__ = ["MAX_BANK_ROWS", "PublicBank"]

MAX_BANK_ROWS: Final = 4096
"""Most rows: the squares of all logarithms in grid steps then add up within 63 bits."""

_GRID: Final = 1 << 16
"""Steps of a logarithm's grid in one: two builds that differ in the last bit agree on it."""

_SEED: Final = 530_530_530
"""Of the built-in bank: no demonstration data are drawn with it."""

_ROWS_A_DEVICE: Final = 128
_START: Final = 1_700_000_000.0  # any day will do, at an hour that is drawn
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class PublicBank:
    """Benign rows that anybody may know, after the signed logarithm, on a grid."""

    feature_names: tuple[str, ...]
    """The d columns, unique."""

    logs: NDArray[np.int64] = field(repr=False)
    """Shape (n, d): signed_log1p of the rows in steps of 2^-16, rounded to the nearest."""

    @classmethod
    def from_rows(cls, feature_names: Sequence[str], rows: ArrayLike) -> PublicBank:
        """Make a bank of raw rows.

        Args:
            feature_names: The d columns, unique.
            rows: Shape (n, d), 2 <= n <= `MAX_BANK_ROWS`; no row of any node may be among them.

        Raises:
            DataError: not a table of finite numbers with d columns.
            ModelError: names that occur twice, or too few or too many rows.
        """
        names = tuple(feature_names)
        if len(set(names)) != len(names):
            raise ModelError("two columns of the public bank have the same name")
        values = checked_rows(rows, len(names), "public rows")
        if not 2 <= len(values) <= MAX_BANK_ROWS:
            raise ModelError(
                f"the public bank has {len(values)} rows", hint=f"give it 2 to {MAX_BANK_ROWS}"
            )
        return cls(names, np.rint(signed_log1p(values) * _GRID).astype(np.int64))

    @classmethod
    def builtin(cls, feature_names: Sequence[str]) -> PublicBank:
        """Return the simulated devices' bank, with the columns of these names in this order.

        Raises:
            ModelError: a column that the simulation does not have.
        """
        bank = _builtin_bank()
        at = {name: i for i, name in enumerate(bank.feature_names)}
        unknown = [name for name in feature_names if name not in at]
        if unknown:
            raise ModelError(
                f"there are no built-in public rows with a column {unknown[0]!r}",
                hint="supply a public bank: rows with the node's columns that are nobody's secret",
            )
        names = tuple(feature_names)
        return cls(names, bank.logs[:, [at[name] for name in names]])

    @property
    def digest(self) -> str:
        """SHA-256 over column names and grid values, 64 hex digits."""
        head = "\0".join(("fl_core/public-bank/v1", str(len(self.logs)), *self.feature_names))
        body = np.ascontiguousarray(self.logs).astype("<i8").tobytes()
        return hashlib.sha256(head.encode() + b"\0\0" + body).hexdigest()

    def check(self, width: int, digest: str) -> None:
        """Refuse to stand in for another bank.

        Args:
            width: Columns of the model.
            digest: `TrainConfig.bank_digest`.

        Raises:
            ModelError: another width, or another digest.
        """
        if len(self.feature_names) != width:
            raise ModelError(
                f"the public bank has {len(self.feature_names)} columns, the model takes {width}",
                hint="make it with the feature names that the node trains on",
            )
        if self.digest != digest:
            raise ModelError(
                f"the public bank here has the digest {self.digest}, the settings name {digest}",
                hint="give every node the same public rows with the same columns in the same order",
            )

    @property
    def normaliser(self) -> Normaliser:
        """Location and scale of the bank, from exact integer sums: equal bits on every machine."""
        n = len(self.logs)
        sums = [int(total) for total in self.logs.sum(axis=0)]
        squares = [int(total) for total in np.square(self.logs).sum(axis=0)]
        location = np.array([total / (n * _GRID) for total in sums])
        deviation = [
            math.sqrt((n * square - total * total) / (n * n)) / _GRID
            for total, square in zip(sums, squares, strict=True)
        ]
        return Normaliser(location, np.maximum(np.array(deviation), MIN_SCALE))

    def normalised(self) -> NDArray[np.float32]:
        """Return the rows as the encoder sees them, shape (n, d), in [-CLIP, CLIP]."""
        return self.under(self.normaliser)

    def under(self, normaliser: Normaliser) -> NDArray[np.float32]:
        """Return the rows under another normaliser, shape (n, d), in [-CLIP, CLIP]."""
        scaled = (self.logs / _GRID - normaliser.location) / normaliser.scale
        return np.asarray(np.clip(scaled, -CLIP, CLIP), dtype=np.float32)

    def apply(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Normalise a node's rows, each on its own; rows that are not finite are left out.

        Whether one row is left out depends on that row alone, so it says nothing about others and
        no error tells that there was one (Q-03).

        Args:
            rows: Raw, shape (n, d), n >= 0.

        Returns:
            Shape (m, d), m <= n.

        Raises:
            DataError: not a table of numbers, or another width.
        """
        values = np.asarray(rows)
        kept = values
        if values.ndim == 2 and values.dtype.kind == "f":
            kept = values[np.isfinite(values).all(axis=1)]
        return self.normaliser.apply(kept, "training rows")


@functools.cache
def _builtin_bank() -> PublicBank:
    from fl_core.data.dataset import evenly  # on use: this simulates traffic
    from fl_core.data.extractor import FEATURE_NAMES, extract
    from fl_core.data.profiles import PROFILES, benign_packets

    parts = []
    for profile in PROFILES.values():
        rng = np.random.default_rng(np.random.SeedSequence((_SEED, profile.number)))
        start = _START + float(rng.uniform(0, _DAY_S))
        rows = extract(benign_packets(profile, rng, (start, start + profile.duration_s)))
        parts.append(rows[evenly(len(rows), _ROWS_A_DEVICE)])
    return PublicBank.from_rows(FEATURE_NAMES, np.concatenate(parts))
