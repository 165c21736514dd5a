"""Vectors of the building blocks: hashes, masks, sharing, packing, graph, pair keys, bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from secagg import ring, tags
from secagg.errors import RemoteProtocolError
from secagg.masking import adverts, pairs
from secagg.masking.graph import build_graph
from secagg.primitives import aead, agreement, kdf, prg, shamir
from secagg.wire.codec import decode, encode
from secagg.wire.envelope import NO_RUN, open_envelope, seal_envelope
from secagg.wire.messages import MESSAGE_TYPES, Heartbeat, Hello, Message
from tests.vectors.ckks_blocks import ckks_blocks
from tests.vectors.mlkem import encapsulate
from tests.vectors.real import TestIdentity, layer_of
from tests.vectors.samples import MALFORMED, SAMPLES, VARIANTS
from tests.vectors.stage import Cast, drawn

__all__ = ["blocks"]


def blocks() -> dict[str, dict[str, Any]]:
    """Return name to content of every file of building blocks."""
    found = {
        "kdf": ("frames, digests and derived keys; a tag is its purpose", _kdf()),
        "prg": ("seeds to masks; a long mask by its SHA-256 as little-endian uint32", _prg()),
        "shamir": ("secrets to shares and back; null where no 32-byte secret comes out", _shamir()),
        "ring": ("vectors modulo 2^bits to packed bytes, and strings to refuse", _ring()),
        "graph": ("seeds, circles, neighbours, and whether survivors leave it whole", _graph()),
        "coins": ("coin seeds to commitment (coin 0) and coins 1 to 4", _coins()),
        "pair": ("what two neighbours' keys and a capsule give", _pairs()),
        "messages": ("every message: its fields, its bytes; and bytes to refuse", _messages()),
        "envelope": ("frames to open, and frames to refuse at a layer", _envelopes()),
        **ckks_blocks(),
    }
    return {
        name: {"kind": name, "about": about, "cases": cases}
        for name, (about, cases) in found.items()
    }


def _hex(parts: list[bytes]) -> list[str]:
    return [part.hex() for part in parts]


def _kdf() -> list[dict[str, Any]]:
    lists: tuple[list[bytes], ...] = (
        [],
        [b""],
        [b"", b""],
        [b"ab", b"c"],
        [b"a", b"bc"],
        [drawn("long", size=64) * 5],
    )
    cases: list[dict[str, Any]] = [
        {"use": "frame", "parts": _hex(parts), "out": kdf.frame(*parts).hex()} for parts in lists
    ]
    for parts in ([], [b"node-a"], [drawn("digest"), b"node-a", b"node-b"]):
        out = kdf.digest(tags.SURVIVORS, *parts)
        cases.append(
            {"use": "digest", "purpose": "survivors", "parts": _hex(parts), "out": out.hex()}
        )
    for length in (32, 64, 100):
        parts = [drawn("context", size=16), b"node-a"]
        out = kdf.derive(drawn("secret"), tags.KEM_SEED, *parts, length=length)
        head = {"use": "hkdf", "purpose": "kem-seed", "secret": drawn("secret").hex()}
        cases.append({**head, "parts": _hex(parts), "length": length, "out": out.hex()})
    return cases


def _prg() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for dim in (1, 7, 8, 9, 21, 100_003):
        total = np.zeros(dim, dtype=np.uint32)
        prg.accumulate(total, drawn("mask", dim))
        case: dict[str, Any] = {"seed": drawn("mask", dim).hex(), "dim": dim}
        if dim < 100:
            case["mask"] = total.tolist()
        else:
            case["sha256"] = hashlib.sha256(total.astype("<u4").tobytes()).hexdigest()
        cases.append(case)
    return cases


def _shamir() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for secret, threshold, points in (
        (drawn("shared"), 1, (1, 2)),
        (drawn("shared"), 3, (1, 2, 3, 4, 5)),
        (b"\xff" * 32, 5, (2, 3, 5, 7, 11, 10_000)),
        (bytes(32), 2, (1, 9)),
    ):
        coefficients = [drawn("polynomial", i, size=49) for i in range(1, threshold)]
        draws = iter(coefficients)
        shares = shamir.split(secret, points, threshold, lambda size, draws=draws: next(draws))
        cases.append(
            {
                "secret": secret.hex(),
                "coefficients": _hex(coefficients),
                "shares": {str(point): share.hex() for point, share in shares.items()},
            }
        )
    above = {1: (shamir.PRIME - 1).to_bytes(33, "little")}
    for given in (above, {1: bytes(33), 2: b"\1" + bytes(32)}):
        secret_or_none = shamir.combine(given)
        cases.append(
            {
                "secret": None if secret_or_none is None else secret_or_none.hex(),
                "shares": {str(point): share.hex() for point, share in given.items()},
            }
        )
    return cases


def _ring() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for bits in range(8, 33):
        for dim in (1, 8, 11) if bits in (8, 13, 20, 31, 32) else (11,):
            raw = [drawn("ring", bits, index, size=4) for index in range(dim)]
            values = [int.from_bytes(each, "little") % (1 << bits) for each in raw]
            packed = ring.pack(np.array(values, dtype=np.uint32), bits)
            cases.append({"bits": bits, "values": values, "packed": packed.hex()})
    for bits, dim, packed in (
        (20, 8, bytes(19)),
        (20, 8, bytes(21)),
        (20, 7, b"\0" * 14 + b"\1" + bytes(5)),  # in the padding of the plane of 16
        (20, 7, bytes(19) + b"\x10"),  # in that of the plane of 4
        (9, 9, bytes(17) + b"\x80"),  # in that of the plane of 1
        (32, 1, bytes(4)),
    ):
        if ring.unpack(packed, dim, bits) is not None:
            raise ValueError(f"{packed.hex()} is unpacked")
        cases.append({"bits": bits, "dim": dim, "packed": packed.hex(), "refused": True})
    return cases


def _graph() -> list[dict[str, Any]]:
    return [
        _circle(*case)
        for case in ((3, 2, 0), (4, 3, 0), (5, 4, 0), (6, 5, 1), (8, 6, 1), (9, 5, 1), (12, 4, 1))
    ]


def _circle(n: int, degree: int, with_coins: int) -> dict[str, Any]:
    nodes = [f"node-{chr(ord('a') + index)}" for index in range(n)]
    digests = [(node, drawn("advert", n, node)) for node in nodes]
    coins = [drawn("coin", n, node) for node in nodes] if with_coins else []
    seed = adverts.graph_seed(drawn("offer"), digests, coins)
    graph = build_graph(nodes, degree=degree, seed=seed)
    survivors = [
        {"threshold": threshold, "survivors": alive, "whole": graph.is_whole(alive, threshold)}
        for threshold in (2, 3, 4)
        for gone in (set(), {0}, {0, 1}, {0, n // 2}, {0, 2}, {1, n - 1})
        for alive in ([node for node in nodes if graph.place[node] not in gone],)
    ]
    return {
        "offer_hash": drawn("offer").hex(),
        "digests": [[node, digest.hex()] for node, digest in digests],
        "coins": _hex(coins),
        "degree": degree,
        "seed": seed.hex(),
        "circle": list(graph.circle),
        "successors": {node: sorted(graph.successors(node)) for node in nodes},
        "neighbours": {node: sorted(graph.neighbours(node)) for node in nodes},
        "windows": survivors,
    }


def _coins() -> list[dict[str, Any]]:
    return [
        {"seed": seed.hex(), "coins": _hex([adverts.coin_at(seed, toss) for toss in range(5)])}
        for seed in (bytes(32), drawn("coin seed"))
    ]


def _pairs() -> list[dict[str, Any]]:
    return [_pair("node-a", "node-b"), _pair("node-b", "node-a")]


def _pair(initiator: str, responder: str) -> dict[str, Any]:
    cast = Cast("pair", 3, dim=1, ring_bits=8, chunk_values=8, threshold=2, quorum=3,
                neighbours=2, colluders=0)  # fmt: skip
    secrets = {node: cast.secret(node, "agreement") for node in (initiator, responder)}
    keys = {node: pairs.NodeKeys(node, secret) for node, secret in secrets.items()}
    public = keys[responder].public
    encapsulated, capsule = encapsulate(public[1], drawn("pair", initiator, responder))
    advert = adverts.make_advert(
        cast.checked, cast.identities[initiator], agreement_key=keys[initiator].public[0],
        kem_key=keys[initiator].public[1], commitments=(bytes(32),) * 3,
    )  # fmt: skip
    binding = (*cast.checked.context, drawn("graph seed"))
    pair = keys[responder].respond(advert, capsule, binding)
    private = agreement.private_key(kdf.derive(secrets[initiator], tags.AGREEMENT_SEED))
    seal_keys = {
        f"{sender}>{receiver}": pair.seal_key(sender=sender, receiver=receiver)
        for sender, receiver in ((initiator, responder), (responder, initiator))
    }
    round_secret = cast.secret(initiator, "round_secret")
    seeds = [pair.mask_seed, drawn("another seed")]
    backup = pairs.seal_backup(round_secret, cast.checked.context, initiator, seeds)
    box = aead.seal(seal_keys[f"{initiator}>{responder}"], drawn("shares", size=33) * 2, b"")
    return {
        "initiator": initiator,
        "responder": responder,
        "agreement": {node: secret.hex() for node, secret in secrets.items()},
        "x25519_keys": {node: key.public[0].hex() for node, key in keys.items()},
        "kem_key": public[1].hex(),
        "capsule": capsule.hex(),
        "encapsulated": encapsulated.hex(),
        "agreed": agreement.agree(private, responder, public[0]).hex(),
        "context": _hex(list(cast.checked.context)),
        "graph_seed": drawn("graph seed").hex(),
        "root": pair._root.hex(),
        "mask_seed": pair.mask_seed.hex(),
        "confirmation": pairs.confirmation(pair.mask_seed).hex(),
        "seal_keys": {names: key.hex() for names, key in seal_keys.items()},
        "shares": (drawn("shares", size=33) * 2).hex(),
        "box": box.hex(),
        "round_secret": round_secret.hex(),
        "seeds": _hex(seeds),
        "backup": backup.hex(),
    }


def _messages() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    samples = {kind.__name__: kind for kind in MESSAGE_TYPES}
    for name, fields in (*((name, SAMPLES[name]) for name in samples), *VARIANTS):
        message = samples[name](*fields)
        built = msgspec.to_builtins(message, builtin_types=(bytes,))
        case = {"name": name, "fields": _jsoned(built[1:]), "bytes": encode(message).hex()}
        cases.append(case)
    for about, data in MALFORMED.items():
        try:
            decode(data, sender="node-a")
        except RemoteProtocolError as error:
            cases.append({"refused": layer_of(error), "about": about, "bytes": data.hex()})
        else:
            raise ValueError(f"{about} is decoded")
    return cases


def _jsoned(value: Any) -> Any:
    """Return `value` with bytes as text that begins with 0x."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return [_jsoned(each) for each in value] if isinstance(value, list | tuple) else value


