"""What a node refuses from its coordinator: each row is one lie, told to an honest client."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.masking import masks
from secagg.masking.client import MaskingClient, Phase
from secagg.masking.graph import graph_seed
from secagg.primitives.signing import sign
from secagg.schemes import SCHEMES
from secagg.steps import InputRejected, PeerBlamed, SumReady
from secagg.tags import KEY_ADVERT
from secagg.types import (
    RoundSetup,
)
from secagg.wire.messages import (
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerKeys,
    PeerShares,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
)
from tests.support.fleet import COORDINATOR, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.randomness import InsecureLabelledRng
from tests.support.scripts import Recording, deaths

SETUP = make_setup(5, dim=70)
ROUND = Recording(SCHEMES["masking"], SETUP)
ME, OTHER = "node-0002", "node-0004"
STAGE: dict[type[Message], int] = {PeerKeys: 0, PeerShares: 1, Survivors: 2, UnmaskRequest: 3}


def client_before(kind: type[Message]) -> tuple[MaskingClient, Message]:
    """Return a client that awaits a message of `kind`, and the honest one."""
    client = ROUND.client(ME, STAGE[kind])
    assert isinstance(client, MaskingClient)
    return client, ROUND.to_client[ME][STAGE[kind]]


def refuses(client: MaskingClient, message: Message, match: str) -> None:
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        client.receive(message, 0.0)
    assert caught.value.peer == COORDINATOR
    assert client.phase is Phase.OVER
    with pytest.raises(RemoteProtocolError):
        client.receive(message, 0.0)


def test_the_honest_script_passes_every_phase() -> None:
    phases = []
    for stage in range(5):
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        phases.append(client.phase)
    assert phases == [Phase.KEYED, Phase.SHARED, Phase.UPLOADED, Phase.SIGNED, Phase.OVER]


# --- PeerKeys ----------------------------------------------------------------------------------


def forged(advert: KeyAdvert) -> KeyAdvert:
    """Return the advert with the coordinator's own key in it, not signed by its node."""
    return changed(advert, mask_key=b"\x09" + bytes(31))


def swap_key(message: PeerKeys) -> PeerKeys:
    """Return a consistent lie: another key for OTHER, with the digest that belongs to it."""
    adverts = tuple(forged(a) if a.node_id == OTHER else a for a in message.adverts)
    new = next(a for a in adverts if a.node_id == OTHER)
    digests = tuple((n, masks.advert_digest(new) if n == OTHER else d) for n, d in message.digests)
    return changed(message, adverts=adverts, digests=digests)


def without(message: PeerKeys, *nodes: str) -> PeerKeys:
    return changed(
        message,
        digests=tuple(pair for pair in message.digests if pair[0] not in nodes),
        adverts=tuple(advert for advert in message.adverts if advert.node_id not in nodes),
    )


def advert_of(setup: RoundSetup, node: str) -> KeyAdvert:
    key = masks.mask_private_key(b"z" * 32).public_key().public_bytes_raw()
    return masks.make_advert(
        setup, TestSigner(node), mask_key=key, share_key=key, commitment=b"c" * 32
    )


def other_round(message: PeerKeys) -> PeerKeys:
    """Return OTHER's validly signed advert of an earlier round in place of this one's."""
    old = changed(advert_of(make_setup(5, round_id=6), OTHER), round_id=7)
    adverts = tuple(old if a.node_id == OTHER else a for a in message.adverts)
    digests = tuple((n, masks.advert_digest(old) if n == OTHER else d) for n, d in message.digests)
    return changed(message, adverts=adverts, digests=digests)


def other_offer(message: PeerKeys) -> PeerKeys:
    """Return the advert of a node that was shown another offer."""
    theirs = advert_of(make_setup(5, offer_hash=bytes(32)), OTHER)
    adverts = tuple(theirs if a.node_id == OTHER else a for a in message.adverts)
    digests = tuple(
        (n, masks.advert_digest(theirs) if n == OTHER else d) for n, d in message.digests
    )
    return changed(message, adverts=adverts, digests=digests)


