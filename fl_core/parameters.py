"""The model as one flat vector: layout, digest, first values, and the way in and out of torch.

The layout is worked out from `ModelConfig` alone, and the first values are drawn by numpy, so a
coordinator needs no torch, and two machines with different torch builds start from the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fl_core.architectures import RUN_KINDS, Shapes, parameter_shapes
from fl_core.config import ModelConfig
from fl_core.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    M = TypeVar("M", bound=nn.Module)

__all__ = ["ParamSpec", "checked_vector", "draw_parameters", "initial_parameters"]


def checked_vector(values: ArrayLike, dim: int, name: str) -> NDArray[np.float32]:
    """Return `values` as float32 of shape (dim,).

    Raises:
        ModelError: another shape, not numbers, or a NaN or infinity in it.
    """
    array = np.asarray(values)
    if array.shape != (dim,) or array.dtype.kind not in "fiu":
        raise ModelError(
            f"{name} has shape {array.shape} and type {array.dtype}, not ({dim},) numbers",
            hint="use the model configuration that the vector was made with",
        )
    with np.errstate(over="ignore"):
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise ModelError(f"{name} holds a NaN or an infinity")
    return vector


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """Names and shapes of the parameters, in the order of the flat vector."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    """(name, shape) of each tensor."""

    dim: int
    """Coordinates of the flat vector."""

    digest: bytes
    """32 bytes: SHA-256 over kind, names and shapes, and over the window where these leave it open;
    a node's policy pins it."""

    @classmethod
    def from_model(cls, model: ModelConfig) -> ParamSpec:
        """Work out the layout of `model`."""
        open_window = model.kind in RUN_KINDS and model.window > 1  # L-01
        kind = f"{model.kind} window {model.window}" if open_window else model.kind
        return cls.of(kind, parameter_shapes(model))

    @classmethod
    def of(cls, kind: str, shapes: Shapes) -> ParamSpec:
        """Make the layout of a network of that kind and with those tensors."""
        lines = [f"fl_core/encoder/v1 {kind}"]
        lines += [f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes]
        digest = hashlib.sha256("\n".join(lines).encode()).digest()
        return cls(shapes, sum(math.prod(shape) for _, shape in shapes), digest)

    def _same_layout(self, module: nn.Module) -> None:
        found = tuple((n, tuple(p.shape)) for n, p in module.named_parameters())
        if found != self.shapes:
            raise ModelError("the module's parameters differ from the layout", hint="rebuild it")

    def flatten(self, module: nn.Module) -> NDArray[np.float32]:
        """Copy the module's parameters into a new float32 vector of shape (dim,).

        Raises:
            ModelError: the module has other parameters than this layout.
        """
        self._same_layout(module)
        parts: list[Any] = [p.detach().cpu().numpy().ravel() for p in module.parameters()]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def build(self, make: Callable[[], M], vector: ArrayLike) -> M:
        """Make a module whose parameters have the values of a vector of shape (dim,).

        Its constructor draws nothing from torch's global generator. It may have no buffers.

        Raises:
            ModelError: wrong length, a value that is not finite, or another layout.
        """
        import torch

        values = torch.from_numpy(checked_vector(vector, self.dim, "the parameter vector"))
        with torch.device("meta"):
            module = make()
        self._same_layout(module)
        state = {}
        start = 0
        for name, shape in self.shapes:
            end = start + math.prod(shape)
            state[name] = values[start:end].view(shape).clone()
            start = end
        # `to_empty` would do, and load sympy, which every node would pay for.
        module.load_state_dict(state, assign=True)
        return module


def initial_parameters(model: ModelConfig, seed: int) -> NDArray[np.float32]:
    """Draw the parameters before the first round: U(-1/sqrt(fan_in), +1/sqrt(fan_in)), bias alike.

    A tensor named table is looked up by position and sums nothing: its fan-in is 1.

    Args:
        model: Architecture.
        seed: Non-negative; the same seed gives the same bytes on every machine.

    Returns:
        Shape (dim,), float32.

    Raises:
        ModelError: the seed is negative.

    Source: the uniform bound of LeCun et al. 1998, "Efficient BackProp", as torch uses it.
    """
    return draw_parameters(parameter_shapes(model), seed)


def draw_parameters(shapes: Shapes, seed: int) -> NDArray[np.float32]:
    """Draw values for named tensors, as `initial_parameters` does for a model.

    A tensor whose name ends in "weight" has outputs along its first axis and the inputs of one
    output along all others; any other tensor is drawn as the weight before it.

    Raises:
        ModelError: the seed is negative.
    """
    if seed < 0:
        raise ModelError(f"the seed is {seed}", hint="use 0 or more")
    rng = np.random.default_rng(seed)  # L-02
    parts = []
    fan_in = 1
    for name, shape in shapes:
        if name.endswith("weight"):
            fan_in = math.prod(shape[1:])  # (out, in), or (out, in, kernel) of a convolution
        bound = 1.0 if name.endswith("table") else 1.0 / math.sqrt(fan_in)
        parts.append(rng.uniform(-bound, bound, size=math.prod(shape)))
    return np.concatenate(parts).astype(np.float32)
