"""Options and small parts that several commands share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nodes.session.plan import WEIGHT_MODES
from nodes.telemetry import Emit, Record
from secagg.assumptions import DEFAULT_COLLUSION
from secagg.dp.terms import DISCRETE_GAUSSIAN, MECHANISMS
from secagg.schemes import SCHEMES

__all__ = [
    "NumberRange",
    "check_writable",
    "collusion_option",
    "combine",
    "config_option",
    "delta_option",
    "epsilon_option",
    "events_option",
    "json_option",
    "log_option",
    "mechanism_option",
    "privacy_options",
    "privacy_table",
    "private_scheme_option",
    "seed_option",
    "set_up_logging",
    "weights_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class NumberRange(click.FloatRange):
    """A range of numbers; `nan`, which no comparison with a bound catches, is in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail as a wrong command line does."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found


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


seed_option = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
epsilon_option = click.option(
    "--epsilon",
    default=8.0,
    show_default=True,
    type=NumberRange(0, min_open=True),
    help="Privacy budget of all rounds together.",
)
delta_option = click.option(
    "--delta",
    default=1e-5,
    show_default=True,
    type=NumberRange(0, 0.1, min_open=True),
    help="Probability with which the budget's bound may fail.",
)
private_scheme_option = click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice([name for name, scheme in SCHEMES.items() if scheme.private]),
    help="How updates are summed.",
)
mechanism_option = click.option(
    "--mechanism",
    default=DISCRETE_GAUSSIAN,
    show_default=True,
    type=click.Choice(list(MECHANISMS)),
    help="Distribution of a node's noise.",
)
collusion_option = click.option(
    "--collusion",
    default=DEFAULT_COLLUSION,
    show_default=True,
    type=NumberRange(0, 0.5, max_open=True),
    help="Fraction of the nodes that may collude; with few, large fleets get a sparse graph.",
)

_PRIVACY = (
    click.option(
        "--unit",
        default="none",
        show_default=True,
        type=click.Choice(["none", "client", "record"]),
        help="Whom noise protects: a node (takes hundreds of them), one row of data, or nobody.",
    ),
    epsilon_option,
    delta_option,
)


def privacy_options(command: F) -> F:
    """Add --unit, --epsilon and --delta."""
    for option in reversed(_PRIVACY):
        command = option(command)
    return command


def privacy_table(unit: str, epsilon: float, delta: float) -> dict[str, Any]:
    """Return what the options say as the table [privacy] of a coordinator."""
    return {} if unit == "none" else {"unit": unit, "epsilon": epsilon, "delta": delta}


def set_up_logging(level: str) -> None:
    """Log to standard error from `level` up."""
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=level.upper(), format=form)


def check_writable(out: Path | None) -> None:
    """Fail before hours of work, not after, if the file for its result cannot be written.

    What is in the file stays; a missing one is made.

    Args:
        out: A file; None if there will be none.

    Raises:
        OSError: it is a folder, or may not be written.
    """
    if out is not None:
        with out.open("a"):
            pass


def combine(emitters: Sequence[Emit]) -> Emit:
    """Return an emitter that calls each of `emitters`."""

    def emit(record: Record) -> None:
        for each in emitters:
            each(record)

    return emit