def altered_mine(message: PeerKeys) -> PeerKeys:
    digests = tuple((n, bytes(32) if n == ME else d) for n, d in message.digests)
    return changed(message, digests=digests)


LIES_ABOUT_KEYS: list[tuple[str, str, Callable[[PeerKeys], PeerKeys]]] = [
    ("M-04", "forged advert", swap_key),
    ("M-04", "forged advert", other_round),
    ("M-04", "forged advert", other_offer),
    (
        "M-06",
        "differs from its digest",
        lambda m: changed(m, adverts=(*m.adverts[:-1], forged(m.adverts[-1]))),
    ),
    ("M-06", "my own advert", altered_mine),
    ("M-06", "my own advert", lambda m: without(m, ME)),
    ("M-06", "not those of my neighbours", lambda m: changed(m, adverts=m.adverts[1:])),
    ("M-06", "not those of my neighbours", lambda m: changed(m, adverts=())),
    ("M-06", "sorted part of the cohort", lambda m: changed(m, digests=m.digests[::-1])),
    ("M-06", "sorted part of the cohort", lambda m: changed(m, digests=m.digests[:1] + m.digests)),
    ("M-06", "sorted part", lambda m: changed(m, digests=(*m.digests, ("stranger", bytes(32))))),
    ("M-03", "only 3 nodes", lambda m: without(m, "node-0000", "node-0001")),
    ("M-13", "of round 8", lambda m: changed(m, round_id=8)),
]


@pytest.mark.req("T-06")
@pytest.mark.req("M-03")
@pytest.mark.req("M-04")
@pytest.mark.req("M-06")
@pytest.mark.parametrize("index", range(len(LIES_ABOUT_KEYS)))
def test_a_lie_about_keys_ends_the_round(index: int) -> None:
    _, match, lie = LIES_ABOUT_KEYS[index]
    client, message = client_before(PeerKeys)
    assert isinstance(message, PeerKeys)
    refuses(client, lie(message), match)


@pytest.mark.req("M-04")
def test_an_advert_of_an_unknown_suite_is_refused() -> None:
    """A signature over suite 2 holds; the node must not read its keys as suite 1."""
    client, message = client_before(PeerKeys)
    assert isinstance(message, PeerKeys)
    signer, base = TestSigner(OTHER), next(a for a in message.adverts if a.node_id == OTHER)
    parts = masks._advert_parts(
        SETUP, OTHER, 2, base.mask_key, base.share_key, base.self_commitment
    )
    other = changed(base, suite=2, signature=sign(signer, KEY_ADVERT, *parts))
    adverts = tuple(other if a.node_id == OTHER else a for a in message.adverts)
    digests = tuple(
        (n, masks.advert_digest(other) if n == OTHER else d) for n, d in message.digests
    )
    refuses(client, changed(message, adverts=adverts, digests=digests), "suite")


@pytest.mark.req("M-02")
def test_too_few_share_holders_are_refused() -> None:
    client = ROUND_5_OF_5.client(ME, 0)
    message = ROUND_5_OF_5.to_client[ME][0]
    assert isinstance(message, PeerKeys)
    assert isinstance(client, MaskingClient)
    refuses(client, without(message, OTHER), "fewer share holders")


ROUND_5_OF_5 = Recording(SCHEMES["masking"], make_setup(5, dim=8, threshold=5, quorum=3))


# --- PeerShares --------------------------------------------------------------------------------


@pytest.mark.req("M-09")
def test_no_upload_unless_enough_neighbours_shared() -> None:
    client, message = ROUND_5_OF_5.client(ME, 1), ROUND_5_OF_5.to_client[ME][1]
    assert isinstance(client, MaskingClient)
    assert isinstance(message, PeerShares)
    boxes = tuple((node, box) for node, box in message.boxes if node != OTHER)
    sharers = tuple(node for node in SETUP.cohort if node != OTHER)
    refuses(client, changed(message, sharers=sharers, boxes=boxes), "only 3 neighbours")


