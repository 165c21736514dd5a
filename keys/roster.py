"""The signed roster: who is in the federation, under which keys, and whose keys are dead.

Its version only grows, each version names the hash of the one before, and what one version revoked
stays revoked in all later ones (specs/70-keys.md section 6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from keys.documents import Form, Sign, open_document, write_document
from keys.names import CLOCK_SKEW_S, KEY_BYTES, NODE_ID, Role, federation_id, member_fingerprint
from secagg.errors import KeyMaterialError

__all__ = [
    "MAX_ROSTER_BYTES",
    "Member",
    "MemberBody",
    "Revocation",
    "Role",
    "Roster",
    "check_transport_key",
    "is_roster",
    "member_body",
    "verify_roster",
    "write_roster",
]

MAX_ROSTER_BYTES: Final = 4 << 20
"""Some ten thousand entries; a daemon reads this much at every poll at worst."""

NodeIdText = Annotated[str, msgspec.Meta(pattern=NODE_ID)]
FederationText = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}\.[0-9a-f]{8}\Z")]
PublicKey = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Serial = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Time = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
ReasonText = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]


@dataclass(frozen=True)
class Member:
    """One party of the federation, as its certificate and the roster say.

    Attributes:
        node_id: Its name, unique in the roster.
        role: What it may be.
        signing_key: Ed25519 public key, 32 bytes.
        transport_key: CURVE25519 public key, 32 bytes.
        not_before: First second of validity, Unix time.
        not_after: First second after validity, Unix time.
        serial: Number of its certificate, never used twice.
    """

    node_id: str
    role: Role
    signing_key: bytes = field(repr=False)
    transport_key: bytes = field(repr=False)
    not_before: int
    not_after: int
    serial: int

    @cached_property
    def fingerprint(self) -> str:
        """The same text as at `request`, for a person to compare."""
        return member_fingerprint(self.node_id, self.role, self.signing_key, self.transport_key)

    def valid_at(self, now: float) -> bool:
        """Tell whether the certificate holds at `now` (Unix seconds), 300 s of skew before."""
        return self.not_before - CLOCK_SKEW_S <= now < self.not_after  # K-13


@dataclass(frozen=True)
class Revocation:
    """Keys that must never be trusted again.

    Attributes:
        node_id: Whose they were.
        serial: Their certificate.
        signing_key: Ed25519 public key, 32 bytes.
        transport_key: CURVE25519 public key, 32 bytes.
        revoked: When, Unix seconds by the root's clock.
        reason: The operator's words, or "rotated".
    """

    node_id: str
    serial: int
    signing_key: bytes = field(repr=False)
    transport_key: bytes = field(repr=False)
    revoked: int
    reason: str


@dataclass(frozen=True)
class Roster:
    """One version of the roster, verified.

    Attributes:
        federation: Id, `<name>.<8 hex of the root key>`.
        version: 1 for the empty roster of `init`; grows by one with each change.
        issued: Unix seconds by the root's clock.
        members: Sorted by node id; valid and expired ones.
        revoked: In the order of their serials.
        previous: SHA-256 of the body of the version before; 32 zero bytes at version 1.
        digest: SHA-256 of this version's body, 32 bytes.
    """

    federation: str
    version: int
    issued: int
    members: tuple[Member, ...]
    revoked: tuple[Revocation, ...]
    previous: bytes = field(default=bytes(32), repr=False)
    digest: bytes = field(default=b"", repr=False)

    @cached_property
    def _by_id(self) -> dict[str, Member]:
        return {member.node_id: member for member in self.members}

    @cached_property
    def _by_transport_key(self) -> dict[bytes, Member]:
        return {member.transport_key: member for member in self.members}

    def member(self, node_id: str) -> Member:
        """Return the member of that name, expired or not.

        Raises:
            KeyMaterialError: There is none.
        """
        found = self._by_id.get(node_id)
        if found is None:
            for revocation in self.revoked:
                if revocation.node_id == node_id:
                    why = f": {revocation.reason}" if revocation.reason else ""
                    raise KeyMaterialError(
                        f"{node_id} was revoked{why}",
                        hint="to let it back in: new keys, then `secagg keys approve --readmit`",
                    )
            raise KeyMaterialError(
                f"{node_id[:80]!r} is not in version {self.version} of the roster",
                hint="approve its request at the root, then install the new roster everywhere",
            )
        return found

    @property
    def entries(self) -> tuple[Member | Revocation, ...]:
        """Every certificate ever issued: the members', then the revoked ones."""
        return (*self.members, *self.revoked)

    @property
    def coordinator(self) -> Member:
        """The one coordinator, expired or not.

        Raises:
            KeyMaterialError: None has been approved yet.
        """
        for member in self.members:
            if member.role is Role.COORDINATOR:
                return member
        raise KeyMaterialError(
            f"version {self.version} of the roster has no coordinator",
            hint="run `secagg keys request --role coordinator` there, and approve it at the root",
        )

    @property
    def nodes(self) -> tuple[Member, ...]:
        """Members of role node, expired or not, sorted by id."""
        return tuple(member for member in self.members if member.role is Role.NODE)

    def by_transport_key(self, key: bytes) -> Member | None:
        """Return who connects under this CURVE key (raw, 32 bytes), expired or not."""
        return self._by_transport_key.get(key)

    def active(self, now: float) -> tuple[Member, ...]:
        """Members of either role whose certificates hold at `now` (Unix seconds)."""
        return tuple(member for member in self.members if member.valid_at(now))


class MemberBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`Member` as it is written in a certificate and in the roster."""

    serial: Serial
    node_id: NodeIdText
    role: Role
    signing_key: PublicKey
    transport_key: PublicKey
    not_before: Time
    not_after: Time

    def to_member(self) -> Member:
        """Return the public type."""
        return Member(**msgspec.structs.asdict(self))


class _RevocationBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    serial: Serial
    node_id: NodeIdText
    signing_key: PublicKey
    transport_key: PublicKey
    revoked: Time
    reason: ReasonText


class _RosterBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    federation: FederationText
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    issued: Time
    previous: Digest
    members: tuple[MemberBody, ...]
    revoked: tuple[_RevocationBody, ...]


ROSTER: Final = Form("roster", _RosterBody, ("root",), MAX_ROSTER_BYTES)


def member_body(member: Member) -> MemberBody:
    """Return `member` as it is written."""
    return MemberBody(
        serial=member.serial,
        node_id=member.node_id,
        role=member.role,
        signing_key=member.signing_key,
        transport_key=member.transport_key,
        not_before=member.not_before,
        not_after=member.not_after,
    )


def verify_roster(
    data: bytes,
    root_key: bytes,
    *,
    minimum_version: int = 0,
    known: tuple[int, bytes] | None = None,
    source: str = "roster.json",
) -> Roster:
    """Read a roster that `root_key` signed.

    Args:
        data: The file's bytes.
        root_key: The pinned Ed25519 root key, 32 bytes.
        minimum_version: Older versions are refused.
        known: Version and digest of the newest roster seen so far, or None: an older version is
            refused, as is another text of that version, and a successor of another text.
        source: File name for error messages.

    Raises:
        KeyMaterialError: Damaged, not signed by this root, older than what is known, or at odds
            with itself.
    """
    opened = open_document(ROSTER, data, source=source)
    body = opened.verify("root", root_key)
    digest = hashlib.sha256(opened.body_bytes).digest()
    roster = Roster(
        federation=body.federation,
        version=body.version,
        issued=body.issued,
        members=tuple(each.to_member() for each in body.members),
        revoked=tuple(Revocation(**msgspec.structs.asdict(each)) for each in body.revoked),
        previous=body.previous,
        digest=digest,
    )
    _check_history(roster, minimum_version, known, source)
    _check_members(roster, root_key, source)
    return roster


def write_roster(roster: Roster, sign: Sign) -> bytes:
    """Write and sign a roster; its `digest` is not read.

    Args:
        roster: What it shall say.
        sign: The root's signing function.
    """
    body = _RosterBody(
        federation=roster.federation,
        version=roster.version,
        issued=roster.issued,
        previous=roster.previous,
        members=tuple(member_body(member) for member in roster.members),
        revoked=tuple(
            _RevocationBody(
                each.serial,
                each.node_id,
                each.signing_key,
                each.transport_key,
                each.revoked,
                each.reason,
            )
            for each in roster.revoked
        ),
    )
    return write_document(ROSTER, body, {"root": sign})


def is_roster(data: bytes) -> bool:
    """Tell whether a file calls itself a roster; `verify_roster` tells whether it is one."""
    return f'"{ROSTER.format}"'.encode() in data[:64]


def check_transport_key(key: bytes) -> None:
    """Refuse a key of small order, under which any secret would do.

    Raises:
        KeyMaterialError: The key is one of the few bad ones (K-09).
    """
    try:  # the scalar is arbitrary and public: clamped scalars send small-order points to zero
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(
            X25519PublicKey.from_public_bytes(key)
        )
    except ValueError:
        raise KeyMaterialError(
            "the transport key is not usable: it is of small order",
            hint="make a new request with `secagg keys request`",
        ) from None


def _check_history(
    roster: Roster, minimum: int, known: tuple[int, bytes] | None, source: str
) -> None:
    """Refuse a rollback and a fork (K-17, K-18)."""
    floor = max(minimum, known[0] if known else 0)
    if roster.version < floor:
        raise KeyMaterialError(
            f"{source}: version {roster.version} of the roster, version {floor} was seen before",
            hint="an old copy was put back: install the newest roster from the root",
        )
    if known is None:
        return
    version, digest = known
    same_but_different = roster.version == version and roster.digest != digest
    forked = roster.version == version + 1 and roster.previous != digest
    if same_but_different or forked:
        raise KeyMaterialError(
            f"{source}: version {roster.version} of the roster contradicts version {version},"
            " which was seen before",
            hint="the root signed two histories: compare `secagg keys show` at the root, and treat"
            " the root key as stolen if nobody restored it from a backup",
        )


def _check_members(roster: Roster, root_key: bytes, source: str) -> None:
    """Refuse a roster at odds with itself, though the root signed it (K-16)."""
    name = roster.federation.split(".", 1)[0]
    members, dead = roster.members, roster.revoked
    ids = [member.node_id for member in members]
    faults = {
        "it belongs to a federation of another root": roster.federation
        != federation_id(name, root_key),
        "its members are not sorted, or one is listed twice": ids != sorted(set(ids)),
        "it has two coordinators": sum(m.role is Role.COORDINATOR for m in members) > 1,
        "a certificate serial is used twice": _repeats(each.serial for each in roster.entries),
        "its revocations are not sorted": list(dead) != sorted(dead, key=lambda r: r.serial),
        "a key is used twice": _repeats(
            key for each in roster.entries for key in (each.signing_key, each.transport_key)
        ),
        "a certificate ends before it begins": any(m.not_after <= m.not_before for m in members),
    }
    for fault, present in faults.items():
        if present:
            raise KeyMaterialError(
                f"{source}: this roster cannot be used: {fault}",
                hint="the root's software is at fault: issue a corrected roster",
            )


def _repeats(values: Iterable[object]) -> bool:
    listed = list(values)
    return len(set(listed)) != len(listed)
