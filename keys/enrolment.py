"""A party's side: make keys and a request, install what the root sends back, rotate.

The one step that switches a party to new keys is the replacement of `certificate.json`: before it
the old secret counts, after it the new one (specs/70-keys.md section 7).
"""

from __future__ import annotations

from pathlib import Path

from keys.certificates import (
    MAX_CARD_BYTES,
    Bundle,
    Certificate,
    Previous,
    Request,
    read_bundle,
    read_certificate,
    read_request,
    read_root_card,
    write_request,
)
from keys.identity import (
    CERTIFICATE,
    IDENTITY_FILE,
    NEXT_IDENTITY_FILE,
    ROOT_CARD,
    ROSTER_FILE,
    Identity,
    load_identity,
    load_root_card,
    load_secret,
    make_secret_file,
    read_about,
)
from keys.names import Rng, Role, check_node_id, normal_fingerprint
from keys.roster import MAX_ROSTER_BYTES, Roster, verify_roster
from keys.sealing import MAX_SECRET_FILE_BYTES, SCRYPT_LOG_N, Unlock, is_sealed
from keys.store import (
    create_once,
    locked,
    make_private_folder,
    read_public,
    read_secret,
    write_atomic,
)
from keys.watch import check_roster, raise_floor, read_floor
from secagg.errors import KeyMaterialError

__all__ = ["install_bundle", "install_roster", "make_request", "request_path", "rotate"]


def request_path(folder: Path, node_id: str) -> Path:
    """Return where the request of a party lies; it is public."""
    return folder / f"{node_id}.request.json"


def make_request(
    folder: Path,
    node_id: str,
    role: Role,
    *,
    now: int,
    rng: Rng,
    protect: Unlock | None = None,
    log_n: int = SCRYPT_LOG_N,
) -> Request:
    """Make a party's keys and its request; the secrets stay in the folder (K-08).

    Args:
        folder: New or empty; 0700 afterwards.
        node_id: The name it wants.
        role: The role it wants.
        now: Unix seconds.
        rng: Source of the keys.
        protect: Seals the secret; None leaves it plain.
        log_n: scrypt cost, log2.

    Returns:
        The request, also written to `<node_id>.request.json`.

    Raises:
        ConfigError: The node id or the folder cannot be used.
        KeyMaterialError: The folder holds an identity already.
    """
    check_node_id(node_id)
    make_private_folder(folder)
    identity, secret = make_secret_file(
        node_id, role, now=now, rng=rng, protect=protect, log_n=log_n
    )
    data = write_request(_request(identity, now), identity.sign)
    with locked(folder):
        create_once(folder / IDENTITY_FILE, secret)
        write_atomic(request_path(folder, node_id), data)
    return read_request(data)


def rotate(
    folder: Path,
    *,
    now: int,
    rng: Rng,
    unlock: Unlock | None = None,
    protect: Unlock | None = None,
    log_n: int = SCRYPT_LOG_N,
    restart: bool = False,
) -> Request:
    """Make the next keys, and a request for them that the present key signs as well.

    The present keys stay in use until the bundle is installed.

    Args:
        folder: The party's folder, with an installed certificate.
        now: Unix seconds.
        rng: Source of the keys.
        unlock: Opens the present secret.
        protect: Seals the next secret; None does as with the present one.
        log_n: scrypt cost, log2.
        restart: Throw away the keys of a rotation that is under way.

    Returns:
        The request, also written to `<node_id>.request.json`.

    Raises:
        KeyMaterialError: Nothing is installed, or a rotation is under way.
    """
    identity = load_identity(folder, unlock)  # before the lock: it may ask a person
    if identity.certificate is None:
        raise KeyMaterialError(
            f"{folder}: nothing is installed here that could be rotated",
            hint="send its request to the root, then `secagg keys install`",
        )
    following, secret = make_secret_file(
        identity.node_id,
        identity.role,
        now=now,
        rng=rng,
        protect=protect or (unlock if _is_sealed(folder) else None),
        log_n=log_n,
    )
    data = write_request(
        _request(following, now, identity.certificate), following.sign, identity.sign
    )
    with locked(folder):
        _settle(folder)
        if (folder / NEXT_IDENTITY_FILE).exists() and not restart:
            raise KeyMaterialError(
                f"{folder}: a rotation is under way",
                hint="install its bundle; or, if its request was not approved, give --restart",
            )
        write_atomic(folder / NEXT_IDENTITY_FILE, secret)
        write_atomic(request_path(folder, identity.node_id), data)
    return read_request(data)


def install_bundle(
    data: bytes,
    folder: Path,
    *,
    now: int,
    unlock: Unlock | None = None,
    root_fingerprint: str | None = None,
    source: str = "bundle",
) -> Identity:
    """Check what the root sent back against the own keys and the pinned root, and take it up.

    Args:
        data: The bundle.
        folder: The party's folder.
        now: Unix seconds.
        unlock: Opens the secret.
        root_fingerprint: The root's, compared out of band; may be None where a root is pinned.
        source: File name for error messages.

    Returns:
        The identity with its certificate.

    Raises:
        KeyMaterialError: Anything in it does not hold; the folder is as before (K-15).
    """
    bundle = read_bundle(data, source=source)
    root_key = _pinned_root(bundle, folder, root_fingerprint, source)
    certificate = read_certificate(bundle.certificate, root_key, source=source)
    identity = _own_keys(folder, certificate, unlock, source)  # before the lock: it may ask
    with locked(folder):
        _settle(folder)
        roster, roster_data = _newest_roster(bundle, folder, root_key, source)
        _check_certificate(certificate, roster, now, source)
        write_atomic(folder / ROOT_CARD, bundle.root + b"\n")
        _put_roster(folder, roster, roster_data)
        write_atomic(folder / CERTIFICATE, bundle.certificate + b"\n")  # the switch (K-25)
        _settle(folder)
    return identity


