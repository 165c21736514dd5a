"""The encoder "cnn": one-dimensional convolutions along the damped windows, or along time."""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_core.architectures import KERNEL, POOLINGS
from fl_core.config import ModelConfig
from fl_core.encoder_base import BypassEncoder, pool
from fl_core.layouts import sequence_columns

__all__ = ["ConvEncoder"]

_CPU: Final = torch.device("cpu")


class ConvEncoder(BypassEncoder):
    """Convolutions along the windows, with every statistic of every stream as a channel.

    `ModelConfig.hidden` are the widths of the convolutions; each sees a window and the two beside
    it, with zeros beyond the ends. Mean and maximum over the windows are mapped to the embedding. A
    row that is a window of a series is convolved along time with its channels; a row of unknown
    layout along its columns, as one channel.

    Source: seed 001 table 1 ("1DCNN").
    """

    rows_at_once = 512

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        columns = sequence_columns(model.input_dim, model.window)
        widths = (len(columns), *model.hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2)
            for before, after in itertools.pairwise(widths)
        )
        self.out = nn.Linear(POOLINGS * widths[-1], model.embedding_dim)
        self.skip = self.bypass(model)
        # A constant, no buffer: the values of a buffer are lost on the way from the meta device.
        self._columns = torch.tensor(columns, device=_CPU)  # (channels, length)

    def path(self, x: Tensor) -> Tensor:
        """Map squashed features (B, d) to (B, k)."""
        h = x[:, self._columns]  # (B, d) -> (B, channels, length)
        for layer in self.layers:
            h = functional.gelu(layer(h))  # (B, channels, length) -> (B, hidden, length)
        z: Tensor = self.out(pool(h.transpose(1, 2)))  # (B, length, hidden) -> (B, 2 hidden) -> k
        return z
