"""Devices on which benches may choose: benign rows and planted anomalies, no test row.

Source: specs/90-learning.md L-75.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.common import BenchError
from fl_core.contest import thin_out
from fl_core.data.dataset import DeviceData
from fl_core.data.sources import load_devices
from fl_core.errors import DataError, ModelError
from fl_core.planted import plant

__all__ = ["measure_planted"]

_Found = TypeVar("_Found")


def measure_planted(
    program: str,
    measure: Callable[[Sequence[DeviceData], int], _Found],
    arguments: Sequence[str] | None = None,
) -> list[_Found]:
    """Read a bench's options and measure what they name; one line on bad data, and status 1.

    Args:
        program: Module of the bench.
        measure: Devices in which anomalies are planted, and the seed that drew them and their
            validation rows, to what is found.
        arguments: Of the command line; those of this process if None.

    Returns:
        What was found, one a seed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--data", default="builtin", help="`builtin`, or a path")
    parser.add_argument("--drop", action="append", default=[], help="columns to leave out")
    parser.add_argument("--every", type=int, default=1, help="one training row in so many")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)
    if min(args.every, args.seeds) < 1:
        parser.error("--every and --seeds are 1 or more")
    try:
        return [measure(_planted(args, seed), seed) for seed in range(args.seeds)]
    except (BenchError, DataError, ModelError) as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")


def _planted(args: argparse.Namespace, seed: int) -> list[DeviceData]:
    devices = load_devices(args.data, args.drop, seed=seed)
    return plant([thin_out(each, args.every) for each in devices], seed=seed)
