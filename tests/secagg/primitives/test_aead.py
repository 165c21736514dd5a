"""ChaCha20-Poly1305 with a zero nonce: opens under its key and associated data only."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.errors import AuthenticationError
from secagg.primitives.aead import OVERHEAD, seal, unseal

KEY = bytes(range(32))


def test_it_is_chacha20_poly1305() -> None:
    box = seal(KEY, b"share", b"context")
    assert box == ChaCha20Poly1305(KEY).encrypt(bytes(12), b"share", b"context")
    assert len(box) == len(b"share") + OVERHEAD
    assert unseal(KEY, box, b"context", sender="a") == b"share"


@pytest.mark.req("M-10")
@pytest.mark.parametrize("bit", range(8 * (5 + OVERHEAD)))
def test_every_bit_counts(bit: int) -> None:
    box = bytearray(seal(KEY, b"share", b""))
    box[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AuthenticationError) as caught:
        unseal(KEY, bytes(box), b"", sender="a")
    assert caught.value.peer == "a"


@pytest.mark.parametrize("box", [b"", bytes(15), bytes(16), bytes(200)])
def test_what_is_no_box_does_not_open(box: bytes) -> None:
    with pytest.raises(AuthenticationError):
        unseal(KEY, box, b"", sender="a")


def test_another_context_does_not_open() -> None:
    with pytest.raises(AuthenticationError):
        unseal(KEY, seal(KEY, b"share", b"one"), b"two", sender="a")
