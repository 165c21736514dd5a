"""What a node makes of its neighbours' capsules: an altered one ends its round at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from secagg.errors import AuthenticationError
from secagg.masking import adverts, pairs
from secagg.masking.client import MaskingClient, Phase
from secagg.masking.graph import build_graph
from secagg.primitives import aead
from secagg.schemes import SCHEMES
from secagg.wire.messages import (
    Encapsulations,
    KeyAdvert,
    PeerEncapsulations,
    PeerKeys,
    SealedShares,
)
from tests.support.fleet import COORDINATOR
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


@pytest.mark.req("M-26")
def test_it_encapsulates_to_exactly_its_successors() -> None:
    """Every pair once: of two neighbours one sends a capsule and the other receives it."""
    for script in (ROUND, Recording(SCHEMES["masking"], SPARSE)):
        pairs_seen = set()
        for sender, message in script.to_coordinator:
            if isinstance(message, Encapsulations):
                received = [type(each) for each in script.to_client[sender]]
                client = script.client(sender, received.index(PeerEncapsulations))
                assert isinstance(client, MaskingClient)
                assert client.phase is Phase.AGREEING
                receivers = [receiver for receiver, _, _ in message.capsules]
                assert receivers == sorted(client._graph.successors(sender))
                pairs_seen |= {(sender, receiver) for receiver in receivers}
        both = {frozenset(pair) for pair in pairs_seen}
        neighbours = script.setup.neighbours
        assert len(both) == len(pairs_seen) == len(script.setup.cohort) * neighbours // 2


def agreement_before() -> tuple[MaskingClient, PeerEncapsulations]:
    client, message = client_before(PeerEncapsulations)
    assert isinstance(message, PeerEncapsulations)
    assert len(message.capsules) == 2
    return client, message


def with_capsule(message: PeerEncapsulations, index: int, **parts: object) -> PeerEncapsulations:
    capsules = list(message.capsules)
    sender, capsule, confirmation = capsules[index]
    values = {"sender": sender, "capsule": capsule, "confirmation": confirmation, **parts}
    capsules[index] = tuple(values.values())  # type: ignore[assignment]
    return changed(message, capsules=tuple(capsules))  # type: ignore[return-value]


def flipped(data: bytes, bit: int = 0) -> bytes:
    return bytes([data[0] ^ 1 << bit]) + data[1:]


@pytest.mark.req("M-26")
@pytest.mark.parametrize(
    "case",
    ["altered", "swapped", "for another node", "own capsule", "confirmation", "both", "cross"],
)
def test_a_capsule_that_does_not_give_the_confirmed_secret_ends_the_round(case: str) -> None:
    """The node leaves before it has shared anything."""
    client, message = agreement_before()
    (one, capsule, confirmation), (_, other, other_confirmation) = message.capsules
    sent = next(
        m.capsules for n, m in ROUND.to_coordinator if n == one and isinstance(m, Encapsulations)
    )
    elsewhere = next(entry for entry in sent if entry[0] != ME)
    own, own_capsule = pairs.NodeKeys(COORDINATOR, b"e" * 32).initiate(
        client._advert,
        client._binding,  # type: ignore[arg-type]
    )
    lie: dict[str, object] = {
        "altered": {"capsule": flipped(capsule)},
        "swapped": {"capsule": other},
        "for another node": {"capsule": elsewhere[1]},
        "own capsule": {"capsule": own_capsule},
        "confirmation": {"confirmation": flipped(confirmation)},
        "both": {"capsule": own_capsule, "confirmation": pairs.confirmation(own.mask_seed)},
        "cross": {"capsule": other, "confirmation": other_confirmation},
    }[case]
    refuses(client, with_capsule(message, 0, **lie), f"the key of {one} is altered")  # type: ignore[arg-type]
    assert not client._held
    assert not client._pairs


def genuine(client: MaskingClient, binding: Sequence[bytes]) -> PeerEncapsulations:
    """Return what all predecessors of ME encapsulate to it in earnest, bound to `binding`."""
    assert client._advert is not None
    capsules = []
    for node in sorted(client._graph.predecessors(ME)):
        theirs = ROUND.client(node, 0)
        assert isinstance(theirs, MaskingClient)
        secret, capsule = theirs._keys.initiate(client._advert, binding)
        capsules.append((node, capsule, pairs.confirmation(secret.mask_seed)))
    return PeerEncapsulations(7, tuple(sorted(client._graph.circle)), tuple(capsules))


@pytest.mark.req("M-07")
@pytest.mark.req("M-26")
def test_nodes_that_were_shown_other_adverts_do_not_agree() -> None:
    """Each side is honest; the coordinator showed one of them an advert less."""
    client, keys = client_before(PeerKeys)
    assert isinstance(keys, PeerKeys)
    client.receive(without(keys, "node-0000"), 0.0)
    same, honest = ROUND.client(ME, 0), ROUND.client(ME, STAGE[PeerEncapsulations])
    assert isinstance(same, MaskingClient)
    assert isinstance(honest, MaskingClient)
    same.receive(without(keys, "node-0000"), 0.0)
    step = same.receive(genuine(same, same._binding), 0.0)
    assert isinstance(step.send[0].message, SealedShares)
    refuses(client, genuine(client, honest._binding), "is altered")


@pytest.mark.req("M-04")
@pytest.mark.parametrize("node", [node for node in SETUP.cohort if node != ME])
@pytest.mark.parametrize(
    "keys", [{"agreement_key": bytes(32)}, {"kem_key": b"\xff" * 1184}], ids=str
)
def test_a_signed_key_that_is_not_usable_ends_the_round_where_it_is_used(
    node: str, keys: dict[str, bytes]
) -> None:
    """At once where this node encapsulates to it, else with the capsule; nothing was shared yet."""
    client, message = client_before(PeerKeys)
    assert isinstance(message, PeerKeys)
    lie = with_advert(message, advert_of(SETUP, node, **keys))
    seed = adverts.graph_seed(SETUP.offer_hash, lie.digests, ())
    graph = build_graph(SETUP.cohort, degree=SETUP.neighbours, seed=seed)
    if node in graph.successors(ME):
        refuses(client, lie, "key")
        return
    client.receive(lie, 0.0)
    if "kem_key" in keys:
        assert client.phase is Phase.AGREEING  # nobody encapsulates to it on this side
        return
    refuses(client, genuine(client, client._binding), "key")


@pytest.mark.req("M-26")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: changed(m, capsules=m.capsules[1:]), "not those of my predecessors"),
        (lambda m: changed(m, capsules=m.capsules[::-1]), "not those of my predecessors"),
        (lambda m: changed(m, capsules=m.capsules[:1] + m.capsules), "not those of my predec"),
        (lambda m: changed(m, capsules=()), "not those of my predecessors"),
        (lambda m: with_capsule(m, 1, sender=ME), "not those of my predecessors"),
        (lambda m: with_capsule(m, 1, sender="stranger"), "not those of my predecessors"),
        (
            lambda m: changed(m, agreed=tuple(n for n in m.agreed if n != m.capsules[0][0])),
            "not those of my predecessors",
        ),
        (lambda m: changed(m, agreed=m.agreed[::-1]), "not a sorted part"),
        (lambda m: changed(m, agreed=(*m.agreed, m.agreed[-1])), "not a sorted part"),
        (lambda m: changed(m, agreed=(*m.agreed, "stranger")), "not a sorted part"),
        (lambda m: changed(m, agreed=tuple(n for n in m.agreed if n != ME)), "with me needed"),
        (lambda m: changed(m, agreed=()), "0 nodes agreed"),
    ],
)
def test_which_agreements_are_refused(
    change: Callable[[PeerEncapsulations], PeerEncapsulations], match: str
) -> None:
    client, message = agreement_before()
    refuses(client, change(message), match)


@pytest.mark.req("M-26")
def test_a_node_that_advertised_no_keys_cannot_have_agreed() -> None:
    script = Recording(SCHEMES["masking"], SETUP, fault=deaths({OTHER: KeyAdvert}))
    client, message = script.client(ME, 1), script.to_client[ME][1]
    assert isinstance(client, MaskingClient)
    refuses(client, changed(message, agreed=SETUP.cohort), "not a sorted part of those with")


@pytest.mark.req("M-27")
def test_the_backup_holds_the_seeds_of_the_neighbours_that_agreed() -> None:
    for lost in (None, OTHER):
        fault = deaths({lost: Encapsulations} if lost else {})
        script = Recording(SCHEMES["masking"], SETUP, fault=fault)
        client = script.client(ME, 2)
        assert isinstance(client, MaskingClient)
        peers = [node for node in SETUP.cohort if node not in (ME, lost)]
        backup = next(
            m.backup for n, m in script.to_coordinator if n == ME and isinstance(m, SealedShares)
        )
        opened = pairs.open_backup(client._round_secret, SETUP.context, ME, backup, peers)
        assert opened == {node: pair.mask_seed for node, pair in client._pairs.items()}


@pytest.mark.req("M-05")
def test_a_backup_opens_no_share_and_no_key() -> None:
    """What recovery reveals of a node, its round secret and pair seeds, seals nothing."""
    client = ROUND.client(ME, 2)
    assert isinstance(client, MaskingClient)
    for node, pair in client._pairs.items():
        boxes = next(
            dict(m.boxes)
            for n, m in ROUND.to_coordinator
            if n == ME and isinstance(m, SealedShares)
        )
        for known in (client._round_secret, pair.mask_seed):
            guess = pairs.PairSecret(known, known)
            key = guess.seal_key(sender=ME, receiver=node)
            assert key != pair.seal_key(sender=ME, receiver=node)
            with pytest.raises(AuthenticationError):
                aead.unseal(key, boxes[node], b"", sender=node)
