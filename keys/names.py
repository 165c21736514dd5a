"""What is named how: node ids, federation ids, roles, fingerprints and the clock tolerance.

specs/70-keys.md sections 2 and 3.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from secagg.errors import ConfigError, LocalProtocolError

__all__ = [
    "CLOCK_SKEW_S",
    "FEDERATION_NAME",
    "KEY_BYTES",
    "NODE_ID",
    "Rng",
    "Role",
    "check_federation_name",
    "check_node_id",
    "domain_tag",
    "draw",
    "federation_id",
    "member_fingerprint",
    "normal_fingerprint",
    "root_fingerprint",
]

Rng = Callable[[int], bytes]
"""Gives n unpredictable bytes; commands pass `os.urandom`, tests a labelled stream."""

KEY_BYTES: Final = 32
"""Ed25519 and X25519 keys, public and secret, in raw form."""

CLOCK_SKEW_S: Final = 300
"""A certificate counts this long before its `not_before`: the root's clock may be ahead of ours."""

NODE_ID: Final = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"
"""Safe as a file name on every system, as a log value, and as one line on a phone call."""

FEDERATION_NAME: Final = r"^[a-z0-9][a-z0-9-]{0,39}\Z"


class Role(StrEnum):
    """What a certificate entitles its holder to be."""

    COORDINATOR = "coordinator"
    NODE = "node"


def check_node_id(text: str) -> str:
    """Return `text` if it can name a node.

    Raises:
        ConfigError: It cannot (K-02).
    """
    if re.match(NODE_ID, text) is None:
        raise ConfigError(
            f"{text[:80]!r} cannot be a node id",
            hint="1 to 63 of a-z 0-9 . _ - and the first a letter or a digit, such as plant-a",
        )
    return text


def check_federation_name(text: str) -> str:
    """Return `text` if it can name a federation.

    Raises:
        ConfigError: It cannot (K-02).
    """
    if re.match(FEDERATION_NAME, text) is None:
        raise ConfigError(
            f"{text[:80]!r} cannot be the name of a federation",
            hint="1 to 40 of a-z 0-9 - and the first a letter or a digit, such as north-plants",
        )
    return text


def domain_tag(*parts: str) -> bytes:
    """Return the tag that opens what is signed or hashed here: no two uses share one (K-05)."""
    return ".".join(("secagg.keys.v1", *parts)).encode() + b"\x00"


def draw(rng: Rng, size: int) -> bytes:
    """Take `size` bytes from `rng`, the only randomness of this package (K-03).

    Raises:
        LocalProtocolError: The source gave another number of bytes.
    """
    value = rng(size)
    if len(value) != size:
        raise LocalProtocolError(f"the random source gave {len(value)} bytes, {size} were asked")
    return value


def _grouped(digest: bytes) -> str:
    """Write the first 160 bits as eight groups of four base32 characters, to be read aloud."""
    text = base64.b32encode(digest[:20]).decode().lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def member_fingerprint(node_id: str, role: Role, signing_key: bytes, transport_key: bytes) -> str:
    """Name one party's keys and role: equal in its request, its certificate and the roster (K-10).

    Returns:
        160 bits of SHA-256, base32 in eight groups: a second preimage costs 2^160 trials.
    """
    who = f"{node_id}\x00{role.value}\x00".encode()
    return _grouped(
        hashlib.sha256(domain_tag("member") + who + signing_key + transport_key).digest()
    )


def root_fingerprint(root_key: bytes) -> str:
    """Name a root key, to be compared out of band at `install` (K-15)."""
    return _grouped(hashlib.sha256(domain_tag("root-key") + root_key).digest())


def normal_fingerprint(text: str) -> str:
    """Undo what people do to fingerprints: capitals, blanks, other or no hyphens."""
    bare = re.sub(r"[\s:-]", "", text).lower()
    return "-".join(bare[at : at + 4] for at in range(0, len(bare), 4))


def federation_id(name: str, root_key: bytes) -> str:
    """Return `<name>.<8 hex>`: two federations of one name, under two roots, stay apart (K-04)."""
    return f"{name}.{hashlib.sha256(domain_tag('federation') + root_key).hexdigest()[:8]}"
