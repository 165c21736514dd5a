"""The gradient of each record on its own, clipped and rounded to whole numbers that add up exactly.

The loss of a record is made of views of that record, corrupted variants of it, and public rows. So
its gradient is a function of the record, the parameters and public values, and clipping it bounds
what the record can move. Three things would quietly undo that, and are kept out here:

- A draw that goes to the k-th record of the batch moves when a record before it is taken away.
  Every record gets the number of a pattern, drawn for it alone; all patterns are public.
- Floating point depends on where in a batch a record stands (other kernels, other order), in the
  last bits, for every record. Chunks have one fixed shape, and a record's place in one follows from
  its pattern, never from the other records.
- A sum of floats depends on its order. Clipped gradients are rounded towards zero onto a grid,
  which never makes them longer, and the integers add up exactly.

Source: Abadi et al. 2016, section 3 (clipping per example); specs/53-record-level.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

from fl_core.augment import CORRUPT_SHARE, CORRUPT_SHIFT
from fl_core.config import CLIP_STEPS, TrainConfig
from fl_core.encoders import Encoder, standardise
from fl_core.losses import record_info_nce
from fl_core.normalise import CLIP

__all__ = [
    "PATTERNS",
    "SLOTS",
    "Patterns",
    "RecordGradients",
    "chunks",
    "draw_patterns",
]

PATTERNS: Final = 256
"""Patterns of a step, a power of two: one random byte chooses a record's."""

SLOTS: Final = 16
"""Records in a chunk; divides `PATTERNS`."""

_MOSAIC_SHARE: Final = 0.3
"""Share of corrupted variants that take a public row's values, as in `fl_core.augment.corrupt`."""