def _envelopes() -> list[dict[str, Any]]:
    run = drawn("run", size=16)
    signer = TestIdentity("node-a", drawn("identity", "node-a"))
    common = {
        "sender": "node-a",
        "identity": drawn("identity", "node-a").hex(),
        "key": signer.public.hex(),
        "receiver": "coordinator",
        "run_id": run.hex(),
    }
    beat, hello = Heartbeat(7, "training"), Hello("0.1.0", 1, 3, 1.5)

    def sealed(message: Message, run_id: bytes = run, to: str = "coordinator") -> bytes:
        return bytes(seal_envelope(message, signer, to=to, run_id=run_id))

    good = sealed(beat)
    frames: Mapping[str, bytes] = {
        "a message of this run": good,
        "a greeting before the run is known": sealed(hello, NO_RUN),
        "another protocol version": bytes([good[0] ^ 3]) + good[1:],
        "cut off inside the signature": good[:60],
        "an id of no characters": good[:17] + b"\0" + good[24:],
        "another sender's name": good.replace(b"node-a", b"node-b"),
        "for another receiver": sealed(beat, to="node-c"),
        "a bit of the signature": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "a bit of the message": good[:-1] + bytes([good[-1] ^ 1]),
        "a message of another run": sealed(beat, drawn("other run", size=16)),
        "an empty message": _signed_empty(signer, run),
    }
    return [{"about": about, **common, **_opened(frame, common)} for about, frame in frames.items()]


def _signed_empty(signer: TestIdentity, run: bytes) -> bytes:
    header = bytes([1]) + run + b"\x06node-a\x0bcoordinator"
    return header + signer.sign(tags.ENVELOPE + kdf.frame(header, hashlib.sha256(b"").digest()))


def _opened(frame: bytes, common: Mapping[str, str]) -> dict[str, Any]:
    key, run_id = bytes.fromhex(common["key"]), bytes.fromhex(common["run_id"])
    try:
        opened = open_envelope(
            frame, sender="node-a", key=key, receiver="coordinator", run_id=run_id
        )
    except RemoteProtocolError as error:
        return {"frame": frame.hex(), "refused": [layer_of(error), error.peer]}
    return {"frame": frame.hex(), "message": encode(opened.message).hex()}
