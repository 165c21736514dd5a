from __future__ import annotations

import json
import logging
import pickle
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from keys.authority import open_root
from keys.certificates import Certificate, write_certificate
from keys.identity import load_identity, make_secret_file
from keys.names import Role, federation_id
from keys.sealing import Unlock
from secagg.errors import KeyMaterialError
from tests.keys.fleet import NOW, Fleet, InsecureRng, snapshot

GOOD = Unlock.from_passphrase("correct horse battery")


def test_an_identity_signs_and_holds_a_curve_pair(fleet: Fleet) -> None:
    identity = fleet.enrol("plant-a")
    Ed25519PublicKey.from_public_bytes(identity.signing_key).verify(identity.sign(b"x"), b"x")
    secret = X25519PrivateKey.from_private_bytes(identity.transport_secret)
    assert secret.public_key().public_bytes_raw() == identity.transport_key
    assert len(identity.sign(b"x")) == 64


def test_what_was_made_is_what_is_loaded(fleet: Fleet) -> None:
    request = fleet.ask("plant-a", protect=GOOD)
    identity = load_identity(fleet.path / "plant-a", GOOD)
    assert identity.fingerprint == request.fingerprint
    assert identity.certificate is None
    fleet.install("plant-a", fleet.grant(request), unlock=GOOD)
    certificate = load_identity(fleet.path / "plant-a", GOOD).certificate
    assert certificate is not None
    assert certificate.member.serial == 1
    assert certificate.federation == fleet.root.card.federation


@pytest.mark.req("K-03")
def test_one_stream_gives_one_federation(tmp_path: Path) -> None:
    from tests.keys.fleet import make_fleet

    folders = []
    for name in ("one", "two"):
        fleet = make_fleet(tmp_path / name)
        fleet.enrol("plant-a")
        folders.append(snapshot(tmp_path / name))
    assert folders[0] == folders[1]
    other = make_fleet(tmp_path / "three", "another seed")
    assert other.root.card.root_key != fleet.root.card.root_key


@pytest.mark.req("K-01")
def test_secrets_are_in_no_repr_and_identities_do_not_compare(fleet: Fleet) -> None:
    identity = fleet.enrol("plant-a")
    assert identity != load_identity(fleet.path / "plant-a")
    for secret in _forms(identity.transport_secret):
        assert secret not in repr(identity)
        assert secret not in str(identity)
    assert "rivate" not in repr(identity)
    assert "rivate" not in repr(fleet.root)
    with pytest.raises(TypeError):
        pickle.dumps(identity)


@pytest.mark.req("K-01")
def test_secrets_are_in_no_log_and_no_exception(fleet: Fleet, caplog, monkeypatch) -> None:
    """Play the whole life, and every failure of loading, and search what was said."""
    caplog.set_level(logging.DEBUG)
    identity = fleet.enrol("plant-a")
    path = fleet.path / "plant-a" / "identity.secret"
    text = path.read_text()
    said = []
    payload = json.loads(text)["payload"]
    for broken in (
        text.replace(payload, payload[4:]),
        text.replace(payload, payload[:-2] + "\\u0000="),
        text.replace(payload, "AAAA" + payload[4:]),
        text.replace('"identity"', '"root"'),
        text[:-40],
        text.replace('"plant-a"', "17"),
    ):
        path.write_text(broken)
        with pytest.raises(KeyMaterialError) as caught:
            load_identity(fleet.path / "plant-a")
        said += [*traceback.format_exception(caught.value), caught.value.hint]
    for secret in _forms(identity.transport_secret):
        assert secret not in caplog.text
        assert secret not in "".join(said)


@pytest.mark.req("K-26")
def test_a_secret_that_does_not_fit_its_public_keys_is_refused(fleet: Fleet) -> None:
    fleet.ask("plant-a")
    fleet.ask("plant-b")
    mine, other = (fleet.path / name / "identity.secret" for name in ("plant-a", "plant-b"))
    text = mine.read_text()
    mine.write_text(
        text.replace(json.loads(text)["payload"], json.loads(other.read_text())["payload"])
    )
    with pytest.raises(KeyMaterialError, match="does not fit"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-25")
def test_a_certificate_of_another_party_is_refused(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    fleet.enrol("plant-b")
    (fleet.path / "plant-a" / "certificate.json").write_bytes(
        (fleet.path / "plant-b" / "certificate.json").read_bytes()
    )
    with pytest.raises(KeyMaterialError, match="not for the keys in this folder"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-25")
def test_role_and_name_of_a_certificate_must_be_those_of_the_secret(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    path = fleet.path / "plant-a" / "identity.secret"
    path.write_text(path.read_text().replace('"role": "node"', '"role": "coordinator"'))
    with pytest.raises(KeyMaterialError, match="not for the keys"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-15")
def test_a_certificate_under_another_root_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    from tests.keys.fleet import make_fleet

    fleet.enrol("plant-a")
    other = make_fleet(tmp_path / "other", "other")
    (fleet.path / "plant-a" / "root.json").write_bytes(
        (other.root.folder / "root.json").read_bytes()
    )
    with pytest.raises(KeyMaterialError, match="does not hold"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-15")
def test_a_certificate_of_another_federation_is_refused(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    other = federation_id("south", fleet.root.card.root_key)
    certificate = Certificate(other, fleet.root.roster().member("plant-a"))
    (fleet.path / "plant-a" / "certificate.json").write_bytes(
        write_certificate(certificate, fleet.root.signer.sign)
    )
    with pytest.raises(KeyMaterialError, match="certificate of federation south"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-21")
def test_a_secret_open_to_others_is_not_loaded(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    (fleet.path / "plant-a" / "identity.secret").chmod(0o644)
    with pytest.raises(KeyMaterialError, match="0644"):
        load_identity(fleet.path / "plant-a")


@pytest.mark.req("K-21")
@pytest.mark.parametrize("mode", [0o750, 0o701, 0o720])
def test_a_folder_open_to_others_is_refused(fleet: Fleet, mode: int) -> None:
    fleet.enrol("plant-a")
    for folder, load in ((fleet.path / "plant-a", load_identity), (fleet.root.folder, open_root)):
        folder.chmod(mode)
        with pytest.raises(KeyMaterialError, match=f"{mode:04o} lets others into") as caught:
            load(folder)
        assert caught.value.hint == f"chmod 700 {folder}"


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError, match=r"identity\.secret: no such file"):
        load_identity(tmp_path)


@pytest.mark.req("K-01")
def test_an_encrypted_file_holds_no_secret_bytes() -> None:
    identity, data = make_secret_file(
        "plant-a", Role.NODE, now=NOW, rng=InsecureRng(), protect=GOOD, log_n=14
    )
    for secret in _forms(identity.transport_secret):
        assert secret.encode() not in data


def _forms(secret: bytes) -> list[str]:
    import base64

    return [
        secret.hex(),
        repr(secret)[2:-1],
        base64.b64encode(secret).decode()[:-4],
        *(base64.b64encode(bytes(pad) + secret).decode()[8:-8] for pad in range(3)),
    ]
