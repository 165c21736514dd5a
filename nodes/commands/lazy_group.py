"""A click group that imports a command's module only when the command is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """Knows its commands by name and one line of help: `--help` and `--version` need no torch.

    Args:
        commands: Command name to one-line help, in the order of the help.
        prefix: The code of a command is `<prefix><name_with_underscores>.command`.
        attributes: Of `click.Group`.
    """

    def __init__(self, *, commands: Mapping[str, str], prefix: str, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._helps, self._prefix = dict(commands), prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in their order."""
        return list(self._helps)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in self._helps:
            return None
        module = importlib.import_module(self._prefix + cmd_name.replace("-", "_"))
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the one-line helps, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._helps.items()))
