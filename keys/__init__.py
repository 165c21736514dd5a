"""Identities, certificates and the signed roster of a federation.

A daemon needs four calls::

    identity = load_identity(folder, unlock)
    root = load_root_card(folder)
    rosters = RosterFile(folder / "roster.json", root.root_key)
    roster = rosters.reload()          # again every few seconds; None while nothing changed
"""

from keys.identity import Identity, load_identity, load_root_card
from keys.names import Role
from keys.provision import Provisioned, provision
from keys.roster import Member, Revocation, Roster, verify_roster
from keys.sealing import Unlock
from keys.watch import RosterFile

__all__ = [
    "Identity",
    "Member",
    "Provisioned",
    "Revocation",
    "Role",
    "Roster",
    "RosterFile",
    "Unlock",
    "load_identity",
    "load_root_card",
    "provision",
    "verify_roster",
]
