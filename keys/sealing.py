"""Secrets at rest: plain, under a passphrase, or under a key file.

A passphrase goes through scrypt (RFC 7914), a key file through HKDF-SHA256 (RFC 5869); either key
seals the secret with ChaCha20-Poly1305 (RFC 8439), the readable head of the file being associated
data. Each file has its own salt, so no key is ever used twice (specs/70-keys.md section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keys.documents import check_size
from keys.names import Rng, domain_tag, draw
from keys.store import read_secret
from secagg.errors import ConfigError, KeyMaterialError

__all__ = [
    "MAX_SECRET_FILE_BYTES",
    "SCRYPT_LOG_N",
    "UNLOCK_VARIABLE",
    "Unlock",
    "about_secret",
    "is_sealed",
    "open_secret",
    "seal_secret",
]

UNLOCK_VARIABLE: Final = "SECAGG_PASSPHRASE"
SCRYPT_LOG_N: Final = 17
"""128 MiB and some 0.4 s a guess at r = 8, p = 1."""
MAX_SECRET_FILE_BYTES: Final = 16 << 10
_MIN_PASSPHRASE_BYTES: Final = 8
_MAX_PASSPHRASE_BYTES: Final = 1024
_KEY_FILE_BYTES: Final = (32, 4096)

Salt = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]


class _Plain(msgspec.Struct, tag_field="type", tag="none", forbid_unknown_fields=True):
    pass


class _Passphrase(msgspec.Struct, tag_field="type", tag="scrypt", forbid_unknown_fields=True):
    """Bounds hold 128·2^log_n·r bytes to 256 MiB: a file cannot make its reader run out (K-23)."""

    log_n: Annotated[int, msgspec.Meta(ge=14, le=18)]
    r: Literal[8]
    p: Annotated[int, msgspec.Meta(ge=1, le=4)]
    salt: Salt
    nonce: Nonce


class _KeyFile(msgspec.Struct, tag_field="type", tag="key-file", forbid_unknown_fields=True):
    salt: Salt
    nonce: Nonce


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["secagg secret 1"]
    kind: Literal["identity", "root"]
    about: msgspec.Raw
    protection: _Plain | _Passphrase | _KeyFile


class _SecretFile(_Head, forbid_unknown_fields=True):
    payload: bytes

    def head(self) -> bytes:
        """Return the associated data: everything but the payload, without blanks."""
        head = _Head(self.format, self.kind, self.about, self.protection)
        return msgspec.json.format(msgspec.json.encode(head), indent=-1)


@dataclass(frozen=True, eq=False)
class Unlock:
    """What opens secrets at rest; a passphrase is only asked for when a file needs one.

    Attributes:
        ask: Gives the passphrase (UTF-8), or None.
        key: Content of the key file, or None.
    """

    ask: Callable[[], bytes] | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_passphrase(cls, passphrase: str | bytes) -> Unlock:
        """Unlock with a passphrase that is at hand."""
        text = passphrase.encode() if isinstance(passphrase, str) else passphrase
        return cls(ask=lambda: text)

    @classmethod
    def from_passphrase_file(cls, path: Path) -> Unlock:
        """Unlock with the first line of a file of mode 0600."""
        line = read_secret(path, _MAX_PASSPHRASE_BYTES + 2).split(b"\n", 1)[0]
        return cls.from_passphrase(line.removesuffix(b"\r"))

    @classmethod
    def from_key_file(cls, path: Path) -> Unlock:
        """Unlock with 32 to 4096 random bytes in a file of mode 0600."""
        least, most = _KEY_FILE_BYTES
        key = read_secret(path, most)
        if len(key) < least:
            raise KeyMaterialError(
                f"{path}: a key file holds at least {least} random bytes, this one {len(key)}",
                hint=f"make one with: head -c 32 /dev/urandom > {path} && chmod 600 {path}",
            )
        return cls(key=key)

    @classmethod
    def gather(
        cls,
        environ: Mapping[str, str],
        *,
        passphrase_file: Path | None = None,
        key_file: Path | None = None,
        ask: Callable[[], bytes] | None = None,
    ) -> Unlock | None:
        """Pick the one source that was given: a file, SECAGG_PASSPHRASE, then `ask`.

        Raises:
            ConfigError: Both files were given.
        """
        if passphrase_file is not None and key_file is not None:
            raise ConfigError(
                "both a passphrase file and a key file were given", hint="give one of them"
            )
        if key_file is not None:
            return cls.from_key_file(key_file)
        if passphrase_file is not None:
            return cls.from_passphrase_file(passphrase_file)
        if environ.get(UNLOCK_VARIABLE):
            return cls.from_passphrase(environ[UNLOCK_VARIABLE])
        return None if ask is None else cls(ask=ask)


def seal_secret(
    kind: Literal["identity", "root"],
    about: msgspec.Struct,
    secret: bytes,
    *,
    protect: Unlock | None,
    rng: Rng,
    log_n: int = SCRYPT_LOG_N,
) -> bytes:
    """Return a secret file.

    Args:
        kind: Whose secret it is.
        about: What anyone may read: ids and public halves.
        secret: The secret halves, raw.
        protect: Passphrase or key file, or None to leave the file plain.
        rng: Source of salt and nonce.
        log_n: scrypt cost, log2, 14 to 18.

    Raises:
        ConfigError: The passphrase is too short or too long.
    """
    protection: _Plain | _Passphrase | _KeyFile
    if protect is None:
        protection = _Plain()
    elif protect.key is not None:
        protection = _KeyFile(draw(rng, 32), draw(rng, 12))
    else:
        protection = _Passphrase(log_n, 8, 1, draw(rng, 32), draw(rng, 12))
    raw = msgspec.Raw(msgspec.json.encode(about))
    file = _SecretFile("secagg secret 1", kind, raw, protection, secret)
    if protect is not None and not isinstance(protection, _Plain):
        cipher = ChaCha20Poly1305(_key(protection, protect, new=True))
        file.payload = cipher.encrypt(protection.nonce, secret, file.head())
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def about_secret(kind: str, data: bytes, *, source: str) -> bytes:
    """Return the readable part of a secret file (JSON); unproven until `open_secret`."""
    return bytes(_parse(kind, data, source).about)


def is_sealed(kind: str, data: bytes, *, source: str) -> bool:
    """Tell whether a secret file is encrypted."""
    return not isinstance(_parse(kind, data, source).protection, _Plain)


def open_secret(kind: str, data: bytes, unlock: Unlock | None, *, source: str) -> bytes:
    """Return the secret halves.

    Raises:
        KeyMaterialError: Not such a file, no or the wrong passphrase or key file, or changed.
    """
    file = _parse(kind, data, source)
    protection = file.protection
    if isinstance(protection, _Plain):
        return file.payload
    means = "key file" if isinstance(protection, _KeyFile) else "passphrase"
    try:
        cipher = ChaCha20Poly1305(_key(protection, unlock or Unlock(), new=False))
        return cipher.decrypt(protection.nonce, file.payload, file.head())
    except _NoKeyError:
        raise KeyMaterialError(
            f"{source}: this secret is encrypted under a {means} and none was given",
            hint=f"give --{means.replace(' ', '-').replace('phrase', 'phrase-file')} FILE"
            + (f", or set {UNLOCK_VARIABLE}" if means == "passphrase" else ""),
        ) from None
    except InvalidTag:  # K-26
        raise KeyMaterialError(
            f"{source}: wrong {means}, or the file was changed",
            hint=f"try the {means} again; if it is right, restore the file from your backup",
        ) from None


class _NoKeyError(Exception):
    """The file asks for another means than the one at hand."""


def _parse(kind: str, data: bytes, source: str) -> _SecretFile:
    check_size(data, MAX_SECRET_FILE_BYTES, source)
    try:
        file = msgspec.json.decode(data, type=_SecretFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise KeyMaterialError(  # K-01: the parser's words are not repeated, they may quote
            f"{source}: not a secret file of this release, or damaged",
            hint="restore the file from your backup, or make a new identity",
        ) from None
    if file.kind != kind:
        raise KeyMaterialError(
            f"{source}: holds the secret of a {file.kind}, expected {kind}",
            hint="this is another party's folder",
        )
    return file


def _key(protection: _Passphrase | _KeyFile, unlock: Unlock, *, new: bool) -> bytes:
    if isinstance(protection, _KeyFile):
        if unlock.key is None:
            raise _NoKeyError
        info = domain_tag("secret", "key-file")
        return HKDF(SHA256(), 32, protection.salt, info).derive(unlock.key)
    if unlock.ask is None:
        raise _NoKeyError
    passphrase = unlock.ask()
    if new and not _MIN_PASSPHRASE_BYTES <= len(passphrase) <= _MAX_PASSPHRASE_BYTES:
        raise ConfigError(
            f"a passphrase has {_MIN_PASSPHRASE_BYTES} to {_MAX_PASSPHRASE_BYTES} bytes",
            hint="several random words are easy to type and hard to guess",
        )
    scrypt = Scrypt(protection.salt, 32, 1 << protection.log_n, protection.r, protection.p)
    return scrypt.derive(passphrase)
