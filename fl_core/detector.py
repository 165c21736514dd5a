"""A trained detector: one shared encoder, and one head a device that was fitted beside its data.

A head is what a device adds on its own, in closed form and without sending anything: how its rows
are normalised, where its benign embeddings lie, and the score above which a row is an alert. Heads
over the same encoder merge into one detector, which `fl_core.detector_file` keeps on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.calibration import cross_scores
from fl_core.config import ModelConfig
from fl_core.data.series import window_layout
from fl_core.encoders import Encoder, build_encoder, embed
from fl_core.errors import DataError, ModelError
from fl_core.normalise import Normaliser, checked_rows
from fl_core.parameters import ParamSpec, checked_vector
from fl_core.score_reference import ScoreReference
from fl_core.scoring import LEAST_THRESHOLD, HeadStatistics, benign_threshold

__all__ = ["DEFAULT_MAX_FPR", "Detector", "Head"]

_MANY = 1 << 53
"""More rows than a file says in good faith, and than a float counts exactly (L-18)."""

DEFAULT_MAX_FPR = 0.01
"""False-positive rate that a threshold is set for, where nothing else is asked."""


@dataclass(frozen=True, eq=False)
class Head:
    """One device's part of a detector; it holds summary statistics, no rows."""

    device: str
    """Name of the device, unique in a detector."""

    normaliser: Normaliser
    """From the device's training rows, or the public one of private training."""

    statistics: HeadStatistics
    """From the embeddings of the device's training rows."""

    threshold: float
    """A row whose score is above it is an alert; from the device's benign rows only."""

    max_fpr: float
    """False-positive rate that the threshold was set for, in (0, 1)."""

    n_train: int
    """Training rows behind the statistics."""

    n_validation: int
    """Validation rows behind the reference; their scores count for the threshold too."""

    n_calibration: int
    """Scores behind the threshold; below 1/max_fpr - 1 they cannot promise max_fpr."""

    reference: ScoreReference | None = field(default=None, repr=False)
    """Scores of the validation rows in short, to notice drift by; None where they were too few or
    of old."""

    def __post_init__(self) -> None:
        if not self.device:
            raise ModelError("a head has no device name")
        if not np.isfinite(self.threshold) or not 0.0 < self.max_fpr < 1.0:
            raise ModelError(
                f"{self.device}: threshold {self.threshold} or max_fpr {self.max_fpr} out of range"
            )
        if not (0 < self.n_train < _MANY and 0 < self.n_validation < _MANY):
            raise ModelError(f"{self.device}: a head of no rows, or of more than can be")
        if not self.n_validation <= self.n_calibration <= self.n_validation + self.n_train:
            raise ModelError(f"{self.device}: a threshold from {self.n_calibration} scores")
        if self.reference is not None and self.reference.count > self.n_validation:
            raise ModelError(f"{self.device}: more reference scores than validation rows")


