"""`secagg bench`: what the learning is worth, on your own data."""

from __future__ import annotations

from typing import Final

import click

from nodes.commands.lazy_group import LazyGroup

__all__ = ["PARTS", "command"]

PARTS: Final[dict[str, str]] = {
    "detection": "detection quality beside every baseline, over devices and seeds",
}
"""Subcommand to one-line help; the code is `nodes.commands.bench_<name>.command`."""


@click.group(cls=LazyGroup, commands=PARTS, prefix="nodes.commands.bench_")
def command() -> None:
    """Measure what training together is worth.

    \b
    secagg bench detection --data nbaiot.npz
    """  # noqa: D301 - click reads the escape
