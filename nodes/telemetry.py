"""Session events as flat records: one JSON object a line, no secrets and no vectors.

Only fields that a dataclass shows in its repr are written, so whatever is kept out of the repr
(vectors, documents) is kept out of logs and event streams by the same mark.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from typing import Any, TextIO, TypeAlias

from nodes.session.events import Checkpoint, OfferSeen, ReceiptKept, Remember, SessionEvent

__all__ = ["Emit", "Record", "event_name", "json_lines", "record_of", "to_log"]

Record: TypeAlias = dict[str, Any]
Emit: TypeAlias = Callable[[Record], None]
_log = logging.getLogger("secagg")


def event_name(event: object) -> str:
    """Return `RoundDone` as ``round.done``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", ".", type(event).__name__).lower()


def record_of(event: SessionEvent) -> Record | None:
    """Return the record of an event; None for those that only concern the disk."""
    if isinstance(event, Checkpoint | OfferSeen | ReceiptKept | Remember):
        return None
    shown = {
        field.name: _harmless(getattr(event, field.name))
        for field in dataclasses.fields(event)
        if field.repr
    }
    return {"event": event_name(event), **shown}


def _harmless(value: Any) -> Any:
    """Replace what a peer's text could do to a terminal or a log: control characters."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value)
    if isinstance(value, tuple | list):
        return type(value)(_harmless(item) for item in value)
    return value


def json_lines(stream: TextIO) -> Emit:
    """Return an emitter that writes JSON lines to `stream` and flushes each."""

    def emit(record: Record) -> None:
        stream.write(json.dumps(record) + "\n")
        stream.flush()

    return emit


def to_log(record: Record) -> None:
    """Log a record as ``event key=value ...``."""
    rest = " ".join(
        f"{key}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in record.items()
        if key != "event"
    )
    _log.info("%s %s", record["event"], rest)
