"""`secagg thresholds`: what a round of each scheme takes, and what it withstands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, TypeAlias

import click
from click.core import ParameterSource
from rich import box
from rich.console import Console
from rich.table import Table

from nodes.commands.options import json_option
from nodes.session.plan import HEAVIEST
from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT, FAILURE_BITS, SECURITY_BITS
from secagg.ckks import parameters as ckks
from secagg.ckks.headroom import MAX_WEIGHT, VALUE_BITS
from secagg.ckks.sealing import BOX_OVERHEAD
from secagg.errors import ConfigError
from secagg.masking.parameters import MAX_BITS, choose, graph_failure_bits, liveness_bits

__all__ = ["command"]

Row: TypeAlias = dict[str, int | float | None]

SIZES: Final = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
"""Cohorts of the table that is printed without --nodes."""
COLUMNS: Final = {
    "nodes": "nodes",
    "colluders": "colluding",
    "dropouts": "dropouts",
    "neighbours": "neighbours\nk",
    "threshold": "threshold\nt",
    "quorum": "quorum\nq",
    "cosigners": "co-signers\nc",
    "privacy_bits": "privacy\nbits",
    "failure_bits": "failure\nbits",
}
"""Key of the JSON output to heading of the table."""
CKKS_COLUMNS: Final = {
    "nodes": "nodes",
    "colluders": "A",
    "dropouts": "D",
    "degree": "N",
    "modulus_bits": "prime\nbits",
    "values_per_coefficient": "r",
    "value_bytes": "B/\nvalue",
    "members": "m",
    "threshold": "t",
    "pack": "l",
    "silent": "mute",
    "quorum": "least\nq",
    "cosigners": "sign\nc",
    "share_kilobytes": "share\nkB",
}
"""The same for ckks."""
_BELOW: Final = (
    "2^-(privacy bits) bounds the probability that a round's graph exposes an input,\n"
    "2^-(failure bits) that it loses the round; ∞: it never does, whichever those nodes are."
)
_CKKS_BELOW: Final = (
    "A nodes may collude, D drop out. A coefficient of a ring of degree N, modulo a prime of so\n"
    "many bits, holds r values. m nodes hold shares of every secret: t of them learn nothing,\n"
    "t + l answers open the sum, some may be mute. A sum is over q nodes or more, co-signed by c.\n"
    "A node uploads B a value, and once a round the kB of its sealed shares. Ring and prime leave\n"
    "at least 128 bits (specs/35-ckks-parameters.md, sections 3 and 4)."
)
_OPTIONS: Final = {
    "masking": ("security_bits", "failure_bits"),
    "ckks": ("value_bits", "max_weight"),
}
"""Options that only one scheme has a use for."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the table of a scheme is made."""

    columns: dict[str, str]
    row: Callable[[int], Row]
    below: str


