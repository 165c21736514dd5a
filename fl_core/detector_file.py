"""A detector on disk: safetensors arrays plus one JSON text in their metadata. No pickle.

The file may come from a stranger, so everything is checked before a detector is made of it: format
and version, the set of arrays, their types and shapes, finite values, and every field of the JSON.
specs/90-learning.md section 7 has the layout.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Set
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from fl_core.config import ModelConfig
from fl_core.detector import Detector, Head
from fl_core.errors import ModelError
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec
from fl_core.score_reference import ScoreReference
from fl_core.scoring import EmbeddingStatistics, HeadStatistics

__all__ = ["FORMAT", "MAX_FILE_BYTES", "READABLE", "VERSION", "load", "save"]

FORMAT: Final = "secagg-detector"
VERSION: Final = 4
"""Of the layout: what is written (L-17)."""

READABLE: Final = (1, 2, 3, 4)
"""Versions that are read. In the first, heads have no reference scores; before the third,
thresholds were set on the scores of the validation rows alone; before the fourth, embeddings had
one part."""

MAX_FILE_BYTES: Final = 1 << 30
"""Largest file read: a thousand heads of the default model take an eighth of it."""

_KEY: Final = "detector"
_NORMALISER_ARRAYS: Final = ("location", "scale")
_PART_ARRAYS: Final = ("spread", "mean", "whitening")
"""Of each part of an embedding; of the second on with its number behind the name."""

_HEAD_FIELDS: Final = {
    "device": str,
    "threshold": float,
    "max_fpr": float,
    "n_train": int,
    "n_validation": int,
}
_REFERENCE_FIELDS: Final = {"levels": int, "count": int, "correlation": float}
_DTYPES: Final = {"F32": np.float32, "F64": np.float64}


def save(detector: Detector, path: Path) -> None:
    """Write a detector atomically: a reader sees the old file or the new one, never a part.

    Raises:
        ModelError: the provenance is not JSON, or the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {"params": detector.params}
    heads = []
    for i, head in enumerate(detector.heads.values()):
        for name in _NORMALISER_ARRAYS:
            arrays[f"head.{i}.{name}"] = np.ascontiguousarray(getattr(head.normaliser, name))
        parts = head.statistics.parts
        for suffix, part in zip(_suffixes(len(parts)), parts, strict=True):
            for name in _PART_ARRAYS:
                values = np.atleast_1d(getattr(part, name))
                arrays[f"head.{i}.{name}{suffix}"] = np.ascontiguousarray(values)
        fields = {name: getattr(head, name) for name in (*_HEAD_FIELDS, "n_calibration")}
        fields["parts"] = list(head.statistics.widths)
        fields["reference"] = None
        if (reference := head.reference) is not None:
            arrays[f"head.{i}.reference"] = np.stack((reference.levels, reference.shares))
            sizes = (len(reference.levels), reference.count, reference.correlation)
            fields["reference"] = dict(zip(_REFERENCE_FIELDS, sizes, strict=True))
        heads.append(fields)
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "model": detector.model.to_dict(),
        "feature_names": list(detector.feature_names),
        "heads": heads,
        "provenance": dict(detector.provenance),
    }
    try:
        text = json.dumps(facts, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the provenance is not JSON: {error}") from error
    _write(path, to_safetensors(arrays, metadata={_KEY: text}))


def _suffixes(parts: int) -> list[str]:
    """Return what follows the names of `_PART_ARRAYS`, part by part."""
    return ["", *(f".{number}" for number in range(1, parts))]


def _write(path: Path, data: bytes) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)  # L-17
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ModelError(
            f"{path}: cannot write: {error.strerror}", hint="check the folder and its permissions"
        ) from error


def load(path: Path) -> Detector:
    """Read a detector and check everything in it (L-18).

    Raises:
        ModelError: the file is missing, not a detector, of another version, or damaged.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path}: {size} bytes is too large for a detector")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ModelError(
                    f"{path}: a safetensors file, but not a detector",
                    hint="give the model.safetensors that a run of this program wrote",
                )
            facts = _facts(path, metadata[_KEY])
            shapes = _expected(facts)
            arrays = _arrays(path, file, shapes)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot read: {error.strerror or error}", hint="check the path"
        ) from error
    except SafetensorError as error:
        raise ModelError(
            f"{path}: not a safetensors file, or a damaged one: {error}", hint="copy it again"
        ) from error
    try:
        return _detector(facts, arrays)
    except ModelError as error:
        raise ModelError(f"{path}: {error}", hint=error.hint) from error


def _facts(path: Path, text: str) -> dict[str, Any]:
    """Parse the JSON and check the type of every field."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the metadata is not JSON") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ModelError(f"{path}: the metadata is not that of a detector")
    version = facts.get("version")
    if type(version) is not int or version not in READABLE:
        raise ModelError(
            f"{path}: detector version {version!r}, this program reads 1 to {VERSION}",
            hint="use the program version that wrote it",
        )
    names, heads = facts.get("feature_names"), facts.get("heads")
    sound = isinstance(facts.get("model"), dict) and isinstance(facts.get("provenance"), dict)
    sound = sound and isinstance(names, list) and all(isinstance(n, str) for n in names)
    sound = sound and isinstance(heads, list) and all(_is_head(h, version) for h in heads)
    if not sound or set(facts) - {"format", "version"} != {
        "model",
        "feature_names",
        "heads",
        "provenance",
    }:
        raise ModelError(f"{path}: the metadata has a missing, unknown or mistyped field")
    return facts


