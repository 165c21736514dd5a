"""`secagg node`: run a node beside its data."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodes.commands.options import combine, config_option, events_option, log_option, set_up_logging
from nodes.config import load_node_config
from nodes.telemetry import Emit, Record, json_lines, to_log

__all__ = ["command"]


@click.command()
@config_option
@events_option
@log_option
def command(config: Path, events: str | None, log_level: str) -> None:
    """Run a node: it trains on its own data and sends only masked or encrypted vectors.

    It waits for the coordinator as long as need be, holds every offer against its own policy, and
    ends with a detector and a report in its state folder.

    \b
    Examples:
      secagg node --config node.toml
    """  # noqa: D301 - click reads the escape
    from nodes.node_daemon import NodeDaemon

    set_up_logging(log_level)
    settings = load_node_config(config)
    emitters: list[Emit] = [to_log, _say] if events != "-" else [to_log, json_lines(sys.stdout)]
    if events and events != "-":
        emitters.append(json_lines(Path(events).open("a", encoding="utf-8")))  # noqa: SIM115
    complete = NodeDaemon(settings, combine(emitters)).run()
    if not complete:
        click.echo("stopped before the run was over; start me again to go on", err=True)


def _say(record: Record) -> None:
    """Print the lines a site engineer wants."""
    match record["event"]:
        case "node.ready":
            line = f"{record['node']}: {record['train_rows']} rows of {record['device']}"
        case "connection.changed":
            line = f"connection to {record['endpoint']}: {record['state']}"
        case "joined":
            line = f"joined the run of {record['peer']} ({record['rounds_done']} rounds done)"
        case "offer.rejected":
            line = f"refused round {record['round_id']}: {record['explanation']}"
        case "round.ended":
            state = "in the sum" if record["included"] else "not in the sum"
            line = f"round {record['round_id']}: {record['outcome']}, {state}"
        case "abstained":
            line = f"round {record['round_id']}: gave nothing, {record['reason']}"
        case "peer.rejected" | "roster.rejected":
            line = f"rejected {record['reason']}"
        case "roster.taken.up":
            line = f"roster version {record['version']} taken up"
        case "identity.outdated":
            line = f"warning: {record['reason']}"
        case "node.finished":
            line = f"finished: {record['detector']} and {record['report']} written; "
            taken = f"{record['included']} of {record['rounds']} rounds"
            line += f"took part in {taken} since it was started"
        case _:
            return
    click.echo(line, err=True)
