"""What the coordinator sees, and what may never be seen: statistics, reprs and logs.

False alarms: each uniformity check compares a chi-square statistic of 15 degrees of freedom with
its upper 1e-6 quantile (56.5). Inputs, keys and masks follow from fixed seeds, so a passing check
passes for ever; over the checks here a fresh seed would fail with probability below 1e-3.
"""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest

from secagg import ring
from secagg.errors import RemoteProtocolError
from secagg.masking import masks
from secagg.schemes import SCHEMES
from secagg.types import RoundSetup
from secagg.wire.messages import MaskedChunk, Message, SealedShares, UnmaskAnswer
from tests.support.fleet import Fleet, Outcome, make_setup
from tests.support.messages import changed
from tests.support.scripts import Recording, secrets_of

MASKING = SCHEMES["masking"]
LIMIT = 56.5
SETUP = make_setup(5, dim=8192, chunk_values=8192)


def chi_square(nibbles: np.ndarray) -> float:
    counts = np.bincount(nibbles, minlength=16)
    expected = len(nibbles) / 16
    return float(((counts - expected) ** 2 / expected).sum())


def looks_uniform(vector: np.ndarray, bits: int) -> bool:
    """Test the four lowest and the four highest bits."""
    low, high = vector & 15, vector >> (bits - 4)
    return chi_square(low) < LIMIT and chi_square(high) < LIMIT


def uploads(fleet: Fleet) -> dict[str, np.ndarray]:
    """Play a round over inputs of zeros; return what each node uploaded."""
    for client in fleet.clients.values():
        client._vector[:] = 0  # type: ignore[attr-defined]
    outcome = fleet.play()
    assert outcome.total is not None
    return parts_of(outcome, fleet.setup)


def parts_of(outcome: Outcome, setup: RoundSetup) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for sender, message in outcome.seen:
        if isinstance(message, MaskedChunk):
            dim = min(setup.chunk_values, setup.dim - message.index * setup.chunk_values)
            part = ring.unpack(message.data, dim, setup.ring_bits)
            assert part is not None
            parts.setdefault(sender, []).append(part)
    return {node: np.concatenate(chunks) for node, chunks in parts.items()}


@pytest.mark.req("T-01")
@pytest.mark.req("M-23")
def test_what_the_coordinator_sees_of_an_input_is_uniform() -> None:
    for vector in uploads(Fleet(MASKING, SETUP)).values():
        assert looks_uniform(vector, SETUP.ring_bits)


@pytest.mark.req("M-23")
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_so_is_every_partial_sum_until_the_self_masks_are_revealed(size: int) -> None:
    seen = uploads(Fleet(MASKING, SETUP))
    for nodes in itertools.combinations(seen, size):
        total = np.sum([seen[node] for node in nodes], axis=0, dtype=np.uint32)
        assert looks_uniform(ring.reduce(total, SETUP.ring_bits), SETUP.ring_bits)


@pytest.mark.req("M-23")
def test_that_check_fails_where_masks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: no masks at all."""
    monkeypatch.setattr(masks, "add_pair_masks", lambda *args, **options: None)
    monkeypatch.setattr(masks, "add_self_mask", lambda *args, **options: None)
    for vector in uploads(Fleet(MASKING, SETUP)).values():
        assert not looks_uniform(vector, SETUP.ring_bits)


@pytest.mark.req("M-23")
def test_and_where_only_self_masks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: pair masks alone cancel in the sum over everybody."""
    monkeypatch.setattr(masks, "add_self_mask", lambda *args, **options: None)
    seen = uploads(Fleet(MASKING, SETUP))
    total = ring.reduce(np.sum(list(seen.values()), axis=0, dtype=np.uint32), SETUP.ring_bits)
    assert not looks_uniform(total, SETUP.ring_bits)


