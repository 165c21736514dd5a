"""Options and small parts that several commands share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import click

from nodes.session.plan import WEIGHT_MODES
from nodes.telemetry import Emit, Record

__all__ = [
    "combine",
    "config_option",
    "events_option",
    "log_option",
    "set_up_logging",
    "weights_option",
]

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="TOML file; `secagg config init` writes one.",
)
events_option = click.option(
    "--events", metavar="FILE", help="Append one JSON object an event to FILE, or - for stdout."
)
log_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="What to log on standard error.",
)
weights_option = click.option(
    "--weights",
    default="private",
    show_default=True,
    type=click.Choice(list(WEIGHT_MODES)),
    help="Who applies the consistency weights: the nodes, or under ckks the coordinator, to whom "
    "they then disclose their distance from the others.",
)


def set_up_logging(level: str) -> None:
    """Log to standard error from `level` up."""
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=level.upper(), format=form)


def combine(emitters: Sequence[Emit]) -> Emit:
    """Return an emitter that calls each of `emitters`."""

    def emit(record: Record) -> None:
        for each in emitters:
            each(record)

    return emit
