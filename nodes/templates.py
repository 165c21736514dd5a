"""Commented configuration files, written from the Structs they are read into.

Every key is there with its default and its meaning, so the file is its own reference, and a key
that `nodes.config` does not know cannot be in it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec

from fl_core.config import ModelConfig, TrainConfig
from fl_core.server_opt import ServerOptConfig
from nodes.config import CoordinatorConfig, NodeConfig, PolicySection, Settings

__all__ = ["coordinator_toml", "field_notes", "node_toml", "policy_toml"]

_PLAIN: dict[str, type] = {"model": ModelConfig, "train": TrainConfig, "server": ServerOptConfig}

_EXAMPLES: dict[type, dict[str, str]] = {
    PolicySection: {
        "epsilon": "8.0",
        "delta": "1e-5",
        "architectures": '["64 hexadecimal digits"]',
        "max_learning_rate": "0.01",
        "max_steps": "500",
        "max_rounds_a_day": "100",
    }
}
"""What settings that are unset by default look like."""


@functools.cache
def field_notes(kind: type) -> dict[str, str]:
    """Return field name to the string literal that follows it in the source of `kind`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    notes = {}
    for field, note in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(note, ast.Expr)
            and isinstance(note.value, ast.Constant)
        ):
            notes[field.target.id] = " ".join(str(note.value.value).split())
    return notes


def coordinator_toml(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a coordinator.toml; `values` gives what differs from the defaults, by table."""
    head = "The coordinator of a secagg federation: secagg coordinator --config THIS_FILE"
    return _document(CoordinatorConfig, values, head)


def node_toml(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a node.toml; `values` gives what differs from the defaults, by table.

    One that names a policy file has no table [policy]: there must not be two (G-04).
    """
    head = "A node of a secagg federation: secagg node --config ..."
    named = values.get("node", {}).get("policy")
    return _document(NodeConfig, values, head, without=("policy",) if named else ())


def policy_toml(values: Mapping[str, Any]) -> str:
    """Return a policy.toml; `values` gives what differs from the defaults."""
    head = [
        "# What a node of a secagg federation agrees to; the coordinator cannot override it.",
        '# It holds once node.toml names it, [node] policy = "policy.toml", and the node starts.',
        "# What it means, and what it would do: secagg policy check THIS_FILE",
        "",
    ]
    return "\n".join([*head, *_settings(PolicySection, values, "policy.toml"), ""])


def _document(
    kind: type,
    values: Mapping[str, Mapping[str, Any]],
    head: str,
    *,
    without: tuple[str, ...] = (),
) -> str:
    lines = [f"# {head}", "# Paths are relative to this file.", ""]
    for table in msgspec.structs.fields(kind):
        if table.name in ("folder", "origin", *without):
            continue
        section = _PLAIN.get(table.name) or table.type
        lines += [f"# {_first_line(section)}", f"[{table.name}]"]
        lines += _settings(section, values.get(table.name, {}), f"[{table.name}]")
        lines.append("")
    return "\n".join(lines)


def _settings(section: type, values: Mapping[str, Any], name: str) -> list[str]:
    """Return a line for every key, each under its meaning; one that is unset is a comment."""
    given, lines = dict(values), []
    notes, examples = field_notes(section), _EXAMPLES.get(section, {})
    for key, default in _defaults(section).items():
        value = given.pop(key, default)
        lines += textwrap.wrap(notes.get(key, ""), 96, initial_indent="# ", subsequent_indent="# ")
        unset = value is None
        shown = examples[key] if unset and key in examples else _toml(value)
        lines.append(f"{'# ' if unset else ''}{key} = {shown}")
    if given:
        raise KeyError(f"{name} has no {sorted(given)}")
    return lines


def _first_line(section: type) -> str:
    return (inspect.getdoc(section) or "").splitlines()[0]


def _defaults(section: type) -> dict[str, Any]:
    if issubclass(section, Settings):
        return {
            field.name: (
                field.default
                if field.default is not msgspec.NODEFAULT
                else field.default_factory()
                if field.default_factory is not msgspec.NODEFAULT
                else None
            )
            for field in msgspec.structs.fields(section)
        }
    plain: Any = section  # mypy cannot see that it is a dataclass
    return {
        field.name: None if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(plain)
    }


def _toml(value: object) -> str:
    match value:
        case None:
            return '""  # needed'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'"{text}"'