@pytest.mark.req("M-23")
def test_low_entropy_masks_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a mask whose low bits are constant."""
    honest = masks.accumulate

    def coarse(total: np.ndarray, seed: bytes, *, negative: bool = False) -> None:
        mask = np.zeros_like(total)
        honest(mask, seed, negative=negative)
        total += mask & np.uint32(0xFFFFFFF0)

    monkeypatch.setattr(masks, "accumulate", coarse)
    for vector in uploads(Fleet(MASKING, SETUP)).values():
        assert not looks_uniform(vector, SETUP.ring_bits)


@pytest.mark.req("M-07")
def test_two_rounds_of_one_input_share_nothing() -> None:
    """Same inputs and same randomness in another round: the masks are unrelated."""
    one = uploads(Fleet(MASKING, SETUP))
    two = uploads(Fleet(MASKING, make_setup(5, dim=8192, chunk_values=8192, round_id=8)))
    for node, vector in one.items():
        difference = ring.reduce(vector - two[node], SETUP.ring_bits)
        assert looks_uniform(difference, SETUP.ring_bits)


@pytest.mark.req("M-07")
def test_nodes_that_were_shown_another_offer_turn_the_sum_into_noise() -> None:
    """Model-bound masks (Pasquini et al. 2022), with the signature checks taken out of the way.

    The coordinator shows node 0 another offer and relays its advert as if nothing were wrong.
    """
    dim, bits = 4096, 19
    contexts = [(b"r" * 16, bytes(8), bytes([index == 0]) * 32) for index in range(3)]
    secrets = [bytes([index + 1]) * 32 for index in range(3)]
    keys = [masks.mask_private_key(secret) for secret in secrets]
    public = [key.public_key().public_bytes_raw() for key in keys]
    total = np.zeros(dim, dtype=np.uint32)
    for me in range(3):
        peers = {f"n{peer}": public[peer] for peer in range(3) if peer != me}
        masks.add_pair_masks(total, contexts[me], keys[me], me=f"n{me}", peers=peers)
    assert looks_uniform(ring.reduce(total, bits), bits)


# --- nothing secret in reprs, errors and logs ----------------------------------------------------


def traces(secret: bytes) -> list[str]:
    """Return the ways in which a secret may show in text."""
    return [secret.hex(), repr(secret)[2:-1], str(list(secret))[1:-1]]


def all_secrets(recording: Recording) -> set[bytes]:
    """Return every secret of a round: keys, seeds and shares, sealed and revealed ones."""
    found: set[bytes] = set()
    for node in recording.setup.cohort:
        for stage in range(5):
            found |= set(secrets_of(recording.client(node, stage)))
    for _, message in recording.to_coordinator:
        if isinstance(message, SealedShares):
            found |= {box for _, box in message.boxes}
        if isinstance(message, UnmaskAnswer):
            found |= {share for _, share in (*message.self_shares, *message.key_shares)}
    return found


@pytest.mark.req("T-07")
@pytest.mark.req("M-20")
def test_secrets_are_in_no_repr_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    recording = Recording(MASKING, make_setup(4, dim=40))
    texts = [repr(recording.outcome.events), str(recording.outcome.seen)]
    for sender, message in recording.to_coordinator:
        texts += [repr(message), str(message)]
        role = recording.coordinator(len(recording.to_coordinator))
        with pytest.raises(RemoteProtocolError) as caught:
            role.receive(sender, message, 0.0)
        texts += [repr(caught.value), str(caught.value), repr(role)]
    for node, received in recording.to_client.items():
        for stage, message in enumerate(received):
            client = recording.client(node, stage)
            texts += [repr(client), repr(message), repr(client.receive(message, 0.0))]
            with pytest.raises(RemoteProtocolError) as caught:
                client.receive(message, 0.0)
            texts += [repr(caught.value), str(caught.value)]
    text = "\n".join([*texts, caplog.text])
    secrets = all_secrets(recording)
    assert len(secrets) > 4 * 4
    for secret in secrets:
        assert not [trace for trace in traces(secret) if trace in text]
    for vector in recording.fleet.inputs.values():
        assert str(vector[0]) + " " not in text


@pytest.mark.req("M-20")
def test_that_search_finds_a_planted_secret() -> None:
    secret = bytes(range(32))
    for text in (f"key={secret.hex()}", f"{secret!r}", f"{list(secret)}"):
        assert any(trace in text for trace in traces(secret))


@pytest.mark.req("M-05")
@pytest.mark.req("M-12")
def test_the_coordinator_never_receives_the_sealing_key_or_both_secrets_of_a_node() -> None:
    recording = Recording(MASKING, make_setup(5, dim=8))
    received = "".join(
        share.hex()
        for _, message in recording.to_coordinator
        if isinstance(message, UnmaskAnswer)
        for _, share in (*message.self_shares, *message.key_shares)
    )
    for node in recording.setup.cohort:
        client = recording.client(node, 0)
        assert client._share_key.private_bytes_raw().hex() not in received  # type: ignore[attr-defined]
        assert client._round_secret.hex() not in received  # type: ignore[attr-defined]


@pytest.mark.req("M-13")
def test_a_message_of_an_earlier_round_is_refused_by_both_sides() -> None:
    """Replay, as it is and with its round number rewritten: the signatures do not hold."""
    old = Recording(MASKING, make_setup(5, dim=8, round_id=6), seed=2)
    new = Recording(MASKING, make_setup(5, dim=8, round_id=7))
    advert = old.to_coordinator[0][1]
    role = new.coordinator(0)
    with pytest.raises(RemoteProtocolError):
        role.receive(old.to_coordinator[0][0], advert, 0.0)
    step = role.receive(old.to_coordinator[0][0], changed(advert, round_id=7), 0.0)
    assert [event.reason for event in step.events if hasattr(event, "reason")]
    for stage in range(4):
        message: Message = old.to_client["node-0001"][stage]
        client = new.client("node-0001", stage)
        with pytest.raises(RemoteProtocolError):
            client.receive(message, 0.0)
