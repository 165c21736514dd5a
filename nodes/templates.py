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
from nodes.config import CoordinatorConfig, NodeConfig, Settings

__all__ = ["coordinator_toml", "field_notes", "node_toml"]

_PLAIN: dict[str, type] = {"model": ModelConfig, "train": TrainConfig, "server": ServerOptConfig}


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
    """Return a node.toml; `values` gives what differs from the defaults, by table."""
    return _document(NodeConfig, values, "A node of a secagg federation: secagg node --config ...")


def _document(kind: type, values: Mapping[str, Mapping[str, Any]], head: str) -> str:
    lines = [f"# {head}", "# Paths are relative to this file.", ""]
    for table in msgspec.structs.fields(kind):
        if table.name == "folder":
            continue
        section = _PLAIN.get(table.name) or table.type
        lines += [f"# {_first_line(section)}", f"[{table.name}]"]
        given = dict(values.get(table.name, {}))
        notes = field_notes(section)
        for name, default in _defaults(section).items():
            value = given.pop(name, default)
            lines += textwrap.wrap(
                notes.get(name, ""), 96, initial_indent="# ", subsequent_indent="# "
            )
            lines.append(f"{'# ' if value is None else ''}{name} = {_toml(value)}")
        if given:
            raise KeyError(f"[{table.name}] has no {sorted(given)}")
        lines.append("")
    return "\n".join(lines)


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
