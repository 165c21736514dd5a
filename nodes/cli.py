"""The `secagg` command: a group that loads each command's module when it is called.

Results go to standard output, talk to standard error. Errors are one line `error: ...` and, where
something can be mended, one line `hint: ...`. Exit codes are in `EXIT_CODES`.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Final

import click

from fl_core.errors import DataError, ModelError
from nodes.commands.lazy_group import LazyGroup
from secagg.errors import (
    ConfigError,
    KeyMaterialError,
    LocalProtocolError,
    OfferRefused,
    RemoteProtocolError,
    RoundAborted,
    RunIncompleteError,
    SecAggError,
)
from secagg.version import VERSION

__all__ = ["COMMANDS", "EXIT_CODES", "exit_code", "main", "secagg"]

COMMANDS: Final[dict[str, str]] = {
    "demo": "nine sites train one detector on this machine",
    "coordinator": "run the coordinator of a federation",
    "node": "run a node beside its data",
    "simulate": "run the same protocol in one process, on a virtual clock",
    "attack-demo": "play every known attack and print what it gained",
    "privacy": "show what noise costs, what was spent of a budget, and what is left",
    "thresholds": "show how many neighbours, shares and signatures a round takes",
    "bench": "measure detection beside baselines that could win",
    "detect": "score new data with a trained model",
    "export": "write a device's detector as a program that runs without this one",
    "features": "turn a packet capture into the 115 traffic statistics",
    "keys": "provision, show, rotate and revoke keys",
    "config": "write commented configuration files",
    "policy": "explain a node's policy, and test it against an offer",
    "preflight": "check keys, clocks, ports, roster, data and versions",
}
"""Command name to one-line help; the code is `nodes.commands.<name_with_underscores>.command`."""

EXIT_CODES: Final[dict[int, str]] = {
    0: "done",
    1: "an unexpected error: please report it",
    2: "the command line is wrong",
    3: "input data or a model file cannot be used",
    4: "a key, certificate or roster cannot be used",
    5: "a configuration setting is wrong",
    6: "the run ended without the wanted result (rounds aborted, peers unreachable)",
    7: "a check failed (preflight, policy check, privacy audit)",
    8: "a file or folder cannot be read or written",
    130: "interrupted",
}


class _Commands(LazyGroup):
    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader of our output that has gone is no error."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return result


@click.group(
    cls=_Commands,
    commands=COMMANDS,
    prefix="nodes.commands.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(VERSION, prog_name="secagg")
def secagg() -> None:
    """Train one anomaly detector over many IoT sites; nobody sees another's data or update.

    \b
    Start here:
      secagg demo              a whole federation on this machine
      secagg keys init         begin a federation of your own
    """  # noqa: D301 - click reads the escape


def exit_code(error: Exception) -> int:
    """Return the exit code of `EXIT_CODES` that stands for `error`."""
    match error:
        case DataError() | ModelError():
            return 3
        case KeyMaterialError():
            return 4
        case ConfigError():
            return 5
        case RunIncompleteError() | RoundAborted() | OfferRefused() | RemoteProtocolError():
            return 6
        case _:
            return 1


def main() -> None:
    """Run the command line and turn typed errors into one line and an exit code."""
    atexit.register(gc.freeze)  # the last sweep of a heap full of torch takes seconds for nothing
    try:
        code = secagg(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)  # click returns what ctx.exit was given
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except LocalProtocolError:
        raise  # our own bug: the traceback is what the report needs
    except (SecAggError, DataError, ModelError) as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(exit_code(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(8)
