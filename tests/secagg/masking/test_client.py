"""A node from co-signature to end: what it refuses to unmask, how a round ends, what it forgets."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.masking import adverts, views
from secagg.masking.client import MaskingClient, Phase
from secagg.steps import InputRejected, SumReady, ViewFixed
from secagg.wire.messages import (
    MaskedChunk,
    PeerKeys,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
)
from tests.support.fleet import COORDINATOR, TestSigner
from tests.support.honest_round import (
    ME,
    RECEIVED,
    ROUND,
    SETUP,
    STAGE,
    client_before,
    refuses,
)
from tests.support.randomness import InsecureLabelledRng


def test_the_honest_script_passes_every_phase() -> None:
    phases = []
    for stage in range(7):
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        phases.append(client.phase)
    skipped = (Phase.NEW, Phase.TOSSED, Phase.ANSWERED)  # the last without noise to give back
    assert phases == [phase for phase in Phase if phase not in skipped]
    assert [type(message) for message in ROUND.to_client[ME]] == list(RECEIVED)


# --- Survivors and UnmaskRequest ---------------------------------------------------------------


def digest_of_sharers() -> bytes:
    """Return what everybody of the honest round masked under."""
    keys = ROUND.to_client[ME][0]
    assert isinstance(keys, PeerKeys)
    seed = adverts.graph_seed(SETUP.offer_hash, keys.digests, ())
    return views.sharers_digest(seed, SETUP.cohort)


SHARERS = digest_of_sharers()


def view(survivors: tuple[str, ...]) -> bytes:
    return views.view_digest(SHARERS, survivors)


def shown(survivors: tuple[str, ...]) -> Survivors:
    """Return the message to ME with every signature that is due."""
    owners = sorted(set(survivors) & set(SETUP.cohort) - {ME})
    signed = tuple((n, views.sign_sharers(SETUP, TestSigner(n), SHARERS)) for n in owners)
    return Survivors(7, survivors, signed)


@pytest.mark.req("T-06")
@pytest.mark.req("M-11")
@pytest.mark.parametrize(
    ("survivors", "match"),
    [
        (tuple(n for n in SETUP.cohort if n != ME), "leaves me out"),
        ((ME, *SETUP.cohort[3:]), "3 survivors, 4 needed"),
        ((ME,), "1 survivors"),
        (SETUP.cohort[::-1], "sorted part"),
        ((*SETUP.cohort, SETUP.cohort[-1]), "sorted part"),
        ((*SETUP.cohort, "stranger"), "sorted part"),
        ((), "leaves me out"),
    ],
)
def test_which_survivor_sets_are_not_signed(survivors: tuple[str, ...], match: str) -> None:
    client, _ = client_before(Survivors)
    refuses(client, shown(survivors), match)


@pytest.mark.req("M-11")
def test_a_smaller_set_of_at_least_the_quorum_is_signed() -> None:
    client, _ = client_before(Survivors)
    survivors = SETUP.cohort[:4]
    step = client.receive(shown(survivors), 0.0)
    signature = step.send[0].message
    assert isinstance(signature, SurvivorSignature)
    views.verify_survivors(SETUP, ME, signature.signature, view(survivors))


def signatures(nodes: tuple[str, ...], survivors: tuple[str, ...] = SETUP.cohort):
    return tuple((n, views.sign_survivors(SETUP, TestSigner(n), view(survivors))) for n in nodes)


@pytest.mark.req("M-11")
@pytest.mark.parametrize(
    ("co_signatures", "match"),
    [
        (signatures(SETUP.cohort[:3]), "3 co-signatures, 4 needed"),
        ((), "0 co-signatures"),
        (signatures(SETUP.cohort)[::-1], "distinct nodes"),
        (signatures(SETUP.cohort[:1]) * 4, "distinct nodes"),
        (signatures((*SETUP.cohort, "stranger")), "distinct nodes"),
        (signatures(SETUP.cohort, SETUP.cohort[:4]), "false co-signature"),
        ((*signatures(SETUP.cohort[:4]), (SETUP.cohort[4], bytes(64))), "false co-signature"),
        (
            tuple(zip(SETUP.cohort, (s for _, s in signatures(SETUP.cohort)[::-1]), strict=True)),
            "false",
        ),
    ],
)
def test_what_does_not_unmask(co_signatures: tuple, match: str) -> None:
    client, _ = client_before(UnmaskRequest)
    refuses(client, UnmaskRequest(7, co_signatures), match)


@pytest.mark.req("M-11")
def test_signatures_over_another_set_do_not_unmask_this_one() -> None:
    """The split view: this node signed four survivors, the others five."""
    client = ROUND.client(ME, STAGE[Survivors])
    client.receive(shown(SETUP.cohort[:4]), 0.0)
    assert isinstance(client, MaskingClient)
    refuses(client, UnmaskRequest(7, signatures(SETUP.cohort[:4])), "false co-signature")


@pytest.mark.req("M-12")
@pytest.mark.req("M-28")
@pytest.mark.parametrize("dropped", [(), ("node-0001",), ("node-0004",)])
def test_each_owner_gets_one_share_of_one_kind(dropped: tuple[str, ...]) -> None:
    survivors = tuple(node for node in SETUP.cohort if node not in dropped)
    client = ROUND.client(ME, STAGE[Survivors])
    cosigned = client.receive(shown(survivors), 0.0)
    assert cosigned.events == (ViewFixed(view(survivors), survivors),)  # M-28
    step = client.receive(UnmaskRequest(7, signatures(survivors, survivors)), 0.0)
    answer = step.send[0].message
    assert isinstance(answer, UnmaskAnswer)
    assert step.done
    owners = [owner for owner, _ in (*answer.self_shares, *answer.key_shares)]
    assert sorted(owners) == sorted(set(owners)) == list(SETUP.cohort)
    assert [owner for owner, _ in answer.self_shares] == list(survivors)
    assert [owner for owner, _ in answer.key_shares] == list(dropped)


@pytest.mark.req("M-12")
@pytest.mark.req("M-13")
def test_a_second_unmask_request_is_refused() -> None:
    """After the answer nothing is left to give: neither the same again nor the other shares."""
    client = ROUND.client(ME, len(RECEIVED))
    assert isinstance(client, MaskingClient)
    assert client._held == {}
    for message in (
        ROUND.to_client[ME][-1],
        shown(SETUP.cohort[:4]),
        UnmaskRequest(7, signatures(SETUP.cohort[:4], SETUP.cohort[:4])),
    ):
        with pytest.raises(RemoteProtocolError):
            client.receive(message, 0.0)


@pytest.mark.req("M-13")
@pytest.mark.parametrize("stage", range(7))
def test_each_phase_accepts_one_message_and_any_other_ends_the_round(stage: int) -> None:
    for index, message in enumerate(ROUND.to_client[ME]):
        if index == stage:
            continue
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        refuses(client, message, "while")


@pytest.mark.req("M-13")
def test_one_input_is_uploaded_and_then_forgotten() -> None:
    client = ROUND.client(ME, STAGE[Survivors])
    assert isinstance(client, MaskingClient)
    assert client._vector.size == 0
    assert not client._upload
    sent = [m for sender, m in ROUND.to_coordinator if sender == ME and isinstance(m, MaskedChunk)]
    assert [chunk.index for chunk in sent] == [0, 1, 2]


def test_a_client_starts_once_and_not_for_others() -> None:
    client = ROUND.client(ME, 0)
    with pytest.raises(LocalProtocolError):
        client.start(0.0)
    rng = InsecureLabelledRng(1, "x")
    good = np.zeros(SETUP.dim, dtype=np.uint32)
    for vector, node in (
        (good[1:], ME),
        (good.astype(np.int64), ME),
        (good + np.uint32(1 << 31), ME),
        (good, "stranger"),
    ):
        with pytest.raises(LocalProtocolError):
            MaskingClient(SETUP, vector, TestSigner(node), coordinator=COORDINATOR, rng=rng)


def test_the_callers_vector_is_not_touched() -> None:
    rng = InsecureLabelledRng(1, "x")
    vector = np.ones(SETUP.dim, dtype=np.uint32)
    client = MaskingClient(SETUP, vector, TestSigner(ME), coordinator=COORDINATOR, rng=rng)
    client.start(0.0)
    assert vector.tolist() == [1] * SETUP.dim


@pytest.mark.req("M-15")
@pytest.mark.parametrize("stage", range(6))
def test_a_silent_coordinator_ends_the_round(stage: int) -> None:
    client = ROUND.client(ME, stage)
    step = client.on_timeout(1e6)
    assert step.done
    assert [type(event) for event in step.events] == [InputRejected]
    with pytest.raises(RemoteProtocolError):
        client.receive(ROUND.to_client[ME][stage], 1e6)
    assert client.on_timeout(1e6).done


def test_a_client_never_announces_a_sum() -> None:
    for node in SETUP.cohort:
        client = ROUND.client(node, 0)
        for message in ROUND.to_client[node]:
            step = client.receive(message, 0.0)
            assert not any(isinstance(event, SumReady) for event in step.events)


@pytest.mark.req("M-05")
def test_secrets_are_fresh() -> None:
    rng = InsecureLabelledRng(5, "one stream")
    vector = np.zeros(SETUP.dim, dtype=np.uint32)
    seen: set[bytes] = set()
    for node in SETUP.cohort:
        client = MaskingClient(SETUP, vector, TestSigner(node), coordinator=COORDINATOR, rng=rng)
        seen |= {
            client._round_secret,
            client._self_seed,
            client._coin_seed,
            client._keys._keys._agreement.private_bytes_raw(),
            client._keys._keys._kem.private_bytes_raw(),
        }
    assert len(seen) == 5 * len(SETUP.cohort)


@pytest.mark.req("M-08")
def test_one_box_for_each_neighbour() -> None:
    for sender, message in ROUND.to_coordinator:
        if isinstance(message, SealedShares):
            assert [n for n, _ in message.boxes] == [n for n in SETUP.cohort if n != sender]
            assert len({box for _, box in message.boxes}) == len(message.boxes)


@pytest.mark.req("M-12")
@pytest.mark.req("M-20")
@pytest.mark.parametrize("stage", range(len(RECEIVED) + 1))
@pytest.mark.parametrize("how", ["fault", "silence"])
def test_at_the_end_of_a_round_its_secrets_are_forgotten(stage: int, how: str) -> None:
    client = ROUND.client(ME, stage)
    assert isinstance(client, MaskingClient)
    if how == "silence":
        client.on_timeout(1e6)
    else:
        with pytest.raises(RemoteProtocolError):
            client.receive(UnmaskRequest(8, ()), 0.0)
    assert client.phase is Phase.OVER
    assert (client._round_secret, client._self_seed, client._coin_seed) == (b"", b"", b"")
    assert not client._held
    assert not client._pairs
    assert not client._upload
    assert client._vector.size == 0
