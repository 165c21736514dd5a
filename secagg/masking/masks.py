"""The algebra of the masks: from seeds to a masked vector and back.

For nodes u < v with pair seed s_uv and self-mask seeds b_u, node u uploads::

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   mod 2^b

Summed over the survivors the pair masks cancel, and the self-masks and the pair masks toward
nodes that dropped out are removed with what t share holders reveal.

Source: specs/30-masking.md sections 4 and 5; Bonawitz et al. 2017, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from secagg.primitives.kdf import derive
from secagg.primitives.prg import accumulate
from secagg.tags import SELF_MASK
from secagg.types import NodeId, RingVector

__all__ = ["Apply", "Mask", "apply_masks", "pair_mask", "self_mask"]

Mask: TypeAlias = tuple[bytes, bool]
"""A 32-byte seed, and whether the mask it stands for is subtracted."""
Apply: TypeAlias = Callable[[RingVector, Sequence[Mask]], None]
"""Adds masks to a vector in place; `apply_masks`, or one that does it on several cores."""
Context: TypeAlias = tuple[bytes, bytes, bytes]


def self_mask(self_seed: bytes, context: Context, *, negative: bool = False) -> Mask:
    """Return the self-mask that a node's 32-byte seed stands for."""
    return derive(self_seed, SELF_MASK, *context), negative  # M-17


def pair_mask(seed: bytes, *, me: NodeId, peer: NodeId) -> Mask:
    """Return the mask that `me` shares with `peer`, with the sign it has on the side of `me`."""
    return seed, peer < me


def apply_masks(vector: RingVector, masks: Iterable[Mask]) -> None:
    """Add masks to `vector`, shape (dim,), dtype uint32, in place and modulo 2^32."""
    for seed, negative in masks:
        accumulate(vector, seed, negative=negative)
