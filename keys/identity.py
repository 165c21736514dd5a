"""A party's own keys: made in its folder, loaded from it, never written anywhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keys.certificates import (
    MAX_CARD_BYTES,
    Certificate,
    RootCard,
    read_certificate,
    read_root_card,
)
from keys.documents import parse_strictly
from keys.names import KEY_BYTES, Rng, Role, draw, member_fingerprint
from keys.roster import Member, NodeIdText, PublicKey, Time
from keys.sealing import (
    MAX_SECRET_FILE_BYTES,
    SCRYPT_LOG_N,
    Unlock,
    about_secret,
    open_secret,
    seal_secret,
)
from keys.store import check_private_folder, read_public, read_secret
from secagg.errors import KeyMaterialError

__all__ = [
    "CERTIFICATE",
    "IDENTITY_FILE",
    "NEXT_IDENTITY_FILE",
    "ROOT_CARD",
    "ROSTER_FILE",
    "About",
    "Identity",
    "Unlock",
    "load_identity",
    "load_root_card",
    "load_secret",
    "make_secret_file",
    "read_about",
]

IDENTITY_FILE: Final = "identity.secret"
NEXT_IDENTITY_FILE: Final = "identity.next.secret"
CERTIFICATE: Final = "certificate.json"
ROOT_CARD: Final = "root.json"
ROSTER_FILE: Final = "roster.json"


@dataclass(frozen=True, eq=False)
class Identity:
    """One party's keys. Secrets are in no repr, and identities do not compare (K-01).

    Attributes:
        node_id: Its name.
        role: Its role.
        signing_key: Ed25519 public key, 32 bytes.
        transport_key: CURVE25519 public key, 32 bytes.
        transport_secret: CURVE25519 secret key, 32 bytes.
        certificate: The root's word for it, None before `install`.
    """

    node_id: str
    role: Role
    signing_key: bytes
    transport_key: bytes
    transport_secret: bytes = field(repr=False)
    signer: Ed25519PrivateKey = field(repr=False)
    certificate: Certificate | None = None

    def sign(self, message: bytes) -> bytes:
        """Sign with Ed25519 (RFC 8032).

        Args:
            message: Opens with a domain tag of the caller's; `secagg.keys.` is taken.

        Returns:
            64 bytes.
        """
        return self.signer.sign(message)

    @property
    def fingerprint(self) -> str:
        """What a person compares before the first `approve`."""
        return member_fingerprint(self.node_id, self.role, self.signing_key, self.transport_key)


class About(msgspec.Struct, forbid_unknown_fields=True):
    """The readable part of an identity file."""

    node_id: NodeIdText
    role: Role
    signing_key: PublicKey
    transport_key: PublicKey
    created: Time


def load_identity(folder: Path, unlock: Unlock | None = None) -> Identity:
    """Load a party's identity and its certificate, if it has one.

    The certificate says which secret counts: `identity.secret`, or in the moment between the two
    steps of a rotation's install `identity.next.secret` (K-25).

    Args:
        folder: The party's folder.
        unlock: Opens the secret if it is encrypted.

    Raises:
        KeyMaterialError: Missing, open to others, encrypted without or under another key, damaged,
            or certified for other keys.
    """
    if not (folder / CERTIFICATE).exists():
        return load_secret(folder / IDENTITY_FILE, unlock)
    certificate = _load_certificate(folder)
    member = certificate.member
    paths = [
        path for path in (folder / IDENTITY_FILE, folder / NEXT_IDENTITY_FILE) if path.exists()
    ]
    for path in paths or [folder / IDENTITY_FILE]:
        about = read_about(path)
        if about.signing_key == member.signing_key:
            identity = load_secret(path, unlock, certificate)
            if _names(identity) == _names(member):
                return identity
    raise KeyMaterialError(
        f"{folder}: the certificate (serial {member.serial}, {member.node_id}) is not for the"
        " keys in this folder",
        hint="install the bundle that was made for this party, or restore its secret",
    )


def load_secret(
    path: Path, unlock: Unlock | None, certificate: Certificate | None = None
) -> Identity:
    """Load one identity file.

    Raises:
        KeyMaterialError: As `load_identity`.
    """
    check_private_folder(path.parent)
    data = read_secret(path, MAX_SECRET_FILE_BYTES)
    about = _about(data, path)
    secret = open_secret("identity", data, unlock, source=str(path))
    if len(secret) == 2 * KEY_BYTES:
        identity = _identity(about.node_id, about.role, secret, certificate)
        if _names(identity) == _names(about):
            return identity
    raise KeyMaterialError(
        f"{path}: the secret does not fit the public keys beside it",
        hint="the file is damaged: restore it from your backup",
    )


def read_about(path: Path) -> About:
    """Return what an identity file says in the clear, without unlocking it."""
    return _about(read_secret(path, MAX_SECRET_FILE_BYTES), path)


def load_root_card(folder: Path) -> RootCard:
    """Load the pinned root of a party's folder; its `root_key` verifies rosters.

    Raises:
        KeyMaterialError: Missing or damaged.
    """
    path = folder / ROOT_CARD
    if not path.exists():
        raise KeyMaterialError(
            f"{path}: no such file",
            hint="send the request to the root, then `secagg keys install BUNDLE --to FOLDER`",
        )
    return read_root_card(read_public(path, MAX_CARD_BYTES), source=str(path))


def make_secret_file(
    node_id: str,
    role: Role,
    *,
    now: int,
    rng: Rng,
    protect: Unlock | None = None,
    log_n: int = SCRYPT_LOG_N,
) -> tuple[Identity, bytes]:
    """Draw a new identity.

    Args:
        node_id: A checked node id.
        role: The role it will ask for.
        now: Unix seconds.
        rng: Source of the keys.
        protect: Seals the file; None leaves it plain.
        log_n: scrypt cost, log2.

    Returns:
        The identity, and the file that keeps it.
    """
    secret = draw(rng, KEY_BYTES) + draw(rng, KEY_BYTES)
    identity = _identity(node_id, role, secret)
    about = About(node_id, role, identity.signing_key, identity.transport_key, now)
    data = seal_secret("identity", about, secret, protect=protect, rng=rng, log_n=log_n)
    return identity, data


def _identity(
    node_id: str, role: Role, secret: bytes, certificate: Certificate | None = None
) -> Identity:
    signer = Ed25519PrivateKey.from_private_bytes(secret[:KEY_BYTES])
    transport = X25519PrivateKey.from_private_bytes(secret[KEY_BYTES:])
    return Identity(
        node_id=node_id,
        role=role,
        signing_key=signer.public_key().public_bytes_raw(),
        transport_key=transport.public_key().public_bytes_raw(),
        transport_secret=secret[KEY_BYTES:],
        signer=signer,
        certificate=certificate,
    )


def _about(data: bytes, path: Path) -> About:
    return parse_strictly(
        About, about_secret("identity", data, source=str(path)), source=f"{path}: about"
    )


def _names(party: Identity | About | Member) -> tuple[str, Role, bytes, bytes]:
    return (party.node_id, party.role, party.signing_key, party.transport_key)


def _load_certificate(folder: Path) -> Certificate:
    card = load_root_card(folder)
    path = folder / CERTIFICATE
    certificate = read_certificate(
        read_public(path, MAX_CARD_BYTES), card.root_key, source=str(path)
    )
    if certificate.federation != card.federation:
        raise KeyMaterialError(
            f"{path}: certificate of federation {certificate.federation}, the root's is"
            f" {card.federation}",
            hint="install the bundle of this federation",
        )
    return certificate
