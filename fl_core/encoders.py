"""The local encoder f_theta: normalised rows to embeddings.

Rows that stand alone go through a multilayer perceptron with a linear bypass, defined here. The
bypass keeps the size of a deviation in the length of the embedding, which the score reads; the
contrast works on its direction. Windows of a series go through `fl_core.timefreq`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from fl_core.config import ModelConfig
from fl_core.parameters import ParamSpec
from fl_core.scoring import EPSILON
from fl_core.timefreq import TimeFrequencyEncoder, squash

__all__ = ["Encoder", "Perceptron", "build_encoder", "embed", "standardise"]

_CHUNK: Final = 8192
"""Rows embedded at once: bounds memory at a few MB whatever the input."""


class Perceptron(nn.Module):
    """Multilayer perceptron on squashed features, plus a linear bypass.

    Source: seed 001 section 3 (z = f_theta(x)); the squashing is ours: see specs/90-learning.md
    section 3.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.embedding_dim = model.embedding_dim
        widths = (model.input_dim, *model.hidden, model.embedding_dim)
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )
        self.skip = nn.Linear(model.input_dim, model.embedding_dim, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed normalised rows.

        Args:
            rows: Shape (B, d), float32.

        Returns:
            z, shape (B, k), float32, not yet standardised.
        """
        x = squash(rows)  # (B, d), |x| <= log(1 + CLIP)
        h = x
        for layer in self.layers[:-1]:
            h = functional.gelu(layer(h))  # (B, d) -> (B, hidden)
        z: Tensor = self.layers[-1](h) + self.skip(x)  # (B, hidden), (B, d) -> (B, k)
        return z


Encoder: TypeAlias = Perceptron | TimeFrequencyEncoder
"""Any encoder: a module that maps rows (B, d) to embeddings (B, k), with its k as embedding_dim."""

_ENCODERS: Final[dict[str, Callable[[ModelConfig], Encoder]]] = {
    "mlp": Perceptron,
    "timefreq": TimeFrequencyEncoder,
}


def standardise(z: Tensor) -> Tensor:
    """Return z~ = (z - mu) / sigma with mu, sigma over the k coordinates of each window.

    Args:
        z: Shape (B, k).

    Returns:
        Shape (B, k); each row has mean 0 and mean square just under 1.

    Source: seed 001 section 3, read as specs/90-learning.md section 3 says (L-05).
    """
    return functional.layer_norm(z, (z.shape[-1],), eps=EPSILON)


def build_encoder(model: ModelConfig, params: ArrayLike) -> Encoder:
    """Make the encoder of `model` with the values of a flat vector of shape (dim,).

    Raises:
        ModelError: the vector has another length or holds a value that is not finite.
    """
    encoder = _bare_encoder(model)
    ParamSpec.from_model(model).load(encoder, params)
    return encoder


def _bare_encoder(model: ModelConfig) -> Encoder:
    """Make an encoder whose parameters are unset, without touching torch's global generator."""
    with torch.device("meta"):
        encoder = _ENCODERS[model.kind](model)
    return encoder.to_empty(device="cpu")


def embed(encoder: Encoder, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Embed normalised rows without keeping gradients.

    Args:
        encoder: The encoder.
        rows: Shape (n, d), float32.

    Returns:
        z, shape (n, k), float64.
    """
    parts = [np.empty((0, encoder.embedding_dim))]
    with torch.inference_mode():
        for start in range(0, len(rows), _CHUNK):
            z = encoder(torch.from_numpy(np.ascontiguousarray(rows[start : start + _CHUNK])))
            parts.append(z.numpy().astype(np.float64))
    return np.concatenate(parts)
