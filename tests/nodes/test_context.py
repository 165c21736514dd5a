"""Opening a key folder: encrypted secrets, the right role, a roster that changes underneath."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from keys import Role, Unlock, provision
from keys.authority import open_root
from keys.enrolment import install_bundle, install_roster, make_request
from keys.store import read_public
from nodes.config import UnlockSection
from nodes.context import open_membership, unlock_from
from secagg.errors import ConfigError, KeyMaterialError

NOW = int(time.time())


def test_an_encrypted_identity_opens_by_file_key_or_variable_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = provision(tmp_path, "test", "hub", ["a", "b", "c"], now=NOW, rng=os.urandom)
    folder = tmp_path / "nodes" / "sealed"
    protect = Unlock.from_passphrase("correct horse")
    request = make_request(folder, "sealed", Role.NODE, now=NOW, rng=os.urandom, protect=protect)
    root = open_root(places.root)
    (bundle,) = root.approve(
        [request], now=NOW, fingerprints=[request.fingerprint], grant=Role.NODE, days=10
    )
    install_bundle(bundle, folder, now=NOW, root_fingerprint=root.card.fingerprint, unlock=protect)
    monkeypatch.delenv("SECAGG_PASSPHRASE", raising=False)
    with pytest.raises(KeyMaterialError) as caught:
        open_membership(folder, unlock_from(UnlockSection(), tmp_path), Role.NODE, NOW)
    assert caught.value.hint
    file = tmp_path / "pass"
    file.write_text("correct horse\n")
    file.chmod(0o600)
    by_file = unlock_from(UnlockSection(passphrase_file="pass"), tmp_path)
    assert open_membership(folder, by_file, Role.NODE, NOW).identity.node_id == "sealed"
    monkeypatch.setenv("SECAGG_PASSPHRASE", "correct horse")
    by_variable = unlock_from(UnlockSection(), tmp_path)
    assert open_membership(folder, by_variable, Role.NODE, NOW).identity.node_id == "sealed"
    monkeypatch.setenv("SECAGG_PASSPHRASE", "battery staple")
    with pytest.raises(KeyMaterialError) as caught:
        open_membership(folder, unlock_from(UnlockSection(), tmp_path), Role.NODE, NOW)
    assert "battery" not in f"{caught.value!r} {caught.value.hint}"
    with pytest.raises(ConfigError, match="both a passphrase file and a key file"):
        unlock_from(UnlockSection(passphrase_file="pass", key_file="pass"), tmp_path)


def test_roles_expiry_and_a_newer_roster(tmp_path: Path) -> None:
    places = provision(tmp_path, "test", "hub", ["a", "b", "c"], now=NOW, rng=os.urandom, days=30)
    with pytest.raises(KeyMaterialError, match="certified as node, not as coordinator"):
        open_membership(places.nodes["a"], None, Role.COORDINATOR, NOW)
    with pytest.raises(KeyMaterialError, match="does not hold at this moment"):
        open_membership(places.nodes["a"], None, Role.NODE, NOW + 31 * 86_400)
    hub = open_membership(places.coordinator, None, Role.COORDINATOR, NOW)
    assert set(hub.view(NOW).signing_keys) == {"a", "b", "c"}
    assert hub.view(NOW + 31 * 86_400).signing_keys == {}
    a = open_membership(places.nodes["a"], None, Role.NODE, NOW).identity
    assert hub.node_by_transport_key(a.transport_key, NOW) == "a"
    assert hub.node_by_transport_key(hub.identity.transport_key, NOW) is None
    assert not hub.reload()
    open_root(places.root).revoke("a", now=NOW, reason="")
    install_roster(read_public(places.root / "roster.json", 1 << 20), places.coordinator)
    assert hub.reload()
    assert set(hub.view(NOW).signing_keys) == {"b", "c"}
    assert hub.view(NOW).version == hub.roster.version
    assert hub.node_by_transport_key(a.transport_key, NOW) is None
    assert hub.signing_key("a", NOW) is None
    install_roster(read_public(places.root / "roster.json", 1 << 20), places.nodes["b"])
    late = open_membership(places.nodes["b"], None, Role.NODE, NOW)
    assert late.outdated() == ""
    late.identity = a
    assert "a was revoked" in late.outdated()
