"""Names and shapes of every encoder's parameters, worked out from the settings without torch.

The coordinator draws and adds up parameters and needs no torch for it. The modules of
`fl_core.encoders` have exactly these parameters in this order; `ParamSpec.load` checks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fl_core.errors import ModelError
from fl_core.layouts import column_runs, sequence_columns

if TYPE_CHECKING:
    from fl_core.config import ModelConfig

__all__ = [
    "ATTENTION_HEADS",
    "KERNEL",
    "NODE_WIDTH",
    "POOLINGS",
    "RESIDUALS",
    "RUN_KINDS",
    "SPREADS",
    "Shapes",
    "attention_heads",
    "parameter_shapes",
]

ATTENTION_HEADS: Final = 4
"""Attention heads of the time-frequency transformer; its width is a multiple of it."""

RESIDUALS: Final = 4
"""Numbers that it embeds for each channel, first: two residuals of either path."""

SPREADS: Final = 3
"""Numbers that it embeds for each channel, last: how much either path's residual, and the one
path's distance from the other, varies over the window."""

RUN_KINDS: Final = ("cnn", "gnn", "gat")
"""Kinds of encoder that are built after how the columns of a row stand in streams and windows."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each tensor."""

KERNEL: Final = 3
"""Windows, steps or columns that one convolution sees: its own and those beside."""

NODE_WIDTH: Final = 32
"""Numbers that every run of a graph is mapped to before its first layer."""

POOLINGS: Final = 2
"""What is read out of the positions of a sequence or graph: their mean and their maximum."""

_HEADS: Final = 4
_MAX_NUMBERS: Final = 1 << 16  # as the widest layer of a perceptron


def parameter_shapes(model: ModelConfig) -> Shapes:
    """List name and shape of every parameter in the order of the flat vector."""
    shapes = _SHAPES[model.kind](model)
    if model.sites:  # L-81
        shapes += _linear("reader", model.embedding_dim, model.sites)
    return shapes


def _perceptron(model: ModelConfig) -> Shapes:
    widths = (model.input_dim, *model.hidden, model.embedding_dim)
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        shapes += [(f"layers.{i}.weight", (after, before)), (f"layers.{i}.bias", (after,))]
    shapes.append(("skip.weight", (model.embedding_dim, model.input_dim)))
    return tuple(shapes)


def _convolutions(model: ModelConfig) -> Shapes:
    columns = sequence_columns(model.input_dim, model.window)
    widths = (len(columns), *model.hidden)
    _check_numbers(model, len(columns[0]) * max(widths))
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        shapes += [
            (f"layers.{i}.weight", (after, before, KERNEL)),
            (f"layers.{i}.bias", (after,)),
        ]
    return (*shapes, *_readout(model, widths[-1]))


def _graph(model: ModelConfig, *, attention: bool = False) -> Shapes:
    runs = column_runs(model.input_dim, model.window)
    widths = (NODE_WIDTH, *model.hidden)
    _check_numbers(model, len(runs) * max(widths))
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for i, run in enumerate(runs):
        shapes += [
            (f"project.{i}.weight", (NODE_WIDTH, run.length)),
            (f"project.{i}.bias", (NODE_WIDTH,)),
        ]
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        heads = attention_heads(after)
        _check_numbers(model, len(runs) ** 2 * (heads if attention else 1))
        if attention:
            shapes.append((f"layers.{i}.attend_weight", (2 * heads, after // heads)))
        shapes += [(f"layers.{i}.map.weight", (after, before)), (f"layers.{i}.map.bias", (after,))]
    return (*shapes, *_readout(model, widths[-1]))


def _attention_graph(model: ModelConfig) -> Shapes:
    return _graph(model, attention=True)


def _readout(model: ModelConfig, width: int) -> Shapes:
    return (
        ("out.weight", (model.embedding_dim, POOLINGS * width)),
        ("out.bias", (model.embedding_dim,)),
        ("skip.weight", (model.embedding_dim, model.input_dim)),
    )


def attention_heads(width: int) -> int:
    """Return into how many heads a layer of that width divides: four, or what divides it."""
    return math.gcd(_HEADS, width)


def _check_numbers(model: ModelConfig, numbers: int) -> None:
    """Refuse a layer that holds too many numbers for a row: a hostile offer fills no memory."""
    if numbers > _MAX_NUMBERS:
        raise ModelError(
            f"a layer of a {model.kind!r} encoder holds {numbers} numbers for a row, more than "
            f"{_MAX_NUMBERS}",
            hint='use fewer columns or smaller hidden layers, or the kind "mlp"',
        )


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
    "cnn": _convolutions,
    "gnn": _graph,
    "gat": _attention_graph,
    "timefreq": _time_frequency,
}
