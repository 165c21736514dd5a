"""Divergences of discrete noise from its definition: slow, and with no theorem in them.

Logarithms of probabilities throughout, so that the far tails that high orders look at are right.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

Logs = NDArray[np.float64]


def discrete_gaussian(variance: float, reach: int) -> Logs:
    """Return log P on −reach … reach."""
    x = np.arange(-reach, reach + 1)
    logs = -x * x / (2 * variance)
    return np.asarray(logs - logsumexp(logs))


def skellam(variance: float, reach: int) -> Logs:
    """Return log P of the difference of two Poisson variables of mean variance/2."""
    mean = variance / 2
    j = np.arange(0, 2 * reach + int(20 * math.sqrt(mean)) + 60)

    def poisson(k: NDArray[np.int64]) -> Logs:
        return np.asarray(k * math.log(mean) - mean - gammaln(k + 1))

    half = [float(logsumexp(poisson(j + k) + poisson(j))) for k in range(reach + 1)]
    return np.array(half[:0:-1] + half)


def convolve(first: Logs, second: Logs) -> Logs:
    """Return log P of the sum of two independent variables, one term of the sum at a time."""
    out = np.full(len(first) + len(second) - 1, -np.inf)
    for place, weight in enumerate(second):
        part = out[place : place + len(first)]
        np.logaddexp(part, first + weight, out=part)
    return out


def sum_of(terms: list[Logs], reach: int) -> Logs:
    """Return log P of a sum on −reach … reach, where no term's cut shows."""
    total = terms[0]
    for term in terms[1:]:
        total = convolve(total, term)
    middle = len(total) // 2
    return total[middle - reach : middle + reach + 1]


def renyi(logs: Logs, shift: int, order: float) -> float:
    """Return the Rényi divergence of a variable from itself shifted by `shift` > 0."""
    return float(logsumexp(order * logs[shift:] + (1 - order) * logs[:-shift]) / (order - 1))


def hockey_stick(first: NDArray[np.float64], second: NDArray[np.float64], epsilon: float) -> float:
    """Return the least δ at which `first` is within ε of `second`, in the worse direction."""
    grown = math.exp(epsilon)
    there = np.maximum(first - grown * second, 0).sum()
    back = np.maximum(second - grown * first, 0).sum()
    return float(max(there, back))


def shifted(logs: Logs, shift: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return P of a variable and of itself plus `shift`, on all places that either reaches."""
    p = np.exp(logs)
    return np.append(p, np.zeros(shift)), np.append(np.zeros(shift), p)


def joint(pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[Logs, Logs]:
    """Return the two product distributions of independent pairs, flat."""
    first, second = np.ones(1), np.ones(1)
    for p, q in pairs:
        first, second = np.outer(first, p).ravel(), np.outer(second, q).ravel()
    return first, second


def shifts(dim: int, most: int) -> list[tuple[int, ...]]:
    """Return the nonzero, falling vectors of `dim` integers from 0 to `most`."""
    return [
        v
        for v in itertools.product(range(most + 1), repeat=dim)
        if any(v) and list(v) == sorted(v, reverse=True)
    ]
