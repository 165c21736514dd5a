"""`secagg privacy`: what noise costs, what was spent, and whether it is there."""

from __future__ import annotations

from typing import Final

import click

from nodes.commands.lazy_group import LazyGroup

__all__ = ["PARTS", "command"]

PARTS: Final[dict[str, str]] = {
    "plan": "predict the noise that a budget takes, before anybody trains",
    "show": "print what a ledger's rounds have spent, and what is left",
    "audit": "play a run with canaries, and hold what it shows against the claim",
}
"""Subcommand to one-line help; the code is `nodes.commands.privacy_<name>.command`."""


@click.group(cls=LazyGroup, commands=PARTS, prefix="nodes.commands.privacy_")
def command() -> None:
    """What differential privacy costs and what was spent of it.

    \b
    secagg privacy plan --nodes 1000 --rounds 20 --epsilon 4
    secagg privacy show state
    """  # noqa: D301 - click reads the escape
