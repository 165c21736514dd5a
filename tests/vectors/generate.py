"""Write specs/vectors/*.json again: `python -m tests.vectors.generate`.

Everything follows from labels, so the files change only if the protocol or the catalogue does.
"""

from __future__ import annotations

from typing import Any

from tests.vectors.blocks import blocks
from tests.vectors.ckks_cast import ckks_casts
from tests.vectors.ckks_rounds import ckks_rounds
from tests.vectors.failures import failures
from tests.vectors.files import FOLDER, dumps
from tests.vectors.rounds import Case, bases, rounds
from tests.vectors.stage import Cast, compact, pieces_of, play, write

__all__ = ["documents"]


def documents() -> dict[str, str]:
    """Return file name to content, of every file."""
    cases = [*rounds(), *ckks_rounds(), *failures()]
    found: dict[str, dict[str, Any]] = {f"{name}.json": block for name, block in blocks().items()}
    for case in sorted(cases, key=lambda case: case.name != case.base):  # bases first
        name = f"{case.name}.json"
        if name in found:
            raise ValueError(f"{name} twice")
        found[name] = _document(case, found)
    return {name: dumps(document) for name, document in found.items()}


def _document(case: Case, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    cast = _cast(case)
    recording = play(cast, case.changes, silent=case.silent, to_the_end=case.to_the_end)
    if recording.outcome() != dict(case.expect):
        raise ValueError(f"{case.name}: {recording.outcome()} where {case.expect} was expected")
    head = {"kind": "round", "about": case.about, "rules": list(case.rules)}
    base = known.get(f"{case.base}.json", {})
    texts = dict(base.get("messages", {}))
    entries = write(cast, recording, texts)
    own = {name: text for name, text in texts.items() if name not in base.get("messages", {})}
    capsules = {
        key: {"secret": secret.hex(), "capsule": capsule.hex()}
        for (initiator, responder), (secret, capsule) in sorted(cast.capsules.items())
        for key in (f"{initiator}>{responder}",)
        if (initiator, responder) in recording.used and key not in base.get("capsules", {})
    }
    parts: dict[str, Any] = {"base": case.base} if base else _setting(cast)
    pieces = pieces_of(cast, base.get("pieces", {}), entries, own)
    parts |= {"expect": case.expect, "capsules": capsules, "pieces": pieces, "messages": own}
    parts["operations"] = compact(entries, base["operations"]) if base else entries
    if case.weights:
        parts["setup"] = cast.setup
    if recording.total is not None:
        parts["total"] = recording.total
    return {**head, **{key: value for key, value in parts.items() if value}}


def _cast(case: Case) -> Cast:
    if case.weights:
        return ckks_casts()[case.base].weighing(case.weights)
    return {**bases(), **ckks_casts()}[case.base]


def _setting(cast: Cast) -> dict[str, Any]:
    return {"setup": cast.setup, "nodes": cast.nodes}


def main() -> None:
    """Write the files, and remove those that are no longer in the catalogue."""
    written = documents()
    for path in FOLDER.glob("*.json"):
        if path.name not in written:
            path.unlink()
    for name, content in written.items():
        (FOLDER / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
