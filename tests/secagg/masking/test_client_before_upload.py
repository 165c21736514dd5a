"""What a node refuses before it uploads: each row is one lie about keys or shares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from secagg.masking.client import MaskingClient, Phase
from secagg.primitives.signing import sign
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed
from secagg.tags import KEY_ADVERT
from secagg.wire.messages import (
    Encapsulations,
    KeyAdvert,
    Message,
    PeerEncapsulations,
    PeerKeys,
    PeerShares,
    Survivors,
    UnmaskAnswer,
    UploadTurn,
)
from tests.support.fleet import TestSigner, make_setup
from tests.support.honest_round import (
    ME,
    OTHER,
    ROUND,
    SETUP,
    SPARSE,
    STAGE,
    advert_of,
    client_before,
    refuses,
    with_advert,
    without,
)
from tests.support.messages import changed
from tests.support.scripts import Recording, deaths

# --- PeerKeys ----------------------------------------------------------------------------------


def forged(advert: KeyAdvert) -> KeyAdvert:
    """Return the advert with the coordinator's own key in it, not signed by its node."""
    return changed(advert, agreement_key=b"\x09" + bytes(31))


def swap_key(message: PeerKeys) -> PeerKeys:
    return with_advert(message, forged(next(a for a in message.adverts if a.node_id == OTHER)))


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
