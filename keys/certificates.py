"""The documents between a party and the root: request, rotation, certificate, root card, bundle.

specs/70-keys.md sections 4 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from keys.documents import Form, Sign, check_size, open_document, parse_strictly, write_document
from keys.names import Role, federation_id, member_fingerprint, root_fingerprint
from keys.roster import (
    MAX_ROSTER_BYTES,
    FederationText,
    Member,
    MemberBody,
    NodeIdText,
    PublicKey,
    Serial,
    Time,
    check_transport_key,
    member_body,
)
from secagg.errors import KeyMaterialError

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_CARD_BYTES",
    "Bundle",
    "Certificate",
    "Previous",
    "Request",
    "RootCard",
    "read_bundle",
    "read_certificate",
    "read_request",
    "read_root_card",
    "write_bundle",
    "write_certificate",
    "write_request",
    "write_root_card",
]

MAX_CARD_BYTES: Final = 4 << 10
"""Request, certificate and root card are under 1 kB each."""
MAX_BUNDLE_BYTES: Final = MAX_ROSTER_BYTES + (16 << 10)


@dataclass(frozen=True)
class RootCard:
    """The public half of the root, signed by itself.

    Attributes:
        federation: Id.
        root_key: Ed25519 public key, 32 bytes.
        created: Unix seconds.
    """

    federation: str
    root_key: bytes = field(repr=False)
    created: int

    @property
    def fingerprint(self) -> str:
        """What a person compares before the first `install`."""
        return root_fingerprint(self.root_key)


@dataclass(frozen=True)
class Previous:
    """What a rotation replaces: the federation, the serial and the Ed25519 key of the old one."""

    federation: str
    serial: int
    signing_key: bytes = field(repr=False)


@dataclass(frozen=True)
class Request:
    """What a party asks the root to certify; both of its keys are bound by its own signature.

    Attributes:
        node_id: The name it wants.
        role: The role it wants.
        signing_key: Ed25519 public key, 32 bytes.
        transport_key: CURVE25519 public key, 32 bytes.
        created: Unix seconds by the party's clock.
        previous: What it replaces, signed with the old key; None for a first request.
    """

    node_id: str
    role: Role
    signing_key: bytes = field(repr=False)
    transport_key: bytes = field(repr=False)
    created: int
    previous: Previous | None = None

    @property
    def fingerprint(self) -> str:
        """What a person compares before the first `approve`."""
        return member_fingerprint(self.node_id, self.role, self.signing_key, self.transport_key)


@dataclass(frozen=True)
class Certificate:
    """The root's word that these keys are this member of this federation."""

    federation: str
    member: Member


@dataclass(frozen=True)
class Bundle:
    """What the root sends back: three documents, still as bytes.

    Attributes:
        root: Root card.
        certificate: Certificate of the party it is for.
        roster: The roster that lists it.
    """

    root: bytes
    certificate: bytes
    roster: bytes


class _RootBody(msgspec.Struct, forbid_unknown_fields=True):
    federation: FederationText
    root_key: PublicKey
    created: Time


class _RequestBody(msgspec.Struct, forbid_unknown_fields=True):
    node_id: NodeIdText
    role: Role
    signing_key: PublicKey
    transport_key: PublicKey
    created: Time


class _RotationBody(_RequestBody, forbid_unknown_fields=True):
    federation: FederationText
    previous_serial: Serial
    previous_signing_key: PublicKey


class _CertificateBody(msgspec.Struct, forbid_unknown_fields=True):
    federation: FederationText
    member: MemberBody


