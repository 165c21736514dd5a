"""Reading and writing of specs/vectors/*.json; the format is in specs/vectors/README.md."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = [
    "FOLDER",
    "REFERENCE",
    "Operation",
    "Scenario",
    "dumps",
    "read",
    "scenario",
    "scenario_names",
]

FOLDER: Final = Path(__file__).parents[2] / "specs" / "vectors"
KINDS_OF_TEXT: Final = ("capsules", "pieces", "messages")
REFERENCE: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Operation:
    """One thing that happens to one party, and what comes of it."""

    at: str
    do: str
    sender: str = ""
    data: bytes = field(default=b"", repr=False)
    sends: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    events: tuple[tuple[Any, ...], ...] = ()
    refused: tuple[str, str] | None = None


@dataclass(frozen=True)
class Scenario:
    """A file of kind `round`, with all that it takes from its base."""

    name: str
    rules: tuple[str, ...]
    setup: Mapping[str, Any]
    nodes: Mapping[str, Mapping[str, Any]]
    capsules: Mapping[tuple[str, str], tuple[bytes, bytes]]
    operations: tuple[Operation, ...]
    expect: Mapping[str, Any]
    total: list[int] | None


@functools.cache
def read(name: str) -> dict[str, Any]:
    """Return the content of `<name>.json`."""
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def scenario_names() -> list[str]:
    """Return the names of all files that hold a round or a part of one."""
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    return [name for name in names if read(name)["kind"] == "round"]


def scenario(name: str) -> Scenario:
    """Return a round, each reference replaced by what it stands for."""
    own = read(name)
    base = read(own["base"]) if "base" in own else {}
    merged = {key: {**base.get(key, {}), **own.get(key, {})} for key in KINDS_OF_TEXT}
    texts = {pair: item["capsule"] for pair, item in merged["capsules"].items()}
    texts |= merged["pieces"] | merged["messages"]
    operations: list[Operation] = []
    for entry in own["operations"]:
        if "base" in entry:
            first, end = entry["base"]
            operations += [_operation(item, texts) for item in base["operations"][first:end]]
        else:
            operations.append(_operation(entry, texts))
    capsules = {}
    for pair, item in merged["capsules"].items():
        initiator, _, responder = pair.partition(">")
        both = bytes.fromhex(item["secret"]), bytes.fromhex(item["capsule"])
        capsules[initiator, responder] = both
    return Scenario(
        name,
        tuple(own["rules"]),
        own.get("setup") or base["setup"],
        own.get("nodes") or base["nodes"],
        capsules,
        tuple(operations),
        own["expect"],
        own.get("total"),
    )


def expand(text: str, texts: Mapping[str, str]) -> bytes:
    """Return the bytes of hexadecimal `text` with references such as `{node-a/KeyAdvert}`."""
    while found := REFERENCE.search(text):
        text = text[: found.start()] + texts[found[1]] + text[found.end() :]
    return bytes.fromhex(text)


def _operation(entry: Mapping[str, Any], texts: Mapping[str, str]) -> Operation:
    return Operation(
        entry["at"],
        entry["do"],
        entry.get("from", ""),
        expand(entry.get("message", ""), texts),
        tuple((to, expand(texts[name], texts)) for to, name in entry.get("sends", ())),
        tuple(tuple(event) for event in entry.get("events", ())),
        tuple(entry["refused"]) if "refused" in entry else None,
    )


def dumps(content: Mapping[str, Any]) -> str:
    """Return JSON with one line for each entry of a top-level list or object."""
    lines = []
    for key, value in content.items():
        head = f" {json.dumps(key)}: "
        if isinstance(value, Mapping) and value and not _is_short(value):
            inner = [f"  {json.dumps(name)}: {_line(item)}" for name, item in value.items()]
            lines.append(head + "{\n" + ",\n".join(inner) + "\n }")
        elif isinstance(value, Sequence) and not isinstance(value, str) and not _is_short(value):
            lines.append(head + "[\n" + ",\n".join(f"  {_line(item)}" for item in value) + "\n ]")
        else:
            lines.append(head + _line(value))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_short(value: object) -> bool:
    return len(_line(value)) < 80