def _is_head(value: object, version: int) -> bool:
    """Tell whether every field is there and typed; from version 2 on a reference, or null."""
    if not isinstance(value, dict):
        return False
    reference = value.get("reference")
    fields = _HEAD_FIELDS | ({"n_calibration": int} if version > 2 else {})
    fields |= {"parts": list} if version > 3 else {}
    if not _has(value, fields, more={"reference"} if version > 1 else set()):
        return False
    parts = value.get("parts", [1])
    sound = bool(parts) and all(type(width) is int and width > 0 for width in parts)
    return sound and (
        reference is None or (isinstance(reference, dict) and _has(reference, _REFERENCE_FIELDS))
    )


def _has(value: dict[str, Any], fields: dict[str, type], more: Set[str] = frozenset()) -> bool:
    return set(value) == set(fields) | more and all(
        type(value[name]) is kind for name, kind in fields.items()
    )


def _expected(facts: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Work out which arrays, and of which shapes, the metadata promises."""
    model = ModelConfig.from_dict(facts["model"])
    d, k = model.input_dim, model.embedding_dim
    shapes: dict[str, tuple[int, ...]] = {"params": (ParamSpec.from_model(model).dim,)}
    for i, head in enumerate(facts["heads"]):
        widths = head.get("parts", [k])
        if sum(widths) != k:
            raise ModelError(f"a head has parts of {widths} coordinates for embeddings of {k}")
        shapes |= {f"head.{i}.{name}": (d,) for name in _NORMALISER_ARRAYS}
        for suffix, width in zip(_suffixes(len(widths)), widths, strict=True):
            own = ((1,), (2 * width,), (2 * width, 2 * width))
            for name, shape in zip(_PART_ARRAYS, own, strict=True):
                shapes[f"head.{i}.{name}{suffix}"] = shape
        if head.get("reference"):
            shapes[f"head.{i}.reference"] = (2, head["reference"]["levels"])
    return shapes


def _arrays(path: Path, file: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    found = set(file.keys())
    if found != set(shapes):
        odd = sorted(found ^ set(shapes))[0]
        raise ModelError(f"{path}: array {odd!r} is missing or not expected")
    arrays = {}
    for name, shape in shapes.items():
        part = file.get_slice(name)
        wanted = "F32" if name == "params" else "F64"
        if part.get_dtype() != wanted or tuple(part.get_shape()) != shape:
            raise ModelError(
                f"{path}: array {name!r} is {part.get_dtype()} {tuple(part.get_shape())}, "
                f"not {wanted} {shape}"
            )
        arrays[name] = np.asarray(file.get_tensor(name), dtype=_DTYPES[wanted])
    return arrays


def _detector(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Detector:
    heads: dict[str, Head] = {}
    for i, fields in enumerate(facts["heads"]):
        if fields["device"] in heads:
            raise ModelError(f"two heads are named {fields['device']!r}")
        heads[fields["device"]] = _head(fields, arrays, f"head.{i}.")
    return Detector(
        ModelConfig.from_dict(facts["model"]),
        arrays["params"],
        tuple(facts["feature_names"]),
        heads,
        facts["provenance"],
    )


def _head(fields: dict[str, Any], arrays: dict[str, NDArray[Any]], prefix: str) -> Head:
    before = {"n_calibration": fields["n_validation"], "parts": ["all"]}  # of older versions
    fields = before | fields
    parts = []
    for suffix in _suffixes(len(fields.pop("parts"))):
        spread, mean, whitening = (arrays[prefix + name + suffix] for name in _PART_ARRAYS)
        parts.append(EmbeddingStatistics(float(spread[0]), mean, whitening))
    if sizes := fields.pop("reference", None):
        levels, shares = arrays[prefix + "reference"]
        reference = ScoreReference(levels, shares, sizes["count"], sizes["correlation"])
    return Head(
        normaliser=Normaliser(*(arrays[prefix + name] for name in _NORMALISER_ARRAYS)),
        statistics=HeadStatistics(tuple(parts)),
        reference=reference if sizes else None,
        **fields,
    )
