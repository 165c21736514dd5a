"""`secagg demo`: a whole federation on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from nodes.commands.options import (
    json_option,
    privacy_options,
    privacy_table,
    seed_option,
    weights_option,
)
from nodes.progress import human_bytes, show_progress, weights_line
from nodes.report import print_quality
from nodes.supervisor import stop_on_signals
from secagg.schemes import SCHEMES

__all__ = ["command"]


@click.command()
@click.option("--data", default="builtin", show_default=True, help="`builtin`, or a path.")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="Rounds.")
@click.option("--nodes", default=9, show_default=True, type=int, help="Sites, one process each.")
@click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice(list(SCHEMES)),
    help="How updates are summed; insecure-plain is for measurements.",
)
@weights_option
@privacy_options
@seed_option
@click.option("--drop", multiple=True, metavar="PATTERN", help="Leave columns out: 'HH_jit_*'.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder; ./run or the next free run-N."
)
@json_option
def command(
    data: str,
    rounds: int,
    nodes: int,
    scheme: str,
    weights: str,
    unit: str,
    epsilon: float,
    delta: float,
    seed: int,
    drop: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Watch nine IoT sites train one anomaly detector that none of them could see into.

    Provisions keys, starts a coordinator and one process a site on loopback, trains over CURVE with
    masked updates, or encrypted ones, and ends with the quality of the detector beside local-only
    training and a random encoder. Everything stays in the run folder.

    \b
    Examples:
      secagg demo
      secagg demo --rounds 3 --nodes 5 --json
      secagg demo --scheme ckks --weights coordinator
      secagg demo --unit record --epsilon 4
      secagg demo --data nbaiot.npz --drop 'HH_jit_*'
    """  # noqa: D301 - click reads the escape
    from nodes.demo import DemoPlan, free_folder, run_demo

    folder = out or free_folder(Path("run"))
    plan = DemoPlan(
        folder,
        data,
        nodes,
        rounds,
        scheme=scheme,
        weights=weights,
        seed=seed,
        drop=drop,
        privacy=privacy_table(unit, epsilon, delta),
    )
    with stop_on_signals(), show_progress(sys.stderr) as (show, _):
        result = run_demo(plan, show)
    report = result.report
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_quality(report["devices"], report["mean"], sys.stdout)
    if "weights_of_last_round" in report:
        shown = weights_line(report["weights_of_last_round"])
        click.echo(f"weights of the last round: {shown}", err=True)
    memory = report["peak_memory_mb"]
    click.echo(
        f"{rounds} rounds in {report['wall_seconds']:.0f} s; a node sent "
        f"{human_bytes(report['bytes_sent_per_node_and_round'])} and received "
        f"{human_bytes(report['bytes_received_per_node_and_round'])} a round; peak memory "
        f"{memory['coordinator']:.0f} MB coordinator, {memory['largest_node']:.0f} MB node\n"
        f"report  {folder / 'report.json'}\nmodel   {result.model}\n"
        f"next    secagg detect --model {result.model} --device NAME --data new.csv",
        err=True,
    )
