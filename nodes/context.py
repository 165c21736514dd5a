"""What a daemon loads from its key folder before it opens a socket."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from keys import Identity, Role, Roster, RosterFile, Unlock, load_identity, load_root_card
from keys.roster import Member
from nodes.config import UnlockSection
from nodes.session.presence import RosterView
from secagg.errors import KeyMaterialError
from secagg.types import NodeId

__all__ = ["Membership", "open_membership", "unlock_from"]

ROSTER_POLL = 2.0
"""Seconds between looks at the roster file."""


@dataclass(slots=True)
class Membership:
    """This party's identity and the newest roster, which may change under a running daemon."""

    identity: Identity
    folder: Path
    rosters: RosterFile = field(repr=False)
    roster: Roster

    def signing_key(self, node_id: NodeId, now: float) -> bytes | None:
        """Return a member's Ed25519 key if its certificate holds now."""
        member = self._member(node_id)
        return member.signing_key if member is not None and member.valid_at(now) else None

    def node_by_transport_key(self, key: bytes, now: float) -> NodeId | None:
        """Return which active node connects under this CURVE key."""
        member = self.roster.by_transport_key(key)
        if member is None or member.role is not Role.NODE or not member.valid_at(now):
            return None
        return member.node_id

    def view(self, now: float) -> RosterView:
        """Return what the coordinator's session needs."""
        keys = {node.node_id: node.signing_key for node in self.roster.nodes if node.valid_at(now)}
        return RosterView(self.roster.version, self.rosters.document, keys)

    def reload(self) -> bool:
        """Take up a newer roster if there is one.

        Raises:
            KeyMaterialError: the file does not hold; the old roster stays in force.
        """
        newer = self.rosters.reload()
        if newer is None:
            return False
        self.roster = newer
        return True

    def outdated(self) -> str:
        """Say why the roster no longer lists this process's keys, or return ""."""
        me, mend = self.identity.node_id, "install the newest bundle and restart this process"
        try:
            member = self.roster.member(me)
        except KeyMaterialError as error:
            return f"{error}; the others will not let this process in"
        if member.signing_key != self.identity.signing_key:
            return f"the keys of {me} were rotated: {mend}"
        return ""

    def _member(self, node_id: NodeId) -> Member | None:
        try:
            return self.roster.member(node_id)
        except KeyMaterialError:
            return None


def unlock_from(section: UnlockSection, folder: Path) -> Unlock | None:
    """Return how to open encrypted keys, from the configuration or SECAGG_PASSPHRASE.

    Raises:
        ConfigError: both ways are given.
        KeyMaterialError: a file cannot be read or is open to others.
    """
    return Unlock.gather(
        os.environ,
        passphrase_file=folder / section.passphrase_file if section.passphrase_file else None,
        key_file=folder / section.key_file if section.key_file else None,
    )


def open_membership(folder: Path, unlock: Unlock | None, role: Role, now: float) -> Membership:
    """Load identity and roster and check that they belong together.

    Raises:
        KeyMaterialError: something is missing, damaged, expired, revoked or of the other role.
    """
    identity = load_identity(folder, unlock)
    rosters = RosterFile(folder / "roster.json", load_root_card(folder).root_key)
    roster = rosters.reload()
    if roster is None:
        raise KeyMaterialError(f"{folder}: no roster", hint="secagg keys install BUNDLE")
    member = roster.member(identity.node_id)
    if member.role is not role:
        raise KeyMaterialError(
            f"{identity.node_id} is certified as {member.role}, not as {role}",
            hint=f"point the configuration at a folder of role {role}",
        )
    if member.signing_key != identity.signing_key:
        raise KeyMaterialError(
            f"the roster lists another key for {identity.node_id}",
            hint="install the bundle of the newest approval",
        )
    if not member.valid_at(now):
        raise KeyMaterialError(
            f"the certificate of {identity.node_id} does not hold at this moment",
            hint="check the clock, or rotate: secagg keys rotate",
        )
    return Membership(identity, folder, rosters, roster)
