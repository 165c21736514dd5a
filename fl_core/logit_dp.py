"""Logit-DP: InfoNCE over a batch, with a bound on what one record can move.

Clipping the gradient of each record's loss bounds nothing here, since a record is a negative of all
others and changes every one of their gradients. What belongs to a pair of records alone is the
gradient of their similarity. So those are clipped, and put together with the softmax weights:

    F = 1/tau * sum_i [ sum_j p_ij g(i,j) - g(i,i) + P_i b(i) ],   |g(i,j)|, |b(i)| <= B

with p_ij the weight of view j among the negatives of anchor i, b(i) the clipped mean gradient of
the similarities of i to the public rows, and P_i their weight together, sum_j p_ij + P_i = 1.

How far one record r moves F (specs/53-record-level.md section 4). Its own row has coefficients of
absolute sum 2 (1 - p_rr) <= 2. In every other row i its coefficient p_ir <= a goes, and the others
grow by p_ir together: 2 a, with a = 1 / (1 + (n - 1 + M) exp(-2/tau)) for n records and M public
rows. So a record less moves F by at most (2 + 2 (n-1) a) B / tau. A record in the place of another
moves its own row by 4 and every other by p + p' + |p - p'| = 2 max(p, p') <= 2 a: the bound below,
which holds for both. In the notation of the paper, C = (G1 + G2 + n L) B with G1 = 4 / tau and
G2 = n L = (n-1) a / tau.

Source: Kong, Munoz Medina and Ribero 2023, arXiv 2310.03104, algorithm and theorem on Logit-DP,
derived again for tau, public negatives and both neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fl_core.config import CLIP_STEPS, TrainConfig
from fl_core.encoders import Encoder, standardise
from fl_core.per_record import SLOTS, Patterns, chunks

__all__ = ["PairGradients", "logit_sensitivity"]

_ROUNDING: Final = 64
"""Grid steps kept free for the rounding of float64 sums, which is below one step."""

_Parameters = dict[str, Tensor]


def logit_sensitivity(*, batch: int, bank: int, temperature: float, clip_norm: float) -> float:
    """Return how far, in L2, one record more, less or replaced moves F.

    Args:
        batch: n: most records in a batch.
        bank: M: public rows that every anchor is told from.
        temperature: tau.
        clip_norm: B.
    """
    largest = 1.0 / (1.0 + (batch - 1 + bank) * math.exp(-2.0 / temperature))
    return clip_norm / temperature * (4.0 + 2.0 * (batch - 1) * largest)


class PairGradients:
    """F at one encoder's present parameters, on the grid of `CLIP_STEPS`.

    Args:
        encoder: Read anew at every call of `total`.
        config: Temperature, clipping norm, and the greatest batch.
    """

    def __init__(self, encoder: Encoder, config: TrainConfig) -> None:
        self._encoder, self._config = encoder, config
        tau = config.temperature

        def embed(parameters: _Parameters, rows: Tensor) -> Tensor:
            z = standardise(functional_call(encoder, parameters, (rows,)))
            return functional.normalize(z, dim=-1)

        def similarity(parameters: _Parameters, pair: Tensor) -> Tensor:
            z = embed(parameters, pair)  # (2, d) -> (2, k)
            return z[0] @ z[1]

        def potential(parameters: _Parameters, row: Tensor, bank: Tensor) -> Tensor:
            """Tau times the log-sum over the bank; its gradient is the mean that b(i) clips."""
            z = embed(parameters, row[None])[0]
            return tau * torch.logsumexp(embed(parameters, bank) @ z / tau, dim=0)

        self._pair: tuple[Callable[..., Tensor], Callable[..., _Parameters]] = (
            vmap(similarity, in_dims=(None, 0)),
            vmap(grad(similarity), in_dims=(None, 0)),
        )
        self._public: tuple[Callable[..., Tensor], Callable[..., _Parameters]] = (
            vmap(potential, in_dims=(None, 0, None)),
            vmap(grad(potential), in_dims=(None, 0, None)),
        )
        dim = sum(p.numel() for p in encoder.parameters())
        bound = logit_sensitivity(
            batch=config.batch_size,
            bank=config.bank_negatives,
            temperature=tau,
            clip_norm=config.clip_norm,
        )
        #
        self.step = bound / (CLIP_STEPS - math.sqrt(dim) - _ROUNDING)
        """Gradient in one grid step. Cutting two vectors to whole numbers can part them by another
        sqrt(dim), so the grid is that much coarser than the bound over `CLIP_STEPS`."""

    def total(
        self, rows: Tensor, chosen: NDArray[np.integer], patterns: Patterns, bank: Tensor
    ) -> NDArray[np.int64]:
        """Return F of a batch, in steps of `self.step`.

        Args:
            rows: Records, shape (n, d), 0 <= n <= batch_size.
            chosen: Each record's pattern, shape (n,), drawn for it alone.
            patterns: Of this step.
            bank: Public rows of this step, shape (M, d); M may be 0.

        Returns:
            Shape (dim,). One record more, less or replaced moves it by at most `CLIP_STEPS` (Q-07).
        """
        parameters = {name: p.detach() for name, p in self._encoder.named_parameters()}
        views = patterns.apply(rows, torch.from_numpy(chosen.astype(np.int64)))
        n = len(rows)
        i, j = np.divmod(np.arange(n * n), max(n, 1))
        pairs = torch.stack((views[i, 0], views[j, 1]), dim=1)  # (n * n, 2, d)
        pair_places = chunks(chosen[i].astype(np.int64) + 5 * chosen[j].astype(np.int64))
        own_places = chunks(chosen)
        values = _values(self._pair[0], pairs, pair_places, parameters).reshape(n, n)
        publics = np.full(n, -math.inf)
        if len(bank):
            publics = _values(self._public[0], views[:, 0], own_places, parameters, bank)
        weights, public = _weights(values, publics, len(bank), self._config.temperature)
        total = self._sum(self._pair[1], pairs, pair_places, weights.ravel(), parameters)
        if len(bank):
            total += self._sum(self._public[1], views[:, 0], own_places, public, parameters, bank)
        return np.trunc(total / self.step).astype(np.int64)

    def _sum(
        self,
        gradients: Callable[..., _Parameters],
        items: Tensor,
        places: NDArray[np.int64],
        weights: NDArray[np.float64],
        parameters: _Parameters,
        *shared: Tensor,
    ) -> NDArray[np.float64]:
        """Return the sum of clipped gradients times their weights, float64."""
        total = torch.zeros(sum(p.numel() for p in parameters.values()), dtype=torch.float64)
        for at, batch in _batches(items, places):
            parts = gradients(parameters, batch, *shared)
            matrix = torch.cat([parts[name].flatten(1) for name in parameters], dim=1).double()
            norms = torch.linalg.vector_norm(matrix, dim=1)
            sound = torch.isfinite(norms) & torch.from_numpy(at >= 0)
            matrix = torch.where(sound[:, None], matrix, 0.0)
            scale = self._config.clip_norm / norms.clamp(min=self._config.clip_norm)
            factor = torch.where(sound, scale * torch.from_numpy(weights[np.maximum(at, 0)]), 0.0)
            total += factor @ matrix
        return np.asarray(total.numpy())


def _weights(
    values: NDArray[np.float64], publics: NDArray[np.float64], bank: int, temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients of g(i,j), shape (n, n), and of b(i), shape (n,).

    Args:
        values: Similarities, shape (n, n).
        publics: Potentials of the bank, shape (n,); not looked at where `bank` is 0.
        bank: M.
        temperature: tau.
    """
    logits = np.clip(values, -1.0, 1.0) / temperature
    total = np.exp(logits - 1.0 / temperature).sum(axis=1)  # at most n, never overflows
    of_bank = np.zeros(len(values))
    if bank:  # a potential lies within tau log M +- 1: what the bound on p_ij stands on
        level = np.clip(publics / temperature - math.log(bank), -1 / temperature, 1 / temperature)
        of_bank = bank * np.exp(level - 1.0 / temperature)
    share = np.exp(logits - 1.0 / temperature) / np.maximum(total + of_bank, 1e-300)[:, None]
    public = of_bank / np.maximum(total + of_bank, 1e-300)
    return (share - np.eye(len(values))) / temperature, public / temperature


def _values(
    function: Callable[..., Tensor],
    items: Tensor,
    places: NDArray[np.int64],
    parameters: _Parameters,
    *shared: Tensor,
) -> NDArray[np.float64]:
    """Return the function's value for every item, 0 where it is not finite."""
    values = np.zeros(len(items))
    for at, batch in _batches(items, places):
        found = function(parameters, batch, *shared).detach().numpy().astype(np.float64)
        held = at >= 0
        values[at[held]] = np.where(np.isfinite(found), found, 0.0)[held]
    return values


def _batches(items: Tensor, places: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], Any]]:
    """Return places and items of each chunk; an empty place holds zeros."""
    shape = (SLOTS, *(1,) * (items.ndim - 1))
    return [
        (at, torch.where(torch.from_numpy(at >= 0).view(shape), items[np.maximum(at, 0)], 0.0))
        for at in places
    ]
