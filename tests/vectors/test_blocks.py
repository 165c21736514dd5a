"""Every building block in specs/vectors, by the package and by the slow implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from secagg import ring, tags
from secagg.errors import RemoteProtocolError
from secagg.masking import adverts, pairs
from secagg.masking.graph import build_graph
from secagg.primitives import aead, agreement, kdf, prg, shamir
from secagg.wire.codec import decode, encode
from secagg.wire.envelope import open_envelope, seal_envelope
from secagg.wire.messages import KeyAdvert
from tests.vectors import mlkem, slow_envelope, slow_wire
from tests.vectors import slow_parts as parts
from tests.vectors.files import read
from tests.vectors.real import TestIdentity, layer_of
from tests.vectors.slow import Refused
from tests.vectors.stage import drawn

Case = Mapping[str, Any]


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=str(index)) for index, case in enumerate(read(name)["cases"])]


def unhexed(values: list[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


@pytest.mark.req("W-09")
@pytest.mark.parametrize("case", cases("kdf"))
def test_kdf(case: Case) -> None:
    given, out = unhexed(case["parts"]), bytes.fromhex(case["out"])
    if case["use"] == "frame":
        assert kdf.frame(*given) == parts.framed(*given) == out
    elif case["use"] == "digest":
        assert case["purpose"] == "survivors"
        assert kdf.digest(tags.SURVIVORS, *given) == parts.sha("survivors", *given) == out
    else:
        assert case["purpose"] == "kem-seed"
        secret, length = bytes.fromhex(case["secret"]), case["length"]
        assert kdf.derive(secret, tags.KEM_SEED, *given, length=length) == out
        assert parts.hkdf(secret, "kem-seed", *given, length=length) == out


@pytest.mark.req("M-17")
@pytest.mark.parametrize("case", cases("prg"))
def test_prg(case: Case) -> None:
    seed, dim = bytes.fromhex(case["seed"]), case["dim"]
    total = np.full(dim, 2**32 - 1, dtype=np.uint32)
    prg.accumulate(total, seed)
    stream = parts.keystream(seed, dim)
    assert (total + np.uint32(1)).tolist() == stream
    raw = b"".join(value.to_bytes(4, "little") for value in stream)
    assert case.get("mask", stream) == stream
    assert case.get("sha256", hashlib.sha256(raw).hexdigest()) == hashlib.sha256(raw).hexdigest()
    prg.accumulate(total, seed, negative=True)
    assert (total == 2**32 - 1).all()


@pytest.mark.req("M-18")
@pytest.mark.parametrize("case", cases("shamir"))
def test_shamir(case: Case) -> None:
    shares = {int(point): bytes.fromhex(share) for point, share in case["shares"].items()}
    secret = None if case["secret"] is None else bytes.fromhex(case["secret"])
    value = parts.interpolate(shares)
    assert shamir.combine(shares) == secret
    assert (None if value >> 256 else value.to_bytes(32, "little")) == secret
    if secret is None or "coefficients" not in case:
        return
    drawn_ones = unhexed(case["coefficients"])
    for point, share in shares.items():
        assert parts.share(secret, drawn_ones, point) == share
    draws = iter(drawn_ones)
    assert (
        shamir.split(secret, list(shares), len(drawn_ones) + 1, lambda size: next(draws)) == shares
    )
    fewest = dict(sorted(shares.items(), reverse=True)[: len(drawn_ones) + 1])
    assert shamir.combine(fewest) == secret


@pytest.mark.req("E-07")
@pytest.mark.parametrize("case", cases("ring"))
def test_ring(case: Case) -> None:
    packed, bits = bytes.fromhex(case["packed"]), case["bits"]
    if case.get("refused"):
        assert ring.unpack(packed, case["dim"], bits) is None
        assert parts.unpack(packed, case["dim"], bits) is None
        return
    values = case["values"]
    unpacked = ring.unpack(packed, len(values), bits)
    assert ring.pack(np.array(values, dtype=np.uint32), bits) == parts.pack(values, bits) == packed
    assert unpacked is not None
    assert unpacked.tolist() == parts.unpack(packed, len(values), bits) == values


@pytest.mark.req("M-06")
@pytest.mark.req("M-25")
@pytest.mark.req("M-26")
@pytest.mark.parametrize("case", cases("graph"))
def test_graph(case: Case) -> None:
    digests = [(node, bytes.fromhex(digest)) for node, digest in case["digests"]]
    nodes = [node for node, _ in digests]
    coins = unhexed(case["coins"])
    offer, seed = bytes.fromhex(case["offer_hash"]), bytes.fromhex(case["seed"])
    listed = [part for node, digest in digests for part in (node.encode(), digest)]
    assert adverts.graph_seed(offer, digests, coins) == seed
    assert parts.sha("graph", offer, *listed, *coins) == seed
    graph = build_graph(nodes, degree=case["degree"], seed=seed)
    circle = parts.Circle(nodes, case["degree"], seed)
    assert list(graph.circle) == circle.order == case["circle"]
    for node in nodes:
        for ours, slow, given in (
            (graph.successors(node), circle.successors(node), case["successors"][node]),
            (graph.neighbours(node), circle.neighbours(node), case["neighbours"][node]),
        ):
            assert sorted(ours) == sorted(slow) == given
    for window in case["windows"]:
        alive, threshold = window["survivors"], window["threshold"]
        whole = graph.is_whole(alive, threshold), circle.is_whole(alive, threshold)
        assert whole == (window["whole"], window["whole"])


def test_the_graph_cases_show_whole_and_torn_circles() -> None:
    found = {
        (window["whole"], bool(case["coins"]))
        for case in read("graph")["cases"]
        for window in case["windows"]
    }
    assert found == {(True, False), (True, True), (False, True)}


@pytest.mark.req("M-06")
@pytest.mark.parametrize("case", cases("coins"))
def test_coins(case: Case) -> None:
    seed, coins = bytes.fromhex(case["seed"]), unhexed(case["coins"])
    for toss, coin in enumerate(coins):
        assert adverts.coin_at(seed, toss) == parts.coin(seed, toss) == coin
        assert adverts.coin_fits(coin, coins[0], toss)
        assert parts.coin_fits(coin, coins[0], toss)


@pytest.mark.req("M-07")
@pytest.mark.req("M-08")
@pytest.mark.req("M-26")
@pytest.mark.req("M-27")
@pytest.mark.parametrize("case", cases("pair"))
def test_pair_by_the_slow_implementation(case: Case) -> None:
    first, second = case["initiator"], case["responder"]
    secrets = {node: bytes.fromhex(secret) for node, secret in case["agreement"].items()}
    for node, secret in secrets.items():
        assert parts.public_keys(secret)[0].hex() == case["x25519_keys"][node]
    assert parts.public_keys(secrets[second])[1].hex() == case["kem_key"]
    capsule, shared = bytes.fromhex(case["capsule"]), bytes.fromhex(case["encapsulated"])
    assert parts.kem_key(secrets[second]).decapsulate(capsule) == shared
    agreed = parts.x25519(secrets[first], bytes.fromhex(case["x25519_keys"][second]))
    assert agreed == bytes.fromhex(case["agreed"])
    context = unhexed(case["context"])
    binding = parts.Binding((context[0], context[1], context[2]), bytes.fromhex(case["graph_seed"]))
    root = parts.pair_root(agreed, shared, capsule, (first, second), binding)
    assert root.hex() == case["root"]
    mask_seed = parts.hkdf(root, "pair-mask")
    assert mask_seed.hex() == case["mask_seed"]
    assert parts.sha("pair-confirmation", mask_seed).hex() == case["confirmation"]
    for names, key in case["seal_keys"].items():
        assert parts.seal_key(root, *names.split(">")).hex() == key
    key = parts.seal_key(root, first, second)
    assert parts.seal(key, bytes.fromhex(case["shares"])).hex() == case["box"]
    key = parts.backup_key(bytes.fromhex(case["round_secret"]), context, first)
    assert parts.seal(key, b"".join(unhexed(case["seeds"]))).hex() == case["backup"]


@pytest.mark.req("M-07")
@pytest.mark.req("M-08")
@pytest.mark.req("M-26")
@pytest.mark.req("M-27")
@pytest.mark.parametrize("case", cases("pair"))
def test_pair_by_the_package(case: Case) -> None:
    first, second = case["initiator"], case["responder"]
    secrets = {node: bytes.fromhex(secret) for node, secret in case["agreement"].items()}
    keys = {node: pairs.NodeKeys(node, secret) for node, secret in secrets.items()}
    context = unhexed(case["context"])
    x25519 = {node: bytes.fromhex(key) for node, key in case["x25519_keys"].items()}
    assert [keys[node].public[0] for node in x25519] == list(x25519.values())
    private = agreement.private_key(kdf.derive(secrets[first], tags.AGREEMENT_SEED))
    assert agreement.agree(private, second, x25519[second]).hex() == case["agreed"]
    zero = bytes(32)
    advert = KeyAdvert(
        7, first, 1, x25519[first], keys[first].public[1], zero, zero, zero, bytes(64)
    )
    binding = (*context, bytes.fromhex(case["graph_seed"]))
    pair = keys[second].respond(advert, bytes.fromhex(case["capsule"]), binding)
    assert pair.mask_seed.hex() == case["mask_seed"]
    assert pairs.confirmation(pair.mask_seed).hex() == case["confirmation"]
    for names, key in case["seal_keys"].items():
        sender, receiver = names.split(">")
        assert pair.seal_key(sender=sender, receiver=receiver).hex() == key
    key = pair.seal_key(sender=first, receiver=second)
    assert aead.seal(key, bytes.fromhex(case["shares"]), b"").hex() == case["box"]
    where = context[0], context[1], context[2]
    secret, backup = bytes.fromhex(case["round_secret"]), bytes.fromhex(case["backup"])
    opened = pairs.open_backup(secret, where, first, backup, ["node-x", "node-y"])
    assert list(opened.values()) == unhexed(case["seeds"])


def jsoned(value: object) -> object:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return [jsoned(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.req("W-02")
@pytest.mark.req("W-03")
@pytest.mark.req("W-04")
@pytest.mark.req("W-11")
@pytest.mark.parametrize("case", cases("messages"))
def test_messages(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    if "refused" in case:
        with pytest.raises(RemoteProtocolError) as raised:
            decode(data, sender="node-a")
        assert (layer_of(raised.value), raised.value.peer) == (case["refused"], "node-a")
        with pytest.raises(slow_wire.MalformedError):
            slow_wire.decode(data)
        return
    message, plain = decode(data, sender="node-a"), slow_wire.decode(data)
    assert type(message).__name__ == slow_wire.table()[plain[0]][0] == case["name"]
    assert encode(message) == slow_wire.encode(plain) == data
    assert jsoned(plain[1:]) == case["fields"]
    assert jsoned(msgspec.to_builtins(message, builtin_types=(bytes,))[1:]) == case["fields"]


def test_every_message_of_the_table_has_a_vector() -> None:
    held = {case["name"] for case in read("messages")["cases"] if "name" in case}
    assert held == {name for name, _ in slow_wire.table().values()}


@pytest.mark.req("W-01")
@pytest.mark.req("W-05")
@pytest.mark.req("W-06")
@pytest.mark.req("W-08")
@pytest.mark.parametrize("case", cases("envelope"))
def test_envelopes(case: Case) -> None:
    frame, key = bytes.fromhex(case["frame"]), bytes.fromhex(case["key"])
    names = {"sender": case["sender"], "receiver": case["receiver"]}
    checks = {"key": key, "run_id": bytes.fromhex(case["run_id"]), **names}
    if "refused" in case:
        with pytest.raises(RemoteProtocolError) as raised:
            open_envelope(frame, **checks)
        assert [layer_of(raised.value), raised.value.peer] == case["refused"]
        with pytest.raises(Refused) as refused:
            slow_envelope.open_envelope(frame, **checks)
        assert [refused.value.layer, refused.value.blames] == case["refused"]
        return
    body = bytes.fromhex(case["message"])
    opened = open_envelope(frame, **checks)
    assert encode(opened.message) == slow_envelope.open_envelope(frame, **checks) == body
    run, identity = frame[1:17], bytes.fromhex(case["identity"])
    signer = TestIdentity(case["sender"], identity)
    assert bytes(seal_envelope(opened.message, signer, to=case["receiver"], run_id=run)) == frame
    assert slow_envelope.seal_envelope(body, identity=identity, run_id=run, **names) == frame


def test_every_layer_refuses_some_frame() -> None:
    layers = {case["refused"][0] for case in read("envelope")["cases"] if "refused" in case}
    assert layers == {"decode", "authentication", "replay"}


@pytest.mark.parametrize("label", range(5))
def test_the_generators_capsules_open(label: int) -> None:
    private = MLKEM768PrivateKey.from_seed_bytes(drawn("ML-KEM key", label, size=64))
    public = private.public_key().public_bytes_raw()
    secret, capsule = mlkem.encapsulate(public, drawn("ML-KEM message", label))
    assert private.decapsulate(capsule) == secret
