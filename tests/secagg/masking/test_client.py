"""What a node refuses from its coordinator: each row is one lie, told to an honest client."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from secagg.errors import LocalProtocolError, RemoteProtocolError
from secagg.masking import adverts, views
from secagg.masking.client import MaskingClient, Phase
from secagg.primitives import kem
from secagg.primitives.signing import sign
from secagg.schemes import SCHEMES
from secagg.steps import InputRejected, PeerBlamed, SumReady, ViewFixed
from secagg.tags import KEY_ADVERT
from secagg.types import RoundSetup
from secagg.wire.messages import (
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    SealedShares,
    Survivors,
    SurvivorSignature,
    UnmaskAnswer,
    UnmaskRequest,
    UploadTurn,
)
from tests.support.fleet import COORDINATOR, TestSigner, make_setup
from tests.support.messages import changed
from tests.support.randomness import InsecureLabelledRng
from tests.support.scripts import Recording, deaths

SETUP = make_setup(5, dim=70)
ROUND = Recording(SCHEMES["masking"], SETUP)
ME, OTHER = "node-0002", "node-0004"
RECEIVED: tuple[type[Message], ...] = (
    PeerKeys,
    PeerEncapsulations,
    PeerShares,
    UploadTurn,
    Survivors,
    UnmaskRequest,
)
"""What a node is told in a round on the complete graph, in order."""
STAGE = {kind: stage for stage, kind in enumerate(RECEIVED)}


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
    for stage in range(7):
        client = ROUND.client(ME, stage)
        assert isinstance(client, MaskingClient)
        phases.append(client.phase)
    assert phases == [phase for phase in Phase if phase not in (Phase.NEW, Phase.TOSSED)]
    assert [type(message) for message in ROUND.to_client[ME]] == list(RECEIVED)


# --- PeerKeys ----------------------------------------------------------------------------------


def forged(advert: KeyAdvert) -> KeyAdvert:
    """Return the advert with the coordinator's own key in it, not signed by its node."""
    return changed(advert, agreement_key=b"\x09" + bytes(31))


def with_advert(message: PeerKeys, new: KeyAdvert) -> PeerKeys:
    """Return a consistent lie: another advert of a node, with the digest that belongs to it."""
    node = new.node_id
    changed_adverts = tuple(new if a.node_id == node else a for a in message.adverts)
    digest = adverts.advert_digest(new)
    digests = tuple((n, digest if n == node else d) for n, d in message.digests)
    return changed(message, adverts=changed_adverts, digests=digests)  # type: ignore[return-value]


def swap_key(message: PeerKeys) -> PeerKeys:
    return with_advert(message, forged(next(a for a in message.adverts if a.node_id == OTHER)))


def without(message: PeerKeys, *nodes: str) -> PeerKeys:
    return changed(
        message,
        digests=tuple(pair for pair in message.digests if pair[0] not in nodes),
        adverts=tuple(advert for advert in message.adverts if advert.node_id not in nodes),
    )


def advert_of(setup: RoundSetup, node: str, **keys: bytes) -> KeyAdvert:
    base = {"agreement_key": b"\x09" + bytes(31)}
    base["kem_key"] = kem.public_key(kem.private_key(bytes(64)))
    return adverts.make_advert(
        setup, TestSigner(node), **{**base, **keys}, commitments=(b"r" * 32, b"s" * 32, b"c" * 32)
    )


def other_round(message: PeerKeys) -> PeerKeys:
    """Return OTHER's validly signed advert of an earlier round in place of this one's."""
    return with_advert(message, changed(advert_of(make_setup(5, round_id=6), OTHER), round_id=7))


def other_offer(message: PeerKeys) -> PeerKeys:
    """Return the advert of a node that was shown another offer."""
    return with_advert(message, advert_of(make_setup(5, offer_hash=bytes(32)), OTHER))


def altered_mine(message: PeerKeys) -> PeerKeys:
    digests = tuple((n, bytes(32) if n == ME else d) for n, d in message.digests)
    return changed(message, digests=digests)


