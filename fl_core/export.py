"""One device's whole detector as a program that needs torch and nothing of ours.

The program takes raw rows and gives scores and alerts: signed logarithm, normalisation, clip,
encoder, both standardisations, Mahalanobis head and threshold are one graph, written by
`torch.export`. That format was chosen over ONNX because it needs no further dependency here and
computes the head in float64 with the same kernels as training did; ONNX would take three packages.

A program is code. Load only those that come from somebody you trust: torch says the same of its
loader. The detector file itself (`fl_core.detector_file`) has no such weakness.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_core.detector import Detector, Head
from fl_core.encoders import build_encoder, standardise
from fl_core.errors import ModelError
from fl_core.normalise import CLIP
from fl_core.scoring import JOINT_FLOOR, EmbeddingStatistics

__all__ = [
    "FACTS_NAME",
    "MAX_DIFFERENCE",
    "PROGRAM_FORMAT",
    "PROGRAM_VERSION",
    "SUFFIX",
    "ExportCheck",
    "program_facts",
    "save_program",
]

PROGRAM_FORMAT: Final = "secagg-program"
PROGRAM_VERSION: Final = 1
"""Of the program's inputs, outputs and facts."""

FACTS_NAME: Final = "detector.json"
"""Name of the JSON text inside the file, for `extra_files` of `torch.export.load`."""

SUFFIX: Final = ".pt2"
"""Ending of the file; torch's loader expects it."""

MAX_DIFFERENCE: Final = 1e-5
"""Largest relative difference between a program's scores and the detector's: the encoder adds
float32 numbers in an order that depends on the batch, the rest agrees to float64."""

_CHECK_ROWS: Final = 512
_CHECK_SPREADS: Final = (1.0, 5.0, 50.0)
"""Node standard deviations: benign rows, odd rows, and rows that the clip cuts."""
_MAX_LOG: Final = 700.0
"""Largest logarithm of a check row: exp of it is still a float64."""

_Program = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows (n, d) float64 to scores (n,) float64 and alerts (n,) bool."""


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """What was seen when a written program ran beside its detector."""

    difference: float
    """Largest relative difference of a score, at most `MAX_DIFFERENCE`."""

    rows: int
    """Rows that both scored."""

    size: int
    """Bytes of the file."""


class _Constants(nn.Module):
    """Numbers of a head in float64."""

    def __init__(self, **constants: Any) -> None:
        super().__init__()
        for name, value in constants.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))


class _Length(_Constants):
    """`EmbeddingStatistics.distance`, squared."""

    mean: Tensor
    whitening: Tensor
    spread: Tensor

    def __init__(self, part: EmbeddingStatistics) -> None:
        super().__init__(mean=part.mean, whitening=part.whitening, spread=part.spread)

    def forward(self, z: Tensor) -> Tensor:
        both = torch.cat((z / self.spread, standardise(z)), dim=1)  # (n, 2k)
        return torch.square((both - self.mean) @ self.whitening).mean(dim=1)  # (n,)


class _Detection(_Constants):
    """`Detector.score` and the comparison with the threshold, for one head, in torch."""

    location: Tensor
    scale: Tensor
    threshold: Tensor

    def __init__(self, detector: Detector, head: Head) -> None:
        normaliser = head.normaliser
        super().__init__(
            location=normaliser.location, scale=normaliser.scale, threshold=head.threshold
        )
        self.encoder = build_encoder(detector.model, detector.params).requires_grad_(False)
        # The transform over time takes no empty batch: a row of zeros goes along, and is cut off.
        self.spare = detector.model.kind == "timefreq"
        self.lengths = nn.ModuleList(_Length(part) for part in head.statistics.parts)
        self.widths = list(head.statistics.widths)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        logs = torch.sign(rows) * torch.log1p(rows.abs())  # (n, d), float64
        x = torch.clamp((logs - self.location) / self.scale, -CLIP, CLIP)
        x = x.to(torch.float32)
        if self.spare:
            z = self.encoder(torch.cat((x, x.new_zeros((1, x.shape[1])))))[:-1]
        else:
            z = self.encoder(x)  # (n, d) -> (n, k)
        z = z.to(torch.float64)
        score = torch.sqrt(self._square(z))  # (n,)
        # L-62: a graph cannot raise, so a broken row has no score and is an alert
        score = torch.where(torch.isfinite(rows).all(dim=1), score, torch.nan)
        return score, ~(score <= self.threshold)

    def _square(self, z: Tensor) -> Tensor:
        """Return the squared score: `HeadStatistics.distance` of several parts joins them."""
        each = zip(self.lengths, torch.split(z, self.widths, dim=1), strict=True)
        squares = torch.stack([length(part) for length, part in each])  # (p, n)
        if len(squares) == 1:
            return squares[0]
        return torch.exp(torch.log(squares + JOINT_FLOOR).mean(dim=0))


def program_facts(detector: Detector, device: str | None = None) -> dict[str, Any]:
    """Return what travels in the file beside the program, JSON-ready (L-61): no row is in it.

    Raises:
        ModelError: no such head, or several and none is chosen.
    """
    head = detector.head(device)
    return {
        "format": PROGRAM_FORMAT,
        "version": PROGRAM_VERSION,
        "device": head.device,
        "feature_names": list(detector.feature_names),
        "threshold": head.threshold,
        "max_fpr": head.max_fpr,
        "n_train": head.n_train,
        "n_validation": head.n_validation,
        "n_calibration": head.n_calibration,
        "input": "rows: float64 (n, features), raw",  # float32 costs precision
        "output": "score: float64 (n,), NaN for a broken row; alert: bool (n,)",
        "torch": str(torch.__version__),
    }


def save_program(detector: Detector, path: str | Path, *, device: str | None = None) -> ExportCheck:
    """Write one device's detector as a program, and check the written file beside the detector.

    The file appears under its name only when it has been loaded anew and has agreed with
    `Detector.score`; an existing file is never replaced.

    Args:
        detector: The trained detector.
        path: A new file whose name ends in `SUFFIX`.
        device: Whose head; None where there is only one.

    Returns:
        The largest difference seen, on how many rows, and the size of the file.

    Raises:
        ModelError: no such head, a file that exists or cannot be written, or a program that
            scores otherwise than the detector.

    Source: specs/90-learning.md L-60 to L-63.
    """
    path, head = Path(path), detector.head(device)
    if path.suffix != SUFFIX:
        raise ModelError(
            f"{path}: a program's name ends in {SUFFIX}", hint=f"use {path.stem}{SUFFIX}"
        )
    if path.exists():
        raise ModelError(f"{path} exists", hint="choose another name, or remove it first")
    data = _serialised(detector, head)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=SUFFIX)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            seen = _checked(Path(name), detector, head)
            Path(name).replace(path)  # L-63: only now is there a file of that name
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(
            f"{path}: cannot write: {error.strerror}", hint="check the folder and its permissions"
        ) from error
    return seen


def _serialised(detector: Detector, head: Head) -> bytes:
    """Trace the detector with an open number of rows; the example is zeros, nobody's data."""
    example = torch.zeros((2, detector.model.input_dim), dtype=torch.float64)
    open_batch = {"rows": {0: torch.export.Dim("n", min=0)}}
    program = torch.export.export(
        _Detection(detector, head).eval(), (example,), dynamic_shapes=open_batch
    )
    facts = json.dumps(program_facts(detector, head.device), allow_nan=False)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS_NAME: facts})
    return buffer.getvalue()


