"""Windows of a series as its time steps arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fl_core.data.dataset import Matrix
from fl_core.data.series import padded_windows
from fl_core.row_stream import RowBatch

__all__ = ["window_batches"]


def window_batches(batches: Iterable[RowBatch], length: int) -> Iterator[RowBatch]:
    """Turn time steps into the windows that end with them, one each (L-37).

    Steps of different devices are different series. The first windows of a device repeat its first
    step. A row that was left out is missing in the windows after it. Row numbers that start again
    mean another file, and nothing is carried over into it.

    Args:
        batches: Time steps, shape (n, C) each.
        length: Time steps in a window; with 1 the batches go through as they are.

    Yields:
        For each batch one of shape (n, length * C), columns as `fl_core.data.series.windows`.
    """
    if length == 1:
        yield from batches
        return
    before: dict[str | None, Matrix] = {}
    last = 0
    for batch in batches:
        if not batch.numbers:
            continue
        if batch.numbers[0] <= last:
            before.clear()
        last = batch.numbers[-1]
        values = np.empty((len(batch.values), length * batch.values.shape[1]))
        for device in dict.fromkeys(batch.devices):
            members = [i for i, own in enumerate(batch.devices) if own == device]
            steps = batch.values[members]
            values[members] = padded_windows(steps, length, before.get(device))
            known = [before[device]] if device in before else []
            before[device] = np.concatenate([*known, steps])[1 - length :]
        yield replace(batch, values=values)
