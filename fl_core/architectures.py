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

__all__ = ["Shapes", "parameter_shapes"]

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


_SHAPES: Final[dict[str, Callable[[ModelConfig], Shapes]]] = {"mlp": _perceptron}
