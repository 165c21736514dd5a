from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from keys import enrolment, watch
from keys.certificates import (
    Bundle,
    Certificate,
    read_bundle,
    write_bundle,
    write_certificate,
)
from keys.enrolment import install_bundle, install_roster, make_request, request_path, rotate
from keys.identity import load_identity
from keys.names import Role, federation_id
from keys.sealing import Unlock, is_sealed
from keys.store import write_atomic
from keys.watch import RosterFile
from secagg.errors import ConfigError, KeyMaterialError
from tests.keys.fleet import FAST, NOW, YEAR, Fleet, make_fleet, snapshot

GOOD = Unlock.from_passphrase("correct horse battery")


@pytest.fixture
def strangers(tmp_path: Path) -> Fleet:
    return make_fleet(tmp_path / "strangers", "strangers")


@pytest.mark.req("K-08")
def test_only_the_request_speaks_of_the_keys_and_it_holds_no_secret(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    identity = load_identity(fleet.path / "plant-a")
    files = snapshot(fleet.path)
    secret = json.loads(files["plant-a/identity.secret"])["payload"]
    assert [name for name, data in files.items() if secret[8:40].encode() in data] == [
        "plant-a/identity.secret"
    ]
    fleet.install("plant-a", fleet.grant(fleet_request(fleet)))
    files = snapshot(fleet.path)
    for name, data in files.items():
        held = secret[8:40].encode() in data or identity.transport_secret in data
        assert held == (name == "plant-a/identity.secret"), name


@pytest.mark.req("K-21")
def test_a_party_folder_is_private(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    for path in [fleet.path / "plant-a", *(fleet.path / "plant-a").iterdir()]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_an_identity_is_never_overwritten(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    before = snapshot(fleet.path / "plant-a")
    with pytest.raises(KeyMaterialError, match="never overwritten"):
        fleet.ask("plant-a")
    assert snapshot(fleet.path / "plant-a") == before


@pytest.mark.req("K-02")
def test_a_bad_node_id_makes_no_file(fleet: Fleet) -> None:
    with pytest.raises(ConfigError):
        make_request(fleet.path / "x", "../evil", Role.NODE, now=NOW, rng=fleet.rng)
    assert not (fleet.path / "x").exists()


@pytest.mark.req("K-15")
def test_a_root_that_nobody_confirmed_is_refused(fleet: Fleet) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))
    before = snapshot(fleet.path / "plant-a")
    for given, cause in ((None, "not confirmed"), ("aaaa-bbbb", "not the one you expect")):
        with pytest.raises(KeyMaterialError, match=cause):
            fleet.install("plant-a", bundle, root_fingerprint=given)
    assert snapshot(fleet.path / "plant-a") == before


@pytest.mark.req("K-15")
def test_a_pinned_root_needs_no_second_call(fleet: Fleet) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))
    fleet.install("plant-a", bundle)
    assert fleet.install("plant-a", bundle, root_fingerprint=None).certificate is not None


@pytest.mark.req("K-15")
def test_another_root_than_the_pinned_one_is_refused(fleet: Fleet, strangers: Fleet) -> None:
    request = fleet.ask("plant-a")
    fleet.install("plant-a", fleet.grant(request))
    before = snapshot(fleet.path / "plant-a")
    with pytest.raises(KeyMaterialError, match="another root than the one pinned"):
        fleet.install(
            "plant-a",
            strangers.grant(request),
            root_fingerprint=strangers.root.card.fingerprint,
        )
    assert snapshot(fleet.path / "plant-a") == before


@pytest.mark.req("K-15")
@pytest.mark.parametrize("part", ["root", "certificate", "roster"])
def test_a_bundle_of_two_roots_is_refused(fleet: Fleet, strangers: Fleet, part: str) -> None:
    request = fleet.ask("plant-a")
    mine, theirs = read_bundle(fleet.grant(request)), read_bundle(strangers.grant(request))
    parts = {name: getattr(mine, name) for name in ("root", "certificate", "roster")}
    mixed = write_bundle(Bundle(**parts | {part: getattr(theirs, part)}))
    before = snapshot(fleet.path / "plant-a")
    with pytest.raises(KeyMaterialError):
        fleet.install("plant-a", mixed)
    assert snapshot(fleet.path / "plant-a") == before


