"""`secagg attack-demo`: what malicious parties gain here, and against a trusting server."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from nodes.commands.options import json_option

if TYPE_CHECKING:
    from nodes.attacks.report import Attack, Played

__all__ = ["command"]

_WIDTH = 120
"""Characters of a table that can be read."""


_ELSEWHERE = {
    "masking": "double masking whose nodes trust the server",
    "ckks": "the same algebra among parties that trust the server; in the first row, the usual way "
    "of homomorphic aggregation: one key for all clients",
}
"""Scheme to what the column stands for."""


@click.command(name="attack-demo")
@click.option(
    "--scheme",
    default="masking",
    show_default=True,
    type=click.Choice(list(_ELSEWHERE)),
    help="What is attacked.",
)
@click.option("--nodes", default=7, show_default=True, type=click.IntRange(5, 30), help="Nodes.")
@click.option(
    "--dim",
    default=64,
    show_default=True,
    type=click.IntRange(16, 100_000),
    help="Coordinates of each node's input.",
)
@click.option("--attack", "names", multiple=True, metavar="NAME", help="Only this; repeatable.")
@click.option("--list", "only_list", is_flag=True, help="Name the attacks and play none.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the inputs.")
@json_option
def command(
    *,
    scheme: str,
    nodes: int,
    dim: int,
    names: tuple[str, ...],
    only_list: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Play every known attack against the real state machines, and print what it gained.

    The column "elsewhere" is what the same move gains against secure aggregation whose nodes trust
    the server, as most implementations do: keys unsigned, masks or shares bound to nothing, every
    question answered. Under ckks the first row shows the usual way of homomorphic aggregation, one
    key copied to every client, which falls to the coordinator and one client. What was gained is
    computed from what the attacker got, and compared with the true inputs. Exit code 0 if nothing
    was gained here, 1 otherwise. Attacks that the scheme does not promise to withstand are played
    as well, and marked; they do not count.

    \b
    Examples:
      secagg attack-demo
      secagg attack-demo --attack both-shares --attack cut-arc --nodes 10
      secagg attack-demo --scheme ckks
      secagg attack-demo --scheme ckks --list
    """  # noqa: D301 - click reads the escape
    from nodes.attacks.catalogue import attacks_named
    from secagg.schemes import scheme_named

    attacks = attacks_named(names, scheme)
    if only_list:
        for attack in attacks:
            click.echo(f"{attack.name}: {attack.summary} ({attack.attacker})")
        return
    scheme_named(scheme).check()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        tracked = progress.track(attacks, description="attacks")
        results = [(attack, attack.play(nodes, dim, seed)) for attack in tracked]
    if as_json:
        click.echo(json.dumps([_as_dict(*result) for result in results], indent=2))
    else:
        _print(results, _ELSEWHERE[scheme])
    if _gains(results):
        sys.exit(1)


def _gains(results: list[tuple[Attack, Played]]) -> int:
    """Return how many attacks gained something that the scheme promises to withstand."""
    return sum(attack.promised and not played.failed for attack, played in results)


def _as_dict(attack: Attack, played: Played) -> dict[str, object]:
    described = {
        "attack": attack.name,
        "attacker": attack.attacker,
        "summary": attack.summary,
        "rules": attack.rules,
        "promised": attack.promised,
    }
    return {**described, **dataclasses.asdict(played), "failed": played.failed}


def _print(results: list[tuple[Attack, Played]], elsewhere: str) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("attack", "elsewhere", "here", "how it ended here", "blamed", "rule"):
        table.add_column(title, overflow="fold", no_wrap=title == "attack")
    for attack, played in results:
        beyond = "" if attack.promised else " (beyond what is promised)"
        style = "" if played.failed else "bold red" if attack.promised else "yellow"
        table.add_row(
            attack.name,
            played.elsewhere,
            played.here + beyond,
            played.outcome,
            ", ".join(played.blamed) or "nobody",
            ", ".join(attack.rules) or "none",
            style=style,
        )
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(table)
    click.echo(f"elsewhere: {elsewhere}")
    lost = sum(not attack.promised and not played.failed for attack, played in results)
    more = f"; {lost} more, beyond what is promised, did" if lost else ""
    click.echo(f"{len(results)} attacks, {_gains(results)} of them gained something here{more}")
