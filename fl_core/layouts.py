"""How the columns of a row stand in streams, damped windows and time, worked out without torch.

Traffic statistics come in runs of three or seven columns, each of one stream (MI_dir, H, HH,
HH_jit, HpHp) in one damped window. A row that is a window of a series has one column for each
channel and step. Of any other row nothing is known: every column is a run of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Final

__all__ = [
    "DAMPED_WINDOWS",
    "KNOWN_BLOCKS",
    "Run",
    "blocks_for",
    "column_runs",
    "is_misread",
    "named_blocks",
    "neighbours",
    "sequence_columns",
]

KNOWN_BLOCKS: Final[dict[int, tuple[int, ...]]] = {
    115: (3,) * 10 + (7,) * 5 + (3,) * 5 + (7,) * 5,
    100: (3,) * 10 + (7,) * 10,
}
"""Width to run lengths: the whole UCI layout, and the same without its 15 `HH_jit` columns."""

_STREAM_WINDOW: Final = re.compile(r"^(.+_L[0-9.]+)_")

DAMPED_WINDOWS: Final = 5
"""Damped windows of the known layouts; their runs are ordered by stream, then by window."""


def named_blocks(feature_names: Sequence[str]) -> tuple[int, ...]:
    """Work out the lengths of runs from column names such as `HH_jit_L0.1_mean`.

    Returns:
        Run lengths; a column whose name has no window stands alone.
    """
    keys = []
    for i, name in enumerate(feature_names):
        match = _STREAM_WINDOW.match(name)
        keys.append(match.group(1) if match else f"\0{i}")
    return tuple(len(list(run)) for _, run in groupby(keys))


def is_misread(feature_names: Sequence[str]) -> bool:
    """Tell whether the columns are as many as those of a known layout, and are others."""
    known = KNOWN_BLOCKS.get(len(feature_names))
    return known is not None and named_blocks(feature_names) != known


def blocks_for(feature_names: Sequence[str]) -> tuple[int, ...]:
    """Return `TrainConfig.blocks` for these columns, () where their number alone says it right."""
    named, count = named_blocks(feature_names), len(feature_names)
    return () if named == KNOWN_BLOCKS.get(count, (1,) * count) else named


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring columns of one stream in one window."""

    start: int
    """First column."""

    length: int
    """Columns."""

    stream: int
    """Number of the stream, or of the channel of a series."""

    window: int
    """Number of the damped window, shortest first, or of the time step, oldest first."""


def column_runs(dim: int, window: int = 1) -> tuple[Run, ...]:
    """List the runs of a row.

    Args:
        dim: Columns d.
        window: Time steps of a row that is a window of a series; `dim` is a multiple of it.

    Returns:
        The runs in the order of their columns. Without a known layout every column is a stream, and
        all are in one window.
    """
    if window > 1:
        channels = dim // window
        return tuple(Run(i, 1, i % channels, i // channels) for i in range(dim))
    if dim in KNOWN_BLOCKS:
        lengths = KNOWN_BLOCKS[dim]
        starts = accumulate(lengths[:-1], initial=0)
        return tuple(
            Run(start, length, *divmod(i, DAMPED_WINDOWS))
            for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
        )
    return tuple(Run(i, 1, i, 0) for i in range(dim))


def neighbours(runs: Sequence[Run]) -> tuple[tuple[int, ...], ...]:
    """List the neighbours of each run: its stream in the windows beside, and its window's others.

    Returns:
        For each run the indices of its neighbours, rising; never its own. The relation is
        symmetric, and where nothing is known, all are neighbours of all.
    """

    def touch(a: Run, b: Run) -> bool:
        if a.window == b.window:
            return a.stream != b.stream
        return a.stream == b.stream and abs(a.window - b.window) == 1

    return tuple(tuple(j for j, other in enumerate(runs) if touch(run, other)) for run in runs)


def sequence_columns(dim: int, window: int = 1) -> tuple[tuple[int, ...], ...]:
    """Arrange the columns as channels along the windows.

    Args:
        dim: Columns d.
        window: As of `column_runs`.

    Returns:
        Channels × positions, each column once: one channel for every statistic of every stream and
        one position for every window. Without a known layout one channel of all columns.
    """
    if window == 1 and dim not in KNOWN_BLOCKS:
        return (tuple(range(dim)),)
    channels: dict[tuple[int, int], list[int]] = {}
    for run in column_runs(dim, window):
        for statistic in range(run.length):
            channels.setdefault((run.stream, statistic), []).append(run.start + statistic)
    return tuple(tuple(columns) for columns in channels.values())
