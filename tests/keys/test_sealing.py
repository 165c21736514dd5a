from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.sealing import Unlock, about_secret, is_sealed, open_secret, seal_secret
from keys.store import write_atomic
from secagg.errors import ConfigError, KeyMaterialError
from tests.keys.fleet import FAST, InsecureRng

SECRET = bytes(range(64))
GOOD = Unlock.from_passphrase("correct horse battery")
KEY = Unlock(key=b"k" * 32)


class About(msgspec.Struct):
    name: str = "plant-a"


def sealed(protect: Unlock | None, kind: str = "identity") -> bytes:
    return seal_secret(kind, About(), SECRET, protect=protect, rng=InsecureRng(), log_n=FAST)


@pytest.mark.req("K-26")
@pytest.mark.parametrize("protect", [None, GOOD, KEY], ids=["plain", "passphrase", "key-file"])
def test_a_secret_comes_back(protect: Unlock | None) -> None:
    data = sealed(protect)
    assert open_secret("identity", data, protect, source="f") == SECRET
    assert json.loads(about_secret("identity", data, source="f")) == {"name": "plant-a"}
    assert is_sealed("identity", data, source="f") is (protect is not None)


@pytest.mark.req("K-26")
@pytest.mark.parametrize(
    ("protect", "wrong", "cause"),
    [
        (GOOD, Unlock.from_passphrase("correct horse batterz"), "wrong passphrase"),
        (GOOD, None, "encrypted under a passphrase and none was given"),
        (GOOD, KEY, "encrypted under a passphrase and none was given"),
        (KEY, Unlock(key=b"j" * 32), "wrong key file"),
        (KEY, GOOD, "encrypted under a key file and none was given"),
    ],
)
def test_the_wrong_key_gives_a_typed_error(protect: Unlock, wrong: Unlock | None, cause) -> None:
    with pytest.raises(KeyMaterialError, match=cause) as caught:
        open_secret("identity", sealed(protect), wrong, source="plant-a/identity.secret")
    assert caught.value.hint
    assert "correct horse" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.req("K-26")
@pytest.mark.parametrize("protect", [GOOD, KEY], ids=["passphrase", "key-file"])
def test_every_field_of_an_encrypted_file_is_bound(protect: Unlock) -> None:
    original = json.loads(sealed(protect))
    changes = [("about", {"name": "plant-b"}), ("kind", "root")]
    changes += [("payload", _flip(original["payload"]))]
    changes += [
        ("protection", original["protection"] | {name: _flip(original["protection"][name])})
        for name in ("salt", "nonce")
    ]
    if protect is GOOD:
        changes.append(("protection", original["protection"] | {"p": 2}))
    for name, value in changes:
        data = json.dumps(original | {name: value}).encode()
        kind = value if name == "kind" else "identity"
        with pytest.raises(KeyMaterialError, match="wrong"):
            open_secret(kind, data, protect, source="f")


@pytest.mark.req("K-26")
def test_an_encrypted_file_cannot_pass_as_a_plain_one() -> None:
    original = json.loads(sealed(GOOD))
    data = json.dumps(original | {"protection": {"type": "none"}}).encode()
    assert open_secret("identity", data, GOOD, source="f") != SECRET  # the caller compares keys


@pytest.mark.req("K-26")
def test_no_two_files_share_a_key_or_a_nonce() -> None:
    rng = InsecureRng()
    one, two = (
        json.loads(seal_secret("identity", About(), SECRET, protect=KEY, rng=rng)) for _ in range(2)
    )
    assert one["protection"]["salt"] != two["protection"]["salt"]
    assert one["payload"] != two["payload"]


@pytest.mark.req("K-23")
@pytest.mark.parametrize(
    "cost", [{"log_n": 13}, {"log_n": 19}, {"log_n": 63}, {"r": 1024}, {"p": 5}, {"p": 0}]
)
def test_costs_out_of_bounds_are_refused_before_they_are_paid(cost: dict) -> None:
    original = json.loads(sealed(GOOD))
    asked = []
    unlock = Unlock(ask=lambda: asked.append(1) or b"x")
    data = json.dumps(original | {"protection": original["protection"] | cost}).encode()
    with pytest.raises(KeyMaterialError, match="not a secret file"):
        open_secret("identity", data, unlock, source="f")
    assert not asked


@pytest.mark.req("K-26")
@pytest.mark.parametrize("passphrase", ["", "short", "x" * 1025])
def test_a_new_passphrase_has_a_length(passphrase: str) -> None:
    with pytest.raises(ConfigError, match="8 to 1024"):
        sealed(Unlock.from_passphrase(passphrase))


@pytest.mark.req("K-01")
def test_a_damaged_plain_file_is_not_quoted() -> None:
    text = sealed(None).decode()
    payload = json.loads(text)["payload"]
    for broken in (text.replace(payload, payload[:-1] + "!"), text.replace('"kind"', '"k"'), "{}"):
        with pytest.raises(KeyMaterialError) as caught:
            open_secret("identity", broken.encode(), None, source="f")
        assert payload[:12] not in str(caught.value)


@pytest.mark.req("K-01")
def test_an_unlock_shows_nothing() -> None:
    assert "horse" not in repr(GOOD)
    assert repr(KEY) == "Unlock()"


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.just(b"[" * 5000)))
def test_any_bytes_give_a_typed_error(data: bytes) -> None:
    with pytest.raises(KeyMaterialError):
        open_secret("identity", data, GOOD, source="f")


def test_a_secret_of_another_kind_is_refused() -> None:
    with pytest.raises(KeyMaterialError, match="secret of a root"):
        open_secret("identity", sealed(None, "root"), None, source="f")


@pytest.mark.req("K-21")
def test_passphrase_and_key_files_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"correct horse battery\nsecond line\n")
    opened = open_secret("identity", sealed(GOOD), Unlock.from_passphrase_file(path), source="f")
    assert opened == SECRET
    assert Unlock.from_key_file(path).key is not None
    path.chmod(0o644)
    for read in (Unlock.from_passphrase_file, Unlock.from_key_file):
        with pytest.raises(KeyMaterialError, match="lets others"):
            read(path)


def test_a_short_key_file_is_refused(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"k" * 31)
    with pytest.raises(KeyMaterialError, match="at least 32"):
        Unlock.from_key_file(tmp_path / "key")


def test_sources_are_taken_in_order(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomic(path, b"k" * 32)
    environ = {"SECAGG_PASSPHRASE": "correct horse battery"}
    assert Unlock.gather({}) is None
    assert Unlock.gather({"SECAGG_PASSPHRASE": ""}) is None
    from_variable = Unlock.gather(environ, ask=lambda: b"asked")
    assert from_variable is not None
    assert from_variable.ask is not None
    assert from_variable.ask() == b"correct horse battery"
    from_file = Unlock.gather(environ, key_file=path)
    assert from_file is not None
    assert from_file.key == b"k" * 32
    with pytest.raises(ConfigError, match="both"):
        Unlock.gather({}, key_file=path, passphrase_file=path)


def _flip(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]
