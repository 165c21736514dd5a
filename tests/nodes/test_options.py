"""Options that several commands share: what they take, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from nodes.cli import secagg
from nodes.commands.options import NumberRange


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


RANGES = [
    (name, option.opts[0])
    for name, command in commands(secagg)
    for option in command.params
    if isinstance(option.type, click.FloatRange)
]


@pytest.mark.parametrize(("command", "option"), RANGES)
@pytest.mark.parametrize("value", ["nan", "-NaN", "-1"])
def test_what_is_no_number_in_the_range_is_a_wrong_command_line(
    command: str, option: str, value: str
) -> None:
    result = CliRunner().invoke(secagg, [*command.split(), option, value])
    assert result.exit_code == 2, result.output
    assert f"Invalid value for '{option}'" in result.stderr
    assert value.lower() in result.stderr.lower()


def test_every_range_of_numbers_was_seen() -> None:
    assert ("bench detection", "--max-fpr") in RANGES
    assert ("simulate", "--dropout") in RANGES


def test_a_number_in_the_range_is_taken() -> None:
    assert NumberRange(0, 1).convert("0.25", None, None) == 0.25
