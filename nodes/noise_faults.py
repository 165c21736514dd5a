"""Noise that is too weak, planted on purpose into simulations: what an audit has to catch.

No session, daemon or setting has a switch for it: a fault is planted by exchanging functions of
`nodes.session.noised` from outside, for as long as a simulation runs in the same process. Nodes and
coordinator are wrong in the same way, as they would be by a bug in what they share; the ledgers go
on to charge for the noise that should be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodes.session import noised
from nodes.session.privacy import components_of
from secagg.dp.encoding import PrivateEncoding
from secagg.dp.excess import Components
from secagg.types import NodeId, RingVector, Rng

__all__ = ["noise_scaled"]


@contextmanager
def noise_scaled(factor: float) -> Iterator[None]:
    """Multiply the variance of all noise of this process's nodes by `factor`; 0 leaves it out.

    Args:
        factor: 0 or more; 1 plants nothing. A third is what a node adds that counts on three times
            as many honest shares.
    """

    def scaled(encoding: PrivateEncoding, nodes: int, colluders: int) -> Components:
        parts = components_of(encoding, nodes, colluders)
        return replace(parts, variances=tuple(factor * part for part in parts.variances))

    if factor == 1:
        yield
    elif factor > 0:
        with _exchanged(components_of=scaled):
            yield
    else:
        with _exchanged(draw_noise=_no_noise, remove_excess=_nothing_removed):
            yield


def _no_noise(
    _parts: Components, dim: int, _rng: Rng, _seeds: Sequence[bytes]
) -> NDArray[np.int64]:
    return np.zeros(dim, dtype=np.int64)


def _nothing_removed(
    total: RingVector,
    _excess: Mapping[NodeId, Sequence[bytes]],
    _parts: Components,
    _ring_bits: int,
) -> RingVector:
    return total.copy()


@contextmanager
def _exchanged(**others: Callable[..., Any]) -> Iterator[None]:
    held = {name: getattr(noised, name) for name in others}
    try:
        for name, other in others.items():
            setattr(noised, name, other)
        yield
    finally:
        for name, function in held.items():
            setattr(noised, name, function)