def _checked(path: Path, detector: Detector, head: Head) -> ExportCheck:
    """Run the written program and the detector on the same rows, in several batch sizes."""
    facts = {FACTS_NAME: ""}
    program: _Program = torch.export.load(path, extra_files=facts).module()
    if json.loads(facts[FACTS_NAME]) != program_facts(detector, head.device):
        raise ModelError(f"{path}: the facts beside the program came back changed")
    rows = _check_rows(head)
    worst, start = 0.0, 0
    for size in (0, 1, 2, len(rows) - 3):  # L-60: the number of rows is open
        worst = max(worst, _difference(program, detector, head, rows[start : start + size]))
        start += size
    return ExportCheck(worst, len(rows), path.stat().st_size)


def _difference(
    program: _Program, detector: Detector, head: Head, rows: NDArray[np.float64]
) -> float:
    """Return the largest relative difference of a score on `rows`, or refuse the program."""
    with torch.inference_mode():
        scores, alerts = (each.numpy() for each in program(torch.from_numpy(rows)))
    expected = detector.score(rows, head.device)
    off = np.abs(scores - expected)
    largest = float((off / np.maximum(expected, np.finfo(np.float64).tiny)).max(initial=0.0))
    clear = np.abs(expected - head.threshold) > MAX_DIFFERENCE * head.threshold
    same = np.array_equal(alerts[clear], (expected > head.threshold)[clear])
    if not (largest <= MAX_DIFFERENCE and same):  # L-60; a NaN is no agreement either
        raise ModelError(
            f"the program of {head.device!r} differs from the detector: scores by {largest:.1e}",
            hint="nothing was written; please report it with the version of torch",
        )
    return largest


def _check_rows(head: Head) -> NDArray[np.float64]:
    """Draw raw rows around the device's own, from usual to absurd; the first is all zeros."""
    rng = np.random.default_rng(0)
    width = len(head.normaliser.location)
    spreads = np.resize(_CHECK_SPREADS, (_CHECK_ROWS, 1))
    offsets = spreads * head.normaliser.scale * rng.normal(size=(_CHECK_ROWS, width))
    logs = np.clip(head.normaliser.location + offsets, -_MAX_LOG, _MAX_LOG)
    rows = np.sign(logs) * np.expm1(np.abs(logs))
    rows[0] = 0.0
    return np.asarray(rows)