@pytest.mark.req("K-15")
def test_the_bundle_of_another_party_is_refused(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    other = fleet.grant(fleet.ask("plant-b"))
    with pytest.raises(KeyMaterialError, match=r"made for other keys \(plant-b"):
        fleet.install("plant-a", other)


@pytest.mark.req("K-15")
def test_a_certificate_that_the_roster_does_not_list_is_refused(fleet: Fleet) -> None:
    old = read_bundle(fleet.grant(fleet.ask("plant-a")))
    fleet.root.revoke("plant-a", now=NOW)
    newest = (fleet.root.folder / "roster.json").read_bytes()
    mixed = write_bundle(Bundle(old.root, old.certificate, newest))
    with pytest.raises(KeyMaterialError, match="plant-a"):
        fleet.install("plant-a", mixed)


@pytest.mark.req("K-15")
def test_a_certificate_of_another_federation_is_refused(fleet: Fleet) -> None:
    """One root key, by mistake, under two federation names."""
    good = read_bundle(fleet.grant(fleet.ask("plant-a")))
    member = fleet.root.roster().member("plant-a")
    other = federation_id("south", fleet.root.card.root_key)
    certificate = write_certificate(Certificate(other, member), fleet.root.signer.sign)
    with pytest.raises(KeyMaterialError, match="of two federations"):
        fleet.install("plant-a", write_bundle(Bundle(good.root, certificate, good.roster)))


@pytest.mark.req("K-13")
@pytest.mark.parametrize("now", [NOW - 301, NOW + YEAR])
def test_a_certificate_out_of_its_time_is_refused(fleet: Fleet, now: int) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))
    with pytest.raises(KeyMaterialError, match="not valid at this time"):
        fleet.install("plant-a", bundle, now=now)


@pytest.mark.req("K-17")
def test_a_bundle_with_an_older_roster_leaves_the_newer_one(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    bundle = fleet.grant(request)
    fleet.install("plant-a", bundle)
    fleet.grant(fleet.ask("plant-b"))
    newest = (fleet.root.folder / "roster.json").read_bytes()
    install_roster(newest, fleet.path / "plant-a")
    fleet.install("plant-a", bundle)
    assert (fleet.path / "plant-a" / "roster.json").read_bytes() == newest


@pytest.mark.req("K-14")
@pytest.mark.req("K-17")
def test_an_old_bundle_does_not_undo_a_revocation(fleet: Fleet) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))
    fleet.install("plant-a", bundle)
    fleet.root.revoke("plant-a", now=NOW)
    install_roster((fleet.root.folder / "roster.json").read_bytes(), fleet.path / "plant-a")
    with pytest.raises(KeyMaterialError, match="plant-a was revoked"):
        fleet.install("plant-a", bundle)
    (fleet.path / "plant-a" / "roster.json").unlink()
    with pytest.raises(KeyMaterialError, match="version 3 was seen"):
        fleet.install("plant-a", bundle)


@pytest.mark.req("K-17")
def test_an_old_roster_is_not_installed(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    old = (fleet.root.folder / "history" / "roster-000001.json").read_bytes()
    with pytest.raises(KeyMaterialError, match="seen before"):
        install_roster(old, fleet.path / "plant-a")


def test_a_roster_needs_a_pinned_root(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    with pytest.raises(KeyMaterialError, match=r"root\.json"):
        install_roster((fleet.root.folder / "roster.json").read_bytes(), fleet.path / "plant-a")


@pytest.mark.req("K-25")
def test_a_rotation_leaves_the_present_keys_until_install(fleet: Fleet) -> None:
    old = fleet.enrol("plant-a")
    folder = fleet.path / "plant-a"
    request = rotate(folder, now=NOW, rng=fleet.rng)
    bundle = fleet.grant(request, fingerprints=[])
    assert load_identity(folder).fingerprint == old.fingerprint
    new = fleet.install("plant-a", bundle)
    assert new.fingerprint == load_identity(folder).fingerprint == request.fingerprint
    assert not (folder / "identity.next.secret").exists()
    rosters = RosterFile(folder / "roster.json", fleet.root.card.root_key)
    assert rosters.reload().member("plant-a").signing_key == new.signing_key


@pytest.mark.req("K-25")
@pytest.mark.parametrize(
    "fails_at", ["root.json", "roster.json", "roster.version", "certificate.json", "settle"]
)
def test_an_install_cut_short_leaves_a_whole_identity(fleet, monkeypatch, fails_at: str) -> None:
    """Stop before each write of a rotation's install; either pair loads, and install heals."""
    old = fleet.enrol("plant-a")
    folder = fleet.path / "plant-a"
    request = rotate(folder, now=NOW, rng=fleet.rng)
    bundle = fleet.grant(request, fingerprints=[])

    def stop(path: Path, data: bytes) -> None:
        if path.name == fails_at:
            raise KeyboardInterrupt
        write_atomic(path, data)

    monkeypatch.setattr(enrolment, "write_atomic", stop)
    monkeypatch.setattr(watch, "write_atomic", stop)
    if fails_at == "settle":
        rename = Path.replace

        def stop_rename(self: Path, to: Path) -> Path:
            if self.name == "identity.next.secret":
                raise KeyboardInterrupt
            return rename(self, to)

        monkeypatch.setattr(Path, "replace", stop_rename)
    with pytest.raises(KeyboardInterrupt):
        fleet.install("plant-a", bundle)
    monkeypatch.undo()
    present = load_identity(folder)
    switched = fails_at == "settle"
    assert present.fingerprint == (request.fingerprint if switched else old.fingerprint)
    assert present.certificate.member.signing_key == present.signing_key
    assert RosterFile(folder / "roster.json", fleet.root.card.root_key).reload() is not None
    assert fleet.install("plant-a", bundle).fingerprint == request.fingerprint
    assert load_identity(folder).fingerprint == request.fingerprint
    assert not (folder / "identity.next.secret").exists()


@pytest.mark.req("K-25")
def test_a_first_install_cut_short_can_be_repeated(fleet: Fleet, monkeypatch) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))

    def stop(path: Path, data: bytes) -> None:
        if path.name == "certificate.json":
            raise KeyboardInterrupt
        write_atomic(path, data)

    monkeypatch.setattr(enrolment, "write_atomic", stop)
    with pytest.raises(KeyboardInterrupt):
        fleet.install("plant-a", bundle)
    monkeypatch.undo()
    assert load_identity(fleet.path / "plant-a").certificate is None
    assert fleet.install("plant-a", bundle).certificate is not None