@click.command()
@click.option("--nodes", multiple=True, type=int, metavar="N", help="Cohort size; repeatable.")
@click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice(list(_OPTIONS)),
    help="Whose table.",
)
@click.option(
    "--dropout",
    default=DEFAULT_DROPOUT,
    show_default="1/3",
    type=float,
    help="Fraction that may drop out during a round.",
)
@click.option(
    "--collusion",
    default=DEFAULT_COLLUSION,
    show_default=True,
    type=float,
    help="Fraction that may collude with the coordinator.",
)
@click.option(
    "--security-bits",
    default=SECURITY_BITS,
    show_default=True,
    type=click.IntRange(1, MAX_BITS),
    metavar="B",
    help="masking: the graph exposes an input with probability at most 2^-B.",
)
@click.option(
    "--failure-bits",
    default=FAILURE_BITS,
    show_default=True,
    type=click.IntRange(1, MAX_BITS),
    metavar="B",
    help="masking: the graph loses a round with probability at most 2^-B.",
)
@click.option(
    "--value-bits",
    default=16,
    show_default=True,
    type=click.IntRange(VALUE_BITS.start, VALUE_BITS.stop - 1),
    help="ckks: bits of one node's integers.",
)
@click.option(
    "--max-weight",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_WEIGHT),
    help=f"ckks: greatest weight; where the coordinator weighs {HEAVIEST}, at some sizes 2.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    nodes: tuple[int, ...],
    scheme: str,
    dropout: float,
    collusion: float,
    security_bits: int,
    failure_bits: int,
    value_bits: int,
    max_weight: int,
    as_json: bool,
) -> None:
    """Print what a round takes: neighbours, committee, shares, quorum and signatures.

    They follow from the size of the cohort and the fractions that may collude and drop out
    (specs/31-thresholds.md, specs/35-ckks-parameters.md). Without --nodes it prints a table for 10
    to 10000 nodes.

    \b
    Examples:
      secagg thresholds --collusion 0.1 --dropout 0.1
      secagg thresholds --nodes 40 --nodes 400 --dropout 0.2 --json
      secagg thresholds --scheme ckks --nodes 10 --nodes 1000
    """  # noqa: D301 - click reads the escape
    _refuse_others_options(context, scheme)
    fractions = (dropout, collusion)
    if scheme == "ckks":
        row = partial(_ckks_row, fractions, value_bits=value_bits, max_weight=max_weight)
        kind = _Kind(CKKS_COLUMNS, row, _CKKS_BELOW)
    else:
        row = partial(_row, fractions, security_bits=security_bits, failure=failure_bits)
        kind = _Kind(COLUMNS, row, _BELOW)
    rows: list[Row] = []
    refused: list[tuple[int, ConfigError]] = []
    for size in nodes or SIZES:
        try:
            rows.append(kind.row(size))
        except ConfigError as error:
            refused.append((size, error))
    if not rows:
        raise refused[0][1]
    if as_json:
        reasons = [
            {"nodes": size, "refused": str(error), "hint": error.hint} for size, error in refused
        ]
        click.echo(json.dumps(sorted([*rows, *reasons], key=lambda row: row["nodes"]), indent=2))
        return
    _print(kind, rows, refused)


def _refuse_others_options(context: click.Context, scheme: str) -> None:
    """Refuse an option that would change nothing, so that nobody takes it for heeded."""
    for other, names in _OPTIONS.items():
        for name in names if other != scheme else ():
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(f"{option} is for --scheme {other}", context)


def _row(fractions: tuple[float, float], size: int, *, security_bits: int, failure: int) -> Row:
    dropout, collusion = fractions
    chosen = choose(
        size,
        dropout=dropout,
        collusion=collusion,
        security_bits=security_bits,
        failure_bits=failure,
    )
    private = graph_failure_bits(
        size,
        neighbours=chosen.neighbours,
        threshold=chosen.threshold,
        quorum=chosen.quorum,
        colluders=chosen.colluders,
    )
    live = liveness_bits(
        size,
        neighbours=chosen.neighbours,
        threshold=chosen.threshold,
        dropouts=chosen.dropouts,
    )
    bits = {"privacy_bits": private, "failure_bits": live}
    row: Row = {"nodes": size, **asdict(chosen)}
    row |= {name: round(value, 1) if math.isfinite(value) else None for name, value in bits.items()}
    return {key: row[key] for key in COLUMNS}


def _ckks_row(
    fractions: tuple[float, float], size: int, *, value_bits: int, max_weight: int
) -> Row:
    dropout, collusion = fractions
    made = ckks.choose(
        size,
        value_bits=value_bits,
        max_weight=max_weight,
        dropout=dropout,
        collusion=collusion,
    )
    ring, committee = made.ring, made.committee
    receivers = committee.size - (committee.size == size)  # nobody seals for itself
    return {
        "nodes": size,
        "colluders": made.colluders,
        "dropouts": made.dropouts,
        "degree": ring.degree,
        "modulus_bits": ring.modulus_bits,
        "values_per_coefficient": ring.values_per_coefficient,
        "value_bytes": round(made.value_bytes, 2),
        "members": committee.size,
        "threshold": committee.threshold,
        "pack": committee.pack,
        "silent": committee.silent,
        "quorum": made.quorum,
        "cosigners": made.cosigners,
        "share_kilobytes": round(receivers * (made.share_bytes + BOX_OVERHEAD) / 1000, 1),
    }


def _print(kind: _Kind, rows: list[Row], refused: list[tuple[int, ConfigError]]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for title in kind.columns.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*("∞" if value is None else str(value) for value in row.values()))
    console = Console(file=sys.stdout, width=100)
    console.print(table)
    for size, error in refused:
        click.echo(f"{size}: {error}\n  {error.hint}" if error.hint else f"{size}: {error}")
    click.echo(kind.below)
