from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.names import (
    Role,
    check_federation_name,
    check_node_id,
    domain_tag,
    draw,
    federation_id,
    member_fingerprint,
    normal_fingerprint,
    root_fingerprint,
)
from secagg.errors import ConfigError, LocalProtocolError


@pytest.mark.req("K-02")
@pytest.mark.parametrize("name", ["a", "0", "plant-a", "plant_a.west-2", "a" * 63, "a..b"])
def test_good_node_ids_pass(name: str) -> None:
    assert check_node_id(name) == name


@pytest.mark.req("K-02")
@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, "A", "-a", ".", "..", "../x", "a/b", "/etc", "a\\b", "a b", "a\n", "a\x00", "ä"],
)
def test_bad_node_ids_are_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_node_id(name)
    assert "plant-a" in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.req("K-02")
@pytest.mark.parametrize("name", ["", "a" * 41, "North", "a.b", "a\n", "a/b"])
def test_bad_federation_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_federation_name(name)


@pytest.mark.req("K-04")
def test_federations_of_one_name_under_two_roots_have_two_ids() -> None:
    one, two = federation_id("north", bytes(32)), federation_id("north", b"\x01" + bytes(31))
    assert one != two
    assert one.startswith("north.")


@pytest.mark.req("K-05")
def test_no_domain_tag_is_the_beginning_of_another() -> None:
    uses = [
        ("root", "root"),
        ("request", "self"),
        ("rotation", "self"),
        ("rotation", "previous"),
        ("certificate", "root"),
        ("roster", "root"),
        ("member",),
        ("root-key",),
        ("federation",),
        ("secret", "key-file"),
    ]
    tags = [domain_tag(*use) for use in uses]
    for one, two in combinations(tags, 2):
        assert not one.startswith(two)
        assert not two.startswith(one)


@pytest.mark.req("K-10")
def test_a_fingerprint_covers_name_role_and_both_keys() -> None:
    key, other = bytes(32), b"\x01" * 32
    prints = {
        member_fingerprint("a", Role.NODE, key, key),
        member_fingerprint("b", Role.NODE, key, key),
        member_fingerprint("a", Role.COORDINATOR, key, key),
        member_fingerprint("a", Role.NODE, other, key),
        member_fingerprint("a", Role.NODE, key, other),
        root_fingerprint(key),
    }
    assert len(prints) == 6


@pytest.mark.req("K-10")
def test_a_fingerprint_survives_the_telephone() -> None:
    text = root_fingerprint(bytes(32))
    assert len(text) == 39
    assert normal_fingerprint(text.upper().replace("-", " ")) == text
    assert normal_fingerprint(text.replace("-", "")) == text
    assert normal_fingerprint(text[:-1]) != text


@pytest.mark.req("K-03")
@given(st.integers(0, 64).filter(lambda size: size != 32))
def test_a_random_source_that_gives_too_little_is_a_bug(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        draw(lambda _: bytes(size), 32)
