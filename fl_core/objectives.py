"""What one training step lowers, for each kind of encoder; the loop is in `fl_core.training`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from fl_core.augment import Layout, corrupt, make_view
from fl_core.config import TrainConfig
from fl_core.encoders import Encoder, standardise
from fl_core.losses import alignment, info_nce
from fl_core.timefreq import TimeFrequencyEncoder

__all__ = ["Step", "local_step", "row_step", "timefreq_step"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One batch's loss, and what further terms of the loss are computed from."""

    loss: Tensor
    """Scalar."""

    view: Tensor
    """What the encoder saw, shape (B, d)."""

    embedding: Tensor
    """z~ of the view, shape (B, k); z where window normalisation is off."""


def local_step(
    encoder: Encoder,
    batch: Tensor,
    layout: Layout | None,
    reference: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    public: Tensor | None = None,
) -> Step:
    """Return the loss of a batch under the encoder's own objective.

    Args:
        encoder: In training.
        batch: Normalised rows, shape (B, d), float32.
        layout: Runs of columns that views move together; None: as their number says. Not read by
            the time-frequency one.
        reference: g, shape (k,).
        config: Weights, temperature and sizes of the views' changes.
        generator: Of every draw.
        public: Normalised public rows, shape (n, d), of which some are negatives; rows that stand
            alone only.
    """
    if isinstance(encoder, TimeFrequencyEncoder):
        return timefreq_step(encoder, batch, reference, config, generator)
    layout = layout or Layout.of(batch.shape[1])
    return row_step(encoder, batch, layout, reference, config, generator, public)


def row_step(
    encoder: Encoder,
    batch: Tensor,
    layout: Layout,
    reference: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    public: Tensor | None = None,
) -> Step:
    """Contrast two views of every row with those of the others, and align one to the reference.

    Source: seed 001 section 3; specs/90-learning.md section 4.
    """
    view = make_view(batch, layout, config, generator)
    normalised = functools.partial(standardise, on=config.window_normalisation)  # L-53
    u = normalised(encoder(view))
    v = normalised(encoder(make_view(batch, layout, config, generator)))
    others = [corrupt(batch, layout.members, generator)] if config.synthetic_negatives else []
    if public is not None:  # L-57
        others.append(
            public[torch.randint(len(public), (config.public_negatives,), generator=generator)]
        )
    negatives = normalised(encoder(torch.cat(others))) if others else None
    contrast = info_nce(u, v, temperature=config.temperature, synthetic=negatives)
    loss = config.contrast_weight * contrast + _aligned(u, reference, config)
    return Step(loss, view, u)


def _aligned(u: Tensor, reference: Tensor, config: TrainConfig) -> Tensor:
    """Return the weighted alignment; without a reference there is none (L-06)."""
    if not (config.window_normalisation or reference.any()):
        return torch.zeros(())  # z, unlike z~, has a length that zeros would pull at
    return config.align_weight * alignment(u, reference)


def timefreq_step(
    encoder: TimeFrequencyEncoder,
    batch: Tensor,
    reference: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> Step:
    """Reconstruct noisy windows by both paths, contrast the paths, align what they get wrong.

    The two paths are the two views: a window's time code belongs to its own frequency code, and
    not to those of the batch's other windows. Of the sizes of changes only `noise_std` is read.

    Source: seed 003, introduction; specs/90-learning.md L-41 to L-43.
    """
    noise = torch.randn(batch.shape, generator=generator)
    view = batch + config.noise_std * noise
    found = encoder.reconstruct(view)
    residuals = encoder.discrepancies(encoder.windows(view), found)
    u = standardise(residuals, on=config.window_normalisation)
    contrast = info_nce(found.time_code, found.frequency_code, temperature=config.temperature)
    loss = (
        config.reconstruction_weight * found.loss(encoder.windows(batch))
        + config.contrast_weight * contrast
        + _aligned(u, reference, config)
    )
    return Step(loss, view, u)
