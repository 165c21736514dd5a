"""The quality table of a run: the federated encoder beside its baselines, device by device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.baselines import train_alone
from fl_core.config import ModelConfig, TrainConfig
from fl_core.detector import DEFAULT_MAX_FPR, Detector
from fl_core.metrics import DetectionQuality, quality
from fl_core.normalise import Normaliser

__all__ = [
    "METHODS",
    "DetectionQuality",
    "DeviceRows",
    "evaluate",
    "evaluate_device",
    "mean_quality",
    "round_seed",
    "site_number",
]

METHODS: Final = ("federated", "local", "random")
"""Rows of the table: the given parameters, this device alone, the parameters before training."""


class DeviceRows(Protocol):
    """What is read of a device; `fl_core.data.dataset.DeviceData` has it."""

    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def feature_names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def train(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def validation(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def test_benign(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def test_attack(self) -> NDArray[np.float64]: ...  # noqa: D102


def evaluate(
    score: Callable[[ArrayLike], NDArray[np.float64]],
    threshold: float,
    test_benign: ArrayLike,
    test_attack: ArrayLike,
) -> DetectionQuality:
    """Measure one score function with one threshold on raw test rows.

    Raises:
        DataError: rows that the score function refuses.
        ModelError: no rows of one kind.
    """
    return quality(score(test_benign), score(test_attack), threshold)


def round_seed(seed: int, round_: int, node: str, purpose: str) -> int:
    """Derive a training seed from run seed, round, node and purpose: 63 bits, no two alike."""
    text = f"fl_core/seed/v1\0{seed}\0{round_}\0{node}\0{purpose}"  # L-11
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def site_number(node: str) -> int:
    """Return a number for a node's site, from its name alone: 63 bits, the same in every round.

    Modulo the sites of a model two nodes may share a number; the reader then tells groups of them.
    """
    digest = hashlib.sha256(f"fl_core/site/v1\0{node}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def evaluate_device(
    data: DeviceRows,
    params: ArrayLike,
    initial: ArrayLike,
    *,
    model: ModelConfig,
    config: TrainConfig,
    rounds: int,
    seed: int,
    max_fpr: float = DEFAULT_MAX_FPR,
    normaliser: Normaliser | None = None,
) -> dict[str, DetectionQuality]:
    """Fill one device's rows of the table.

    Every encoder gets a head fitted the same way on the same rows; only its parameters differ.

    Args:
        data: The device's rows.
        params: The federated parameters, shape (dim,).
        initial: The parameters before training, shape (dim,): the `random` row, and where `local`
            starts.
        model: Architecture.
        config: Training settings of a round, for `local`.
        rounds: Rounds that `local` trains: as many local steps as in the federation.
        seed: Run seed.
        max_fpr: False-positive rate the thresholds are set for.
        normaliser: What the federated encoder was trained under, if not each node's own; `local`
            trains without privacy, as nothing of it leaves the node.

    Returns:
        Method name to quality, in the order of `METHODS`.

    Raises:
        DataError: rows that are too few or not finite.
        ModelError: parameters that do not fit.
    """
    seeds = [round_seed(seed, r, data.device, "local") for r in range(rounds)]
    alone = train_alone(
        initial, data.train, data.validation, model=model, config=config.unprotected(), seeds=seeds
    )
    table = {}
    for method, theta in zip(METHODS, (params, alone, initial), strict=True):
        detector = Detector.fit_head(
            theta,
            model,
            data.train,
            data.validation,
            device=data.device,
            feature_names=data.feature_names,
            max_fpr=max_fpr,
            normaliser=normaliser if method == METHODS[0] else None,
        )
        table[method] = evaluate(
            detector.score, detector.threshold(), data.test_benign, data.test_attack
        )
    return table


def mean_quality(
    tables: Sequence[Mapping[str, DetectionQuality]],
) -> dict[str, dict[str, float | int]]:
    """Average each method's numbers over devices, every device counting once; counts add up."""
    means: dict[str, dict[str, float | int]] = {}
    for method in tables[0] if tables else ():
        rows = [table[method].to_dict() for table in tables]
        means[method] = {
            key: sum(int(r[key]) for r in rows)
            if key.startswith("n_")
            else float(np.mean([r[key] for r in rows]))
            for key in rows[0]
        }
    return means
