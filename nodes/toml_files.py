"""TOML to checked settings, and the line each key stands in.

`tomllib` tells no lines. They are found without a second reading of the syntax: lines are put
together until `tomllib` takes them, which is where a statement ends.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from secagg.errors import ConfigError

__all__ = ["Settings", "key_lines", "parse_settings", "read_text"]

T = TypeVar("T", bound="Settings")
KeyPath = tuple[str, ...]

MAX_CHARACTERS: Final = 1 << 18
"""Longest file: a policy that lists a thousand models is a quarter of it."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Common options of every table."""


def read_text(path: Path) -> str:
    """Return what a configuration file says.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is too long.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", hint="write one with `secagg config init`"
        ) from error
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(
            f"{path} has {len(text)} characters", hint=f"use at most {MAX_CHARACTERS}"
        )
    return text


def parse_settings(path: Path, text: str, kind: type[T]) -> T:
    """Return the settings in `text`, which was read from `path`.

    Raises:
        ConfigError: with the file, the key and the reason.
    """
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", hint="see the TOML syntax at toml.io") from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {_place(error, text)}{_readable(error, kind)}",
            hint="`secagg config init` writes a file with every key explained",
        ) from error


def _place(error: msgspec.ValidationError, text: str) -> str:
    """Return "line 7: " for an error that names a key, by its text or by its path."""
    field = re.match(r"Object contains unknown field `([^`]*)`", str(error))
    table = re.search(r" - at `\$\.([\w.-]*)", str(error))
    path = (*(table[1].split(".") if table else ()), *([field[1]] if field else ()))
    line = key_lines(text).get(path)
    return f"line {line}: " if line else ""


def _readable(error: msgspec.ValidationError, kind: type[Settings]) -> str:
    """Turn "Object contains unknown field `x` - at `$.run`" into "run.x is not a setting"."""
    found = re.fullmatch(
        r"Object contains unknown field `([^`]*)`(?: - at `\$\.([^`]*)`)?", str(error)
    )
    if found is None:
        return str(error)
    key, table = found[1], found[2]
    tables = {
        field.name: getattr(field.type, "__struct_fields__", ())
        for field in msgspec.structs.fields(kind)
    }
    near = difflib.get_close_matches(key, tables if table is None else tables.get(table, ()), n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    whole = f"{table}.{key}" if table else f"[{key}]" if any(tables.values()) else key
    return f"{whole} is not a setting{meant}"


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, counted from 1, in which each key of a valid document first stands.

    Args:
        text: TOML that `tomllib` takes. Dotted keys, inline tables, strings and arrays of several
            lines, comments and either line end are all right.

    Returns:
        Path of each key and table, such as ("policy", "schemes"), to the line its statement begins
        in. Entries of an array of tables share the path of the array.

    Raises:
        tomllib.TOMLDecodeError: the text is not TOML.
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement in _statements(text):
        values = tomllib.loads(statement)
        header = statement.lstrip(" \t").startswith("[")
        if header:
            table = _innermost(values)
        for path in [table] if header else [table + inner for inner in _paths(values)]:
            for depth in range(1, len(path) + 1):
                lines.setdefault(path[:depth], number)
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each key with its value, each header and each blank line, with its first line's number.

    A statement that is cut within a string or bracket is not TOML, and a whole one is, so the
    shortest run of lines that `tomllib` takes is one statement.
    """
    first, pending = 1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        pending += line + "\n"
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        yield first, pending
        first, pending = number + 1, ""
    if pending:
        tomllib.loads(text)  # names the place
        raise tomllib.TOMLDecodeError(f"the statement in line {first} does not end")


def _innermost(values: dict[str, Any]) -> KeyPath:
    """Return the path of the one table that a header opens."""
    path: KeyPath = ()
    while values:
        ((key, inner),) = values.items()
        path += (key,)
        values = inner[0] if isinstance(inner, list) else inner
    return path


def _paths(values: dict[str, Any]) -> Iterator[KeyPath]:
    """Yield the path of every value, tables within arrays left out."""
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *inner) for inner in _paths(value))
