"""What was spent, round by round: a chain of entries that only grows.

::

    line  = [fragment CANCEL] entry
    hash  = SHA-256(`ledger-entry` ‖ frame(previous, entry without its hash))

An entry is canonical JSON: keys sorted, no blanks, ASCII, numbers in their shortest form. A line
ends with a newline, which is written last: what has none was never committed, and the next entry
names it by its hash. Nothing is ever removed, and nothing is refunded. Source: specs/52-ledger.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from secagg import tags
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import UNITS, PrivacyEvent, Unprotected, event_from_dict
from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives.kdf import digest

__all__ = [
    "CANCEL",
    "GENESIS",
    "Entry",
    "History",
    "LedgerDamagedError",
    "LedgerSetBackError",
    "RoundSpentError",
    "fragment_digest",
]

CANCEL: Final = b"\x18"
"""Stands between the bytes of a write that was cut off and the entry that names them."""
GENESIS: Final = bytes(32)
"""What the first entry has for a previous hash."""

_RUN_SIZE: Final = 16
_MOST: Final = 1 << 53  # what every reader of JSON holds exactly, and the greatest round id
_RESTORE: Final = (
    "put the newest whole copy back; if there is none, count the budget as spent: nobody can tell "
    "what is missing"
)

_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Run = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_Number = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]


class LedgerDamagedError(ConfigError):
    """A line is not an entry, or does not follow from the line before.

    Attributes:
        line: Its number, counted from 1.
    """

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message, hint=_RESTORE)
        self.line = line


class LedgerSetBackError(ConfigError):
    """A witness saw a longer ledger, or another one: this is an older copy, or a forged one."""


class RoundSpentError(ConfigError):
    """The round was charged before; whoever offers it again gets nothing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One round's charge."""

    index: int
    """Place in the ledger, from 0."""
    previous: bytes
    """Hash of the entry before, or `GENESIS`."""
    run_id: bytes
    """16 bytes."""
    round_id: int
    """The round within the run."""
    unit: str
    """Whom the noise protects: one of `UNITS`."""
    event: PrivacyEvent
    """What was done, to be composed by the accountant."""
    wall_time: int
    """Whole seconds since 1970, of this machine's clock; for people, no rule looks at it."""
    torn: bytes | None
    """`fragment_digest` of what a write that was cut off had left before this entry, if any."""
    hash: bytes
    """32 bytes, over all of the above."""


