from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.certificates import (
    MAX_CARD_BYTES,
    Request,
    read_bundle,
    read_certificate,
    read_request,
    read_root_card,
    write_request,
    write_root_card,
)
from keys.identity import make_secret_file
from keys.names import Role
from keys.roster import MAX_ROSTER_BYTES, verify_roster
from secagg.errors import KeyMaterialError
from tests.keys.fleet import NOW, Fleet, InsecureRng

IDENTITY, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng())
REQUEST = Request("plant-a", Role.NODE, IDENTITY.signing_key, IDENTITY.transport_key, NOW)
TEXT = write_request(REQUEST, IDENTITY.sign)


def test_a_document_is_plain_json_and_reads_back() -> None:
    assert read_request(TEXT) == REQUEST
    assert json.loads(TEXT)["body"]["node_id"] == "plant-a"


@pytest.mark.req("K-05")
@pytest.mark.parametrize("at", range(0, len(TEXT) - 1, 3))
def test_a_document_with_any_byte_changed_is_refused(at: int) -> None:
    changed = TEXT[:at] + bytes([TEXT[at] ^ 1]) + TEXT[at + 1 :]
    with pytest.raises(KeyMaterialError):
        read_request(changed)


@pytest.mark.req("K-05")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_id", "plant-b"),
        ("role", "coordinator"),
        ("signing_key", "A" * 43 + "="),
        ("transport_key", "A" * 43 + "="),
        ("created", NOW + 1),
    ],
)
def test_a_request_with_any_field_changed_does_not_hold(field: str, value: object) -> None:
    document = json.loads(TEXT)
    document["body"][field] = value
    with pytest.raises(KeyMaterialError, match="does not hold"):
        read_request(_written(document))


@pytest.mark.req("K-05")
def test_a_signature_of_one_kind_is_worth_nothing_in_another(fleet: Fleet) -> None:
    """The root signs a card; the same signature under a request of the same bytes fails."""
    card = json.loads((fleet.root.folder / "root.json").read_text())
    request = json.loads(TEXT)
    tag = b"secagg.keys.v1.certificate.root\x00"
    body = TEXT[TEXT.index(b'"body": ') + 8 : TEXT.index(b',\n"signatures"')]
    request["signatures"]["self"] = _b64(IDENTITY.sign(tag + body))
    with pytest.raises(KeyMaterialError, match="does not hold"):
        read_request(_written(request))
    with pytest.raises(KeyMaterialError, match="expected"):
        read_request(_written(card))


@pytest.mark.req("K-06")
def test_what_is_too_long_is_refused_before_it_is_parsed() -> None:
    bomb = b"[" * (MAX_CARD_BYTES + 1)
    with pytest.raises(KeyMaterialError, match="at most 4096"):
        read_request(bomb)
    with pytest.raises(KeyMaterialError, match="at most"):
        verify_roster(b" " * (MAX_ROSTER_BYTES + 1), bytes(32))


@pytest.mark.req("K-07")
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: b" " + text,
        lambda text: text.replace(b'"created": ', b'"created":  '),
        lambda text: text.replace(b'"plant-a"', b'"plant-\\u0061"'),
        lambda text: text.replace(b'"node_id"', b'"node_id": "plant-z",\n  "node_id"'),
        lambda text: text.replace(b'"node_id"', b'"extra": 1,\n  "node_id"'),
        lambda text: text.replace(b'"body"', b'"extra": 1,\n"body"'),
        lambda text: text.replace(b'"self"', b'"other"'),
        lambda text: json.dumps(json.loads(text)).encode(),
    ],
    ids=["line", "blank", "blanks", "escape", "twice", "field", "envelope", "signer", "compact"],
)
def test_there_is_one_spelling_of_a_document(change) -> None:
    with pytest.raises(KeyMaterialError):
        read_request(change(TEXT))


@pytest.mark.req("K-07")
def test_a_file_without_its_last_line_feed_still_reads() -> None:
    assert read_request(TEXT.removesuffix(b"\n")) == REQUEST


@pytest.mark.req("K-07")
def test_a_message_never_repeats_control_characters_of_a_file() -> None:
    hostile = TEXT.replace(b'"node_id"', b'"\\u001b[2Jx\\n": 1,\n  "node_id"')
    with pytest.raises(KeyMaterialError) as caught:
        read_request(hostile)
    assert str(caught.value).isprintable()


@pytest.mark.req("K-07")
@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.sampled_from([b"[" * 4000, b'{"a":' * 800, b"\xff"])))
def test_any_bytes_give_a_typed_error(data: bytes) -> None:
    for read in (
        read_request,
        read_root_card,
        read_bundle,
        lambda text: verify_roster(text, bytes(32)),
        lambda text: read_certificate(text, bytes(32)),
    ):
        with pytest.raises(KeyMaterialError) as caught:
            read(data)
        assert caught.value.hint


@pytest.mark.req("K-09")
def test_a_request_needs_the_signature_of_the_key_it_names() -> None:
    stranger, _ = make_secret_file("plant-a", Role.NODE, now=NOW, rng=InsecureRng("stranger"))
    with pytest.raises(KeyMaterialError, match="self signature"):
        read_request(write_request(REQUEST, stranger.sign))


@pytest.mark.req("K-09")
@pytest.mark.parametrize(
    "point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
)
def test_a_transport_key_of_small_order_is_refused(point: bytes) -> None:
    weak = Request("plant-a", Role.NODE, IDENTITY.signing_key, point, NOW)
    with pytest.raises(KeyMaterialError, match="small order"):
        read_request(write_request(weak, IDENTITY.sign))


@pytest.mark.req("K-04")
def test_a_root_card_with_the_federation_of_another_root_is_refused(fleet: Fleet) -> None:
    card = replace(fleet.root.card, federation="north.00000000")
    with pytest.raises(KeyMaterialError, match="another root key"):
        read_root_card(write_root_card(card, fleet.root.signer.sign))


def _written(document: dict) -> bytes:
    """Write JSON as the documents are written."""
    parts = [
        f'"{name}": ' + json.dumps(value, indent=2 if isinstance(value, dict) else None)
        for name, value in document.items()
    ]
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _b64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()
