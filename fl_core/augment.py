"""Views and corrupted rows of damped-window traffic statistics, in the normalised domain.

The 115 statistics come in runs of three or seven columns that belong to one stream (MI_dir, H, HH,
HH_jit, HpHp) in one damped window. What varies harmlessly between two moments of the same device
is common to such a run: a little more traffic, or a window that has seen nothing yet. Views move
and drop whole runs; corrupted rows break the joint behaviour of runs. No random state is global:
every draw comes from the generator that is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

import torch
from torch import Tensor

from fl_core.config import TrainConfig
from fl_core.errors import ModelError
from fl_core.normalise import CLIP

__all__ = ["block_members", "corrupt", "make_view", "named_blocks"]

_KNOWN_BLOCKS: Final[dict[int, tuple[int, ...]]] = {
    115: (3,) * 10 + (7,) * 5 + (3,) * 5 + (7,) * 5,
    100: (3,) * 10 + (7,) * 10,
}
"""Width to run lengths: the whole UCI layout, and the same without its 15 `HH_jit` columns."""

_STREAM_WINDOW: Final = re.compile(r"^(.+_L[0-9.]+)_")

CORRUPT_SHARE: Final = (0.04, 0.64)
"""Least and largest probability that a run is corrupted; drawn per row, small shares oftener."""

CORRUPT_SHIFT: Final = (0.5, 12.0)
"""Least and largest shift of a corrupted column, in node standard deviations, log-uniform."""

_MOSAIC_SHARE: Final = 0.3
"""Share of corrupted rows that take another row's values instead of a shift."""


def named_blocks(feature_names: Sequence[str]) -> tuple[int, ...]:
    """Work out `TrainConfig.blocks` from column names such as `HH_jit_L0.1_mean`.

    Returns:
        Run lengths; a column whose name has no window stands alone.
    """
    keys = []
    for i, name in enumerate(feature_names):
        match = _STREAM_WINDOW.match(name)
        keys.append(match.group(1) if match else f"\0{i}")
    return tuple(len(list(run)) for _, run in groupby(keys))


def block_members(dim: int, blocks: Sequence[int]) -> Tensor:
    """Return which columns each run holds.

    Args:
        dim: Columns d.
        blocks: Run lengths, or () for the known layout of this width.

    Returns:
        Shape (runs, d), float32, one 1 a column.

    Raises:
        ModelError: the lengths do not add up to `dim`.
    """
    lengths = tuple(blocks) or _KNOWN_BLOCKS.get(dim) or (1,) * dim
    if sum(lengths) != dim:
        raise ModelError(
            f"TrainConfig.blocks add up to {sum(lengths)}, the rows have {dim} columns",
            hint="leave blocks empty, or take named_blocks of the feature names",
        )
    run = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return torch.nn.functional.one_hot(run, len(lengths)).T.to(torch.float32)


def make_view(
    rows: Tensor, members: Tensor, config: TrainConfig, generator: torch.Generator
) -> Tensor:
    """Draw a harmless variant of each row: noise, a common gain a run, and missing runs.

    Args:
        rows: Shape (B, d), normalised.
        members: From `block_members`.
        config: Sizes of the three changes.
        generator: Source of every draw.

    Returns:
        Shape (B, d).
    """
    n, runs = len(rows), len(members)
    noise = config.noise_std * torch.randn(rows.shape, generator=generator)
    gain = 1.0 + config.gain_std * torch.randn((n, runs), generator=generator) @ members
    dropped = (torch.rand((n, runs), generator=generator) < config.drop_rate).to(rows.dtype)
    return (rows + noise) * gain * (1.0 - dropped @ members)


def corrupt(rows: Tensor, members: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a synthetic anomaly from each row: runs shifted, or taken from another row.

    Args:
        rows: Shape (B, d), normalised.
        members: From `block_members`.
        generator: Source of every draw.

    Returns:
        Shape (B, d), within [-CLIP, CLIP].
    """
    n, runs = len(rows), len(members)

    def uniform(width: int) -> Tensor:
        return torch.rand((n, width), generator=generator)

    low, high = CORRUPT_SHARE
    hit = uniform(runs) < low + (high - low) * uniform(1) ** 2
    hit[torch.arange(n), torch.randint(runs, (n,), generator=generator)] = True  # never none
    mask = hit.to(rows.dtype) @ members  # (B, runs) @ (runs, d) -> (B, d)

    small, large = CORRUPT_SHIFT
    size = small * (large / small) ** uniform(1)
    common = torch.randn((n, 1), generator=generator).sign()  # a rate that jumps everywhere
    single = torch.randn(rows.shape, generator=generator)  # columns that disagree
    shifted = rows + mask * size * torch.where(uniform(1) < 0.5, common, single)

    other = rows[torch.randint(n, (n,), generator=generator)]
    mosaic = torch.where(mask > 0, other, rows)  # every column usual, their combination not
    return torch.where(uniform(1) < _MOSAIC_SHARE, mosaic, shifted).clamp(-CLIP, CLIP)