_SHRINK: Final = 1.0 - 2.0**-18
"""Makes up for rounding: of the scale and of a product to float32, 2^-24 each, and of a float64
norm of d terms, d 2^-53. No product of the scale underflows: a norm is below 2^142."""


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """What the variants of a record are: row * factor + shift, one set a pattern. Public."""

    factor: Tensor = field(repr=False)
    """Shape (PATTERNS, 2 + own, d): two views, then the corrupted variants."""

    shift: Tensor = field(repr=False)
    """Of the same shape."""

    def apply(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Return the variants of rows (m, d) by patterns (m,): shape (m, 2 + own, d)."""
        variants = rows[:, None, :] * self.factor[chosen] + self.shift[chosen]
        variants[:, 2:] = variants[:, 2:].clamp(-CLIP, CLIP)
        return variants


def draw_patterns(
    members: Tensor, bank: Tensor, config: TrainConfig, generator: torch.Generator
) -> Patterns:
    """Draw the patterns of one step; nothing of a node's rows goes in.

    Args:
        members: From `block_members`, shape (runs, d).
        bank: Normalised public rows, shape (n, d).
        config: Sizes of the changes, and the number of corrupted variants.
        generator: May be known to anybody.
    """
    parts = [_view(members, config, generator) for _ in range(2)]
    parts += [_corruption(members, bank, generator) for _ in range(config.own_negatives)]
    factors, shifts = zip(*parts, strict=True)
    return Patterns(torch.stack(factors, dim=1), torch.stack(shifts, dim=1))


def _view(
    members: Tensor, config: TrainConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The views of `fl_core.augment.make_view`, written as factor and shift."""
    runs, dim = members.shape
    noise = config.noise_std * torch.randn((PATTERNS, dim), generator=generator)
    gain = 1.0 + config.gain_std * torch.randn((PATTERNS, runs), generator=generator) @ members
    dropped = torch.rand((PATTERNS, runs), generator=generator) < config.drop_rate
    factor = gain * (1.0 - dropped.to(gain.dtype) @ members)
    return factor, noise * factor


def _corruption(members: Tensor, bank: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The anomalies of `fl_core.augment.corrupt`; foreign values come from public rows."""
    runs, dim = members.shape

    def uniform(width: int) -> Tensor:
        return torch.rand((PATTERNS, width), generator=generator)

    low, high = CORRUPT_SHARE
    hit = uniform(runs) < low + (high - low) * uniform(1) ** 2
    hit[torch.arange(PATTERNS), torch.randint(runs, (PATTERNS,), generator=generator)] = True
    mask = hit.to(members.dtype) @ members  # (PATTERNS, runs) @ (runs, d) -> (PATTERNS, d)
    small, large = CORRUPT_SHIFT
    size = small * (large / small) ** uniform(1)
    common = torch.randn((PATTERNS, 1), generator=generator).sign()
    single = torch.randn((PATTERNS, dim), generator=generator)
    moved = mask * size * torch.where(uniform(1) < 0.5, common, single)
    other = bank[torch.randint(len(bank), (PATTERNS,), generator=generator)]
    mosaic = uniform(1) < _MOSAIC_SHARE
    return torch.where(mosaic, 1.0 - mask, 1.0), torch.where(mosaic, mask * other, moved)


class RecordGradients:
    """Clipped gradients of the per-record objective at one encoder's present parameters.

    Args:
        encoder: Read anew at every call of `total`.
        config: Temperature and clipping norm.
    """

    def __init__(self, encoder: Encoder, config: TrainConfig) -> None:
        self._encoder, self._clip = encoder, config.clip_norm
        temperature = config.temperature

        def loss(parameters: dict[str, Tensor], variants: Tensor, bank: Tensor) -> Tensor:
            z = standardise(functional_call(encoder, parameters, (variants,)))  # (2 + own, k)
            public = standardise(functional_call(encoder, parameters, (bank,)))  # (M, k)
            negatives = torch.cat((z[2:], public))
            return record_info_nce(z[0], z[1], negatives, temperature=temperature)

        self._gradients: Callable[..., dict[str, Tensor]] = vmap(
            grad(loss), in_dims=(None, 0, None)
        )

    def raw(self, variants: Tensor, bank: Tensor) -> Tensor:
        """Return the unclipped gradients of records (m, 2 + own, d) as one matrix (m, dim)."""
        parameters = {name: p.detach() for name, p in self._encoder.named_parameters()}
        gradients = self._gradients(parameters, variants, bank)
        return torch.cat([gradients[name].flatten(1) for name in parameters], dim=1)

    def total(
        self, rows: Tensor, chosen: NDArray[np.integer], patterns: Patterns, bank: Tensor
    ) -> NDArray[np.int64]:
        """Add up the clipped integer gradients of records.

        Args:
            rows: The step's records, shape (m, d), m >= 0.
            chosen: Each record's pattern, shape (m,), drawn for it alone.
            patterns: Of this step.
            bank: Public rows of this step, shape (M, d).

        Returns:
            Shape (dim,), in steps of clip_norm / `CLIP_STEPS`. One record more or less changes it
            by a vector of L2 norm at most `CLIP_STEPS`, exactly (Q-05).
        """
        dim = sum(p.numel() for p in self._encoder.parameters())
        sums = torch.zeros(dim, dtype=torch.float64)
        for places in chunks(chosen):
            held = torch.from_numpy(places >= 0)
            at = torch.from_numpy(np.maximum(places, 0))
            # An empty place holds zeros, never another record's row.
            batch = torch.where(held[:, None], rows[at], torch.zeros(()))
            numbers = torch.where(held, torch.from_numpy(chosen.astype(np.int64))[at], 0)
            clipped = self.clipped(self.raw(patterns.apply(batch, numbers), bank))
            # float64 adds whole numbers below 2^53 exactly, in any order
            sums += clipped[held].sum(0, dtype=torch.float64)
        return sums.numpy().astype(np.int64)

    def clipped(self, gradients: Tensor) -> Tensor:
        """Scale gradients (m, dim) to at most `CLIP_STEPS` and cut them to whole numbers.

        A gradient that is not finite counts as zero: an error would tell that there was one.
        """
        norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
        finite = torch.isfinite(norms)
        scale = CLIP_STEPS / torch.clamp(norms, min=self._clip) * _SHRINK
        whole = gradients * scale.to(gradients.dtype)[:, None]
        if not bool(finite.all()):
            whole = torch.where(finite[:, None], whole, torch.zeros((), dtype=whole.dtype))
        return whole.trunc_()  # towards zero


def chunks(chosen: NDArray[np.integer]) -> NDArray[np.int64]:
    """Lay records out in chunks: (chunks, SLOTS) indices of records, -1 for an empty place.

    A record stands in the place `pattern mod SLOTS` of some chunk, whatever the others do; which
    chunk does not matter, as all are computed alike.
    """
    slots = np.asarray(chosen, dtype=np.int64) % SLOTS
    order = np.argsort(slots, kind="stable")
    counts = np.bincount(slots, minlength=SLOTS)
    chunk = np.arange(len(slots)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((int(counts.max(initial=0)), SLOTS), -1, dtype=np.int64)
    table[chunk, slots[order]] = order
    return table
