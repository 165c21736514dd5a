"""Vectors of the building blocks of ckks: ring, committee, values, shares, boxes, views."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from secagg.ckks import sealing, views, weighting
from secagg.ckks.headroom import ring_modulus
from secagg.ckks.ring import Ring, pack, ring_of
from secagg.errors import AuthenticationError
from secagg.primitives import aead
from secagg.primitives.hybrid import HybridKeys
from secagg.primitives.kem import CAPSULE_SIZE
from secagg.round_setup import RoundSetup
from secagg.wire.codec import encode
from secagg.wire.messages import CommitteeKeys
from tests.vectors.ckks_blocks_values import share_cases, value_cases
from tests.vectors.ckks_cast import THREE, CkksCast, ckks_casts, stream
from tests.vectors.mlkem import encapsulate
from tests.vectors.stage import drawn

__all__ = ["ckks_blocks", "setup_with", "small_ring", "with_modulus_bits"]

RINGS: Final = ((2048, 36), (2048, 43), (2048, 49), (2048, 52), (4096, 53), (4096, 60))


def ckks_blocks() -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Return name to what the file is about and its cases."""
    return {
        "ckks-ring": ("primes, roots, public elements, and one of them at its points", _rings()),
        "ckks-residues": ("residues to packed bytes, and bytes to refuse", _residues()),
        "ckks-committee": ("cohorts to committees", _committees()),
        "ckks-values": ("vectors to coefficients, and opened sums to values", value_cases()),
        "ckks-shares": ("secrets to packed shares, and shares to secrets and liars", share_cases()),
        "ckks-box": ("what a dealer seals for a member, and boxes to refuse", _boxes()),
        "ckks-views": ("what is signed: keys of members, and views", _views()),
        "ckks-weights": ("whether weights are even enough for nodes to open a sum", _weights()),
    }


def _words(values: Iterable[int]) -> str:
    """Return the SHA-256 of integers as little-endian 64-bit words."""
    return hashlib.sha256(b"".join(value.to_bytes(8, "little") for value in values)).hexdigest()


def _rings() -> list[dict[str, Any]]:
    cases = []
    for degree, bits in RINGS:
        ring, seed = ring_of(degree, bits), drawn("elements", degree, bits)
        x = np.zeros((1, degree), dtype=np.uint64)
        x[0, 1] = 1
        elements = ring.public_elements(seed, 2)
        points = ring.context.transform(elements[:1], forward=True)[0]
        cases.append(
            {
                "degree": degree,
                "modulus_bits": bits,
                "modulus": ring_modulus(degree, bits),
                "root": int(ring.context.transform(x, forward=True)[0, 0]),
                "seed": seed.hex(),
                "elements": elements[0, :4].tolist(),
                "elements_sha256": _words(elements.reshape(-1).tolist()),
                "points": points[:4].tolist(),
                "points_sha256": _words(points.tolist()),
            }
        )
    return cases


def small_ring(modulus: int) -> Ring:
    """Return what packing needs of a ring, for 16 residues."""
    ring = object.__new__(Ring)
    vars(ring).update(degree=16, modulus=modulus, residue_bits=modulus.bit_length())
    return ring


def with_modulus_bits() -> Sequence[tuple[int, int]]:
    """Return bits and a prime of so many, all ways to pack among them."""
    return [(bits, ring_modulus(2048, bits)) for bits in (27, 32, 33, 36, 39, 40, 43, 49, 52, 60)]


def _residues() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for bits, q in with_modulus_bits():
        ring, raw = small_ring(q), stream("residues", bits, size=14 * 8)
        values = [int.from_bytes(raw[i : i + 8], "little") % q for i in range(0, len(raw), 8)]
        values += [0, q - 1]
        data = pack(np.array([values], dtype=np.uint64), ring)
        beyond = pack(np.array([[*values[:-1], q]], dtype=np.uint64), ring)
        head = {"modulus_bits": bits, "modulus": q}
        cases.append({**head, "values": values, "packed": data.hex()})
        cases.append({**head, "packed": beyond.hex(), "refused": True})
    cases.append({**head, "packed": data[:-1].hex(), "refused": True})
    cases.append({**head, "packed": (data + b"\0").hex(), "refused": True})
    return cases


def setup_with(cohort: Sequence[str], size: int, context: Sequence[bytes]) -> RoundSetup:
    """Return a round of that cohort with a committee of `size`."""
    cast, n = ckks_casts()[THREE], len(cohort)
    committee = replace(cast.terms.committee, size=size)
    terms = replace(cast.terms, nodes=n, quorum=n, committee=committee)
    return replace(
        cast.checked,
        run_id=context[0],
        round_id=int.from_bytes(context[1], "little"),
        offer_hash=context[2],
        cohort=tuple(cohort),
        signing_keys=dict.fromkeys(cohort, bytes(32)),
        quorum=n,
        ckks=terms,
    )


def _context(*labels: object) -> tuple[bytes, bytes, bytes]:
    number = int.from_bytes(drawn("round", *labels, size=2), "little")
    return (
        drawn("run", *labels, size=16),
        number.to_bytes(8, "little"),
        drawn("offer", *labels),
    )


def _hex(parts: Iterable[bytes]) -> list[str]:
    return [part.hex() for part in parts]