@dataclass(frozen=True, eq=False)
class Detector:
    """A shared encoder with its heads. Frozen; equal encoders merge."""

    model: ModelConfig
    """Architecture of the encoder."""

    params: NDArray[np.float32] = field(repr=False)
    """Shape (dim,): the shared parameters."""

    feature_names: tuple[str, ...] = field(repr=False)
    """The input_dim columns a row must have, in this order."""

    heads: Mapping[str, Head] = field(repr=False)
    """Device name to head."""

    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """JSON-ready facts about the training, such as run, round, scheme and nodes; free-form."""

    def __post_init__(self) -> None:
        dim = ParamSpec.from_model(self.model).dim
        object.__setattr__(self, "params", checked_vector(self.params, dim, "the parameters"))
        names = self.feature_names
        if len(names) != self.model.input_dim or len(set(names)) != len(names):
            raise ModelError(
                f"{len(set(names))} different feature names for {self.model.input_dim} inputs"
            )
        if not self.heads:
            raise ModelError("a detector needs at least one head")
        width = self.model.embedding_dim
        for device, head in self.heads.items():
            fits = len(head.normaliser.location) == self.model.input_dim
            if not fits or sum(head.statistics.widths) != width or head.device != device:
                raise ModelError(f"the head of {device!r} does not fit the encoder")

    @cached_property
    def _encoder(self) -> Encoder:
        return build_encoder(self.model, self.params)

    # ------------------------------------------------------------------ making one

    @classmethod
    def fit_head(
        cls,
        params: ArrayLike,
        model: ModelConfig,
        train: ArrayLike,
        validation: ArrayLike,
        *,
        device: str,
        feature_names: Sequence[str],
        max_fpr: float = DEFAULT_MAX_FPR,
        normaliser: Normaliser | None = None,
    ) -> Detector:
        """Fit one device's head on its own benign rows, in closed form.

        Args:
            params: Shape (dim,): the trained parameters.
            model: Architecture.
            train: Benign rows for normaliser and statistics, shape (n, d), raw, n >= 2.
            validation: Other benign rows, shape (m, d), raw, m >= 1. The threshold is set on their
                scores, and on those of the training rows by heads that had not seen them
                (`fl_core.calibration`, L-13).
            device: Name of the head.
            feature_names: The d columns.
            max_fpr: False-positive rate wanted of the threshold, in (0, 1).
            normaliser: What the encoder was trained under, where that was not each node's own;
                fitted to `train` if None.

        Returns:
            A detector with this one head.

        Raises:
            DataError: too few rows, a wrong width, a value that is not finite.
            ModelError: parameters that do not fit, names that do not fit, `max_fpr` out of range.
        """
        encoder = build_encoder(model, params)
        own = checked_rows(train, model.input_dim, f"{device}: training rows")
        held_out = checked_rows(validation, model.input_dim, f"{device}: validation rows")
        if len(own) < 2 or len(held_out) < 1:
            raise DataError(
                f"{device}: {len(own)} training and {len(held_out)} validation rows are too few",
                hint="a head needs at least 2 training rows and 1 validation row",
            )

        window = max(model.window, window_layout(feature_names)[1])

        def fitted(rows: NDArray[np.float64]) -> tuple[Normaliser, HeadStatistics]:
            found = normaliser or Normaliser.fit(rows)
            z = embed(encoder, found.apply(rows))
            return found, HeadStatistics.fit(z, model.parts, window=window)

        def score_by(
            found: Normaliser, statistics: HeadStatistics
        ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
            return lambda values: statistics.distance(embed(encoder, found.apply(values)))

        used = fitted(own)
        scores = score_by(*used)(held_out)
        crossed = cross_scores(lambda some: score_by(*fitted(some)), own, gap=window - 1)  # L-13
        unseen = np.concatenate((crossed, scores))
        threshold = max(benign_threshold(unseen, max_fpr), LEAST_THRESHOLD)  # L-13
        reference = ScoreReference.fit(scores, threshold)
        counts = (len(own), len(held_out), len(unseen))
        head = Head(device, *used, threshold, max_fpr, *counts, reference)
        return cls(model, np.asarray(params), tuple(feature_names), {device: head})

    @classmethod
    def merge(cls, detectors: Sequence[Detector]) -> Detector:
        """Join the heads of detectors over the same encoder (L-15).

        Args:
            detectors: At least one; equal model, parameters (bit for bit) and feature names, no
                device twice. The provenance of the first is kept.

        Raises:
            ModelError: none given, encoders or columns differ, a device occurs twice.
        """
        if not detectors:
            raise ModelError("there is no detector to merge")
        first, heads = detectors[0], {}
        for other in detectors:
            if other.model != first.model or other.params.tobytes() != first.params.tobytes():
                raise ModelError(
                    f"the encoder of {', '.join(other.heads)} differs",
                    hint="merge heads that were fitted on the same round's parameters",
                )
            if other.feature_names != first.feature_names:
                raise ModelError(f"the columns of {', '.join(other.heads)} differ")
            for device, head in other.heads.items():
                if device in heads:
                    raise ModelError(f"two heads are named {device!r}")
                heads[device] = head
        return replace(first, heads=heads)

    def with_provenance(self, facts: Mapping[str, Any]) -> Detector:
        """Return the same detector with other facts about its training."""
        return replace(self, provenance=dict(facts))

    # ------------------------------------------------------------------ using one

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the heads, in the order they were merged."""
        return tuple(self.heads)

    def head(self, device: str | None = None) -> Head:
        """Return a device's head, or the only one (L-16).

        Raises:
            ModelError: the device has no head, or none is named and there are several.
        """
        known = ", ".join(self.heads)
        if device is None:
            if len(self.heads) > 1:
                raise ModelError(
                    f"the model has {len(self.heads)} heads and none is chosen",
                    hint=f"name a device, one of: {known}",
                )
            return next(iter(self.heads.values()))
        if device not in self.heads:
            raise ModelError(f"the model has no head for {device!r}", hint=f"devices: {known}")
        return self.heads[device]

    def score(self, rows: ArrayLike, device: str | None = None) -> NDArray[np.float64]:
        """Score raw rows of shape (n, d); higher is more anomalous.

        Args:
            rows: Raw feature values in the order of `feature_names`.
            device: Whose head to use; None where there is only one.

        Returns:
            Shape (n,), finite, at least 0, about 1 for a benign row.

        Raises:
            DataError: a wrong width, or a value that is not finite.
            ModelError: no such head, or parameters so large that they give no number for a row.
        """
        head = self.head(device)
        with np.errstate(over="ignore", invalid="ignore"):
            scores = head.statistics.distance(embed(self._encoder, head.normaliser.apply(rows)))
        if not np.isfinite(scores).all():  # L-18: a row without a score must not pass for quiet
            raise ModelError(
                f"the model gives no finite score for a row of {head.device!r}",
                hint="its file is damaged, or was not made by this program: get it anew",
            )
        return scores

    def threshold(self, device: str | None = None) -> float:
        """Return the score above which a row of `device` is an alert.

        Raises:
            ModelError: no such head.
        """
        return self.head(device).threshold

    def save(self, path: str | Path) -> None:
        """Write the detector to a safetensors file; see `fl_core.detector_file.save`."""
        from fl_core import detector_file

        detector_file.save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Read a detector from a safetensors file; see `fl_core.detector_file.load`."""
        from fl_core import detector_file

        return detector_file.load(Path(path))
