"""`secagg coordinator`: run a federation's coordinator."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nodes.commands.options import combine, config_option, events_option, log_option, set_up_logging
from nodes.config import load_coordinator_config
from nodes.progress import show_progress
from nodes.telemetry import Emit, json_lines, to_log

__all__ = ["command"]


@click.command()
@config_option
@events_option
@log_option
def command(config: Path, events: str | None, log_level: str) -> None:
    """Run the coordinator: it offers rounds, adds what it cannot read, and updates the model.

    It goes on from the checkpoint in its state folder, and takes up a newer roster without a
    restart. Stop it with Ctrl-C or SIGTERM; nothing is lost.

    \b
    Examples:
      secagg coordinator --config coordinator.toml
      secagg coordinator --config coordinator.toml --events - > events.jsonl
    """  # noqa: D301 - click reads the escape
    from nodes.coordinator_daemon import CoordinatorDaemon

    set_up_logging(log_level)
    settings = load_coordinator_config(config)
    with show_progress(sys.stderr, quiet=events == "-") as (show, _):
        emitters: list[Emit] = [show, to_log]
        if events == "-":
            emitters.append(json_lines(sys.stdout))
        elif events:
            emitters.append(json_lines(Path(events).open("a", encoding="utf-8")))  # noqa: SIM115
        CoordinatorDaemon(settings, combine(emitters)).run()
