"""Pairs of neighbours: one secret from both key pairs, bound to all that it is for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from secagg.errors import AuthenticationError
from secagg.masking import adverts, pairs
from secagg.primitives import kem
from secagg.primitives.kdf import derive
from secagg.tags import AGREEMENT_SEED, BACKUP, KEM_SEED, PAIR_KEY, PAIR_MASK, SHARE_SEAL
from secagg.wire.messages import KeyAdvert
from tests.secagg.masking.test_adverts import framed
from tests.support.fleet import TestSigner, make_setup
from tests.support.messages import changed

SETUP = make_setup(5)
A, B, C = SETUP.cohort[:3]
SECRETS = {node: node.encode().ljust(32, b".") for node in SETUP.cohort}
KEYS = {node: pairs.NodeKeys(node, SECRETS[node]) for node in SETUP.cohort}
SEED = b"g" * 32
BINDING = (*SETUP.context, SEED)


def advert(node: str) -> KeyAdvert:
    key, kem_key = KEYS[node].public
    return adverts.make_advert(
        SETUP,
        TestSigner(node),
        agreement_key=key,
        kem_key=kem_key,
        commitments=(bytes(32), bytes(32), bytes(32)),
    )


ADVERTS = {node: advert(node) for node in SETUP.cohort}
FIRST, CAPSULE = KEYS[A].initiate(ADVERTS[B], BINDING)


@pytest.mark.req("M-05")
def test_the_public_keys_follow_from_one_secret() -> None:
    key, kem_key = KEYS[A].public
    scalar = derive(SECRETS[A], AGREEMENT_SEED)
    assert key == X25519PrivateKey.from_private_bytes(scalar).public_key().public_bytes_raw()
    assert kem_key == kem.public_key(kem.private_key(derive(SECRETS[A], KEM_SEED, length=64)))
    assert pairs.NodeKeys(A, SECRETS[B]).public == KEYS[B].public


@pytest.mark.req("M-05")
@pytest.mark.parametrize("derivation", [lambda x: x, lambda x: derive(x, KEM_SEED)])
def test_who_finds_the_x25519_scalar_finds_no_ml_kem_key(derivation: object) -> None:
    assert callable(derivation)
    key, kem_key = KEYS[A].public
    scalar = derive(SECRETS[A], AGREEMENT_SEED)  # what a discrete logarithm gives, and all of it
    for clamped in (scalar, bytes([scalar[0] & 248, *scalar[1:31], scalar[31] & 127 | 64])):
        stolen = X25519PrivateKey.from_private_bytes(clamped).public_key().public_bytes_raw()
        assert stolen == key
        seed = derive(derivation(clamped), KEM_SEED, length=64)
        assert kem.public_key(kem.private_key(seed)) != kem_key


@pytest.mark.req("M-07")
def test_both_ends_find_the_same_secret() -> None:
    other = KEYS[B].respond(ADVERTS[A], CAPSULE, BINDING)
    assert other.mask_seed == FIRST.mask_seed
    for sender, receiver in ((A, B), (B, A)):
        keys = {pair.seal_key(sender=sender, receiver=receiver) for pair in (FIRST, other)}
        assert len(keys) == 1


@pytest.mark.req("M-07")
def test_the_mask_seed_by_hand() -> None:
    """HKDF(HKDF(x ‖ ss, pair-key; context, graph seed, capsule, u, v), pair-mask)."""
    private, other = (
        X25519PrivateKey.from_private_bytes(derive(SECRETS[node], AGREEMENT_SEED))
        for node in (A, B)
    )
    peer = other.public_key()
    decapsulated = kem.private_key(derive(SECRETS[B], KEM_SEED, length=64)).decapsulate(CAPSULE)
    secret = private.exchange(peer) + decapsulated
    root = derive(secret, PAIR_KEY, *SETUP.context, SEED, CAPSULE, A.encode(), B.encode())
    assert FIRST.mask_seed == derive(root, PAIR_MASK)
    assert len(FIRST.mask_seed) == 32
    sealing = derive(root, SHARE_SEAL, A.encode(), B.encode())
    assert FIRST.seal_key(sender=A, receiver=B) == sealing


@pytest.mark.req("M-07")
@pytest.mark.parametrize("part", range(4))
def test_the_secret_is_bound_to_run_round_offer_and_graph(part: int) -> None:
    """A coordinator that shows two nodes different offers finds that they do not agree."""
    other = list(BINDING)
    other[part] = bytes(len(other[part]) - 1) + b"\x09"
    assert KEYS[B].respond(ADVERTS[A], CAPSULE, other).mask_seed != FIRST.mask_seed


@pytest.mark.req("M-07")
@pytest.mark.req("M-26")
def test_the_secret_takes_both_keys_the_capsule_and_both_names() -> None:
    """Whoever swaps any of them is left with another secret, and its confirmation does not hold."""
    altered = bytes([CAPSULE[0] ^ 1]) + CAPSULE[1:]
    renamed = changed(ADVERTS[A], node_id=C)
    x25519_only = pairs.NodeKeys(B, SECRETS[B])
    x25519_only._keys._kem = KEYS[C]._keys._kem
    kem_only = pairs.NodeKeys(B, SECRETS[B])
    kem_only._keys._agreement = KEYS[C]._keys._agreement
    found = {
        "capsule": KEYS[B].respond(ADVERTS[A], altered, BINDING),
        "advert": KEYS[B].respond(ADVERTS[C], CAPSULE, BINDING),
        "initiator": KEYS[B].respond(renamed, CAPSULE, BINDING),  # type: ignore[arg-type]
        "responder": pairs.NodeKeys(C, SECRETS[B]).respond(ADVERTS[A], CAPSULE, BINDING),
        "no ML-KEM key": x25519_only.respond(ADVERTS[A], CAPSULE, BINDING),
        "no X25519 key": kem_only.respond(ADVERTS[A], CAPSULE, BINDING),
    }
    seeds = {pair.mask_seed for pair in found.values()}
    assert len(seeds) == len(found)
    assert FIRST.mask_seed not in seeds
    mine = pairs.confirmation(FIRST.mask_seed)
    assert all(pairs.confirmation(seed) != mine for seed in seeds)


@pytest.mark.req("M-07")
def test_every_pair_and_every_encapsulation_has_a_secret_of_its_own() -> None:
    nodes = SETUP.cohort
    made = [KEYS[u].initiate(ADVERTS[v], BINDING) for u, v in itertools.permutations(nodes, 2)]
    made += [KEYS[A].initiate(ADVERTS[B], BINDING) for _ in range(3)]
    assert len({pair.mask_seed for pair, _ in made}) == len(made)
    assert len({capsule for _, capsule in made}) == len(made)


@pytest.mark.req("M-08")
def test_a_sealing_key_is_one_direction_of_one_pair() -> None:
    other, _ = KEYS[A].initiate(ADVERTS[B], BINDING)
    keys = {
        FIRST.seal_key(sender=A, receiver=B),
        FIRST.seal_key(sender=B, receiver=A),
        FIRST.seal_key(sender=A, receiver=C),
        FIRST.seal_key(sender=C, receiver=B),
        other.seal_key(sender=A, receiver=B),
        FIRST.mask_seed,  # which is revealed when one of the two drops out
    }
    assert len(keys) == 6
    known = derive(FIRST.mask_seed, SHARE_SEAL, A.encode(), B.encode())
    assert known not in keys


@pytest.mark.req("M-20")
def test_a_pair_shows_nothing() -> None:
    text = repr(FIRST) + repr(replace(FIRST)) + repr(KEYS[A])
    assert FIRST.mask_seed.hex() not in text
    assert repr(FIRST.mask_seed)[2:-1] not in text
    assert repr(FIRST) == "PairSecret()"


@pytest.mark.req("M-21")
@pytest.mark.parametrize("size", [0, 1087, 1089])
def test_a_capsule_of_another_size_blames_its_sender(size: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        KEYS[B].respond(ADVERTS[A], bytes(size), BINDING)
    assert caught.value.peer == A


def test_an_unusable_key_blames_its_owner() -> None:
    for change in ({"agreement_key": bytes(32)}, {"kem_key": b"\xff" * 1184}):
        with pytest.raises(AuthenticationError) as caught:
            KEYS[A].initiate(changed(ADVERTS[B], **change), BINDING)  # type: ignore[arg-type]
        assert caught.value.peer == B


@pytest.mark.req("M-26")
def test_the_confirmation_by_hand() -> None:
    tag = b"secagg/v1/pair-confirmation\0"
    assert pairs.confirmation(FIRST.mask_seed) == framed(tag, FIRST.mask_seed)


# --- backup --------------------------------------------------------------------------------------

ROUND_SECRET = b"R" * 32
SEEDS = [bytes([index]) * 32 for index in range(3)]
PEERS = [B, C, SETUP.cohort[3]]
BACKED_UP = pairs.seal_backup(ROUND_SECRET, SETUP.context, A, SEEDS)


@pytest.mark.req("M-27")
def test_a_backup_gives_the_seeds_back_in_order_of_ids() -> None:
    opened = pairs.open_backup(ROUND_SECRET, SETUP.context, A, BACKED_UP, PEERS)
    assert opened == dict(zip(PEERS, SEEDS, strict=True))
    assert len(BACKED_UP) == 32 * 3 + 16


@pytest.mark.req("M-27")
def test_a_backup_by_hand() -> None:
    key = derive(ROUND_SECRET, BACKUP, *SETUP.context, A.encode())
    assert ChaCha20Poly1305(key).encrypt(bytes(12), b"".join(SEEDS), b"") == BACKED_UP


@pytest.mark.req("M-27")
def test_an_empty_backup_is_one() -> None:
    backup = pairs.seal_backup(ROUND_SECRET, SETUP.context, A, [])
    assert pairs.open_backup(ROUND_SECRET, SETUP.context, A, backup, []) == {}


@pytest.mark.req("M-27")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backup": b""}, "does not open"),
        ({"backup": bytes(112)}, "does not open"),
        ({"backup": BACKED_UP[:-1]}, "does not open"),
        ({"backup": BACKED_UP[:-1] + bytes([BACKED_UP[-1] ^ 1])}, "does not open"),
        ({"round_secret": b"r" * 32}, "does not open"),
        ({"node": B}, "does not open"),
        ({"context": (*SETUP.context[:2], bytes(32))}, "does not open"),
        ({"context": (SETUP.context[0], bytes(8), SETUP.context[2])}, "does not open"),
        ({"peers": PEERS[:2]}, "wrong size"),
        ({"peers": [*PEERS, "x"]}, "wrong size"),
        ({"backup": pairs.seal_backup(ROUND_SECRET, SETUP.context, A, [b"short"])}, "wrong size"),
    ],
    ids=str,
)
def test_a_bad_backup_blames_its_owner(changes: dict[str, object], match: str) -> None:
    good: dict[str, object] = {
        "round_secret": ROUND_SECRET,
        "context": SETUP.context,
        "node": A,
        "backup": BACKED_UP,
        "peers": PEERS,
    }
    with pytest.raises(AuthenticationError, match=match) as caught:
        pairs.open_backup(**{**good, **changes})  # type: ignore[arg-type]
    assert caught.value.peer == changes.get("node", A)
