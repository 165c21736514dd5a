from __future__ import annotations

import stat
from pathlib import Path

import pytest

from keys import authority
from keys.authority import init_root, open_root, read_history
from keys.certificates import (
    Previous,
    Request,
    read_bundle,
    read_certificate,
    read_request,
    write_request,
)
from keys.enrolment import rotate
from keys.identity import load_identity, make_secret_file
from keys.names import Role
from keys.sealing import Unlock
from keys.store import write_atomic
from secagg.errors import ConfigError, KeyMaterialError
from tests.keys.fleet import FAST, NOW, YEAR, Fleet, InsecureRng, snapshot

DAY = 86_400


def test_a_new_root_has_an_empty_roster(fleet: Fleet) -> None:
    roster = fleet.root.roster()
    assert (roster.version, roster.members, roster.revoked) == (1, (), ())
    assert roster.federation == fleet.root.card.federation


@pytest.mark.req("K-21")
def test_the_root_folder_is_private(fleet: Fleet) -> None:
    for path in [fleet.root.folder, *fleet.root.folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_root_is_never_made_twice_in_a_folder(fleet: Fleet) -> None:
    before = snapshot(fleet.root.folder)
    with pytest.raises(KeyMaterialError, match="never overwritten"):
        init_root(fleet.root.folder, "north", now=NOW, rng=fleet.rng)
    assert snapshot(fleet.root.folder) == before


@pytest.mark.req("K-26")
def test_an_encrypted_root_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    good, wrong = (Unlock.from_passphrase(text) for text in ("correct horse", "wrong horse"))
    made = init_root(tmp_path / "r", "north", now=NOW, rng=InsecureRng(), protect=good, log_n=FAST)
    assert open_root(tmp_path / "r", good).card == made.card
    with pytest.raises(KeyMaterialError, match="wrong passphrase"):
        open_root(tmp_path / "r", wrong)


def test_approval_certifies_exactly_what_was_asked(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    bundle = read_bundle(fleet.grant(request, days=30))
    member = read_certificate(bundle.certificate, fleet.root.card.root_key).member
    assert (member.node_id, member.role) == ("plant-a", Role.NODE)
    assert (member.signing_key, member.transport_key) == (
        request.signing_key,
        request.transport_key,
    )
    assert (member.not_before, member.not_after) == (NOW, NOW + 30 * DAY)
    assert fleet.root.roster().members == (member,)


@pytest.mark.req("K-24")
def test_each_change_makes_one_version_and_every_version_is_kept(fleet: Fleet) -> None:
    fleet.enrol("hub", Role.COORDINATOR)
    fleet.enrol("plant-a")
    first = snapshot(fleet.root.folder / "history")
    fleet.root.revoke("plant-a", now=NOW)
    last = snapshot(fleet.root.folder / "history")
    assert [roster.version for roster, _ in read_history(fleet.root.folder, fleet.root.card)] == [
        1,
        2,
        3,
        4,
    ]
    assert {name: last[name] for name in first} == first
    assert (fleet.root.folder / "roster.json").read_bytes() == last["roster-000004.json"]


def test_many_requests_make_one_version(fleet: Fleet) -> None:
    requests = [fleet.ask(f"plant-{at}") for at in range(3)]
    prints = [request.fingerprint for request in requests]
    bundles = fleet.root.approve(requests, now=NOW, fingerprints=prints)
    assert len(bundles) == 3
    assert fleet.root.roster().version == 2
    assert [member.serial for member in fleet.root.roster().members] == [1, 2, 3]


@pytest.mark.req("K-10")
@pytest.mark.parametrize("fingerprints", [[], ["aaaa-bbbb"], [""]])
def test_a_first_request_needs_its_fingerprint_compared(fleet: Fleet, fingerprints: list) -> None:
    before = snapshot(fleet.root.folder)
    with pytest.raises(KeyMaterialError, match="not confirmed") as caught:
        fleet.grant(fleet.ask("plant-a"), fingerprints=fingerprints)
    assert "--fingerprint" in caught.value.hint
    assert snapshot(fleet.root.folder) == before


@pytest.mark.req("K-11")
@pytest.mark.parametrize(("asked", "meant"), [tuple(Role), tuple(reversed(Role))])
def test_a_request_for_another_role_is_refused(fleet: Fleet, asked: Role, meant: Role) -> None:
    with pytest.raises(KeyMaterialError, match=f"asks for the role {asked.value}"):
        fleet.grant(fleet.ask("x", asked), grant=meant)


@pytest.mark.req("K-11")
def test_a_second_coordinator_is_refused_until_the_first_is_revoked(fleet: Fleet) -> None:
    fleet.enrol("hub", Role.COORDINATOR)
    second = fleet.ask("hub-2", Role.COORDINATOR)
    with pytest.raises(KeyMaterialError, match="has a coordinator, hub"):
        fleet.grant(second)
    fleet.root.revoke("hub", now=NOW)
    fleet.grant(second)
    assert fleet.root.roster().coordinator.node_id == "hub-2"


@pytest.mark.req("K-11")
def test_two_coordinators_in_one_go_are_refused_and_nothing_is_issued(fleet: Fleet) -> None:
    pair = [fleet.ask(name, Role.COORDINATOR) for name in ("hub", "hub-2")]
    with pytest.raises(KeyMaterialError, match="has a coordinator"):
        fleet.root.approve(
            pair, now=NOW, fingerprints=[p.fingerprint for p in pair], grant=Role.COORDINATOR
        )
    assert fleet.root.roster().version == 1


@pytest.mark.req("K-11")
def test_a_name_is_given_once(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    other, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("other"))
    with pytest.raises(KeyMaterialError, match="in the roster already, with serial 1"):
        fleet.grant(_request_of(other))


@pytest.mark.req("K-11")
def test_a_key_is_given_once(fleet: Fleet) -> None:
    """A node that asks for another's transport key under its own signature."""
    victim = fleet.enrol("plant-a")
    thief, _ = make_secret_file("plant-z", Role.NODE, now=NOW, rng=InsecureRng("thief"))
    stolen = Request("plant-z", Role.NODE, thief.signing_key, victim.transport_key, NOW)
    with pytest.raises(KeyMaterialError, match="another member's"):
        fleet.grant(read_request(write_request(stolen, thief.sign)))


def test_a_lost_bundle_is_written_again_without_a_new_version(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    first = fleet.grant(request)
    assert fleet.grant(request, now=NOW + DAY, fingerprints=[]) == first
    assert fleet.root.roster().version == 2


@pytest.mark.req("K-14")
def test_revoked_keys_never_come_back(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    identity = fleet.install("plant-a", fleet.grant(request))
    roster = fleet.root.revoke("plant-a", now=NOW, reason="gateway stolen")
    assert roster.by_transport_key(identity.transport_key) is None
    assert (roster.revoked[0].serial, roster.revoked[0].reason) == (1, "gateway stolen")
    for options in ({}, {"readmit": True}):
        with pytest.raises(KeyMaterialError, match="never come back"):
            fleet.grant(request, **options)


@pytest.mark.req("K-14")
@pytest.mark.parametrize("mixed", ["signing", "transport"])
def test_half_of_a_revoked_pair_does_not_come_back(fleet: Fleet, mixed: str) -> None:
    old = fleet.enrol("plant-a")
    fleet.root.revoke("plant-a", now=NOW)
    new, _ = make_secret_file("plant-b", Role.NODE, now=NOW, rng=InsecureRng("new"))
    signer, transport = (old, new) if mixed == "signing" else (new, old)
    request = Request("plant-b", Role.NODE, signer.signing_key, transport.transport_key, NOW)
    with pytest.raises(KeyMaterialError, match="never come back"):
        fleet.grant(read_request(write_request(request, signer.sign)), readmit=True)


@pytest.mark.req("K-14")
def test_a_revoked_name_comes_back_under_new_keys_and_only_on_purpose(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    fleet.root.revoke("plant-a", now=NOW)
    new, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("new"))
    with pytest.raises(KeyMaterialError, match="was revoked") as caught:
        fleet.grant(_request_of(new))
    assert "--readmit" in caught.value.hint
    fleet.grant(_request_of(new), readmit=True)
    assert fleet.root.roster().member("plant-a").serial == 2


@pytest.mark.req("K-14")
def test_a_revoked_member_cannot_rotate_itself_back(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    fleet.root.revoke("plant-a", now=NOW)
    request = rotate(fleet.path / "plant-a", now=NOW, rng=fleet.rng)
    with pytest.raises(KeyMaterialError, match="plant-a was revoked"):
        fleet.grant(request)


def test_revoking_nobody_is_refused(fleet: Fleet) -> None:
    with pytest.raises(KeyMaterialError, match="plant-z"):
        fleet.root.revoke("plant-z", now=NOW)
    with pytest.raises(ConfigError, match="one line"):
        fleet.root.revoke("plant-z", now=NOW, reason="a\nb")


@pytest.mark.req("K-12")
def test_a_rotation_needs_no_telephone_call_and_replaces_the_keys(fleet: Fleet) -> None:
    old = fleet.enrol("plant-a")
    request = rotate(fleet.path / "plant-a", now=NOW, rng=fleet.rng)
    fleet.grant(request, fingerprints=[])
    roster = fleet.root.roster()
    member = roster.member("plant-a")
    assert (member.serial, member.signing_key) == (2, request.signing_key)
    assert [(each.serial, each.reason) for each in roster.revoked] == [(1, "rotated")]
    assert roster.by_transport_key(old.transport_key) is None


@pytest.mark.req("K-12")
def test_a_rotation_signed_by_an_expired_key_needs_the_call(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    late = NOW + YEAR
    request = rotate(fleet.path / "plant-a", now=late, rng=fleet.rng)
    with pytest.raises(KeyMaterialError, match="not confirmed"):
        fleet.grant(request, now=late, fingerprints=[])
    fleet.grant(request, now=late)
    assert fleet.root.roster().member("plant-a").valid_at(late)


@pytest.mark.req("K-12")
def test_a_rotation_cannot_be_replayed_after_the_next(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    folder = fleet.path / "plant-a"
    unused = rotate(folder, now=NOW, rng=fleet.rng)
    used = rotate(folder, now=NOW, rng=fleet.rng, restart=True)
    fleet.install("plant-a", fleet.grant(used, fingerprints=[]))
    with pytest.raises(KeyMaterialError, match="does not continue serial 2"):
        fleet.grant(unused)


@pytest.mark.req("K-12")
def test_a_rotation_of_another_member_is_refused(fleet: Fleet) -> None:
    """plant-b signs, with its own good key, new keys for plant-a."""
    fleet.enrol("plant-a")
    evil = fleet.enrol("plant-b")
    new, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("new"))
    for serial, key in ((2, evil.signing_key), (1, evil.signing_key)):
        previous = Previous(fleet.root.card.federation, serial, key)
        request = Request("plant-a", Role.NODE, new.signing_key, new.transport_key, NOW, previous)
        signed = read_request(write_request(request, new.sign, evil.sign))
        with pytest.raises(KeyMaterialError, match="does not continue"):
            fleet.grant(signed)


@pytest.mark.req("K-12")
@pytest.mark.parametrize("wrong", [{"serial": 2}, {"federation": "south.00000000"}])
def test_a_rotation_of_another_serial_or_federation_is_refused(fleet: Fleet, wrong: dict) -> None:
    old = fleet.enrol("plant-a")
    new, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("new"))
    named = {"federation": fleet.root.card.federation, "serial": 1} | wrong
    previous = Previous(signing_key=old.signing_key, **named)
    request = Request("plant-a", Role.NODE, new.signing_key, new.transport_key, NOW, previous)
    with pytest.raises(KeyMaterialError, match="does not continue"):
        fleet.grant(read_request(write_request(request, new.sign, old.sign)))


@pytest.mark.req("K-12")
def test_a_rotation_names_the_key_that_signs_it(fleet: Fleet) -> None:
    victim = fleet.enrol("plant-a")
    new, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("new"))
    previous = Previous(fleet.root.card.federation, 1, victim.signing_key)
    request = Request("plant-a", Role.NODE, new.signing_key, new.transport_key, NOW, previous)
    with pytest.raises(KeyMaterialError, match="previous signature"):
        read_request(write_request(request, new.sign, new.sign))


@pytest.mark.req("K-12")
def test_a_rotation_cannot_change_the_role(fleet: Fleet) -> None:
    old = fleet.enrol("plant-a")
    new, _ = make_secret_file("plant-a", Role.COORDINATOR, now=NOW, rng=InsecureRng("new"))
    previous = Previous(fleet.root.card.federation, 1, old.signing_key)
    request = Request(
        "plant-a", Role.COORDINATOR, new.signing_key, new.transport_key, NOW, previous
    )
    signed = read_request(write_request(request, new.sign, old.sign))
    with pytest.raises(KeyMaterialError, match="does not continue"):
        fleet.grant(signed)


@pytest.mark.req("K-24")
def test_a_crash_between_history_and_copy_is_mended(fleet: Fleet, monkeypatch) -> None:
    request = fleet.ask("plant-a")

    def crash(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(authority, "write_atomic", crash)
    with pytest.raises(KeyboardInterrupt):
        fleet.grant(request)
    monkeypatch.undo()
    root = open_root(fleet.root.folder)
    assert root.roster().version == 2
    page = fleet.root.folder / "history" / "roster-000002.json"
    assert (fleet.root.folder / "roster.json").read_bytes() == page.read_bytes()
    fleet.grant(request)
    assert root.roster().version == 2


@pytest.mark.req("K-24")
def test_a_gap_or_a_change_in_the_history_is_refused(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    fleet.enrol("plant-b")
    page = fleet.root.folder / "history" / "roster-000002.json"
    good = page.read_bytes()
    page.unlink()
    with pytest.raises(KeyMaterialError):
        open_root(fleet.root.folder)
    write_atomic(page, (page.parent / "roster-000003.json").read_bytes())
    with pytest.raises(KeyMaterialError):
        open_root(fleet.root.folder)
    write_atomic(page, good)
    assert open_root(fleet.root.folder).roster().version == 3


def test_a_clock_behind_the_last_roster_is_refused(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    with pytest.raises(KeyMaterialError, match="clock is 301 s behind"):
        fleet.grant(request, now=NOW - 301)
    fleet.grant(request, now=NOW - 300)


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_validity_has_bounds(fleet: Fleet, days: int) -> None:
    with pytest.raises(ConfigError, match=f"of {days} days"):
        fleet.grant(fleet.ask("plant-a"), days=days)


def test_a_root_with_the_secret_of_another_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    other = init_root(tmp_path / "other", "north", now=NOW, rng=InsecureRng("other"))
    path = fleet.root.folder / "root.secret"
    write_atomic(path, (other.folder / "root.secret").read_bytes())
    with pytest.raises(KeyMaterialError, match="does not fit"):
        open_root(fleet.root.folder)


def test_a_party_folder_is_no_root(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    with pytest.raises(KeyMaterialError, match=r"root\.secret"):
        open_root(fleet.path / "plant-a")
    assert load_identity(fleet.path / "plant-a").node_id == "plant-a"


def _request_of(identity) -> Request:
    return Request(
        identity.node_id, identity.role, identity.signing_key, identity.transport_key, NOW
    )