LIES_ABOUT_KEYS: list[tuple[str, str, Callable[[PeerKeys], PeerKeys]]] = [
    ("M-04", "forged advert", swap_key),
    ("M-04", "forged advert", other_round),
    ("M-04", "forged advert", other_offer),
    ("M-06", "tossed for", lambda m: changed(m, coins=(bytes(32),) * 5)),
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
    base = next(a for a in message.adverts if a.node_id == OTHER)
    parts = (
        base.agreement_key,
        base.kem_key,
        base.round_commitment,
        base.self_commitment,
        base.coin_commitment,
    )
    signed = sign(TestSigner(OTHER), KEY_ADVERT, *SETUP.context, OTHER.encode(), b"\x02", *parts)
    refuses(client, with_advert(message, changed(base, suite=2, signature=signed)), "suite")


STRICT = make_setup(5, dim=8, threshold=5, quorum=5)
EVERYBODY = Recording(SCHEMES["masking"], STRICT)
"""All five hold a share and all five are needed."""


@pytest.mark.req("M-03")
def test_each_list_must_have_a_quorum() -> None:
    """One node too few, in each of the lists that a node is shown before it uploads."""
    rest = tuple(node for node in STRICT.cohort if node != OTHER)
    shorter: dict[type[Message], Callable[[Message], Message]] = {
        PeerKeys: lambda m: without(m, OTHER),  # type: ignore[arg-type]
        PeerEncapsulations: lambda m: changed(m, agreed=rest),
        PeerShares: lambda m: changed(m, sharers=rest),
        Survivors: lambda m: changed(m, survivors=rest),
    }
    for kind, shorten in shorter.items():
        client = EVERYBODY.client(ME, STAGE[kind])
        assert isinstance(client, MaskingClient)
        refuses(client, shorten(EVERYBODY.to_client[ME][STAGE[kind]]), "4 .*5 ")


SPARSE = make_setup(12, dim=8, neighbours=4, threshold=5, colluders=1, quorum=8)


@pytest.mark.req("M-02")
@pytest.mark.req("M-09")
def test_fewer_share_holders_than_the_threshold_are_refused() -> None:
    """On a sparse graph a quorum may be there while neighbours of this node are not."""
    script = Recording(SCHEMES["masking"], SPARSE)
    agreed, shared = script.to_client[ME][2], script.to_client[ME][3]
    assert isinstance(agreed, PeerEncapsulations)
    assert isinstance(shared, PeerShares)
    sender = agreed.capsules[0][0]
    lost = changed(
        agreed,
        agreed=tuple(node for node in agreed.agreed if node != sender),
        capsules=agreed.capsules[1:],
    )
    client = script.client(ME, 2)
    assert isinstance(client, MaskingClient)
    refuses(client, lost, "only 3 neighbours agreed")
    owner = shared.boxes[0][0]
    silent = changed(
        shared,
        sharers=tuple(node for node in shared.sharers if node != owner),
        boxes=shared.boxes[1:],
    )
    client = script.client(ME, 3)
    assert isinstance(client, MaskingClient)
    refuses(client, silent, "only 3 neighbours shared")


@pytest.mark.req("M-02")
def test_a_complete_graph_with_too_few_share_holders_is_refused() -> None:
    """Seven advertise: the graph is complete for them, but a threshold of 8 is out of reach."""
    setup = make_setup(12, dim=8, neighbours=7, threshold=8, colluders=0, quorum=8)
    object.__setattr__(setup, "quorum", 7)  # such an offer is refused before
    script = Recording(SCHEMES["masking"], setup)
    keys = Recording(SCHEMES["masking"], make_setup(12, dim=8)).to_client[ME][0]
    assert isinstance(keys, PeerKeys)
    client = script.client(ME, 0)
    assert isinstance(client, MaskingClient)
    refuses(client, without(keys, *setup.cohort[7:]), "fewer share holders")


# --- PeerShares --------------------------------------------------------------------------------


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
    assert client.phase is Phase.MASKED
    answer = client_answers(client)
    assert OTHER not in dict(answer.self_shares)
    assert len(answer.self_shares) == 4


@pytest.mark.req("M-08")
def test_a_box_sealed_for_another_node_does_not_open() -> None:
    client, message = client_before(PeerShares)
    theirs = ROUND.to_client["node-0001"][STAGE[PeerShares]]
    assert isinstance(message, PeerShares)
    assert isinstance(theirs, PeerShares)
    boxes = tuple((n, dict(theirs.boxes)[n] if n == OTHER else b) for n, b in message.boxes)
    step = client.receive(changed(message, boxes=boxes), 0.0)
    assert {event.peer for event in step.events if isinstance(event, PeerBlamed)} == {OTHER}


def client_answers(client: MaskingClient) -> UnmaskAnswer:
    for message in ROUND.to_client[ME][STAGE[UploadTurn] :]:
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
def test_a_sharer_that_agreed_on_no_keys_is_refused() -> None:
    """In the cohort, or with an advert, is not enough: who did not agree has no masks."""
    for last in (KeyAdvert, Encapsulations):
        script = Recording(SCHEMES["masking"], SETUP, fault=deaths({OTHER: last}))
        client, message = script.client(ME, 2), script.to_client[ME][2]
        assert isinstance(client, MaskingClient)
        refuses(client, changed(message, sharers=SETUP.cohort), "sorted part of those who agreed")


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
    assert cosigned.events == (ViewFixed(view(survivors)),)  # M-28
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
            client._keys._agreement.private_bytes_raw(),
            client._keys._kem.private_bytes_raw(),
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
