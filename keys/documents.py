"""Signed documents: JSON that a person can read, signed over the exact bytes of its body.

::

    {
    "format": "secagg roster 1",
    "body": { ... two blanks of indentation ... },
    "signatures": {
      "root": "base64"
    }
    }

There is one way to write a document: what is parsed is written again and compared, so a repeated
key, a blank too many or a second spelling of a number is refused (specs/70-keys.md section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keys.names import domain_tag
from secagg.errors import KeyMaterialError

__all__ = ["Form", "Opened", "check_size", "open_document", "parse_strictly", "write_document"]

BodyT = TypeVar("BodyT", bound=msgspec.Struct)
ValueT = TypeVar("ValueT")

Sign = Callable[[bytes], bytes]

_BROKEN: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the parser raises on hostile text; deep nesting ends in RecursionError."""


@dataclass(frozen=True)
class Form(Generic[BodyT]):
    """One kind of document.

    Attributes:
        kind: Its name, part of every signature's domain tag.
        body: Type of the body; unknown fields are refused.
        signers: Who must have signed, in the order of the file.
        max_bytes: Longer files are refused before they are parsed.
    """

    kind: str
    body: type[BodyT]
    signers: tuple[str, ...]
    max_bytes: int

    @property
    def format(self) -> str:
        """The value of the document's first field."""
        return f"secagg {self.kind} 1"

    def message(self, signer: str, body: bytes) -> bytes:
        """Return what `signer` signs: a tag of its own, then the body's bytes (K-05)."""
        return domain_tag(self.kind, signer) + body


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    body: msgspec.Raw
    signatures: dict[str, bytes]


@dataclass(frozen=True)
class Opened(Generic[BodyT]):
    """A document in canonical form; nothing of it is believed before `verify`."""

    form: Form[BodyT]
    body: BodyT
    body_bytes: bytes
    signatures: Mapping[str, bytes]
    source: str

    def verify(self, signer: str, public_key: bytes) -> BodyT:
        """Return the body if `signer` signed it with the secret half of `public_key`.

        Raises:
            KeyMaterialError: The signature does not hold.
        """
        message = self.form.message(signer, self.body_bytes)
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signatures[signer], message)
        except (InvalidSignature, ValueError):
            raise KeyMaterialError(
                f"{self.source}: the {signer} signature of this {self.form.kind} does not hold",
                hint="the file was changed on its way, or belongs to another key: fetch it again",
            ) from None
        return self.body


def write_document(form: Form[BodyT], body: BodyT, sign: Mapping[str, Sign]) -> bytes:
    """Write and sign a document.

    Args:
        form: Its kind.
        body: What it says.
        sign: Signing function of every signer of the form.

    Returns:
        The file's bytes, ending in one line feed.
    """
    text = msgspec.json.format(msgspec.json.encode(body), indent=2)
    signatures = {who: sign[who](form.message(who, text)) for who in form.signers}
    return _render(form.format, text, signatures)


def open_document(form: Form[BodyT], data: bytes, *, source: str) -> Opened[BodyT]:
    """Parse a document strictly; the caller then verifies each signature.

    Args:
        form: The kind expected.
        data: The file's bytes.
        source: File name for error messages.

    Raises:
        KeyMaterialError: Too long, of another kind, or not in canonical form (K-06, K-07).
    """
    check_size(data, form.max_bytes, source)
    envelope = parse_strictly(_Envelope, data, source=source)
    if envelope.format != form.format:
        raise KeyMaterialError(
            f"{source}: this is {envelope.format[:60]!r}, expected {form.format!r}",
            hint="another kind of file, or one of a newer release",
        )
    if tuple(envelope.signatures) != form.signers:
        raise KeyMaterialError(
            f"{source}: the signatures must be exactly {', '.join(form.signers)}",
            hint="fetch the file again",
        )
    body = parse_strictly(form.body, bytes(envelope.body), source=source)
    text = msgspec.json.format(msgspec.json.encode(body), indent=2)
    if _render(form.format, text, envelope.signatures).removesuffix(b"\n") != data.removesuffix(
        b"\n"
    ):
        raise KeyMaterialError(
            f"{source}: not in canonical form",
            hint="it was edited or reformatted by hand: fetch the original",
        )
    return Opened(form, body, text, envelope.signatures, source)


def check_size(data: bytes, max_bytes: int, source: str) -> None:
    """Refuse what is too long to be ours, before any of it is parsed (K-06)."""
    if len(data) > max_bytes:
        raise KeyMaterialError(
            f"{source}: {len(data)} bytes, at most {max_bytes} are allowed",
            hint="this is not a file of secagg keys",
        )


def parse_strictly(kind: type[ValueT], data: bytes, *, source: str) -> ValueT:
    """Parse JSON into `kind`; unknown fields and wrong types are refused.

    Never used on decrypted secrets: the parser quotes what it dislikes.

    Raises:
        KeyMaterialError: The text is not such a value.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except _BROKEN as error:
        cause = "".join(c if c.isprintable() else "?" for c in str(error)[:200])  # K-07
        raise KeyMaterialError(
            f"{source}: cannot be read: {cause}",
            hint="the file is damaged or of another kind: fetch it again",
        ) from None


def _render(format_: str, body: bytes, signatures: Mapping[str, bytes]) -> bytes:
    signed = msgspec.json.format(msgspec.json.encode(dict(signatures)), indent=2)
    head = b'{\n"format": ' + msgspec.json.encode(format_)
    return head + b',\n"body": ' + body + b',\n"signatures": ' + signed + b"\n}\n"
