"""The algebra: pair masks cancel, and are bound to run, round, offer and both ids."""

import itertools

import numpy as np
import pytest

from secagg.errors import AuthenticationError
from secagg.masking import masks
from secagg.primitives import agreement
from secagg.primitives.agreement import public_key
from secagg.primitives.kdf import derive
from secagg.tags import MASK_KEY, PAIR_MASK, SELF_MASK
from tests.secagg.primitives.test_prg import slow_mask
from tests.support.fleet import TestSigner, make_setup
from tests.support.messages import changed

DIM = 50
NODES = ("a", "b", "c", "d")
PRIVATE = {node: masks.mask_private_key(node.encode() * 32) for node in NODES}
PUBLIC = {node: public_key(key) for node, key in PRIVATE.items()}
CONTEXT = (b"r" * 16, bytes(8), b"o" * 32)


def pair_masks(me: str, peers: tuple[str, ...] = NODES, context=CONTEXT, **options: bool):
    vector = np.zeros(DIM, dtype=np.uint32)
    keys = {peer: PUBLIC[peer] for peer in peers if peer != me}
    masks.add_pair_masks(vector, context, PRIVATE[me], me=me, peers=keys, **options)
    return vector


@pytest.mark.req("M-01")
def test_pair_masks_cancel_in_the_sum() -> None:
    total = np.zeros(DIM, dtype=np.uint32)
    for node in NODES:
        total += pair_masks(node)
    assert not total.any()
    assert pair_masks("a").any()


@pytest.mark.req("M-07")
def test_a_pair_mask_by_hand() -> None:
    secret = PRIVATE["a"].exchange(PRIVATE["b"].public_key())
    seed = derive(secret, PAIR_MASK, *CONTEXT, b"a", b"b")
    by_hand = slow_mask(seed, DIM)
    assert len(seed) == 32
    assert np.array_equal(pair_masks("a", ("b",)), by_hand)
    assert np.array_equal(pair_masks("b", ("a",)), np.negative(by_hand))
    assert np.array_equal(pair_masks("a", ("b",), negative=True), np.negative(by_hand))


@pytest.mark.req("M-07")
@pytest.mark.parametrize("part", range(3))
def test_masks_made_for_another_run_round_or_offer_do_not_cancel(part: int) -> None:
    """A coordinator that shows two nodes different offers gets noise (Pasquini et al. 2022)."""
    other = list(CONTEXT)
    other[part] = bytes(len(other[part]) - 1) + b"\x09"
    left = pair_masks("a", ("b",)) + pair_masks("b", ("a",), context=tuple(other))
    assert np.count_nonzero(left) >= DIM - 2
    assert len(np.unique(left)) >= DIM - 2


@pytest.mark.req("M-07")
def test_every_pair_has_a_mask_of_its_own() -> None:
    vectors = [pair_masks(a, (b,)).tobytes() for a, b in itertools.permutations(NODES, 2)]
    assert len(set(vectors)) == len(vectors)


@pytest.mark.req("M-17")
def test_a_self_mask_by_hand() -> None:
    vector = np.zeros(DIM, dtype=np.uint32)
    masks.add_self_mask(vector, CONTEXT, b"s" * 32)
    assert np.array_equal(vector, slow_mask(derive(b"s" * 32, SELF_MASK, *CONTEXT), DIM))
    masks.add_self_mask(vector, CONTEXT, b"s" * 32, negative=True)
    assert not vector.any()


@pytest.mark.req("M-05")
def test_the_mask_key_follows_from_the_round_secret() -> None:
    key = masks.mask_private_key(b"s" * 32)
    assert key.private_bytes_raw() == derive(b"s" * 32, MASK_KEY)
    assert public_key(key) != public_key(masks.mask_private_key(b"S" * 32))


def advert(setup, node: str = "node-0001", **changes: bytes):
    keys = {"mask_key": PUBLIC["a"], "share_key": PUBLIC["b"], "commitment": b"c" * 32}
    return masks.make_advert(setup, TestSigner(node), **{**keys, **changes})


@pytest.mark.req("M-04")
def test_an_advert_verifies_in_its_own_round_only() -> None:
    setup = make_setup(5)
    good = advert(setup)
    masks.verify_advert(setup, good)
    for change in ({"round_id": 8}, {"run_id": b"s" * 16}, {"offer_hash": bytes(32)}):
        with pytest.raises(AuthenticationError) as caught:
            masks.verify_advert(make_setup(5, **change), good)
        assert caught.value.peer == "node-0001"


@pytest.mark.req("M-04")
@pytest.mark.parametrize(
    "change",
    [
        {"node_id": "node-0002"},
        {"node_id": "stranger"},
        {"suite": 2},
        {"mask_key": PUBLIC["c"]},
        {"share_key": PUBLIC["c"]},
        {"self_commitment": b"d" * 32},
        {"mask_key": PUBLIC["b"], "share_key": PUBLIC["a"]},
        {"signature": bytes(64)},
    ],
)
def test_every_field_of_an_advert_is_signed(change: dict[str, object]) -> None:
    setup = make_setup(5)
    with pytest.raises(AuthenticationError):
        masks.verify_advert(setup, changed(advert(setup), **change))