@pytest.mark.req("M-09")
@pytest.mark.parametrize(
    "lie",
    [
        lambda boxes: (),
        lambda boxes: boxes[1:],
        lambda boxes: boxes[::-1],
        lambda boxes: boxes[:1] + boxes,
        lambda boxes: (*boxes, ("stranger", bytes(82))),
        lambda boxes: tuple(sorted((*boxes, (ME, bytes(82))))),
    ],
)
def test_shares_are_from_exactly_the_neighbours_among_the_sharers(lie: Callable) -> None:
    client, message = client_before(PeerShares)
    assert isinstance(message, PeerShares)
    refuses(client, changed(message, boxes=lie(message.boxes)), "exactly my neighbours")


@pytest.mark.req("M-10")
@pytest.mark.parametrize("box", [b"", bytes(82), b"\xff" * 256])
def test_a_bad_box_costs_only_its_shares(box: bytes) -> None:
    client, message = client_before(PeerShares)
    assert isinstance(message, PeerShares)
    boxes = tuple((node, box if node == OTHER else data) for node, data in message.boxes)
    step = client.receive(changed(message, boxes=boxes), 0.0)
    assert [type(event) for event in step.events] == [PeerBlamed]
    assert step.events[0].peer == OTHER  # type: ignore[union-attr]
    assert client.phase is Phase.UPLOADED
    answer = client_answers(client)
    assert OTHER not in dict(answer.self_shares)
    assert len(answer.self_shares) == 4


@pytest.mark.req("M-08")
def test_a_box_sealed_for_another_node_does_not_open() -> None:
    client, message = client_before(PeerShares)
    theirs = ROUND.to_client["node-0001"][1]
    assert isinstance(message, PeerShares)
    assert isinstance(theirs, PeerShares)
    boxes = tuple((n, dict(theirs.boxes)[n] if n == OTHER else b) for n, b in message.boxes)
    step = client.receive(changed(message, boxes=boxes), 0.0)
    assert {event.peer for event in step.events if isinstance(event, PeerBlamed)} == {OTHER}


def client_answers(client: MaskingClient) -> UnmaskAnswer:
    for message in ROUND.to_client[ME][2:]:
        step = client.receive(message, 0.0)
    answer = step.send[0].message
    assert isinstance(answer, UnmaskAnswer)
    return answer


@pytest.mark.req("M-03")
@pytest.mark.req("M-09")
@pytest.mark.parametrize(
    ("sharers", "match"),
    [
        (tuple(n for n in SETUP.cohort if n != ME), "with me needed"),
        ((ME, *SETUP.cohort[3:]), "3 sharers"),
        ((), "0 sharers"),
        (SETUP.cohort[::-1], "sorted part"),
        ((*SETUP.cohort, SETUP.cohort[-1]), "sorted part"),
        ((*SETUP.cohort, "stranger"), "sorted part"),
        (SETUP.cohort[:4], "exactly my neighbours"),
    ],
)
def test_which_sharers_are_not_masked_with(sharers: tuple[str, ...], match: str) -> None:
    client, message = client_before(PeerShares)
    refuses(client, changed(message, sharers=sharers), match)


@pytest.mark.req("M-09")
def test_a_sharer_that_advertised_no_keys_is_refused() -> None:
    """In the cohort is not enough: who gave no keys cannot have shared secrets."""
    script = Recording(SCHEMES["masking"], SETUP, fault=deaths({OTHER: KeyAdvert}))
    client, message = script.client(ME, 1), script.to_client[ME][1]
    assert isinstance(client, MaskingClient)
    refuses(client, changed(message, sharers=SETUP.cohort), "sorted part of those who advertised")


# --- Survivors and UnmaskRequest ---------------------------------------------------------------


def digest_of_sharers() -> bytes:
    """Return what everybody of the honest round masked under."""
    keys = ROUND.to_client[ME][0]
    assert isinstance(keys, PeerKeys)
    return masks.sharers_digest(graph_seed(SETUP.offer_hash, keys.digests), SETUP.cohort)


