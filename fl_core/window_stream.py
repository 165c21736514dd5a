"""Windows of a series as its time steps arrive, in bounded memory."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from fl_core.data.dataset import Matrix
from fl_core.data.series import padded_windows
from fl_core.row_stream import RowBatch

__all__ = ["MAX_SERIES", "window_batches"]

MAX_SERIES: Final = 4096
"""Series whose last steps are remembered; beyond them the one that has been silent longest is
forgotten, and begins anew when it speaks again."""


def window_batches(
    batches: Iterable[RowBatch], length: int, *, devices: Container[str | None] | None = None
) -> Iterator[RowBatch]:
    """Turn time steps into the windows that end with them, one each (L-37).

    Steps of different devices are different series. The first windows of a device repeat its first
    step. A row that was left out is missing in the windows after it. Nothing is carried over into
    another file.

    Args:
        batches: Time steps, shape (n, C) each.
        length: Time steps in a window; with 1 the batches go through as they are.
        devices: Whose steps are remembered; None: everybody's. Those of others get windows too, so
            that whoever scores them can refuse them by name.

    Yields:
        For each batch one of shape (n, length * C), columns as `fl_core.data.series.windows`.
    """
    if length == 1:
        yield from batches
        return
    before: dict[str | None, Matrix] = {}  # the one heard of last at the end
    for batch in batches:
        if batch.anew:
            before.clear()
        if not batch.numbers:
            continue
        values = np.empty((len(batch.values), length * batch.values.shape[1]))
        for device in dict.fromkeys(batch.devices):
            members = [i for i, own in enumerate(batch.devices) if own == device]
            steps, last = batch.values[members], before.pop(device, None)
            values[members] = padded_windows(steps, length, last)
            if devices is None or device in devices:  # L-20
                known = steps if last is None else np.concatenate([last, steps])
                before[device] = known[1 - length :].copy()
            if len(before) > MAX_SERIES:
                del before[next(iter(before))]
        yield replace(batch, values=values)
