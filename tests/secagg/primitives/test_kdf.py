"""HKDF by RFC 5869; framing is injective."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.primitives.kdf import derive, digest, frame


def test_rfc_5869_case_3() -> None:
    """Without salt and info: appendix A.3."""
    expected = (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert derive(b"\x0b" * 22, b"", length=42).hex() == expected


def test_digest_is_sha256_of_tag_and_lengths() -> None:
    by_hand = b"tag" + b"\x02" + bytes(7) + b"ab" + bytes(8)
    assert digest(b"tag", b"ab", b"") == hashlib.sha256(by_hand).digest()


parts = st.lists(st.binary(max_size=6), max_size=4)


@pytest.mark.req("W-09")
@given(parts, parts)
def test_framing_is_injective(left: list[bytes], right: list[bytes]) -> None:
    assert (frame(*left) == frame(*right)) == (left == right)


@pytest.mark.req("M-07")
def test_every_part_of_the_context_matters() -> None:
    base = derive(b"s" * 32, b"t", b"a", b"b")
    others = [
        derive(b"S" * 32, b"t", b"a", b"b"),
        derive(b"s" * 32, b"T", b"a", b"b"),
        derive(b"s" * 32, b"t", b"ab", b""),
        derive(b"s" * 32, b"t", b"b", b"a"),
        derive(b"s" * 32, b"t", b"a"),
    ]
    assert len({base, *others}) == 6