def _committees() -> list[dict[str, Any]]:
    cases = []
    for n, size in ((3, 3), (4, 3), (12, 1), (12, 5), (12, 11), (40, 13)):
        cohort, context = [f"node-{i:02d}" for i in range(n)], _context("committee", n, size)
        committee = views.committee_of(setup_with(cohort, size, context))
        cases.append(
            {
                "context": _hex(context),
                "cohort": cohort,
                "size": size,
                "committee": list(committee),
                "elements_seed": views.elements_seed(setup_with(cohort, size, context)).hex(),
            }
        )
    return cases


# --- boxes, views, weights ------------------------------------------------------------------------


def _boxes() -> list[dict[str, Any]]:
    cast = ckks_casts()[THREE]
    good = _box(cast, "node-a", "node-b")
    box = bytes.fromhex(good["box"])
    cases = [good]
    for about, changes in (
        ("for another member", {"member": "node-c"}),
        ("from another dealer", {"dealer": "node-c"}),
        ("of another round", {"context": _hex(_context("box", "other"))}),
        ("a bit of the capsule", {"box": _flipped(box, 0)}),
        ("a bit of the sealed share", {"box": _flipped(box, CAPSULE_SIZE)}),
        ("cut off in the capsule", {"box": box[:1000].hex()}),
    ):
        case = {"about": about, **good, **changes, "refused": True}
        for name in ("agreed", "dealer_secret", "encapsulated", "key", "member_keys", "share"):
            del case[name]
        _must_refuse(cast, case)
        cases.append(case)
    return cases


def _flipped(data: bytes, index: int) -> str:
    return (data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]).hex()


def _box(cast: CkksCast, dealer: str, member: str) -> dict[str, Any]:
    secrets = {node: cast.secret(node, "agreement") for node in (dealer, member)}
    keys = {node: HybridKeys(secret) for node, secret in secrets.items()}
    agreement_key, kem_key = keys[member].public
    encapsulated, capsule = encapsulate(kem_key, drawn("box", dealer, member))
    shared = keys[member].decapsulate(dealer, keys[dealer].public[0], capsule)
    if shared[32:] != encapsulated:
        raise ValueError("the capsule holds another secret")
    share = drawn("box", "share", size=64)
    key = sealing._box_key(cast.checked, shared, dealer, member, capsule)
    return {
        "context": _hex(cast.checked.context),
        "dealer": dealer,
        "member": member,
        "dealer_secret": secrets[dealer].hex(),
        "dealer_key": keys[dealer].public[0].hex(),
        "member_secret": secrets[member].hex(),
        "member_keys": _hex((agreement_key, kem_key)),
        "agreed": shared[:32].hex(),
        "encapsulated": encapsulated.hex(),
        "key": key.hex(),
        "share": share.hex(),
        "box": (capsule + aead.seal(key, share, b"")).hex(),
    }


def _must_refuse(cast: CkksCast, case: dict[str, Any]) -> None:
    run, number, offer = (bytes.fromhex(part) for part in case["context"])
    setup = replace(
        cast.checked, run_id=run, round_id=int.from_bytes(number, "little"), offer_hash=offer
    )
    dealer = sealing.Dealer(case["dealer"], bytes.fromhex(case["dealer_key"]), b"", b"")
    keys = HybridKeys(bytes.fromhex(case["member_secret"]))
    try:
        sealing.open_box(setup, keys, dealer, case["member"], bytes.fromhex(case["box"]))
    except AuthenticationError:
        return
    raise ValueError(f"a box {case['about']} opens")


def _views() -> list[dict[str, Any]]:
    cast = ckks_casts()[THREE]
    keys = []
    for node in cast.cohort:
        secret = HybridKeys(cast.secret(node, "agreement"))
        keys.append(sealing.make_key(cast.checked, cast.identities[node], secret))
    cases = []
    for shown, weighted in ((keys, (1, 1, 1)), (keys, (2, 1, 3)), (keys[:2], (1, 0, 1))):
        survivors = [node for node, w in zip(cast.cohort, weighted, strict=True) if w]
        weights = bytes(filter(None, weighted))
        digest = views.keys_digest(cast.checked, shown)
        view = views.view_digest(digest, survivors, weights)
        signatures = (
            views.sign_view(cast.checked, cast.identities[node], view) for node in cast.cohort
        )
        cases.append(
            {
                "context": _hex(cast.checked.context),
                "identities": {node: cast.nodes[node]["identity"] for node in cast.cohort},
                "agreement": {key.node_id: cast.nodes[key.node_id]["agreement"] for key in shown},
                "kem_digests": [sealing.dealer_of(key).kem_digest.hex() for key in shown],
                "committee_keys": encode(CommitteeKeys(7, tuple(shown))).hex(),
                "keys_digest": digest.hex(),
                "survivors": survivors,
                "weights": list(weights),
                "view": view.hex(),
                "signatures": _hex(signatures),
            }
        )
    return cases


def _weights() -> list[dict[str, Any]]:
    lists = (
        ([1, 1, 1], 0),
        ([1, 1], 0),
        ([2, 1, 1], 0),
        ([3, 1, 1, 1], 0),
        ([3, 1, 1, 1], 2),
        ([4, 1, 1, 1], 1),
        ([4, 3, 3, 4, 3], 2),
        ([4, 1, 1, 1, 1, 1], 1),
        ([2] * 9 + [1], 7),
        ([3] + [1] * 11, 6),
    )
    return [
        {
            "weights": weights,
            "colluders": colluders,
            "even": weighting.is_even(weights, max(3, colluders + 2)),
        }
        for weights, colluders in lists
    ]
