"""What `secagg keys show` tells: who is in the roster, until when, and whose folder this is.

Nothing is unlocked and no floor is moved: looking changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from keys.authority import read_history
from keys.certificates import RootCard
from keys.identity import (
    CERTIFICATE,
    IDENTITY_FILE,
    NEXT_IDENTITY_FILE,
    ROOT_CARD,
    ROSTER_FILE,
    load_root_card,
    read_about,
)
from keys.names import Role, member_fingerprint
from keys.roster import MAX_ROSTER_BYTES, Member, Roster, verify_roster
from keys.sealing import MAX_SECRET_FILE_BYTES, is_sealed
from keys.store import read_public, read_secret
from keys.watch import read_floor
from secagg.errors import KeyMaterialError

__all__ = ["Line", "Owner", "State", "Summary", "summarise"]

_HISTORY: Final = "history"


class State(StrEnum):
    """What a certificate is worth now."""

    VALID = "valid"
    EARLY = "not yet valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Line:
    """One certificate.

    Attributes:
        node_id: Its holder.
        role: The holder's role; None for revoked ones, whose role no longer matters.
        serial: Its number.
        state: Its worth at the time of asking.
        until: Unix seconds: when it ends, or when it was revoked.
        fingerprint: Of its keys; "" for revoked ones.
        note: Why it was revoked, or "".
    """

    node_id: str
    role: Role | None
    serial: int
    state: State
    until: int
    fingerprint: str
    note: str = ""


@dataclass(frozen=True)
class Owner:
    """Whose folder this is.

    Attributes:
        node_id: Its name.
        role: Its role.
        fingerprint: Of the keys in `identity.secret`.
        certified: A certificate is installed.
        encrypted: The secret is encrypted at rest.
        rotating: The next keys wait for their bundle.
    """

    node_id: str
    role: Role
    fingerprint: str
    certified: bool
    encrypted: bool
    rotating: bool


@dataclass(frozen=True)
class Summary:
    """All that a folder tells without being unlocked.

    Attributes:
        federation: Id; None in a party's folder before `install`, as the next three.
        root_fingerprint: Of the root key.
        version: Of the newest roster here.
        issued: Unix seconds.
        members: Sorted by node id.
        revoked: In the order of serials.
        owner: Of a party's folder; None in the root's.
    """

    federation: str | None
    root_fingerprint: str | None
    version: int | None
    issued: int | None
    members: tuple[Line, ...]
    revoked: tuple[Line, ...]
    owner: Owner | None


def summarise(folder: Path, *, now: int, expiring_s: int | None = None) -> Summary:
    """Read a root's or a party's folder.

    Args:
        folder: The folder.
        now: Unix seconds.
        expiring_s: List only the members whose certificates end within so many seconds.

    Raises:
        KeyMaterialError: It is neither, or something in it does not hold.
    """
    owner = _owner(folder) if (folder / IDENTITY_FILE).exists() else None
    if not (folder / ROOT_CARD).exists():
        if owner is None:
            raise KeyMaterialError(
                f"{folder}: neither a root nor a party's folder",
                hint="make one with `secagg keys init` or `secagg keys request`",
            )
        return Summary(None, None, None, None, (), (), owner)
    card = load_root_card(folder)
    roster = _roster(folder, card)
    members = [_line(member, now) for member in roster.members]
    return Summary(
        federation=roster.federation,
        root_fingerprint=card.fingerprint,
        version=roster.version,
        issued=roster.issued,
        members=tuple(
            line for line in members if expiring_s is None or line.until < now + expiring_s
        ),
        revoked=tuple(
            Line(each.node_id, None, each.serial, State.REVOKED, each.revoked, "", each.reason)
            for each in roster.revoked
            if expiring_s is None
        ),
        owner=owner,
    )


def _roster(folder: Path, card: RootCard) -> Roster:
    if (folder / _HISTORY).exists():
        return read_history(folder, card)[-1][0]
    path = folder / ROSTER_FILE
    data = read_public(path, MAX_ROSTER_BYTES)
    return verify_roster(data, card.root_key, known=read_floor(path), source=str(path))


def _line(member: Member, now: int) -> Line:
    if member.valid_at(now):
        state = State.VALID
    else:
        state = State.EXPIRED if now >= member.not_after else State.EARLY
    return Line(
        node_id=member.node_id,
        role=member.role,
        serial=member.serial,
        state=state,
        until=member.not_after,
        fingerprint=member.fingerprint,
    )


def _owner(folder: Path) -> Owner:
    path = folder / IDENTITY_FILE
    about = read_about(path)
    data = read_secret(path, MAX_SECRET_FILE_BYTES)
    return Owner(
        node_id=about.node_id,
        role=about.role,
        fingerprint=member_fingerprint(
            about.node_id, about.role, about.signing_key, about.transport_key
        ),
        certified=(folder / CERTIFICATE).exists(),
        encrypted=is_sealed("identity", data, source=str(path)),
        rotating=(folder / NEXT_IDENTITY_FILE).exists(),
    )