class _BundleFile(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    root: msgspec.Raw
    certificate: msgspec.Raw
    roster: msgspec.Raw


_ROOT: Final = Form("root", _RootBody, ("root",), MAX_CARD_BYTES)
_REQUEST: Final = Form("request", _RequestBody, ("self",), MAX_CARD_BYTES)
_ROTATION: Final = Form("rotation", _RotationBody, ("self", "previous"), MAX_CARD_BYTES)
_CERTIFICATE: Final = Form("certificate", _CertificateBody, ("root",), MAX_CARD_BYTES)
_BUNDLE_FORMAT: Final = "secagg bundle 1"


def write_root_card(card: RootCard, sign: Sign) -> bytes:
    """Write the root's card, signed with the root key."""
    body = _RootBody(card.federation, card.root_key, card.created)
    return write_document(_ROOT, body, {"root": sign})


def read_root_card(data: bytes, *, source: str = "root.json") -> RootCard:
    """Read a root card; it proves only that somebody holds that key, so pin its fingerprint.

    Raises:
        KeyMaterialError: Damaged, or not signed by the key it names.
    """
    opened = open_document(_ROOT, data, source=source)
    body = opened.verify("root", opened.body.root_key)
    name = body.federation.split(".", 1)[0]
    if body.federation != federation_id(name, body.root_key):
        raise KeyMaterialError(
            f"{source}: this federation id belongs to another root key", hint="fetch it again"
        )
    return RootCard(body.federation, body.root_key, body.created)


def write_request(request: Request, sign: Sign, sign_previous: Sign | None = None) -> bytes:
    """Write a request, signed with the new key and, in a rotation, with the old one too."""
    plain = (
        request.node_id,
        request.role,
        request.signing_key,
        request.transport_key,
        request.created,
    )
    if request.previous is None or sign_previous is None:
        return write_document(_REQUEST, _RequestBody(*plain), {"self": sign})
    before = request.previous
    body = _RotationBody(*plain, before.federation, before.serial, before.signing_key)
    return write_document(_ROTATION, body, {"self": sign, "previous": sign_previous})


def read_request(data: bytes, *, source: str = "request") -> Request:
    """Read a request of either kind and verify its own signatures (K-09).

    Raises:
        KeyMaterialError: Damaged, or a signature does not hold.
    """
    previous = None
    body: _RequestBody
    if f'"{_ROTATION.format}"'.encode() in data[:64]:
        rotation = open_document(_ROTATION, data, source=source)
        body = rotation.verify("self", rotation.body.signing_key)
        before = rotation.verify("previous", rotation.body.previous_signing_key)
        previous = Previous(before.federation, before.previous_serial, before.previous_signing_key)
    else:
        opened = open_document(_REQUEST, data, source=source)
        body = opened.verify("self", opened.body.signing_key)
    check_transport_key(body.transport_key)
    return Request(
        node_id=body.node_id,
        role=body.role,
        signing_key=body.signing_key,
        transport_key=body.transport_key,
        created=body.created,
        previous=previous,
    )


def write_certificate(certificate: Certificate, sign: Sign) -> bytes:
    """Write a certificate, signed with the root key."""
    body = _CertificateBody(certificate.federation, member_body(certificate.member))
    return write_document(_CERTIFICATE, body, {"root": sign})


def read_certificate(
    data: bytes, root_key: bytes, *, source: str = "certificate.json"
) -> Certificate:
    """Read a certificate that `root_key` signed; its validity in time is the caller's check.

    Raises:
        KeyMaterialError: Damaged, or not signed by this root.
    """
    body = open_document(_CERTIFICATE, data, source=source).verify("root", root_key)
    return Certificate(body.federation, body.member.to_member())


def write_bundle(bundle: Bundle) -> bytes:
    """Write the three documents into one file, byte for byte."""
    parts = (bundle.root, bundle.certificate, bundle.roster)
    root, certificate, roster = (part.removesuffix(b"\n") for part in parts)
    head = b'{\n"format": ' + msgspec.json.encode(_BUNDLE_FORMAT)
    inner = b',\n"certificate": ' + certificate + b',\n"roster": ' + roster
    return head + b',\n"root": ' + root + inner + b"\n}\n"


def read_bundle(data: bytes, *, source: str = "bundle") -> Bundle:
    """Take a bundle apart; nothing in it is verified yet.

    Raises:
        KeyMaterialError: Not a bundle.
    """
    check_size(data, MAX_BUNDLE_BYTES, source)
    file = parse_strictly(_BundleFile, data, source=source)
    if file.format != _BUNDLE_FORMAT:
        raise KeyMaterialError(
            f"{source}: this is {file.format[:60]!r}, expected {_BUNDLE_FORMAT!r}",
            hint="give the bundle that `secagg keys approve` wrote",
        )
    return Bundle(bytes(file.root), bytes(file.certificate), bytes(file.roster))