@pytest.mark.req("M-06")
def test_the_digest_covers_every_field() -> None:
    setup = make_setup(5)
    base = advert(setup)
    changes: list[dict[str, object]] = [
        {"round_id": 8},
        {"node_id": "x"},
        {"suite": 2},
        {"mask_key": bytes(32)},
        {"share_key": bytes(32)},
        {"self_commitment": bytes(32)},
        {"signature": bytes(64)},
    ]
    digests = {masks.advert_digest(changed(base, **change)) for change in changes}
    assert len({masks.advert_digest(base), *digests}) == 1 + len(changes)


@pytest.mark.req("M-04")
@pytest.mark.parametrize("key", ["mask_key", "share_key"])
def test_a_signed_key_of_small_order_is_refused(key: str) -> None:
    setup = make_setup(5)
    with pytest.raises(AuthenticationError) as caught:
        masks.verify_advert(setup, advert(setup, **{key: bytes(32)}))
    assert caught.value.peer == "node-0001"


@pytest.mark.req("M-08")
def test_a_sealing_key_is_one_direction_of_one_pair_in_one_round() -> None:
    setup, mine = make_setup(5), masks.mask_private_key(b"m" * 32)
    peer = advert(setup)
    base = {"sender": "node-0000", "receiver": "node-0001", "peer": peer}
    keys = {masks.seal_key(setup.context, mine, **base)}
    keys.add(masks.seal_key(setup.context, mine, **{**base, "sender": "node-0002"}))
    keys.add(masks.seal_key(setup.context, mine, **{**base, "receiver": "node-0002"}))
    swapped = {**base, "sender": "node-0001", "receiver": "node-0000"}
    keys.add(masks.seal_key(setup.context, mine, **swapped))
    keys.add(masks.seal_key(make_setup(5, round_id=8).context, mine, **base))
    keys.add(
        masks.seal_key(
            setup.context, mine, **{**base, "peer": advert(setup, share_key=PUBLIC["c"])}
        )
    )
    assert len(keys) == 6
    theirs = masks.seal_key(
        setup.context,
        PRIVATE["b"],
        sender="node-0000",
        receiver="node-0001",
        peer=advert(setup, "node-0000", share_key=agreement.public_key(mine)),
    )
    assert theirs in keys


@pytest.mark.req("M-11")
def test_a_co_signature_is_for_one_survivor_set_of_one_round() -> None:
    setup, signer = make_setup(5), TestSigner("node-0001")
    sharers = masks.sharers_digest(b"g" * 32, setup.cohort)
    view = masks.view_digest(sharers, setup.cohort)
    signature = masks.sign_survivors(setup, signer, view)
    masks.verify_survivors(setup, "node-0001", signature, view)
    wrong = [
        (setup, "node-0001", masks.view_digest(sharers, setup.cohort[1:])),
        (setup, "node-0001", masks.view_digest(bytes(32), setup.cohort)),
        (setup, "node-0001", sharers),
        (setup, "node-0002", view),
        (setup, "stranger", view),
        (make_setup(5, round_id=8), "node-0001", view),
        (make_setup(5, offer_hash=bytes(32)), "node-0001", view),
    ]
    for other, node, shown in wrong:
        with pytest.raises(AuthenticationError):
            masks.verify_survivors(other, node, signature, shown)
    with pytest.raises(AuthenticationError):
        masks.verify_sharers(setup, "node-0001", signature, view)


@pytest.mark.req("M-24")
def test_a_sharers_signature_is_for_one_list_in_one_graph_of_one_round() -> None:
    setup, signer = make_setup(5), TestSigner("node-0001")
    sharers = masks.sharers_digest(b"g" * 32, setup.cohort)
    signature = masks.sign_sharers(setup, signer, sharers)
    masks.verify_sharers(setup, "node-0001", signature, sharers)
    wrong = [
        (setup, "node-0001", masks.sharers_digest(b"g" * 32, setup.cohort[1:])),
        (setup, "node-0001", masks.sharers_digest(b"h" * 32, setup.cohort)),
        (setup, "node-0002", sharers),
        (setup, "stranger", sharers),
        (make_setup(5, round_id=8), "node-0001", sharers),
        (make_setup(5, run_id=b"s" * 16), "node-0001", sharers),
        (make_setup(5, offer_hash=bytes(32)), "node-0001", sharers),
    ]
    for other, node, shown in wrong:
        with pytest.raises(AuthenticationError) as caught:
            masks.verify_sharers(other, node, signature, shown)
        assert caught.value.peer == node
    with pytest.raises(AuthenticationError):
        masks.verify_survivors(setup, "node-0001", signature, sharers)


@pytest.mark.req("M-04")
def test_the_commitment_binds_the_seed() -> None:
    assert masks.self_commitment(b"a" * 32) != masks.self_commitment(b"b" * 32)
    assert b"a" * 32 not in masks.self_commitment(b"a" * 32)
