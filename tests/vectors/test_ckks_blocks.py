"""Every building block of ckks in specs/vectors, by the package and by the slow implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from secagg.ckks import coefficients, ring, sealing, views, weighting
from secagg.ckks.headroom import RingParameters, ring_modulus
from secagg.ckks.ring import ring_of
from secagg.errors import AuthenticationError, LocalProtocolError
from secagg.primitives import packed
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.wire.codec import decode, encode
from secagg.wire.messages import CommitteeKeys
from tests.vectors import slow_ckks_parts as slow
from tests.vectors import slow_ckks_ring as slow_ring
from tests.vectors import slow_parts as parts
from tests.vectors.ckks_blocks import setup_with, small_ring
from tests.vectors.ckks_cast import THREE, ckks_casts
from tests.vectors.files import read
from tests.vectors.real import TestIdentity
from tests.vectors.slow_ckks import is_valid_key, keys_digest

Case = dict[str, Any]


def cases(name: str) -> list[Case]:
    found = read(name)["cases"]
    assert isinstance(found, list)
    return found


def slow_setup(**changed: Any) -> slow.Setup:
    """Return the set-up of a round of three with some of its numbers replaced."""
    return replace(slow.Setup.read(ckks_casts()[THREE].setup), **changed)


def unhexed(values: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


def context_of(case: Case) -> dict[str, Any]:
    run, number, offer = unhexed(case["context"])
    return {"run_id": run, "round_id": int.from_bytes(number, "little"), "offer_hash": offer}


# --- ring -----------------------------------------------------------------------------------------


def digest(values: Iterable[int]) -> str:
    return hashlib.sha256(b"".join(value.to_bytes(8, "little") for value in values)).hexdigest()


@pytest.mark.req("H-06")
@pytest.mark.parametrize("case", cases("ckks-ring"))
def test_ring_by_the_slow_implementation(case: Case) -> None:
    degree, q = case["degree"], case["modulus"]
    assert slow_ring.modulus(degree, case["modulus_bits"]) == q
    assert slow_ring.root(degree, q) == case["root"]
    blocks = slow_ring.elements(bytes.fromhex(case["seed"]), 2, degree, q)
    assert list(blocks[0][:4]) == case["elements"]
    assert digest([*blocks[0], *blocks[1]]) == case["elements_sha256"]
    points = slow_ring.to_points(blocks[0], q)
    assert list(points[:4]) == case["points"]
    assert digest(points) == case["points_sha256"]
    assert slow_ring.to_coefficients(points, q) == blocks[0]


@pytest.mark.req("H-06")
@pytest.mark.parametrize("case", cases("ckks-ring"))
def test_ring_by_the_package(case: Case) -> None:
    ours = ring_of(case["degree"], case["modulus_bits"])
    assert ours.modulus == ring_modulus(case["degree"], case["modulus_bits"]) == case["modulus"]
    blocks = ours.public_elements(bytes.fromhex(case["seed"]), 2)
    assert digest(blocks.reshape(-1).tolist()) == case["elements_sha256"]
    points = ours.context.transform(blocks[:1], forward=True)
    assert digest(points[0].tolist()) == case["points_sha256"]


@pytest.mark.parametrize(("degree", "q"), [(8, 97), (16, 97), (64, 7681)])
def test_points_multiply_as_polynomials_do(degree: int, q: int) -> None:
    """The slow ring against the school book: X^N is −1."""
    rng = np.random.default_rng(degree)
    f, g = (tuple(rng.integers(0, q, degree).tolist()) for _ in range(2))
    product = [0] * degree
    for i, x in enumerate(f):
        for j, y in enumerate(g):
            product[(i + j) % degree] += x * y * (-1 if i + j >= degree else 1)
    both = zip(slow_ring.to_points(f, q), slow_ring.to_points(g, q), strict=True)
    points = tuple(x * y % q for x, y in both)
    assert slow_ring.to_coefficients(points, q) == tuple(x % q for x in product)


@pytest.mark.req("H-08")
@pytest.mark.parametrize("case", cases("ckks-residues"))
def test_residues(case: Case) -> None:
    bits, q, data = case["modulus_bits"], case["modulus"], bytes.fromhex(case["packed"])
    unpacked = ring.unpack(data, 1, small_ring(q))
    slowly = slow_ring.unpack_residues(data, 16, bits, q)
    if case.get("refused"):
        assert unpacked is None
        assert slowly is None
        return
    values = case["values"]
    assert unpacked is not None
    assert unpacked[0].tolist() == slowly == values
    assert ring.pack(np.array([values], dtype=np.uint64), small_ring(q)) == data
    assert slow_ring.pack_residues(values, bits) == data


@pytest.mark.req("H-03")
@pytest.mark.req("H-06")
@pytest.mark.parametrize("case", cases("ckks-committee"))
def test_committees(case: Case) -> None:
    cohort, size, context = case["cohort"], case["size"], unhexed(case["context"])
    ours = setup_with(cohort, size, context)
    slowly = slow_setup(cohort=tuple(cohort), committee_size=size, **context_of(case))
    assert list(views.committee_of(ours)) == slowly.committee == case["committee"]
    seed = bytes.fromhex(case["elements_seed"])
    assert views.elements_seed(ours) == slowly.elements_seed == seed


# --- values ---------------------------------------------------------------------------------------


def places_of(case: Case) -> dict[str, int]:
    names = ("degree", "values_per_coefficient", "field_bits", "noise_bits", "error_terms")
    return {name: case[name] for name in names}


def bits_of(case: Case) -> dict[str, int]:
    return {name: case[name] for name in ("value_bits", "ring_bits")}


@pytest.mark.req("H-07")
@pytest.mark.parametrize("case", [case for case in cases("ckks-values") if "vector" in case])
def test_messages(case: Case) -> None:
    parameters = RingParameters(**places_of(case), modulus_bits=0, secret_terms=0)
    vector = np.array(case["vector"], dtype=np.uint32)
    slowly = slow_setup(**places_of(case), **bits_of(case), dim=len(vector))
    if case.get("refused"):
        with pytest.raises(LocalProtocolError, match="bits"):
            coefficients.to_message(vector, parameters, **bits_of(case))
        assert slow.to_message(case["vector"], slowly) is None
        return
    ours = coefficients.to_message(vector, parameters, **bits_of(case))
    blocks = slow.to_message(case["vector"], slowly)
    assert blocks is not None
    assert ours.tolist() == [list(block) for block in blocks] == case["message"]


@pytest.mark.req("H-14")
@pytest.mark.parametrize("case", [case for case in cases("ckks-values") if "opened" in case])
def test_opened_sums(case: Case) -> None:
    parameters = RingParameters(**places_of(case), modulus_bits=0, secret_terms=0)
    opened, weight = np.array(case["opened"], dtype=np.int64), case["weight"]
    sizes = {**bits_of(case), "dim": case["dim"]}
    ours = coefficients.read_sum(opened, parameters, weight=weight, **sizes)
    slowly = slow.read_sum(case["opened"], slow_setup(**places_of(case), **sizes), weight)
    assert (None if ours is None else ours.tolist()) == slowly == case["total"]


# --- shares ---------------------------------------------------------------------------------------


def sharing_of(case: Case) -> dict[str, int]:
    return {name: case[name] for name in ("threshold", "pack", "prime")}


def slow_sharing(case: Case) -> slow.Setup:
    return slow_setup(
        degree=len(case["secret"]),
        committee_size=case["holders"],
        committee_threshold=case["threshold"],
        committee_pack=case["pack"],
        committee_modulus=case["prime"],
    )


@pytest.mark.req("H-06")
@pytest.mark.parametrize("case", cases("ckks-shares"))
def test_shares(case: Case) -> None:
    raw = b"".join(value.to_bytes(4, "little") for value in case["drawn"])
    secret = np.array(case["secret"], dtype=np.int64)
    ours = packed.share(secret, **sharing_of(case), holders=case["holders"], rng=lambda _: raw)
    slowly = slow.share(case["secret"], case["drawn"], setup=slow_sharing(case))
    assert ours.tolist() == list(slowly.values()) == case["shares"]
    for share, data in zip(case["shares"], unhexed(case["encoded"]), strict=True):
        assert packed.encode(np.array(share, dtype=np.uint32), case["prime"]) == data
        assert slow.encode_share(share, slow_sharing(case)) == data
        decoded = packed.decode(data, case["prime"], len(share))
        assert decoded is not None
        assert decoded.tolist() == slow.decode_share(data, slow_sharing(case)) == share


@pytest.mark.req("H-13")
@pytest.mark.parametrize("case", cases("ckks-shares"))
def test_openings(case: Case) -> None:
    setup, size = slow_sharing(case), len(case["secret"])
    bound = (case["prime"] - 1) // 2
    for opening in case["openings"]:
        answers = {int(point): share for point, share in opening["answers"].items()}
        arrays = {point - 1: np.array(one, dtype=np.uint32) for point, one in answers.items()}
        ours = packed.open_shares(arrays, **sharing_of(case), size=size, bound=bound)
        spare = len(answers) - setup.answers
        words = slow.words(answers, setup=setup)
        near = next((word for word in words if 2 * len(word.wrong) <= spare), None)
        if opening["secret"] is None:
            assert ours is None
            assert near is None
            continue
        assert ours is not None
        assert near is not None
        assert ours.secret.tolist() == list(near.secret) == opening["secret"]
        assert sorted(holder + 1 for holder in ours.wrong) == opening["wrong"]
        assert sorted(near.wrong) == opening["wrong"]


def test_the_openings_show_liars_found_and_not_found() -> None:
    openings = [opening for case in cases("ckks-shares") for opening in case["openings"]]
    assert {opening["secret"] is None for opening in openings} == {True, False}
    assert max(len(opening.get("wrong", ())) for opening in openings) >= 2
    for case in cases("ckks-shares"):
        for opening in case["openings"]:
            assert opening["secret"] in (None, case["secret"])


# --- boxes, views, weights ------------------------------------------------------------------------


@pytest.mark.req("H-05")
@pytest.mark.parametrize("case", cases("ckks-box"))
def test_boxes_by_the_slow_implementation(case: Case) -> None:
    setup = slow_setup(**context_of(case))
    secret, box = bytes.fromhex(case["member_secret"]), bytes.fromhex(case["box"])
    pair, dealer_key = (case["dealer"], case["member"]), bytes.fromhex(case["dealer_key"])
    share = slow.open_box(setup, secret, box, agreement_key=dealer_key, pair=pair)
    if case.get("refused"):
        assert share is None
        return
    assert share is not None
    assert share.hex() == case["share"]
    dealer_secret = bytes.fromhex(case["dealer_secret"])
    assert parts.public_keys(dealer_secret)[0] == dealer_key
    assert list(parts.public_keys(secret)) == unhexed(case["member_keys"])
    agreed = parts.x25519(dealer_secret, bytes.fromhex(case["member_keys"][0]))
    assert agreed is not None
    assert agreed.hex() == case["agreed"]
    encapsulated = bytes.fromhex(case["encapsulated"])
    key = slow.box_key(setup, agreed, encapsulated, box[: slow.CAPSULE], pair)
    assert key.hex() == case["key"]
    assert box[slow.CAPSULE :] == parts.seal(key, share)


@pytest.mark.req("H-05")
@pytest.mark.parametrize("case", cases("ckks-box"))
def test_boxes_by_the_package(case: Case) -> None:
    setup = replace(ckks_casts()[THREE].checked, **context_of(case))
    keys, box = HybridKeys(bytes.fromhex(case["member_secret"])), bytes.fromhex(case["box"])
    dealer = sealing.Dealer(case["dealer"], bytes.fromhex(case["dealer_key"]), b"", b"")
    if case.get("refused"):
        with pytest.raises(AuthenticationError):
            sealing.open_box(setup, keys, dealer, case["member"], box)
        return
    assert sealing.open_box(setup, keys, dealer, case["member"], box).hex() == case["share"]
    assert list(keys.public) == unhexed(case["member_keys"])


@pytest.mark.req("H-04")
@pytest.mark.req("H-10")
@pytest.mark.parametrize("case", cases("ckks-views"))
def test_views_by_the_slow_implementation(case: Case) -> None:
    identities = {node: bytes.fromhex(key) for node, key in case["identities"].items()}
    setup = slow_setup(**context_of(case))
    keys = []
    for node, secret in case["agreement"].items():
        agreement_key, kem_key = parts.public_keys(bytes.fromhex(secret))
        signed = slow.key_parts(setup, node, agreement_key, slow.kem_digest(kem_key))
        signature = parts.sign(identities[node], "sealing-key", *signed)
        keys.append([node, 1, agreement_key, kem_key, signature])
        assert is_valid_key(setup, keys[-1])
    assert [slow.kem_digest(key[3]) for key in keys] == unhexed(case["kem_digests"])
    digest_of_keys = keys_digest(setup, keys)
    assert digest_of_keys.hex() == case["keys_digest"]
    message = parts.sha("committee-keys", bytes.fromhex(case["committee_keys"]))
    assert message == digest_of_keys
    view = slow.view_digest(digest_of_keys, case["survivors"], bytes(case["weights"]))
    assert view.hex() == case["view"]
    for identity, signature in zip(identities.values(), unhexed(case["signatures"]), strict=True):
        assert parts.sign(identity, "weighted-survivors", *setup.context, view) == signature


@pytest.mark.req("H-04")
@pytest.mark.req("H-10")
@pytest.mark.parametrize("case", cases("ckks-views"))
def test_views_by_the_package(case: Case) -> None:
    setup: RoundSetup = replace(ckks_casts()[THREE].checked, **context_of(case))
    identities = {
        node: TestIdentity(node, bytes.fromhex(key)) for node, key in case["identities"].items()
    }
    keys = tuple(
        sealing.make_key(setup, identities[node], HybridKeys(bytes.fromhex(secret)))
        for node, secret in case["agreement"].items()
    )
    data = encode(CommitteeKeys(setup.round_id, keys))
    assert data.hex() == case["committee_keys"]
    shown = decode(data, sender="coordinator")
    assert isinstance(shown, CommitteeKeys)
    for key in shown.keys:
        sealing.verify_key(setup, key)
    digest_of_keys = views.keys_digest(setup, shown.keys)
    view = views.view_digest(digest_of_keys, case["survivors"], bytes(case["weights"]))
    assert (digest_of_keys.hex(), view.hex()) == (case["keys_digest"], case["view"])
    for node, signature in zip(setup.cohort, unhexed(case["signatures"]), strict=True):
        views.verify_view(setup, node, signature, view)


@pytest.mark.req("H-11")
@pytest.mark.parametrize("case", cases("ckks-weights"))
def test_weights(case: Case) -> None:
    weights, colluders = case["weights"], case["colluders"]
    least = weighting.least_effective(replace(ckks_casts()[THREE].checked, **assuming(colluders)))
    assert weighting.is_even(weights, least) is case["even"]
    assert slow.is_even(weights, colluders) is case["even"]


def assuming(colluders: int) -> Mapping[str, Any]:
    """Return what a round of forty says of itself where so many collude."""
    cohort = [f"node-{i:02d}" for i in range(40)]
    setup = setup_with(cohort, 3, ckks_casts()[THREE].checked.context)
    names = ("cohort", "signing_keys", "quorum", "ckks", "colluders")
    assert setup.ckks is not None
    fields = {name: getattr(setup, name) for name in names}
    terms = replace(setup.ckks, colluders=colluders)
    return {**fields, "colluders": colluders, "ckks": terms}
