"""Identities for simulations and attacks: a key each, under whatever name."""

from __future__ import annotations

import pytest

from nodes.ephemeral import EphemeralIdentity
from secagg.errors import AuthenticationError
from secagg.primitives.signing import sign, verify
from secagg.tags import KEY_ADVERT


def test_its_signatures_hold_under_its_own_key_only() -> None:
    one, impostor = EphemeralIdentity("plant-a"), EphemeralIdentity("plant-a")
    signature = sign(one, KEY_ADVERT, b"message")
    verify(one.public, signature, KEY_ADVERT, b"message", signer="plant-a")
    with pytest.raises(AuthenticationError):
        verify(impostor.public, signature, KEY_ADVERT, b"message", signer="plant-a")
