"""Views and corrupted rows of damped-window traffic statistics, in the normalised domain.

The 115 statistics come in runs of three or seven columns that belong to one stream (MI_dir, H, HH,
HH_jit, HpHp) in one damped window. What varies harmlessly between two moments of the same device
is common to such a run: a little more traffic, or a window that has seen nothing yet. Views move
and drop whole runs; corrupted rows break the joint behaviour of runs. No random state is global:
every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fl_core.config import TrainConfig
from fl_core.errors import ModelError
from fl_core.layouts import DAMPED_WINDOWS, KNOWN_BLOCKS, column_runs
from fl_core.normalise import CLIP

__all__ = ["Layout", "block_members", "corrupt", "make_view"]

_MOST_MIXED: Final = 0.2
"""Largest share of another benign row in a view."""

CORRUPT_SHARE: Final = (0.04, 0.64)
"""Least and largest probability that a run is corrupted; drawn per row, small shares oftener."""

CORRUPT_SHIFT: Final = (0.5, 12.0)
"""Least and largest size of a corrupted row's shifts, in node standard deviations, log-uniform: in
half of the rows the shift of every hit column, in the others the standard deviation of theirs."""

_MOSAIC_SHARE: Final = 0.3
"""Share of corrupted rows that take another row's values instead of a shift."""


def block_members(dim: int, blocks: Sequence[int], window: int = 1) -> Tensor:
    """Return which columns each run holds.

    Args:
        dim: Columns d.
        blocks: Run lengths, or () for those of `fl_core.layouts.column_runs`.
        window: As there.

    Returns:
        Shape (runs, d), float32, one 1 a column.

    Raises:
        ModelError: the lengths do not add up to `dim`.
    """
    lengths = tuple(blocks) or tuple(run.length for run in column_runs(dim, window))
    if sum(lengths) != dim:
        raise ModelError(
            f"TrainConfig.blocks add up to {sum(lengths)}, the rows have {dim} columns",
            hint="leave blocks empty, or take fl_core.layouts.named_blocks of the feature names",
        )
    run = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return torch.nn.functional.one_hot(run, len(lengths)).T.to(torch.float32)


@dataclass(frozen=True, eq=False)
class Layout:
    """How the columns of a row belong together."""

    members: Tensor
    """Shape (runs, d), one 1 a column: from `block_members`."""

    windows: Tensor
    """Shape (windows, runs), one 1 a run: which damped window a run is of."""

    partner: Tensor
    """Shape (d,): the same statistic of the stream that a column may be swapped with in its window;
    itself where no other stream has the same statistics."""

    @classmethod
    def of(cls, dim: int, blocks: Sequence[int] = (), window: int = 1) -> Layout:
        """Work out the layout; without a known one every run is a window and has no partner.

        Raises:
            ModelError: the lengths do not add up to `dim`.
        """
        members = block_members(dim, blocks, window)
        runs = len(members)
        lengths = tuple(int(length) for length in members.sum(dim=1))
        if lengths != KNOWN_BLOCKS.get(dim):
            return cls(members, torch.eye(runs), torch.arange(dim))
        number = torch.arange(runs) % DAMPED_WINDOWS
        windows = torch.nn.functional.one_hot(number).T.to(torch.float32)
        starts = [sum(lengths[:run]) for run in range(runs)]
        partner = torch.arange(dim)
        free = set(range(runs))
        for run in range(runs):
            others = (r for r in range(run + DAMPED_WINDOWS, runs, DAMPED_WINDOWS) if r in free)
            other = next((r for r in others if lengths[r] == lengths[run]), None)
            if run in free and other is not None:
                free -= {run, other}
                here = torch.arange(starts[run], starts[run] + lengths[run])
                there = torch.arange(starts[other], starts[other] + lengths[run])
                partner[here], partner[there] = there, here
        return cls(members, windows, partner)


def make_view(
    rows: Tensor, layout: Layout, config: TrainConfig, generator: torch.Generator
) -> Tensor:
    """Draw a harmless variant of each row, by the sizes in `config`.

    In this order: streams swapped, another benign row mixed in, noise, a gain a run and one common
    to the row, missing runs, missing windows.

    Args:
        rows: Shape (B, d), normalised.
        layout: Of the columns.
        config: Sizes of the changes.
        generator: Source of every draw.

    Returns:
        Shape (B, d).
    """
    members = layout.members
    n, runs = len(rows), len(members)

    def chosen(width: int, rate: float) -> Tensor:
        return (torch.rand((n, width), generator=generator) < rate).to(rows.dtype)

    if config.swap_rate:  # L-54: as all further ones
        swapped = chosen(len(layout.windows), config.swap_rate) @ layout.windows @ members
        rows = torch.where(swapped > 0, rows[:, layout.partner], rows)
    if config.mix_rate:
        other = rows[torch.randint(n, (n,), generator=generator)]
        share = _MOST_MIXED * torch.rand((n, 1), generator=generator)
        rows = rows + share * chosen(1, config.mix_rate) * (other - rows)
    noise = config.noise_std * torch.randn(rows.shape, generator=generator)
    gain = 1.0 + config.gain_std * torch.randn((n, runs), generator=generator) @ members
    dropped = (torch.rand((n, runs), generator=generator) < config.drop_rate).to(rows.dtype)
    if config.jitter_std:
        gain = gain * (1.0 + config.jitter_std * torch.randn((n, 1), generator=generator))
    if config.window_drop_rate:
        missing = chosen(len(layout.windows), config.window_drop_rate) @ layout.windows
        dropped = torch.maximum(dropped, missing)
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
