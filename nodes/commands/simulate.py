"""`secagg simulate`: many nodes in one process, on a virtual clock."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table

from nodes.commands.options import (
    NumberRange,
    check_writable,
    collusion_option,
    json_option,
    privacy_options,
    privacy_table,
    seed_option,
    weights_option,
)
from nodes.progress import human_bytes, weights_line
from secagg.assumptions import DEFAULT_DROPOUT
from secagg.errors import RunIncompleteError
from secagg.schemes import SCHEMES

if TYPE_CHECKING:
    from nodes.simulator import RoundResult

__all__ = ["command"]


@click.command()
@click.option("--nodes", default=100, show_default=True, type=click.IntRange(3), help="Nodes.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Rounds.")
@click.option(
    "--dropout",
    default=0.0,
    show_default=True,
    type=NumberRange(0, 1),
    help="Probability that a node crashes in a round, at a random exchange; it comes back after.",
)
@click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice(list(SCHEMES)),
    help="How updates are summed.",
)
@weights_option
@privacy_options
@click.option(
    "--epoch-rounds",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1024),
    help="Under --unit client: rounds over which noise is correlated; 0 draws it anew each round.",
)
@click.option(
    "--separation",
    default=4,
    show_default=True,
    type=click.IntRange(2, 1024),
    help="With --epoch-rounds: rounds from one contribution of a node to its next.",
)
@click.option(
    "--tolerance",
    default=DEFAULT_DROPOUT,
    show_default="a third",
    type=NumberRange(0, 0.5, max_open=True),
    help="Fraction of the nodes that a round may lose and still end with a sum.",
)
@collusion_option
@click.option("--data", default="builtin", show_default=True, help="`builtin`, or a path.")
@click.option("--steps", default=10, show_default=True, help="Training steps a node and round.")
@click.option("--train/--no-train", default=True, help="Real training, or random updates.")
@seed_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the results as JSON.")
@json_option
def command(
    nodes: int,
    rounds: int,
    dropout: float,
    scheme: str,
    weights: str,
    unit: str,
    epsilon: float,
    delta: float,
    epoch_rounds: int,
    separation: int,
    tolerance: float,
    collusion: float,
    data: str,
    steps: int,
    train: bool,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run the daemons' own state machines with many nodes, in one process.

    Every message is sealed, encoded, delayed, opened and decoded; only sockets, clocks and crashes
    are played. Each opened sum is compared, bit for bit, with the plain (weighted) sum of the
    inputs.

    \b
    Examples:
      secagg simulate --nodes 100 --rounds 3 --dropout 0.1
      secagg simulate --nodes 500 --no-train --tolerance 0.1 --collusion 0.1 --json
      secagg simulate --nodes 20 --scheme ckks --weights coordinator --dropout 0.1
      secagg simulate --nodes 200 --unit client --epsilon 8 --rounds 5
      secagg simulate --nodes 100 --unit client --rounds 16 --epoch-rounds 8 --no-train
    """  # noqa: D301 - click reads the escape
    from nodes.rehearsal import build_simulation

    check_writable(out)
    started = time.monotonic()
    privacy = privacy_table(unit, epsilon, delta)
    if epoch_rounds:
        privacy |= {"epoch_rounds": epoch_rounds, "separation": separation, "excess_levels": 0}
    simulation = build_simulation(
        nodes,
        rounds,
        dropout=dropout,
        scheme=scheme,
        weights=weights,
        privacy=privacy,
        tolerance=tolerance,
        collusion=collusion,
        source=data if train else None,
        steps=steps,
        seed=seed,
    )
    results = []
    for result in simulation.run():
        results.append(result)
        exact = {True: "exact", False: "WRONG", None: "nothing released"}[result.exact]
        click.echo(
            f"round {result.round_id}: {result.outcome}, {result.contributors} of {result.cohort}, "
            f"{len(result.crashed)} crashed, sum {exact}",
            err=True,
        )
    wall = time.monotonic() - started
    summary = {
        "nodes": nodes,
        "scheme": scheme,
        "weights": weights,
        "dropout": dropout,
        "tolerance": tolerance,
        "collusion": collusion,
        "privacy": {**privacy, "unit": unit},
        "seed": seed,
        "wall_seconds": round(wall, 1),
        "rounds": [dataclasses.asdict(result) for result in results],
    }
    if out:
        out.write_text(json.dumps(summary, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(summary, indent=2))
    else:
        table = Table(box=box.SIMPLE_HEAD)
        learnt = "loss" if unit == "none" else "epsilon"
        for title in ("round", "outcome", "in the sum", "crashed", "sum", "seconds", "up", learnt):
            table.add_column(title, justify="right")
        for row in results:
            table.add_row(
                str(row.round_id),
                row.outcome,
                f"{row.contributors}/{row.cohort}",
                str(len(row.crashed)),
                "-" if row.exact is None else "exact" if row.exact else "WRONG",
                f"{row.seconds:.1f}",
                human_bytes(row.upload_bytes),
                _learnt(row),
            )
        Console(file=sys.stdout, width=100).print(table)
        for line in _remarks(results):
            click.echo(line)
    wrong = [result.round_id for result in results if result.exact is False]
    if wrong:
        raise SystemExit(f"error: the sum of round {wrong[0]} is wrong; please report this")
    if simulation.over is None or not simulation.over.complete:
        reason = simulation.over.reason if simulation.over else "nothing left to happen"
        done = simulation.coordinator.run.rounds_done
        raise RunIncompleteError(reason, done=done, wanted=rounds)


def _learnt(row: RoundResult) -> str:
    """Return what was spent so far, or the loss where nobody is protected."""
    if row.epsilon is not None:
        return f"{row.epsilon:.3g}"
    return "-" if row.loss is None else f"{row.loss:.4f}"


def _remarks(results: Sequence[RoundResult]) -> Iterator[str]:
    """Yield what the table leaves to say: exactness, and the last weights that were given."""
    weighed = [row.weights for row in results if row.weights]
    released = [row.exact for row in results if row.exact is not None]
    if released and all(released):
        kind = "weighted sum" if weighed else "sum"
        yield f"every sum bit-equal to the plain {kind} of its inputs"
    if weighed:
        yield f"weights of the last round: {weights_line(weighed[-1])}"
