"""Devices on which benches may choose: benign rows and planted anomalies, no test row.

Source: specs/90-learning.md L-75.
"""

from __future__ import annotations

import argparse

from fl_core.contest import thin_out
from fl_core.data.dataset import DeviceData
from fl_core.data.sources import load_devices
from fl_core.planted import plant

__all__ = ["planted_devices", "planted_parser"]


def planted_parser(program: str) -> argparse.ArgumentParser:
    """Return a parser of the options that `planted_devices` reads."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--data", default="builtin", help="`builtin`, or a path")
    parser.add_argument("--drop", action="append", default=[], help="columns to leave out")
    parser.add_argument("--every", type=int, default=1, help="one training row in so many")
    parser.add_argument("--seeds", type=int, default=3)
    return parser


def planted_devices(args: argparse.Namespace, seed: int) -> list[DeviceData]:
    """Load the devices and plant anomalies in them; the seed draws both."""
    devices = load_devices(args.data, args.drop, seed=seed)
    if args.every > 1:
        devices = [thin_out(each, args.every) for each in devices]
    return plant(devices, seed=seed)
