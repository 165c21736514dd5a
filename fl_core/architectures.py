"""Names and shapes of every encoder's parameters, worked out from the settings without torch.

The coordinator draws and adds up parameters and needs no torch for it. The modules of
`fl_core.encoders` have exactly these parameters in this order; `ParamSpec.load` checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fl_core.config import ModelConfig

__all__ = ["ATTENTION_HEADS", "DISCREPANCIES", "Shapes", "parameter_shapes"]

ATTENTION_HEADS: Final = 4
"""Attention heads of the time-frequency transformer; its width is a multiple of it."""

DISCREPANCIES: Final = 7
"""Numbers that it embeds for each channel: two residuals and an error of either path, a gap."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each tensor."""


def parameter_shapes(model: ModelConfig) -> Shapes:
    """List name and shape of every parameter in the order of the flat vector."""
    return _SHAPES[model.kind](model)


def _perceptron(model: ModelConfig) -> Shapes:
    widths = (model.input_dim, *model.hidden, model.embedding_dim)
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        shapes += [(f"layers.{i}.weight", (after, before)), (f"layers.{i}.bias", (after,))]
    shapes.append(("skip.weight", (model.embedding_dim, model.input_dim)))
    return tuple(shapes)


def _time_frequency(model: ModelConfig) -> Shapes:
    (width,), channels = model.hidden, model.input_dim // model.window
    paths = (("time", model.window, channels), ("frequency", model.window // 2 + 1, 2 * channels))
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for path, tokens, features in paths:
        shapes.append((f"{path}.position_table", (tokens, width)))
        shapes += _linear(f"{path}.embed", features, width)
        for stage in (f"{path}.stages.{i}" for i in range(model.stages)):
            shapes += [(f"{stage}.{table}_table", (tokens, width)) for table in _TABLES]
            shapes += _linear(f"{stage}.mix", width, 3 * width)
            for name in ("join", "widen", "narrow", "code", "gate"):
                shapes += _linear(f"{stage}.{name}", width, width)
            shapes += _linear(f"{stage}.out", width, features)
    return tuple(shapes)


def _linear(name: str, before: int, after: int) -> Shapes:
    return ((f"{name}.weight", (after, before)), (f"{name}.bias", (after,)))


_TABLES: Final = ("gather", "spread")

_SHAPES: Final[dict[str, Callable[[ModelConfig], Shapes]]] = {
    "mlp": _perceptron,
    "timefreq": _time_frequency,
}
