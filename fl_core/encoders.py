"""The local encoder f_theta: normalised rows to embeddings.

The kinds of encoder differ in the path beside their linear bypass (`fl_core.encoder_base`): a
multilayer perceptron, convolutions along the damped windows, or a graph of streams and windows.
Windows of a series go through `fl_core.timefreq`, which has no bypass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_core.config import ModelConfig
from fl_core.conv_encoder import ConvEncoder
from fl_core.encoder_base import BypassEncoder, Encoder
from fl_core.graph_encoders import AttentionEncoder, GraphEncoder
from fl_core.parameters import ParamSpec
from fl_core.scoring import EPSILON
from fl_core.timefreq import TimeFrequencyEncoder

__all__ = ["Encoder", "Perceptron", "build_encoder", "embed", "standardise"]


class Perceptron(BypassEncoder):
    """Multilayer perceptron on all features at once."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.embedding_dim = model.embedding_dim
        widths = (model.input_dim, *model.hidden, model.embedding_dim)
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )
        self.skip = self.bypass(model)

    def path(self, x: Tensor) -> Tensor:
        """Map squashed features (B, d) to (B, k)."""
        for layer in self.layers[:-1]:
            x = functional.gelu(layer(x))  # (B, d) -> (B, hidden)
        z: Tensor = self.layers[-1](x)  # (B, hidden) -> (B, k)
        return z


_ENCODERS: Final[dict[str, Callable[[ModelConfig], Encoder]]] = {
    "mlp": Perceptron,
    "cnn": ConvEncoder,
    "gnn": GraphEncoder,
    "gat": AttentionEncoder,
    "timefreq": TimeFrequencyEncoder,
}


def standardise(z: Tensor, *, on: bool = True) -> Tensor:
    """Return z~ = (z - mu) / sigma with mu, sigma over the k coordinates of each window.

    Args:
        z: Shape (B, k).
        on: Otherwise z is returned: `TrainConfig.window_normalisation`.

    Returns:
        Shape (B, k); each row has mean 0 and mean square just under 1.

    Source: seed 001 section 3, read as specs/90-learning.md section 3 says (L-05).
    """
    return functional.layer_norm(z, (z.shape[-1],), eps=EPSILON) if on else z


def build_encoder(model: ModelConfig, params: ArrayLike) -> Encoder:
    """Make the encoder of `model` with the values of a flat vector of shape (dim,).

    Raises:
        ModelError: the vector has another length or holds a value that is not finite.
    """
    return ParamSpec.from_model(model).build(lambda: _encoder(model), params)


def _encoder(model: ModelConfig) -> Encoder:
    encoder = _ENCODERS[model.kind](model)
    if model.sites:  # L-81: after all others, as in the layout
        encoder.reader = nn.Linear(model.embedding_dim, model.sites)
    return encoder


def embed(encoder: Encoder, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Embed normalised rows without keeping gradients.

    Args:
        encoder: The encoder.
        rows: Shape (n, d), float32.

    Returns:
        z, shape (n, k), float64.
    """
    parts = [np.empty((0, encoder.embedding_dim))]
    size = encoder.rows_at_once
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            z = encoder(torch.from_numpy(np.ascontiguousarray(rows[start : start + size])))
            parts.append(z.numpy().astype(np.float64))
    return np.concatenate(parts)