def test_a_rotation_under_way_is_not_thrown_away_by_accident(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    folder = fleet.path / "plant-a"
    first = rotate(folder, now=NOW, rng=fleet.rng)
    before = snapshot(folder)
    with pytest.raises(KeyMaterialError, match="under way") as caught:
        rotate(folder, now=NOW, rng=fleet.rng)
    assert "--restart" in caught.value.hint
    assert snapshot(folder) == before
    second = rotate(folder, now=NOW, rng=fleet.rng, restart=True)
    assert second.fingerprint != first.fingerprint


def test_rotating_what_is_not_installed_is_refused(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    with pytest.raises(KeyMaterialError, match="nothing is installed"):
        rotate(fleet.path / "plant-a", now=NOW, rng=fleet.rng)


@pytest.mark.req("K-26")
def test_the_next_secret_is_encrypted_as_the_present_one(fleet: Fleet) -> None:
    request = fleet.ask("plant-a", protect=GOOD)
    fleet.install("plant-a", fleet.grant(request), unlock=GOOD)
    folder = fleet.path / "plant-a"
    rotate(folder, now=NOW, rng=fleet.rng, unlock=GOOD, log_n=FAST)
    data = (folder / "identity.next.secret").read_bytes()
    assert is_sealed("identity", data, source="f")


@pytest.mark.req("K-26")
def test_a_wrong_passphrase_at_install_changes_nothing(fleet: Fleet) -> None:
    bundle = fleet.grant(fleet.ask("plant-a", protect=GOOD))
    before = snapshot(fleet.path / "plant-a")
    wrong = Unlock.from_passphrase("wrong horse battery")
    with pytest.raises(KeyMaterialError, match="wrong passphrase"):
        fleet.install("plant-a", bundle, unlock=wrong)
    assert snapshot(fleet.path / "plant-a") == before


@pytest.mark.req("K-22")
def test_nobody_is_asked_for_a_passphrase_under_the_lock(fleet: Fleet) -> None:
    """A daemon that looks at its roster must not hang behind a person."""
    folder, asked = fleet.path / "plant-a", []

    def ask() -> bytes:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        asked.append(1)
        return b"correct horse battery"

    request = fleet.ask("plant-a", protect=GOOD)
    fleet.install("plant-a", fleet.grant(request), unlock=Unlock(ask=ask))
    rotate(folder, now=NOW, rng=fleet.rng, unlock=Unlock(ask=ask), log_n=FAST)
    assert len(asked) == 3


def test_a_folder_that_cannot_be_written_gives_a_typed_error(fleet: Fleet, monkeypatch) -> None:
    bundle = fleet.grant(fleet.ask("plant-a"))

    def fail(*_args: object, **_named: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(KeyMaterialError, match="permission denied") as caught:
        install_bundle(
            bundle,
            fleet.path / "plant-a",
            now=NOW,
            root_fingerprint=fleet.root.card.fingerprint,
        )
    assert "owns" in caught.value.hint


def fleet_request(fleet: Fleet):
    from keys.certificates import read_request

    return read_request(request_path(fleet.path / "plant-a", "plant-a").read_bytes())
