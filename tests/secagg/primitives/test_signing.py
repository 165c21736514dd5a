"""Ed25519 by RFC 8032; every bit of key, signature and parts counts."""

import pytest

from secagg.errors import AuthenticationError
from secagg.primitives.signing import SIGNATURE_SIZE, sign, verify
from tests.support.fleet import TestSigner

PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b4"
    "6bd25bf5f0595bbe24655141438e7a100b"
)


def test_rfc_8032_test_1() -> None:
    """Section 7.1, over the empty message."""
    verify(PUBLIC, SIGNATURE, b"", signer="a")


def test_a_signature_verifies_and_no_other_parts_do() -> None:
    signer = TestSigner("a")
    signature = sign(signer, b"tag", b"one", b"two")
    assert len(signature) == SIGNATURE_SIZE
    verify(signer.public, signature, b"tag", b"one", b"two", signer="a")
    for tag, parts in ((b"gat", (b"one", b"two")), (b"tag", (b"onet", b"wo")), (b"tag", (b"one",))):
        with pytest.raises(AuthenticationError):
            verify(signer.public, signature, tag, *parts, signer="a")


@pytest.mark.parametrize("bit", range(0, 512, 7))
def test_every_bit_of_the_signature_counts(bit: int) -> None:
    damaged = bytearray(SIGNATURE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AuthenticationError) as caught:
        verify(PUBLIC, bytes(damaged), b"", signer="a")
    assert caught.value.peer == "a"


@pytest.mark.parametrize(
    ("key", "signature"), [(b"", SIGNATURE), (PUBLIC, b""), (PUBLIC[1:], SIGNATURE)]
)
def test_malformed_input_is_the_same_error(key: bytes, signature: bytes) -> None:
    with pytest.raises(AuthenticationError):
        verify(key, signature, b"", signer="a")
