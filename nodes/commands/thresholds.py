"""`secagg thresholds`: neighbours, threshold and quorum of a round, and what they withstand."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from secagg.assumptions import DEFAULT_COLLUSION, DEFAULT_DROPOUT, FAILURE_BITS, SECURITY_BITS
from secagg.errors import ConfigError
from secagg.masking.parameters import MAX_BITS, choose, graph_failure_bits, liveness_bits

__all__ = ["command"]

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


@click.command()
@click.option("--nodes", multiple=True, type=int, metavar="N", help="Cohort size; repeatable.")
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
    help="The graph exposes an input with probability at most 2^-B.",
)
@click.option(
    "--failure-bits",
    default=FAILURE_BITS,
    show_default=True,
    type=click.IntRange(1, MAX_BITS),
    metavar="B",
    help="The graph loses a round with probability at most 2^-B.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON on stdout.")
def command(
    nodes: tuple[int, ...],
    dropout: float,
    collusion: float,
    security_bits: int,
    failure_bits: int,
    as_json: bool,
) -> None:
    """Print how many neighbours, shares and signatures a round of masking takes.

    They follow from the size of the cohort and the fractions that may collude and drop out
    (specs/31-thresholds.md). Without --nodes it prints a table for 10 to 10000 nodes.

    \b
    Examples:
      secagg thresholds --collusion 0.1 --dropout 0.1
      secagg thresholds --nodes 40 --nodes 400 --dropout 0.2 --json
    """  # noqa: D301 - click reads the escape
    rows: list[dict[str, int | float | None]] = []
    refused: list[tuple[int, ConfigError]] = []
    for size in nodes or SIZES:
        try:
            rows.append(
                _row(size, (dropout, collusion), security_bits=security_bits, failure=failure_bits)
            )
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
    _print(rows, refused)


def _row(
    size: int, fractions: tuple[float, float], *, security_bits: int, failure: int
) -> dict[str, int | float | None]:
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
    row: dict[str, int | float | None] = {"nodes": size, **asdict(chosen)}
    row |= {name: round(value, 1) if math.isfinite(value) else None for name, value in bits.items()}
    return {key: row[key] for key in COLUMNS}


def _print(
    rows: list[dict[str, int | float | None]], refused: list[tuple[int, ConfigError]]
) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*("∞" if value is None else str(value) for value in row.values()))
    console = Console(file=sys.stdout, width=100)
    console.print(table)
    for size, error in refused:
        click.echo(f"{size}: {error}\n  {error.hint}" if error.hint else f"{size}: {error}")
    click.echo(
        "2^-(privacy bits) bounds the probability that a round's graph exposes an input,\n"
        "2^-(failure bits) that it loses the round; ∞: it never does, whichever those nodes are."
    )