def install_roster(data: bytes, folder: Path, *, source: str = "roster") -> Roster:
    """Take up a newer roster; running daemons see it at their next look.

    Raises:
        KeyMaterialError: Nothing is installed, or the roster does not hold.
    """
    with locked(folder):
        card = load_root_card(folder)
        roster = check_roster(folder / ROSTER_FILE, data, card.root_key, source=source)
        _put_roster(folder, roster, data)
    return roster


def _request(identity: Identity, now: int, before: Certificate | None = None) -> Request:
    previous = None
    if before is not None:
        previous = Previous(before.federation, before.member.serial, before.member.signing_key)
    return Request(
        node_id=identity.node_id,
        role=identity.role,
        signing_key=identity.signing_key,
        transport_key=identity.transport_key,
        created=now,
        previous=previous,
    )


def _pinned_root(bundle: Bundle, folder: Path, fingerprint: str | None, source: str) -> bytes:
    card = read_root_card(bundle.root, source=source)
    pinned = (folder / ROOT_CARD).exists()
    if pinned and load_root_card(folder).root_key != card.root_key:
        raise KeyMaterialError(
            f"{source}: from another root than the one pinned in {folder}",
            hint="if the federation really has a new root, begin in an empty folder",
        )
    if fingerprint is not None and normal_fingerprint(fingerprint) != card.fingerprint:
        raise KeyMaterialError(
            f"{source}: its root is {card.fingerprint}, not the one you expect",
            hint="do not install it: ask the operator for the root's fingerprint by another way",
        )
    if not pinned and fingerprint is None:
        raise KeyMaterialError(
            f"{source}: its root {card.fingerprint} was not confirmed",
            hint="compare it with what the operator reads out, then give --root-fingerprint",
        )
    return card.root_key


def _newest_roster(
    bundle: Bundle, folder: Path, root_key: bytes, source: str
) -> tuple[Roster, bytes]:
    """Return the bundle's roster, or the installed one if that is newer."""
    path, data = folder / ROSTER_FILE, bundle.roster + b"\n"
    roster, known = verify_roster(data, root_key, source=source), read_floor(path)
    if known is not None and roster.version < known[0] and path.exists():
        data = read_public(path, MAX_ROSTER_BYTES)
        return check_roster(path, data, root_key), data
    return check_roster(path, data, root_key, source=source), data


def _put_roster(folder: Path, roster: Roster, data: bytes) -> None:
    """Write a checked roster, then its floor: cut in between, the next look raises the floor."""
    path = folder / ROSTER_FILE
    write_atomic(path, data)
    raise_floor(path, roster)


def _check_certificate(certificate: Certificate, roster: Roster, now: int, source: str) -> None:
    member = certificate.member
    if certificate.federation != roster.federation:
        raise KeyMaterialError(
            f"{source}: certificate and roster are of two federations",
            hint="ask the operator for a new bundle",
        )
    if roster.member(member.node_id) != member:
        raise KeyMaterialError(
            f"{source}: the roster does not list certificate {member.serial} of {member.node_id}",
            hint="it was revoked or replaced in the meantime: ask the operator",
        )
    if not member.valid_at(now):
        raise KeyMaterialError(
            f"{source}: certificate {member.serial} of {member.node_id} is not valid at this time",
            hint="set this machine's clock; if it is right, rotate or ask for a new certificate",
        )


def _own_keys(
    folder: Path, certificate: Certificate, unlock: Unlock | None, source: str
) -> Identity:
    """Return the identity in the folder that the certificate is for."""
    member = certificate.member
    for path in (folder / NEXT_IDENTITY_FILE, folder / IDENTITY_FILE):
        if path.exists() and read_about(path).signing_key == member.signing_key:
            own = load_secret(path, unlock, certificate)
            if (own.node_id, own.role, own.transport_key) == (
                member.node_id,
                member.role,
                member.transport_key,
            ):
                return own
    raise KeyMaterialError(
        f"{source}: made for other keys ({member.node_id}, {member.fingerprint})",
        hint=f"is {folder} the folder whose request was approved?",
    )


def _is_sealed(folder: Path) -> bool:
    path = folder / IDENTITY_FILE
    return is_sealed("identity", read_secret(path, MAX_SECRET_FILE_BYTES), source=str(path))


def _settle(folder: Path) -> None:
    """Finish an install that was cut after the switch: the next secret becomes the secret."""
    following = folder / NEXT_IDENTITY_FILE
    if not (following.exists() and (folder / CERTIFICATE).exists()):
        return
    card = load_root_card(folder)
    data = read_public(folder / CERTIFICATE, MAX_CARD_BYTES)
    certificate = read_certificate(data, card.root_key)
    if read_about(following).signing_key == certificate.member.signing_key:
        following.replace(folder / IDENTITY_FILE)