class _Fields(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    event: dict[str, Any]
    hash: _Digest
    index: _Number
    previous: _Digest
    round: _Number
    run: _Run
    torn: _Digest | None
    unit: str
    wall_time: _Number


def fragment_digest(fragment: bytes) -> bytes:
    """Return what the next entry calls the bytes of a write that was cut off."""
    return digest(tags.LEDGER_FRAGMENT, fragment)


def _canonical(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _hash(previous: bytes, fields: dict[str, Any]) -> bytes:
    return digest(tags.LEDGER_ENTRY, previous, _canonical(fields))  # B-02


def _parse(text: bytes) -> Entry:
    """Read one entry strictly.

    Raises:
        ValueError: it is not one, or not in canonical form, or its hash is another.
    """
    try:
        read = msgspec.json.decode(text, type=_Fields)
        event = event_from_dict(read.event)
        fields = msgspec.structs.asdict(read)  # the event as written: newer fields may be missing
        if _canonical(fields) != text:
            raise ValueError("not in canonical form")
    except (msgspec.MsgspecError, ConfigError, RecursionError, UnicodeError) as error:
        raise ValueError(str(error)) from None
    _check_unit(read.unit, event)
    stored, previous = bytes.fromhex(fields.pop("hash")), bytes.fromhex(read.previous)
    if _hash(previous, fields) != stored:
        raise ValueError("it was edited, its hash is another")
    return Entry(
        index=read.index,
        previous=previous,
        run_id=bytes.fromhex(read.run),
        round_id=read.round,
        unit=read.unit,
        event=event,
        wall_time=read.wall_time,
        torn=None if read.torn is None else bytes.fromhex(read.torn),
        hash=stored,
    )


def _check_unit(unit: str, event: PrivacyEvent) -> None:
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r}, not one of {', '.join(UNITS)}")
    if (unit == "none") != isinstance(event, Unprotected):
        raise ValueError(f"unit {unit!r} of the event {type(event).__name__}")


class History:
    """The entries of one ledger: checks what is appended, and sums up what was spent.

    Args:
        source: What errors call the ledger, such as its path.
    """

    def __init__(self, source: str = "the ledger") -> None:
        self._source = source
        self._entries: list[Entry] = []
        self._charged: set[tuple[bytes, int]] = set()
        self._events: dict[str, Counter[PrivacyEvent]] = {unit: Counter() for unit in UNITS}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries in order; not to be changed."""
        return self._entries

    @property
    def head(self) -> bytes:
        """Hash of the last entry, which stands for all of them."""
        return self.hash_at(len(self._entries))

    def hash_at(self, count: int) -> bytes:
        """Return the hash of the last of the first `count` entries, at most `len(self)`."""
        return self._entries[count - 1].hash if count else GENESIS

    def has(self, run_id: bytes, round_id: int) -> bool:
        """Tell whether the round was charged."""
        return (run_id, round_id) in self._charged

    def draft(
        self,
        run_id: bytes,
        round_id: int,
        unit: str,
        event: PrivacyEvent,
        *,
        now: float,
        fragment: bytes = b"",
    ) -> bytes:
        """Return the line, without newline, that charges a round; nothing is charged yet.

        Args:
            run_id: 16 bytes.
            round_id: The round within the run, below 2^53.
            unit: One of `UNITS`; "none" goes with `Unprotected` and with nothing else.
            event: What the round does.
            now: Seconds since 1970.
            fragment: Bytes behind the last newline of the file, which end nowhere.

        Raises:
            RoundSpentError: the round was charged before (B-03).
            LocalProtocolError: an argument is out of range.
        """
        if len(run_id) != _RUN_SIZE or not 0 <= round_id <= _MOST or not 0 <= now <= _MOST:
            raise LocalProtocolError("a charge takes a run id of 16 bytes, a round id and a time")
        try:
            _check_unit(unit, event)
            event = event_from_dict(event.to_dict())
        except (ValueError, ConfigError) as error:
            raise LocalProtocolError(f"a charge of {error}") from None
        if self.has(run_id, round_id):
            raise RoundSpentError(
                f"round {round_id} of run {run_id.hex()} is in {self._source} already",
                hint="a round is charged and joined once: whoever leads the run offers a new round",
            )
        fields = {
            "event": event.to_dict(),
            "index": len(self),
            "previous": self.head.hex(),
            "round": round_id,
            "run": run_id.hex(),
            "torn": fragment_digest(fragment).hex() if fragment else None,  # B-05
            "unit": unit,
            "wall_time": int(now),
        }
        line = _canonical({**fields, "hash": _hash(self.head, fields).hex()})
        _parse(line)  # what we could not read again must not be written
        return fragment + CANCEL + line if fragment else line

    def take(self, line: bytes) -> Entry:
        """Append one committed line.

        Args:
            line: As it is in the file, without its newline.

        Raises:
            LedgerDamagedError: it is not an entry, or does not follow (B-02, B-10).
        """
        number = len(self) + 1
        fragment, mark, text = line.rpartition(CANCEL)
        try:
            entry = _parse(text)
        except ValueError as error:
            raise self._damaged(number, f"is not an entry: {error}") from None
        torn = fragment_digest(fragment) if fragment else None
        if bool(mark) != bool(fragment) or entry.torn != torn:  # B-05
            raise self._damaged(number, "does not name what a cut-off write left before it")
        if (entry.index, entry.previous) != (len(self), self.head):
            raise self._damaged(
                number, "does not follow from the line before: a line is missing or moved"
            )
        if self.has(entry.run_id, entry.round_id):
            raise self._damaged(number, f"charges round {entry.round_id} a second time")
        self._entries.append(entry)
        self._charged.add((entry.run_id, entry.round_id))
        self._events[entry.unit][entry.event] += 1
        return entry

    def check_witness(self, count: int, head: bytes, witness: str) -> None:
        """Hold the ledger against what was seen of it before.

        Args:
            count: How many entries there were.
            head: The hash of the last of them.
            witness: Who saw that, as the subject of a sentence.

        Raises:
            LedgerSetBackError: there are fewer entries now, or others (B-06).
        """
        if count <= len(self) and self.hash_at(count) == head:
            return
        how = f"has {len(self)} entries" if count > len(self) else "has another history"
        raise LedgerSetBackError(
            f"{self._source} {how}, but {witness} saw {count} entries up to {head.hex()[:16]}: "
            "it was set back to an older copy or replaced",
            hint=_RESTORE,
        )

    def rounds(self, unit: str) -> int:
        """Return how many entries of `unit` there are."""
        return self._events[unit].total()

    def spent(self, unit: str, delta: float) -> float:
        """Return ε of all entries of `unit` together at `delta` (B-08); inf for unit "none".

        Raises:
            ConfigError: δ is out of range, or less than the events leave to chance.
        """
        return epsilon_of(self._events[unit], delta)

    def remaining(self, unit: str, delta: float, budget: float) -> float:
        """Return what `spent` leaves of the budget ε, at least 0.

        A further round costs less than its own ε of it: composition is below the sum.
        """
        return max(0.0, budget - self.spent(unit, delta))

    def spent_with(self, unit: str, event: PrivacyEvent, delta: float) -> float:
        """Return what `spent` would be after one more round; charges nothing."""
        return epsilon_of(self._events[unit] + Counter([event]), delta)

    def would_overspend(
        self, unit: str, event: PrivacyEvent, *, delta: float, budget: float
    ) -> bool:
        """Tell whether one more round would take `unit` beyond the budget ε; charges nothing."""
        return not self.spent_with(unit, event, delta) <= budget  # NaN overspends

    def outside(self, unit: str) -> dict[str, int]:
        """Return how many entries of other units `spent` of this unit does not count (B-09).

        Those of "none" void the statement for the data they used; those of "record" void the one
        about clients; those of "client" protect each record too, but are not added up with it.
        """
        return {name: self.rounds(name) for name in UNITS if name != unit and self._events[name]}

    def _damaged(self, number: int, how: str) -> LedgerDamagedError:
        return LedgerDamagedError(f"{self._source}: line {number} {how}", line=number)
