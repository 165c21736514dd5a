"""X25519 by RFC 7748."""

import pytest

from secagg.errors import AuthenticationError
from secagg.primitives.agreement import agree, private_key, public_key

ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"

_P = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _P - 1,
    _P,
    _P + 1,
]
"""u coordinates of the points whose order divides 8 (RFC 7748 section 7; curve25519's cofactor)."""


def test_rfc_7748_section_6_1() -> None:
    alice, bob = private_key(ALICE), private_key(BOB)
    assert public_key(alice).hex() == ALICE_PUBLIC
    assert public_key(bob).hex() == BOB_PUBLIC
    assert agree(alice, "bob", public_key(bob)).hex() == SHARED
    assert agree(bob, "alice", public_key(alice)).hex() == SHARED


@pytest.mark.req("M-04")
@pytest.mark.parametrize("u", SMALL_ORDER)
def test_small_order_keys_are_refused(u: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        agree(private_key(ALICE), "mallory", u.to_bytes(32, "little"))
    assert caught.value.peer == "mallory"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(AuthenticationError):
        agree(private_key(ALICE), "mallory", bytes(size))