SHARERS = digest_of_sharers()


def view(survivors: tuple[str, ...]) -> bytes:
    return masks.view_digest(SHARERS, survivors)


def shown(survivors: tuple[str, ...]) -> Survivors:
    """Return the message to ME with every signature that is due."""
    owners = sorted(set(survivors) & set(SETUP.cohort) - {ME})
    signed = tuple((n, masks.sign_sharers(SETUP, TestSigner(n), SHARERS)) for n in owners)
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
    masks.verify_survivors(SETUP, ME, signature.signature, view(survivors))


def signatures(nodes: tuple[str, ...], survivors: tuple[str, ...] = SETUP.cohort):
    return tuple((n, masks.sign_survivors(SETUP, TestSigner(n), view(survivors))) for n in nodes)


@pytest.mark.req("M-11")
@pytest.mark.parametrize(
    ("co_signatures", "match"),
    [
        (signatures(SETUP.cohort[:3]), "3 co-signatures, 4 needed"),
        ((), "0 co-signatures"),
        (signatures(SETUP.cohort)[::-1], "distinct survivors"),
        (signatures(SETUP.cohort[:1]) * 4, "distinct survivors"),
        (signatures((*SETUP.cohort, "stranger")), "distinct survivors"),
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
    client = ROUND.client(ME, 2)
    client.receive(shown(SETUP.cohort[:4]), 0.0)
    assert isinstance(client, MaskingClient)
    refuses(client, UnmaskRequest(7, signatures(SETUP.cohort[:4])), "false co-signature")


@pytest.mark.req("M-12")
@pytest.mark.parametrize("dropped", [(), ("node-0001",), ("node-0004",)])
def test_each_owner_gets_one_share_of_one_kind(dropped: tuple[str, ...]) -> None:
    survivors = tuple(node for node in SETUP.cohort if node not in dropped)
    client = ROUND.client(ME, 2)
    client.receive(shown(survivors), 0.0)
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
    client = ROUND.client(ME, 4)
    assert isinstance(client, MaskingClient)
    assert client._held == {}
    for message in (
        ROUND.to_client[ME][3],
        shown(SETUP.cohort[:4]),
        UnmaskRequest(7, signatures(SETUP.cohort[:4], SETUP.cohort[:4])),
    ):
        with pytest.raises(RemoteProtocolError):
            client.receive(message, 0.0)


@pytest.mark.req("M-13")
@pytest.mark.parametrize("stage", range(5))
def test_each_phase_accepts_one_message_and_any_other_ends_the_round(stage: int) -> None:
    for index, message in enumerate(ROUND.to_client[ME]):
        if index == stage:
            continue
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        refuses(client, message, "while")


@pytest.mark.req("M-13")
def test_one_input_is_uploaded_and_then_forgotten() -> None:
    client = ROUND.client(ME, 2)
    assert isinstance(client, MaskingClient)
    assert client._vector.size == 0
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
@pytest.mark.parametrize("stage", range(4))
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
def test_secrets_are_fresh_and_the_sealing_key_is_never_shared() -> None:
    rng = InsecureLabelledRng(5, "one stream")
    vector = np.zeros(SETUP.dim, dtype=np.uint32)
    seen: set[bytes] = set()
    for node in SETUP.cohort:
        client = MaskingClient(SETUP, vector, TestSigner(node), coordinator=COORDINATOR, rng=rng)
        seen |= {
            client._round_secret,
            client._self_seed,
            client._mask_key.private_bytes_raw(),
            client._share_key.private_bytes_raw(),
        }
    assert len(seen) == 4 * len(SETUP.cohort)


@pytest.mark.req("M-08")
def test_one_box_for_each_neighbour() -> None:
    for sender, message in ROUND.to_coordinator:
        if isinstance(message, SealedShares):
            assert [n for n, _ in message.boxes] == [n for n in SETUP.cohort if n != sender]
            assert len({box for _, box in message.boxes}) == len(message.boxes)
