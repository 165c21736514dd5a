from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keys.names import federation_id
from keys.roster import Member, Revocation, Role, Roster, verify_roster, write_roster
from secagg.errors import KeyMaterialError
from tests.keys.fleet import NOW, YEAR, Fleet

SIGNER = Ed25519PrivateKey.from_private_bytes(b"r" * 32)
ROOT = SIGNER.public_key().public_bytes_raw()


def member(node_id: str, serial: int, role: Role = Role.NODE) -> Member:
    return Member(
        node_id=node_id,
        role=role,
        signing_key=bytes([serial]) * 32,
        transport_key=bytes([serial + 100]) * 32,
        not_before=NOW,
        not_after=NOW + YEAR,
        serial=serial,
    )


HUB, A, B = member("hub", 1, Role.COORDINATOR), member("plant-a", 2), member("plant-b", 3)
GONE = Revocation("plant-c", 4, b"x" * 32, b"y" * 32, NOW, "gateway stolen")
PLAIN = Roster(federation_id("north", ROOT), 7, NOW, (HUB, A, B), (GONE,))


def issued(**changes: object) -> bytes:
    return write_roster(replace(PLAIN, **changes), SIGNER.sign)  # type: ignore[arg-type]


def test_a_roster_reads_back() -> None:
    roster = verify_roster(issued(), ROOT)
    assert replace(roster, digest=b"") == PLAIN
    assert roster.coordinator == HUB
    assert roster.nodes == (A, B)
    assert roster.member("plant-b") == B
    assert roster.by_transport_key(A.transport_key) == A
    assert roster.by_transport_key(GONE.transport_key) is None
    with pytest.raises(KeyMaterialError, match="plant-z"):
        roster.member("plant-z")


def test_a_roster_without_a_coordinator_says_so() -> None:
    with pytest.raises(KeyMaterialError, match="no coordinator"):
        _ = verify_roster(issued(members=(A, B)), ROOT).coordinator


@pytest.mark.req("K-13")
def test_validity_has_300_seconds_of_grace_before_and_none_after() -> None:
    roster = verify_roster(issued(), ROOT)
    assert roster.active(NOW - 301) == ()
    assert roster.active(NOW - 300) == (HUB, A, B)
    assert roster.active(NOW + YEAR - 1) == (HUB, A, B)
    assert roster.active(NOW + YEAR) == ()


@pytest.mark.req("K-16")
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"members": (A, HUB, B)}, "sorted"),
        ({"members": (A, replace(B, node_id="plant-a"))}, "sorted, or one is listed twice"),
        ({"members": (HUB, replace(A, role=Role.COORDINATOR))}, "two coordinators"),
        ({"members": (A, replace(B, serial=2))}, "serial"),
        ({"members": (A, replace(B, serial=4))}, "serial"),
        ({"members": (A, replace(B, signing_key=A.signing_key))}, "key is used twice"),
        ({"members": (A, replace(B, transport_key=A.transport_key))}, "key is used twice"),
        ({"members": (replace(A, transport_key=GONE.transport_key),)}, "key is used twice"),
        ({"members": (replace(A, not_after=NOW),)}, "ends before"),
        ({"revoked": (GONE, replace(GONE, serial=3, signing_key=ROOT))}, "sorted|serial|twice"),
        ({"federation": "north.00000000"}, "another root"),
    ],
)
def test_a_roster_at_odds_with_itself_is_refused(changes: dict, fault: str) -> None:
    with pytest.raises(KeyMaterialError, match=fault):
        verify_roster(issued(**changes), ROOT)


@pytest.mark.req("K-16")
@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"issued": -1},
        {"previous": bytes(31)},
        {"members": (replace(A, node_id="../a"),)},
        {"members": (replace(A, node_id="plant-a\n"),)},
        {"members": (replace(A, signing_key=bytes(31)),)},
        {"members": (replace(A, serial=0),)},
        {"revoked": (replace(GONE, reason="\x1b[2J"),)},
        {"revoked": (replace(GONE, reason="x" * 201),)},
    ],
)
def test_values_out_of_range_are_refused_though_the_root_signed_them(changes: dict) -> None:
    with pytest.raises(KeyMaterialError, match="cannot be read"):
        verify_roster(issued(**changes), ROOT)


@pytest.mark.req("K-16")
def test_a_role_that_does_not_exist_is_refused() -> None:
    data = issued().replace(b'"role": "node"', b'"role": "admin"')
    with pytest.raises(KeyMaterialError, match="cannot be read"):
        verify_roster(data, ROOT)


@pytest.mark.req("K-05")
@pytest.mark.parametrize("field", list(json.loads(issued())["body"]))
def test_every_field_of_the_body_is_signed(field: str) -> None:
    data = issued()
    old = json.loads(data)["body"][field]
    new = {int: lambda v: v + 1, str: lambda v: v[:-1] + "0", list: lambda v: v[1:]}
    document = json.loads(data)
    document["body"][field] = new[type(old)](old)
    if field == "previous":
        document["body"][field] = "B" + old[1:]
    body = json.dumps(document["body"], indent=2)
    start, end = data.index(b'"body": ') + 8, data.index(b',\n"signatures"')
    with pytest.raises(KeyMaterialError, match="root signature"):
        verify_roster(data[:start] + body.encode() + data[end:], ROOT)


@pytest.mark.req("K-05")
def test_another_roots_roster_is_refused() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    with pytest.raises(KeyMaterialError, match="root signature"):
        verify_roster(write_roster(PLAIN, stranger.sign), ROOT)


@pytest.mark.req("K-17")
def test_an_older_version_is_refused() -> None:
    digest = verify_roster(issued(), ROOT).digest
    with pytest.raises(KeyMaterialError, match="version 7 of the roster, version 8 was seen"):
        verify_roster(issued(), ROOT, minimum_version=8)
    with pytest.raises(KeyMaterialError, match="version 6 of the roster") as caught:
        verify_roster(issued(version=6), ROOT, known=(7, digest))
    assert "old copy" in caught.value.hint
    assert verify_roster(issued(), ROOT, minimum_version=7, known=(7, digest)).version == 7


@pytest.mark.req("K-18")
def test_another_text_of_the_same_version_is_refused() -> None:
    digest = verify_roster(issued(), ROOT).digest
    with pytest.raises(KeyMaterialError, match="contradicts version 7"):
        verify_roster(issued(members=(HUB, A)), ROOT, known=(7, digest))


@pytest.mark.req("K-18")
def test_a_successor_of_another_text_is_refused() -> None:
    digest = verify_roster(issued(), ROOT).digest
    good = issued(version=8, previous=digest)
    assert verify_roster(good, ROOT, known=(7, digest)).version == 8
    with pytest.raises(KeyMaterialError, match="contradicts"):
        verify_roster(issued(version=8), ROOT, known=(7, digest))


@pytest.mark.req("K-10")
def test_request_certificate_and_roster_show_one_fingerprint(fleet: Fleet, tmp_path: Path) -> None:
    request = fleet.ask("plant-a")
    identity = fleet.install("plant-a", fleet.grant(request))
    assert identity.certificate is not None
    prints = {
        request.fingerprint,
        identity.fingerprint,
        identity.certificate.member.fingerprint,
        fleet.root.roster().member("plant-a").fingerprint,
    }
    assert len(prints) == 1
