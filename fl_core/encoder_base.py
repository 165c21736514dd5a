"""What all encoders share: squashed features, a path of their own, and a linear bypass.

The bypass keeps the size of a deviation in the length of the embedding, which the score reads; the
contrast works on its direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from fl_core.config import ModelConfig

__all__ = ["BypassEncoder", "Encoder", "pool", "squash"]


class Encoder(nn.Module, ABC):
    """Maps normalised rows to embeddings."""

    embedding_dim: int
    """k, coordinates of an embedding."""

    reader: nn.Linear
    """Where the model has sites: guesses the site from a standardised embedding."""

    rows_at_once: ClassVar[int] = 8192
    """Rows embedded at once: bounds memory at a few MB whatever the input."""

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """Embed normalised rows.

        Args:
            rows: Shape (B, d), float32.

        Returns:
            z, shape (B, k), float32, not yet standardised.
        """


class BypassEncoder(Encoder):
    """z = path(x) + A x on squashed features x; a kind of encoder is one `path`.

    A subclass sets `skip` to `bypass(model)` after its own layers, so that the bypass comes last in
    the flat vector.

    Source: seed 001 section 3 (z = f_theta(x)); squashing and bypass are ours: see
    specs/90-learning.md section 3.
    """

    skip: nn.Linear

    def bypass(self, model: ModelConfig) -> nn.Linear:
        """Return the linear map A from features to the embedding."""
        self.embedding_dim = model.embedding_dim
        return nn.Linear(model.input_dim, model.embedding_dim, bias=False)

    @abstractmethod
    def path(self, x: Tensor) -> Tensor:
        """Map squashed features (B, d) to (B, k)."""

    def forward(self, rows: Tensor) -> Tensor:
        """Embed normalised rows; see `Encoder.forward`."""
        x = squash(rows)  # (B, d), |x| <= log(1 + CLIP)
        z: Tensor = self.path(x) + self.skip(x)  # L-50: the bypass of every kind
        return z


def squash(rows: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|), elementwise."""
    return torch.sign(rows) * torch.log1p(rows.abs())


def pool(h: Tensor) -> Tensor:
    """Read positions or nodes out as their mean and their maximum: (B, n, w) -> (B, 2w)."""
    return torch.cat((h.mean(dim=1), h.amax(dim=1)), dim=1)
