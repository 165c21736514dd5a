"""Every domain-separation tag in one place, all built from the protocol version.

No two uses of a key or hash share a tag, so bytes made for one purpose mean nothing for another.
"""

from __future__ import annotations

from typing import Final

from secagg.version import PROTOCOL_VERSION

__all__ = [
    "AGREEMENT_SEED",
    "BACKUP",
    "BOX_KEY",
    "COIN",
    "COMMITTEE",
    "COMMITTEE_KEYS",
    "ENVELOPE",
    "EPOCH",
    "EPOCH_ROTATION",
    "GRAPH",
    "KEM_SEED",
    "KEY_ADVERT",
    "LEDGER_ENTRY",
    "LEDGER_FRAGMENT",
    "LEDGER_RECEIPT",
    "OFFER",
    "PAIR_CONFIRMATION",
    "PAIR_KEY",
    "PAIR_MASK",
    "PUBLIC_ELEMENTS",
    "ROTATION",
    "ROUND_COMMITMENT",
    "SEALING_KEY",
    "SELF_COMMITMENT",
    "SELF_MASK",
    "SHARERS",
    "SHARE_SEAL",
    "SURVIVORS",
    "WEIGHTED_SURVIVORS",
]


def _tag(purpose: str) -> bytes:
    return f"secagg/v{PROTOCOL_VERSION}/{purpose}\0".encode()  # W-09


ENVELOPE: Final = _tag("envelope")
OFFER: Final = _tag("offer")
KEY_ADVERT: Final = _tag("key-advert")
GRAPH: Final = _tag("graph")
COIN: Final = _tag("coin")
AGREEMENT_SEED: Final = _tag("agreement-seed")
KEM_SEED: Final = _tag("kem-seed")
PAIR_KEY: Final = _tag("pair-key")
PAIR_CONFIRMATION: Final = _tag("pair-confirmation")
PAIR_MASK: Final = _tag("pair-mask")
SELF_MASK: Final = _tag("self-mask")
BACKUP: Final = _tag("backup")
ROUND_COMMITMENT: Final = _tag("round-commitment")
SELF_COMMITMENT: Final = _tag("self-commitment")
SHARE_SEAL: Final = _tag("share-seal")
SHARERS: Final = _tag("sharers")
SURVIVORS: Final = _tag("survivors")
SEALING_KEY: Final = _tag("sealing-key")
COMMITTEE: Final = _tag("committee")
COMMITTEE_KEYS: Final = _tag("committee-keys")
BOX_KEY: Final = _tag("box-key")
PUBLIC_ELEMENTS: Final = _tag("public-elements")
ROTATION: Final = _tag("rotation")
EPOCH: Final = _tag("epoch")
EPOCH_ROTATION: Final = _tag("epoch-rotation")
WEIGHTED_SURVIVORS: Final = _tag("weighted-survivors")
LEDGER_ENTRY: Final = _tag("ledger-entry")
LEDGER_FRAGMENT: Final = _tag("ledger-fragment")
LEDGER_RECEIPT: Final = _tag("ledger-receipt")
