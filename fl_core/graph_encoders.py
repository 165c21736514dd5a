"""The encoders "gnn" and "gat": a row as a graph of its runs, by convolution or by attention.

A node is one stream in one damped window. Its neighbours are the same stream in the windows beside,
and the other streams in the same window. With 20 or 25 nodes the matrix of neighbours is small, so
both layers are dense products.
"""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_core.architectures import NODE_WIDTH, POOLINGS, attention_heads
from fl_core.config import ModelConfig
from fl_core.encoder_base import BypassEncoder, pool
from fl_core.layouts import column_runs, neighbours

__all__ = ["AttentionEncoder", "GraphEncoder", "adjacency"]

_CPU: Final = torch.device("cpu")

_SLOPE: Final = 0.2
"""Of the leaky ReLU in the attention, as in its paper."""


def adjacency(model: ModelConfig) -> Tensor:
    """Return which runs see each other, each itself among them.

    Returns:
        Shape (n, n), float32, symmetric, of 0 and 1, with 1 on the diagonal; always on the CPU.
    """
    beside = neighbours(column_runs(model.input_dim, model.window))
    edges = torch.eye(len(beside), device=_CPU)
    for i, others in enumerate(beside):
        edges[i, list(others)] = 1.0
    return edges


class _Convolution(nn.Module):
    """h' = D^-1 (A + I) h W + b: the mean over a node and its neighbours, mapped."""

    def __init__(self, before: int, after: int, edges: Tensor) -> None:
        super().__init__()
        self.map = nn.Linear(before, after)
        # A constant, no buffer: the values of a buffer are lost on the way from the meta device.
        self._mean = edges / edges.sum(dim=1, keepdim=True)

    def forward(self, h: Tensor) -> Tensor:
        mapped: Tensor = self.map(self._mean @ h)  # (n, n) @ (B, n, before) -> (B, n, after)
        return mapped


class _Attention(nn.Module):
    """h'_i = sum_j a_ij W h_j with a_ij = softmax_j LeakyReLU(s W h_i + t W h_j), in heads."""

    def __init__(self, before: int, after: int, edges: Tensor) -> None:
        super().__init__()
        self.heads = attention_heads(after)
        self.attend_weight = nn.Parameter(torch.empty(2 * self.heads, after // self.heads))
        self.map = nn.Linear(before, after)
        self._apart = edges == 0

    def forward(self, h: Tensor) -> Tensor:
        mapped = self.map(h).unflatten(2, (self.heads, -1))  # (B, n, before) -> (B, n, heads, w)
        here, there = self.attend_weight.chunk(2)  # (heads, w) each
        own = (mapped * here).sum(dim=3).transpose(1, 2)  # (B, heads, n)
        other = (mapped * there).sum(dim=3).transpose(1, 2)
        logits = functional.leaky_relu(own[..., :, None] + other[..., None, :], _SLOPE)
        shares = logits.masked_fill(self._apart, -torch.inf).softmax(dim=3)  # (B, heads, n, n)
        gathered: Tensor = shares @ mapped.transpose(1, 2)  # (B, heads, n, n) @ (B, heads, n, w)
        return gathered.transpose(1, 2).flatten(2)  # -> (B, n, heads, w) -> (B, n, after)


class GraphEncoder(BypassEncoder):
    """Graph convolutions over the runs of a row.

    Each run is mapped to `NODE_WIDTH` numbers by a linear map of its own, as runs differ in length
    and meaning. `ModelConfig.hidden` are the widths of the graph layers. Mean and maximum over the
    nodes are mapped to the embedding. In a row that is a window of a series a node is one channel
    at one step; in a row of unknown layout it is one column, beside all others.

    Source: Kipf and Welling 2017, eq. 2, with the mean over neighbours for the symmetric
    normalisation; with 5 to 7 in a mean the two hardly differ.
    """

    rows_at_once = 512

    layer: type[nn.Module] = _Convolution

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        runs = column_runs(model.input_dim, model.window)
        widths = (NODE_WIDTH, *model.hidden)
        edges = adjacency(model)
        self._lengths = [run.length for run in runs]
        self.project = nn.ModuleList(nn.Linear(run.length, NODE_WIDTH) for run in runs)
        self.layers = nn.ModuleList(
            self.layer(before, after, edges) for before, after in itertools.pairwise(widths)
        )
        self.out = nn.Linear(POOLINGS * widths[-1], model.embedding_dim)
        self.skip = self.bypass(model)

    def path(self, x: Tensor) -> Tensor:
        """Map squashed features (B, d) to (B, k)."""
        parts = torch.split(x, self._lengths, dim=1)
        nodes = [project(part) for project, part in zip(self.project, parts, strict=True)]
        h = functional.gelu(torch.stack(nodes, dim=1))  # n of (B, NODE_WIDTH) -> (B, n, NODE_WIDTH)
        for layer in self.layers:
            h = functional.gelu(layer(h))  # (B, n, before) -> (B, n, after)
        z: Tensor = self.out(pool(h))  # (B, n, hidden) -> (B, 2 hidden) -> (B, k)
        return z


class AttentionEncoder(GraphEncoder):
    """The same graph, where a node weighs itself and its neighbours by attention.

    A layer has four heads, or as many of them as divide its width.

    Source: Velickovic et al. 2018, eq. 1 to 4; GELU between layers, and heads joined in the last
    layer too.
    """

    layer = _Attention
