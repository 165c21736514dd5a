"""What the root grants: the rules for a request, and the roster with one member more or less.

Pure functions from roster to roster; `keys.authority` locks, signs and writes
(specs/70-keys.md section 7).
"""

from __future__ import annotations

from dataclasses import replace

from keys.certificates import Request
from keys.names import Role
from keys.roster import Member, Revocation, Roster
from secagg.errors import KeyMaterialError

__all__ = ["admit", "check_grant", "is_listed", "retire", "vouched"]


def is_listed(request: Request, roster: Roster) -> bool:
    """Tell whether the roster lists exactly what the request asks for."""
    wanted = (request.node_id, request.role, request.signing_key, request.transport_key)
    return any(
        (each.node_id, each.role, each.signing_key, each.transport_key) == wanted
        for each in roster.members
    )


def vouched(request: Request, roster: Roster, now: int) -> bool:
    """Tell whether the member's present key asked for its successor (K-12)."""
    return request.previous is not None and roster.member(request.node_id).valid_at(now)


def check_grant(request: Request, roster: Roster, *, grant: Role, readmit: bool) -> None:
    """Refuse what must never be in a roster (K-11, K-12, K-14).

    Args:
        request: A request whose own signatures hold.
        roster: The newest roster.
        grant: The role that the operator means to give.
        readmit: Let a revoked name come back under new keys.

    Raises:
        KeyMaterialError: It must not be granted.
    """
    who = request.node_id
    listed = {member.node_id: member for member in roster.members}.get(who)
    dead = {key for each in roster.revoked for key in (each.signing_key, each.transport_key)}
    used = {key for each in roster.members for key in (each.signing_key, each.transport_key)}
    mine = {request.signing_key, request.transport_key}
    if request.role is not grant:
        cause = f"asks for the role {request.role.value}, you meant to give {grant.value}"
        hint = f"if it shall be the {request.role.value}, give --role {request.role.value}"
    elif mine & dead:
        cause = "these keys were revoked or replaced, and never come back"
        hint = "let it make new keys with `secagg keys request` in an empty folder"
    elif mine & used:
        cause = "these keys are another member's"
        hint = "each party makes its own keys with `secagg keys request`"
    elif request.previous is not None:
        _check_rotation(request, roster)
        return
    elif listed is not None:
        cause = f"is in the roster already, with serial {listed.serial}"
        hint = f"use `secagg keys rotate` there, or revoke {who} first"
    elif not readmit and any(each.node_id == who for each in roster.revoked):
        cause = "a member of this name was revoked"
        hint = "if it shall come back under its new keys, give --readmit"
    elif grant is Role.COORDINATOR and any(m.role is grant for m in roster.members):
        cause = f"the federation has a coordinator, {roster.coordinator.node_id}"
        hint = f"revoke {roster.coordinator.node_id} first: there is exactly one"
    else:
        return
    raise KeyMaterialError(f"{who}: {cause}", hint=hint)


def _check_rotation(request: Request, roster: Roster) -> None:
    member, previous = roster.member(request.node_id), request.previous
    if previous is None or (
        previous.federation,
        previous.serial,
        previous.signing_key,
        request.role,
    ) != (roster.federation, member.serial, member.signing_key, member.role):
        raise KeyMaterialError(
            f"{request.node_id}: this rotation does not continue serial {member.serial}, which is"
            " in the roster",
            hint="it is an old request, or one for another federation: run `secagg keys rotate`"
            " there again",
        )


def admit(roster: Roster, request: Request, now: int, not_after: int) -> Roster:
    """Return `roster` with the requester in it, its former keys retired if it had some."""
    for member in roster.members:
        if member.node_id == request.node_id:
            roster = retire(roster, member, now, "rotated")
    serials = (each.serial for each in roster.entries)
    newcomer = Member(
        node_id=request.node_id,
        role=request.role,
        signing_key=request.signing_key,
        transport_key=request.transport_key,
        not_before=now,
        not_after=not_after,
        serial=max(serials, default=0) + 1,
    )
    members = sorted((*roster.members, newcomer), key=lambda member: member.node_id)
    return replace(roster, members=tuple(members))


def retire(roster: Roster, member: Member, now: int, reason: str) -> Roster:
    """Return `roster` without `member`, its keys among the dead."""
    entry = Revocation(
        node_id=member.node_id,
        serial=member.serial,
        signing_key=member.signing_key,
        transport_key=member.transport_key,
        revoked=now,
        reason=reason,
    )
    revoked = sorted((*roster.revoked, entry), key=lambda each: each.serial)
    members = tuple(each for each in roster.members if each is not member)
    return replace(roster, members=members, revoked=tuple(revoked))
