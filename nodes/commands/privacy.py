"""`secagg privacy`: what noise costs, what was spent, and whether it is there."""

from __future__ import annotations

import importlib
from typing import Final

import click

__all__ = ["PARTS", "command"]

PARTS: Final[dict[str, str]] = {
    "plan": "predict the noise that a budget takes, before anybody trains",
    "show": "print what a ledger's rounds have spent, and what is left",
    "audit": "play a run with canaries, and hold what it shows against the claim",
}
"""Subcommand to one-line help; the code is `nodes.commands.privacy_<name>.command`."""


class _LazyGroup(click.Group):
    """Imports a subcommand's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(PARTS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in PARTS:
            return None
        module = importlib.import_module(f"nodes.commands.privacy_{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(PARTS.items()))


@click.group(cls=_LazyGroup)
def command() -> None:
    """What differential privacy costs and what was spent of it.

    \b
    secagg privacy plan --nodes 1000 --rounds 20 --epsilon 4
    secagg privacy show state
    """  # noqa: D301 - click reads the escape
