"""Coins for a sparse graph: whom a node reveals its coin to, and what is made of a missing one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from secagg.errors import DecodeError, RemoteProtocolError
from secagg.masking import adverts
from secagg.masking.client import MaskingClient
from secagg.masking.client import Phase as NodePhase
from secagg.masking.coordinator import MaskingCoordinator, Phase
from secagg.masking.graph import build_graph
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, PeersMissed, RoundFailed, Step
from secagg.types import AbortReason, NodeId
from secagg.wire.codec import decode, encode
from secagg.wire.messages import (
    MAX_ATTEMPTS,
    AdvertList,
    Coin,
    KeyAdvert,
    Message,
    PeerKeys,
)
from tests.support.fleet import COORDINATOR, Fault, Fleet, make_setup
from tests.support.honest_round import refuses
from tests.support.messages import changed
from tests.support.scripts import Recording, snapshot

MASKING = SCHEMES["masking"]
SETUP = make_setup(14, dim=9, neighbours=6, threshold=3, colluders=2, quorum=9)
NODES = SETUP.cohort
ROUND = Recording(MASKING, SETUP)
ME, OTHER = NODES[2], NODES[4]
TIME = 1000.0


def listed() -> AdvertList:
    message = ROUND.to_client[ME][0]
    assert isinstance(message, AdvertList)
    return message


def keyed() -> MaskingClient:
    client = ROUND.client(ME, 0)
    assert isinstance(client, MaskingClient)
    return client


def tossed() -> MaskingClient:
    client = keyed()
    client.receive(listed(), 0.0)
    return client


def keys() -> PeerKeys:
    message = ROUND.to_client[ME][1]
    assert isinstance(message, PeerKeys)
    return message


def shorter(message: AdvertList, *nodes: NodeId, attempt: int = 2) -> AdvertList:
    rest = tuple(entry for entry in message.entries if entry[0] not in nodes)
    return changed(message, entries=rest, attempt=attempt)  # type: ignore[return-value]


def entry_with(message: AdvertList, node: NodeId, part: int, value: bytes) -> AdvertList:
    entries = [list(entry) for entry in message.entries]
    entries[NODES.index(node)][part] = value  # type: ignore[call-overload]
    return changed(message, entries=tuple(map(tuple, entries)))  # type: ignore[return-value]


# --- the node ------------------------------------------------------------------------------------


@pytest.mark.req("M-06")
def test_a_node_reveals_the_coin_of_the_toss_and_no_later_one() -> None:
    client, message = keyed(), listed()
    seed, commitment = client._coin_seed, client._advert.coin_commitment  # type: ignore[union-attr]
    assert commitment == adverts.coin_at(seed, 0)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        message = shorter(message, *NODES[5 : 4 + attempt], attempt=attempt)
        step = client.receive(message, 0.0)
        coin = step.send[0].message
        assert isinstance(coin, Coin)
        assert (coin.attempt, coin.coin) == (attempt, adverts.coin_at(seed, attempt))
        assert adverts.coin_fits(coin.coin, commitment, attempt)
        assert client.phase is NodePhase.TOSSED


LISTS_REFUSED: dict[str, tuple[str, Callable[[AdvertList], AdvertList]]] = {
    "without me": ("my own advert", lambda m: shorter(m, ME, attempt=1)),
    "my advert altered": ("my own advert", lambda m: entry_with(m, ME, 1, bytes(32))),
    "my commitment altered": ("my own advert", lambda m: entry_with(m, ME, 2, bytes(32))),
    "below the quorum": ("only 8 nodes", lambda m: shorter(m, *NODES[8:], attempt=1)),
    "unsorted": ("sorted part", lambda m: changed(m, entries=m.entries[::-1])),
    "one twice": ("sorted part", lambda m: changed(m, entries=m.entries[:1] + m.entries)),
    "a stranger": (
        "sorted part",
        lambda m: changed(m, entries=(*m.entries, ("stranger", bytes(32), bytes(32)))),
    ),
    "starts with the second toss": ("toss 2 .* after 0", lambda m: changed(m, attempt=2)),
}


@pytest.mark.req("M-06")
@pytest.mark.req("M-03")
@pytest.mark.parametrize("case", LISTS_REFUSED)
def test_a_list_for_which_no_coin_is_revealed(case: str) -> None:
    match, lie = LISTS_REFUSED[case]
    refuses(keyed(), lie(listed()), match)


LATER_LISTS_REFUSED: dict[str, tuple[str, Callable[[AdvertList], AdvertList]]] = {
    "the same again": ("grew or changed", lambda m: changed(m, attempt=2)),
    "one changed": (
        "grew or changed",
        lambda m: shorter(entry_with(m, OTHER, 1, bytes(32)), NODES[7]),
    ),
    "one commitment changed": (
        "grew or changed",
        lambda m: shorter(entry_with(m, OTHER, 2, bytes(32)), NODES[7]),
    ),
    "the same toss again": ("toss 1 .* after 1", lambda m: m),
    "the same toss, shorter": ("toss 1 .* after 1", lambda m: shorter(m, OTHER, attempt=1)),
    "a toss left out": ("toss 3 .* after 1", lambda m: shorter(m, OTHER, attempt=3)),
    "without me": ("my own advert", lambda m: shorter(m, ME)),
    "below the quorum": ("only 8 nodes", lambda m: shorter(m, *NODES[8:])),
}


@pytest.mark.req("M-06")
@pytest.mark.parametrize("case", LATER_LISTS_REFUSED)
def test_a_list_of_a_later_toss_is_a_strict_part_of_the_one_before(case: str) -> None:
    match, lie = LATER_LISTS_REFUSED[case]
    refuses(tossed(), lie(listed()), match)


@pytest.mark.req("M-06")
def test_a_list_does_not_grow_again() -> None:
    client = tossed()
    client.receive(shorter(listed(), OTHER, NODES[7]), 0.0)
    refuses(client, shorter(listed(), NODES[7], attempt=3), "grew or changed")


@pytest.mark.req("M-06")
def test_there_is_no_fifth_toss() -> None:
    """Four coins were committed to; the wire has no number for another."""
    client, message = keyed(), listed()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        message = shorter(message, *NODES[4 : 3 + attempt], attempt=attempt)
        client.receive(message, 0.0)
    fifth = shorter(message, NODES[9], attempt=MAX_ATTEMPTS + 1)
    with pytest.raises(DecodeError):
        decode(encode(fifth), sender=COORDINATOR)


def with_coin(message: PeerKeys, node: NodeId, coin: bytes) -> PeerKeys:
    coins = list(message.coins)
    coins[NODES.index(node)] = coin
    return changed(message, coins=tuple(coins))  # type: ignore[return-value]


def without(message: PeerKeys, node: NodeId) -> PeerKeys:
    """Return the keys as if `node` had not been in the list, with its coin left out as well."""
    at = NODES.index(node)
    return changed(
        message,
        digests=message.digests[:at] + message.digests[at + 1 :],
        coins=message.coins[:at] + message.coins[at + 1 :],
        adverts=tuple(advert for advert in message.adverts if advert.node_id != node),
    )  # type: ignore[return-value]


KEYS_REFUSED: dict[str, tuple[str, Callable[[PeerKeys], PeerKeys]]] = {
    "a coin that does not fit": (f"coin of {OTHER}", lambda m: with_coin(m, OTHER, b"x" * 32)),
    "another's coin": (f"coin of {OTHER}", lambda m: with_coin(m, OTHER, m.coins[0])),
    "my coin altered": (f"coin of {ME}", lambda m: with_coin(m, ME, b"x" * 32)),
    "a coin of the second toss": (
        f"coin of {OTHER}",
        lambda m: with_coin(m, OTHER, adverts.coin_at(_seed_of(OTHER), 2)),
    ),
    "coins in another order": ("coin of", lambda m: changed(m, coins=m.coins[::-1])),
    "a coin missing": ("one coin for each", lambda m: changed(m, coins=m.coins[:-1])),
    "a coin too many": ("one coin for each", lambda m: changed(m, coins=(*m.coins, bytes(32)))),
    "no coins": ("one coin for each", lambda m: changed(m, coins=())),
    "a node left out": ("tossed for", lambda m: without(m, OTHER)),
    "another advert": (
        "tossed for",
        lambda m: changed(
            m, digests=tuple((n, bytes(32) if n == OTHER else d) for n, d in m.digests)
        ),
    ),
}


def _seed_of(node: NodeId) -> bytes:
    client = ROUND.client(node, 0)
    assert isinstance(client, MaskingClient)
    return client._coin_seed


@pytest.mark.req("M-06")
@pytest.mark.parametrize("case", KEYS_REFUSED)
def test_keys_are_refused_unless_they_are_those_of_the_toss(case: str) -> None:
    match, lie = KEYS_REFUSED[case]
    refuses(tossed(), lie(keys()), match)


@pytest.mark.req("M-06")
@pytest.mark.parametrize("coins", ["none", "all"])
def test_a_sparse_graph_takes_a_toss_before(coins: str) -> None:
    """The coordinator skips the coins, and picks adverts until it likes the graph."""
    message, digests = keys(), keys().digests
    seed = adverts.graph_seed(SETUP.offer_hash, digests, ())
    graph = build_graph(NODES, degree=SETUP.neighbours, seed=seed)
    theirs = tuple(
        ROUND.to_coordinator[index][1]
        for index in range(len(NODES))
        if ROUND.to_coordinator[index][0] in graph.neighbours(ME)
    )
    assert len(theirs) == 6
    assert all(isinstance(advert, KeyAdvert) for advert in theirs)
    without_coins = PeerKeys(7, digests, (), theirs)  # type: ignore[arg-type]
    lie, match = {
        "none": (without_coins, "without coins"),
        "all": (message, "tossed for"),
    }[coins]
    refuses(keyed(), lie, match)


@pytest.mark.req("M-06")
def test_keys_of_an_earlier_toss_are_refused_after_a_later_one() -> None:
    client = tossed()
    client.receive(shorter(listed(), OTHER), 0.0)
    refuses(client, keys(), "tossed for")


@pytest.mark.req("M-06")
def test_coins_of_an_earlier_toss_do_not_serve_a_later_one() -> None:
    client = tossed()
    client.receive(shorter(listed(), OTHER), 0.0)
    refuses(client, without(keys(), OTHER), "is not the one it committed to")


@pytest.mark.req("M-06")
def test_the_graph_depends_on_every_coin() -> None:
    graphs = set()
    for node in (None, *NODES):
        message = with_coin(keys(), node, b"x" * 32) if node else keys()
        seed = adverts.graph_seed(SETUP.offer_hash, message.digests, message.coins)
        graphs.add(build_graph(NODES, degree=SETUP.neighbours, seed=seed).circle)
    assert len(graphs) == 1 + len(NODES)


# --- the coordinator -----------------------------------------------------------------------------


def coordinator_at(n_messages: int) -> MaskingCoordinator:
    role = ROUND.coordinator(n_messages)
    assert isinstance(role, MaskingCoordinator)
    return role


N = len(NODES)
COINS = {sender: message for sender, message in ROUND.to_coordinator if isinstance(message, Coin)}


def coin_of(node: NodeId, attempt: int) -> Coin:
    return Coin(7, attempt, adverts.coin_at(_seed_of(node), attempt))


def lists(step: Step) -> dict[NodeId, AdvertList]:
    found = {}
    for out in step.send:
        assert isinstance(out.message, AdvertList)
        found[out.to] = out.message
    return found


@pytest.mark.req("M-06")
def test_everybody_is_asked_with_one_list() -> None:
    first = [ROUND.to_client[node][0] for node in NODES]
    entries = {message.entries for message in first if isinstance(message, AdvertList)}
    assert len(entries) == 1
    sent = {s: m for s, m in ROUND.to_coordinator if isinstance(m, KeyAdvert)}
    assert entries.pop() == tuple(
        (node, adverts.advert_digest(sent[node]), sent[node].coin_commitment) for node in NODES
    )


@pytest.mark.req("M-06")
def test_the_complete_graph_takes_no_coins() -> None:
    outcome = Fleet(MASKING, make_setup(5, dim=9)).play()
    assert not [message for _, message in outcome.seen if isinstance(message, Coin)]
    fewer = Fleet(MASKING, make_setup(8, dim=9, neighbours=4, threshold=2, colluders=1, quorum=5))
    outcome = fleet_without(fewer, *fewer.setup.cohort[:3])
    assert outcome.total is not None
    assert not [message for _, message in outcome.seen if isinstance(message, Coin)]


def fleet_without(fleet: Fleet, *nodes: NodeId):  # type: ignore[no-untyped-def]
    return fleet.play(lambda sender, _, message: [] if sender in nodes else [message])


@pytest.mark.req("M-06")
@pytest.mark.req("M-15")
def test_a_missing_coin_means_that_all_others_toss_again() -> None:
    role = coordinator_at(N)
    assert role.phase is Phase.COINS
    for node in NODES:
        if node != OTHER:
            role.receive(node, coin_of(node, 1), 0.0)
    step = role.on_timeout(TIME)
    assert PeersMissed("coins", (OTHER,)) in step.events
    asked = lists(step)
    rest = tuple(node for node in NODES if node != OTHER)
    assert tuple(asked) == rest
    for message in asked.values():
        assert message.attempt == 2
        assert tuple(node for node, _, _ in message.entries) == rest
        assert set(message.entries) < set(listed().entries)
    assert step.deadline == TIME + SETUP.phase_timeout
    assert role.phase is Phase.COINS


@pytest.mark.req("M-06")
def test_the_coins_of_the_second_toss_make_the_graph() -> None:
    role, sent = coordinator_at(N), []
    rest = tuple(node for node in NODES if node != OTHER)
    for node in rest:
        role.receive(node, coin_of(node, 1), 0.0)
    role.on_timeout(TIME)
    for node in rest:
        sent += role.receive(node, coin_of(node, 2), TIME).send
    assert role.phase is Phase.AGREEMENT
    assert [out.to for out in sent] == list(rest)
    for out in sent:
        assert isinstance(out.message, PeerKeys)
        assert out.message.coins == tuple(coin_of(node, 2).coin for node in rest)
        assert tuple(node for node, _ in out.message.digests) == rest
    with pytest.raises(RemoteProtocolError):
        role.receive(OTHER, coin_of(OTHER, 1), TIME)


@pytest.mark.req("M-06")
@pytest.mark.req("M-14")
def test_after_four_tosses_the_round_fails() -> None:
    """One node at a time withholds its coin; as many nodes as the quorum are left all the time."""
    role, left = coordinator_at(N), list(NODES)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        left.pop(3)
        for node in left:
            step = role.receive(node, coin_of(node, attempt), 0.0)
            assert not step.send
        step = role.on_timeout(TIME * attempt)
        if attempt < MAX_ATTEMPTS:
            assert lists(step).keys() == set(left)
    assert len(left) >= SETUP.quorum
    failed = step.events[-1]
    assert isinstance(failed, RoundFailed)
    assert failed.reason is AbortReason.COINS_MISSING
    assert step.done
    assert not step.send


@pytest.mark.req("M-14")
def test_fewer_coins_than_the_quorum_end_the_round_at_once() -> None:
    role = coordinator_at(N)
    for node in NODES[: SETUP.quorum - 1]:
        role.receive(node, coin_of(node, 1), 0.0)
    step = role.on_timeout(TIME)
    failed = RoundFailed(AbortReason.TOO_FEW_KEYS, SETUP.quorum - 1, SETUP.quorum)
    assert step.events[-1] == failed
    assert step.done


@pytest.mark.req("M-06")
@pytest.mark.parametrize("case", ["garbage", "the next toss's", "another's"])
def test_a_coin_that_does_not_fit_costs_its_sender_its_place(case: str) -> None:
    role = coordinator_at(N)
    false = {
        "garbage": bytes(32),
        "the next toss's": coin_of(OTHER, 2).coin,
        "another's": coin_of(ME, 1).coin,
    }[case]
    step = role.receive(OTHER, Coin(7, 1, false), 0.0)
    assert [event.peer for event in step.events if isinstance(event, PeerBlamed)] == [OTHER]
    with pytest.raises(RemoteProtocolError):
        role.receive(OTHER, coin_of(OTHER, 1), 0.0)
    for node in NODES:
        if node != OTHER:
            step = role.receive(node, coin_of(node, 1), 0.0)
    assert OTHER not in lists(step)
    assert len(lists(step)) == N - 1


@pytest.mark.req("M-21")
def test_a_coin_that_arrives_again_in_a_later_toss_changes_nothing() -> None:
    """A repetition, not a lie: the node gave this coin when it was asked for."""
    role = coordinator_at(N)
    for node in NODES:
        if node != OTHER:
            role.receive(node, coin_of(node, 1), 0.0)
    role.on_timeout(TIME)
    before = snapshot(role)
    for coin in (coin_of(ME, 1), coin_of(ME, 3)):
        with pytest.raises(RemoteProtocolError) as caught:
            role.receive(ME, coin, TIME)
        assert caught.value.peer == ME
    assert snapshot(role) == before


# --- whole rounds --------------------------------------------------------------------------------


def withheld(by_attempt: dict[int, NodeId]) -> Fault:
    """Return a fault that takes each node away when the coin of that toss is due."""
    gone: set[NodeId] = set()

    def fault(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
        if isinstance(message, Coin) and by_attempt.get(message.attempt) == sender:
            gone.add(sender)
        return [] if gone & {sender, receiver} else [message]

    return fault


@pytest.mark.req("M-01")
@pytest.mark.req("M-06")
@pytest.mark.parametrize("n_withheld", [1, 2, 3, 4])
def test_a_round_survives_three_missing_coins_and_not_a_fourth(n_withheld: int) -> None:
    fleet = Fleet(MASKING, SETUP)
    by_attempt = {attempt + 1: NODES[3 * attempt] for attempt in range(n_withheld)}
    outcome = fleet.play(withheld(by_attempt))
    assert not outcome.errors
    if n_withheld == MAX_ATTEMPTS:
        assert outcome.failed is not None
        assert outcome.failed.reason is AbortReason.COINS_MISSING
        return
    rest = tuple(node for node in NODES if node not in by_attempt.values())
    assert outcome.contributors == rest
    assert outcome.total is not None
    assert np.array_equal(outcome.total, fleet.plain_sum(rest))
    assert len({m.attempt for _, m in outcome.seen if isinstance(m, Coin)}) == 1 + n_withheld


@pytest.mark.req("M-06")
def test_a_node_known_to_be_gone_costs_one_toss_and_no_deadline() -> None:
    role = coordinator_at(N)
    for node in NODES:
        if node != OTHER:
            role.receive(node, coin_of(node, 1), 0.0)
    step = role.drop(OTHER, 1.0)
    assert lists(step).keys() == set(NODES) - {OTHER}


@pytest.mark.req("M-21")
@pytest.mark.parametrize("kind", [Coin, AdvertList])
def test_what_arrives_twice_costs_nobody_at_the_coordinator_its_place(kind: type[Message]) -> None:
    """A coin twice is refused; a list twice ends the round of the node that got it twice."""
    fleet = Fleet(MASKING, SETUP)

    def fault(sender: NodeId, receiver: NodeId, message: Message) -> list[Message]:
        twice = isinstance(message, kind) and OTHER in (sender, receiver)
        return [message] * (2 if twice else 1)

    outcome = fleet.play(fault)
    assert outcome.total is not None
    survivors = NODES if kind is Coin else tuple(node for node in NODES if node != OTHER)
    assert outcome.contributors == survivors
    assert np.array_equal(outcome.total, fleet.plain_sum(survivors))
