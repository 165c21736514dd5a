"""The root of a federation: made offline, it certifies requests and keeps the roster.

Its folder holds `root.secret`, `root.json`, `roster.json` and `history/`, where every roster ever
issued lies under its number and none is ever overwritten. The history is the truth and
`roster.json` a copy of its last page: a crash between the two is mended at the next command
(specs/70-keys.md section 7).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.certificates import (
    MAX_CARD_BYTES,
    Bundle,
    Certificate,
    Request,
    RootCard,
    read_root_card,
    write_bundle,
    write_certificate,
    write_root_card,
)
from keys.documents import parse_strictly
from keys.grants import admit, check_grant, is_listed, retire, vouched
from keys.names import (
    CLOCK_SKEW_S,
    KEY_BYTES,
    Rng,
    Role,
    check_federation_name,
    draw,
    federation_id,
    normal_fingerprint,
)
from keys.roster import (
    MAX_ROSTER_BYTES,
    FederationText,
    Member,
    PublicKey,
    Roster,
    Time,
    verify_roster,
    write_roster,
)
from keys.sealing import (
    MAX_SECRET_FILE_BYTES,
    SCRYPT_LOG_N,
    Unlock,
    about_secret,
    open_secret,
    seal_secret,
)
from keys.store import (
    check_private_folder,
    create_once,
    locked,
    make_private_folder,
    read_public,
    read_secret,
    write_atomic,
)
from secagg.errors import ConfigError, KeyMaterialError

__all__ = [
    "DAY_S",
    "MAX_DAYS",
    "ROOT_KEY_FILE",
    "Authority",
    "init_root",
    "open_root",
    "read_history",
]

ROOT_KEY_FILE: Final = "root.secret"
DAY_S: Final = 86_400
MAX_DAYS: Final = 3_650


class _About(msgspec.Struct, forbid_unknown_fields=True):
    federation: FederationText
    root_key: PublicKey
    created: Time


@dataclass(frozen=True, eq=False)
class Authority:
    """The root, unlocked.

    Attributes:
        folder: Its folder.
        card: Its public half.
    """

    folder: Path
    card: RootCard
    signer: Ed25519PrivateKey = field(repr=False)

    def roster(self) -> Roster:
        """Return the newest roster."""
        return self._newest()[0]

    def approve(
        self,
        requests: Sequence[Request],
        *,
        now: int,
        fingerprints: Collection[str] = (),
        grant: Role = Role.NODE,
        days: int = 365,
        readmit: bool = False,
    ) -> tuple[bytes, ...]:
        """Certify requests and issue one new roster that lists them all.

        Args:
            requests: What `read_request` returned.
            now: Unix seconds.
            fingerprints: Those that a person compared with the requesters out of band; a rotation
                signed by the member's present, unexpired key needs none.
            grant: The role the operator means to give; a request for another one is refused.
            days: Validity, 1 to 3650.
            readmit: Let a name come back that was revoked, under new keys.

        Returns:
            One bundle for each request, in order. A request that the roster lists already gets its
            bundle again, without a new version.

        Raises:
            KeyMaterialError: A request must not be granted; nothing was issued.
            ConfigError: `days` is out of range.
        """
        if not 1 <= days <= MAX_DAYS:
            raise ConfigError(
                f"a certificate of {days} days", hint=f"give --days from 1 to {MAX_DAYS}"
            )
        compared = frozenset(normal_fingerprint(text) for text in fingerprints)
        with locked(self.folder):
            before = roster = self._latest(now)
            for request in requests:
                if is_listed(request, roster):
                    continue  # approved before, its bundle was lost: write that again
                check_grant(request, roster, grant=grant, readmit=readmit)
                if not vouched(request, roster, now) and request.fingerprint not in compared:
                    raise KeyMaterialError(
                        f"{request.node_id}: the fingerprint of this request was not confirmed",
                        hint="ask its engineer to read the fingerprint out; if it is"
                        f" {request.fingerprint}, give it with --fingerprint",
                    )
                roster = admit(roster, request, now, now + days * DAY_S)
            issued, data = self._newest() if roster is before else self._issue(roster, now)
        return tuple(self._bundle(issued.member(each.node_id), data) for each in requests)

    def revoke(self, node_id: str, *, now: int, reason: str = "") -> Roster:
        """Take a member out for good: its keys never come back (K-14).

        Args:
            node_id: Whom.
            now: Unix seconds.
            reason: The operator's words, at most 200 characters; everybody in the federation
                reads them.

        Raises:
            KeyMaterialError: There is no such member.
            ConfigError: The reason is too long.
        """
        if len(reason) > 200 or not reason.isprintable():
            raise ConfigError(
                "a reason is one line of at most 200 characters", hint="shorten --reason"
            )
        with locked(self.folder):
            roster = self._latest(now)
            member = roster.member(node_id)
            return self._issue(retire(roster, member, now, reason), now)[0]

    def _newest(self) -> tuple[Roster, bytes]:
        path = _page(self.folder, _count_pages(self.folder))
        data = read_public(path, MAX_ROSTER_BYTES)
        return verify_roster(data, self.card.root_key, source=str(path)), data

    def _latest(self, now: int) -> Roster:
        roster = self.roster()
        if now < roster.issued - CLOCK_SKEW_S:
            raise KeyMaterialError(
                f"this machine's clock is {roster.issued - now} s behind the last roster",
                hint="set the clock: certificates and rosters carry its time",
            )
        return roster

    def _issue(self, draft: Roster, now: int) -> tuple[Roster, bytes]:
        """Sign the next version; on the disk before anybody sees it (K-24)."""
        before = self.roster()
        roster = replace(
            draft,
            version=before.version + 1,
            issued=max(now, before.issued),
            previous=before.digest,
        )
        data = write_roster(roster, self.signer.sign)
        known = (before.version, before.digest)
        issued = verify_roster(data, self.card.root_key, known=known, source="the new roster")
        create_once(_page(self.folder, issued.version), data)
        write_atomic(self.folder / "roster.json", data)
        return issued, data

    def _bundle(self, member: Member, roster: bytes) -> bytes:
        certificate = Certificate(self.card.federation, member)
        return write_bundle(
            Bundle(
                root=write_root_card(self.card, self.signer.sign),
                certificate=write_certificate(certificate, self.signer.sign),
                roster=roster,
            )
        )


def init_root(
    folder: Path,
    name: str,
    *,
    now: int,
    rng: Rng,
    protect: Unlock | None = None,
    log_n: int = SCRYPT_LOG_N,
) -> Authority:
    """Make the root of a new federation and its first, empty roster.

    Args:
        folder: New or empty; 0700 afterwards.
        name: Federation name.
        now: Unix seconds.
        rng: Source of the key.
        protect: Seals the secret; None leaves it plain.
        log_n: scrypt cost, log2.

    Raises:
        ConfigError: The name or the folder cannot be used.
        KeyMaterialError: The folder holds a root already.
    """
    check_federation_name(name)
    make_private_folder(folder)
    secret = draw(rng, KEY_BYTES)
    signer = Ed25519PrivateKey.from_private_bytes(secret)
    root_key = signer.public_key().public_bytes_raw()
    card = RootCard(federation_id(name, root_key), root_key, now)
    about = _About(card.federation, root_key, now)
    sealed = seal_secret("root", about, secret, protect=protect, rng=rng, log_n=log_n)
    roster = write_roster(Roster(card.federation, 1, now, (), ()), signer.sign)
    with locked(folder):
        create_once(folder / ROOT_KEY_FILE, sealed)
        write_atomic(folder / "root.json", write_root_card(card, signer.sign))
        make_private_folder(folder / "history")
        create_once(_page(folder, 1), roster)
        write_atomic(folder / "roster.json", roster)
    return Authority(folder, card, signer)


def open_root(folder: Path, unlock: Unlock | None = None) -> Authority:
    """Load and unlock a root, check its whole history, and mend `roster.json` after a crash.

    Raises:
        KeyMaterialError: Missing, open to others, wrong passphrase, or a damaged history.
    """
    check_private_folder(folder)
    path = folder / ROOT_KEY_FILE
    data = read_secret(path, MAX_SECRET_FILE_BYTES)
    about = parse_strictly(
        _About, about_secret("root", data, source=str(path)), source=f"{path}: about"
    )
    secret = open_secret("root", data, unlock, source=str(path))
    fits = len(secret) == KEY_BYTES
    signer = Ed25519PrivateKey.from_private_bytes(secret if fits else bytes(KEY_BYTES))
    card = read_root_card(read_public(folder / "root.json", MAX_CARD_BYTES))
    if not fits or not signer.public_key().public_bytes_raw() == about.root_key == card.root_key:
        raise KeyMaterialError(
            f"{path}: the secret does not fit the public root key beside it",
            hint="the file is damaged: restore it from your backup",
        )
    with locked(folder):
        newest = read_history(folder, card)[-1][1]
        copy = folder / "roster.json"
        if not copy.exists() or read_public(copy, MAX_ROSTER_BYTES) != newest:
            write_atomic(copy, newest)
    return Authority(folder, card, signer)


def read_history(folder: Path, card: RootCard) -> list[tuple[Roster, bytes]]:
    """Verify every roster ever issued, each a successor of the one before.

    Returns:
        Rosters and their files' bytes, from version 1 on.

    Raises:
        KeyMaterialError: A page is missing, changed, or does not follow.
    """
    pages: list[tuple[Roster, bytes]] = []
    known: tuple[int, bytes] | None = None
    for number in range(1, _count_pages(folder) + 1):
        path = _page(folder, number)
        data = read_public(path, MAX_ROSTER_BYTES)
        roster = verify_roster(data, card.root_key, known=known, source=str(path))
        if roster.version != number:
            raise KeyMaterialError(
                f"{path}: holds version {roster.version}", hint="restore it from your backup"
            )
        pages.append((roster, data))
        known = (roster.version, roster.digest)
    if not pages:
        raise KeyMaterialError(
            f"{folder}: no roster in its history",
            hint="this is no root folder, or `init` was cut short: begin again in another folder",
        )
    return pages


def _count_pages(folder: Path) -> int:
    return len(list((folder / "history").glob("roster-*.json")))


def _page(folder: Path, version: int) -> Path:
    return folder / "history" / f"roster-{version:06d}.json"
