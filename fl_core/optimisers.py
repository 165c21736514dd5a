"""What turns gradients into steps: torch's Adam and SGD, by the functions underneath its classes.

The classes load torch's compiler on first use, which costs every node of a federation a second of
start and, with sympy, 70 MB, and compiles nothing here. The functions are the same arithmetic, to
the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

__all__ = ["Adam", "Optimiser", "Sgd"]


class Optimiser(ABC):
    """Steps on some parameters, after their `grad`; one without a gradient stays as it is.

    Args:
        parameters: Leaves of a graph, as of an encoder.
        learning_rate: Above 0.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._rate = learning_rate

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters in place."""
        with_gradient = [(i, p, p.grad) for i, p in enumerate(self._parameters)]
        chosen = [(i, p, g) for i, p, g in with_gradient if g is not None]
        self._step([i for i, _, _ in chosen], [p for _, p, _ in chosen], [g for _, _, g in chosen])

    @abstractmethod
    def _step(self, at: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Change those parameters in place; `at` are their places among all."""


class Sgd(Optimiser):
    """Stochastic gradient descent without momentum."""

    def _step(self, at: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        sgd(
            parameters,
            gradients,
            [None] * len(at),
            weight_decay=0.0,
            momentum=0.0,
            lr=self._rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class Adam(Optimiser):
    """Adam with its paper's decays, 0.9 and 0.999, and epsilon, 1e-8.

    Source: Kingma and Ba 2015, algorithm 1.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        super().__init__(parameters, learning_rate)
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._counts = [torch.tensor(0.0) for _ in self._parameters]

    def _step(self, at: list[int], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        adam(
            parameters,
            gradients,
            [self._first[i] for i in at],
            [self._second[i] for i in at],
            [],
            [self._counts[i] for i in at],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
