"""A coordinator that shows nodes different sharers: nobody signs, nobody reveals.

The clients are real. The coordinator is played here and has every freedom it has in truth: it
relays or withholds what honest nodes signed, and signs what it likes for its own nodes.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from secagg import ring
from secagg.errors import RemoteProtocolError
from secagg.masking import adverts, masks, pairs, views
from secagg.masking.client import MaskingClient, Phase
from secagg.masking.graph import Graph, build_graph
from secagg.primitives import shamir
from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import NodeId, RingVector
from secagg.wire.messages import (
    AdvertList,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    Message,
    PairCapsule,
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
from tests.support.fleet import COORDINATOR, Fleet, TestSigner, make_setup
from tests.support.messages import changed

MASKING = SCHEMES["masking"]
Ids = tuple[NodeId, ...]


class EvilCoordinator:
    """Plays a round with honest clients up to the uploads, and keeps all it is sent.

    Args:
        setup: The round; `colluders` are the last of its cohort.
        n_colluders: How many nodes sign whatever is wanted of them.
    """

    def __init__(self, setup: RoundSetup, n_colluders: int) -> None:
        self.setup, self.fleet = setup, Fleet(MASKING, setup)
        self.colluders = setup.cohort[len(setup.cohort) - n_colluders :]
        self.honest = setup.cohort[: len(setup.cohort) - n_colluders]
        self.adverts = {n: self._one(n, KeyAdvert, self.client(n).start(0.0)) for n in setup.cohort}
        digests = tuple((n, adverts.advert_digest(a)) for n, a in self.adverts.items())
        coins = self._coins()
        self.seed = adverts.graph_seed(setup.offer_hash, digests, coins)
        self.graph: Graph = build_graph(setup.cohort, degree=setup.neighbours, seed=self.seed)
        self.neighbours = {n: self.graph.neighbours(n) for n in setup.cohort}
        self.capsules: dict[NodeId, list[PairCapsule]] = {n: [] for n in setup.cohort}
        for node in setup.cohort:
            theirs = tuple(self.adverts[peer] for peer in sorted(self.neighbours[node]))
            keys = PeerKeys(setup.round_id, digests, coins, theirs)
            for to, *sent in self._tell(node, keys, Encapsulations).capsules:
                self.capsules[to].append((node, *sent))
        self.pairs: dict[NodeId, dict[NodeId, pairs.PairSecret]] = {}
        self.boxes: dict[NodeId, dict[NodeId, bytes]] = {}
        self.backups: dict[NodeId, bytes] = {}
        for node in setup.cohort:
            agreed = PeerEncapsulations(setup.round_id, setup.cohort, tuple(self.capsules[node]))
            shares = self._tell(node, agreed, SealedShares)
            self.boxes[node], self.backups[node] = dict(shares.boxes), shares.backup
            if node in self.colluders:
                self.pairs[node] = dict(self.client(node)._pairs)
        self.told: dict[NodeId, Ids] = {}
        self.signed: dict[NodeId, bytes] = {}
        self.masked: dict[NodeId, RingVector] = {}

    def _coins(self) -> tuple[bytes, ...]:
        """Toss for a sparse graph; there is nothing to gain by lying here (test_coins.py)."""
        n, degree = len(self.setup.cohort), self.setup.neighbours
        if not build_graph(self.setup.cohort, degree=degree, seed=b"").half:
            return ()
        entries = tuple(
            (node, adverts.advert_digest(advert), advert.coin_commitment)
            for node, advert in self.adverts.items()
        )
        assert len(entries) == n
        message = AdvertList(self.setup.round_id, 1, entries)
        return tuple(self._tell(node, message, Coin).coin for node in self.setup.cohort)

    def client(self, node: NodeId) -> MaskingClient:
        role = self.fleet.clients[node]
        assert isinstance(role, MaskingClient)
        return role

    def _one(self, node: NodeId, kind: type[Message], step):  # type: ignore[no-untyped-def]
        message = step.send[0].message
        assert isinstance(message, kind), node
        return message

    def _tell(self, node: NodeId, message: Message, kind: type[Message]):  # type: ignore[no-untyped-def]
        return self._one(node, kind, self.client(node).receive(message, 0.0))

    def show_sharers(self, node: NodeId, sharers: Ids) -> None:
        """Tell one node who shared, and keep its upload."""
        owners = sorted(self.neighbours[node] & set(sharers))
        boxes = tuple((owner, self.boxes[owner][node]) for owner in owners)
        self.client(node).receive(PeerShares(self.setup.round_id, sharers, boxes), 0.0)
        chunk = self._tell(node, UploadTurn(self.setup.round_id), MaskedChunk)
        self.told[node], self.signed[node] = sharers, chunk.sharers_signature
        masked = ring.unpack(chunk.data, self.setup.dim, self.setup.ring_bits)
        assert masked is not None
        self.masked[node] = masked

    def digest_told(self, node: NodeId) -> bytes:
        return views.sharers_digest(self.seed, self.told[node])

    def survivors(self, node: NodeId, survivors: Ids) -> Survivors:
        """Return the best message there is: colluders sign what the receiver was told."""
        signed = tuple(
            (
                owner,
                views.sign_sharers(self.setup, TestSigner(owner), self.digest_told(node))
                if owner in self.colluders
                else self.signed[owner],
            )
            for owner in sorted(self.neighbours[node] & set(survivors))
        )
        return Survivors(self.setup.round_id, survivors, signed)


def refuses(evil: EvilCoordinator, node: NodeId, message: Message, match: str = ".") -> None:
    """Nothing is sent, the coordinator is named, and the node's round is over."""
    client = evil.client(node)
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        client.receive(message, 0.0)
    assert caught.value.peer == COORDINATOR
    assert client.phase is Phase.OVER
    with pytest.raises(RemoteProtocolError):
        client.receive(UnmaskRequest(evil.setup.round_id, ()), 0.0)


def one_chunk(n: int, **changes: object) -> RoundSetup:
    return make_setup(n, dim=16, chunk_values=32, **changes)


COHORTS = [(4, 1), (9, 2), (10, 3), (12, 0)]
"""Nodes, and how many of them collude: no more than the set-up assumes."""


def short_list(evil: EvilCoordinator, victims: Ids) -> Ids:
    """Return the least list a node takes: the victims, the colluders, and honest nodes up to q."""
    own = {*victims, *evil.colluders}
    others = [node for node in evil.honest if node not in own]
    return tuple(sorted(own | set(others[: evil.setup.quorum - len(own)])))


@pytest.mark.req("T-01")
@pytest.mark.req("M-24")
@pytest.mark.parametrize(("n", "n_colluders"), COHORTS)
@pytest.mark.parametrize("n_victims", [1, 2])
@pytest.mark.parametrize("claimed", ["everybody", "all but one", "the short list"])
def test_nobody_signs_when_victims_were_shown_other_sharers(
    n: int, n_colluders: int, n_victims: int, claimed: str
) -> None:
    evil = EvilCoordinator(one_chunk(n), n_colluders)
    cohort, victims = evil.setup.cohort, evil.honest[:n_victims]
    short = short_list(evil, victims)
    for node in cohort:
        evil.show_sharers(node, short if node in victims else cohort)
    survivors = {
        "everybody": cohort,
        "all but one": tuple(node for node in cohort if node != evil.honest[-1]),
        "the short list": short,
    }[claimed]
    if set(survivors) == {*victims, *evil.colluders}:
        pytest.skip("all survivors were shown one list: an honest round of the quorum")
    for node in evil.honest:
        refuses(evil, node, evil.survivors(node, survivors))


@pytest.mark.req("M-24")
@pytest.mark.parametrize(("n", "n_colluders"), COHORTS)
def test_what_is_refused_is_the_victims_signature(n: int, n_colluders: int) -> None:
    evil = EvilCoordinator(one_chunk(n), n_colluders)
    cohort, victim = evil.setup.cohort, evil.honest[0]
    for node in cohort:
        evil.show_sharers(node, short_list(evil, (victim,)) if node == victim else cohort)
    for node in evil.honest[1:]:
        refuses(evil, node, evil.survivors(node, cohort), f"another list of sharers to {victim}")
    refuses(evil, victim, evil.survivors(victim, short_list(evil, (victim,))), "another list of")


@pytest.mark.parametrize(("n", "n_colluders"), COHORTS)
def test_the_same_play_with_one_view_is_signed(n: int, n_colluders: int) -> None:
    """The counterpart: what refuses above is the difference, not this coordinator's manners."""
    evil = EvilCoordinator(one_chunk(n), n_colluders)
    for node in evil.setup.cohort:
        evil.show_sharers(node, evil.setup.cohort)
    for node in evil.honest:
        step = evil.client(node).receive(evil.survivors(node, evil.setup.cohort), 0.0)
        assert isinstance(step.send[0].message, SurvivorSignature)


@pytest.mark.req("M-11")
@pytest.mark.parametrize(("n", "n_colluders"), COHORTS)
def test_co_signatures_under_other_sharers_unmask_nothing(
    n: int, n_colluders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second lock: without M-24 a signature over the same survivors still does not serve."""
    monkeypatch.setattr(views, "verify_sharers", lambda *args: None)
    evil = EvilCoordinator(one_chunk(n), n_colluders)
    victim, survivors = evil.honest[0], short_list(evil, (evil.honest[0],))
    for node in evil.setup.cohort:
        evil.show_sharers(node, survivors if node == victim else evil.setup.cohort)
    signed = []
    for node in survivors:
        step = evil.client(node).receive(evil.survivors(node, survivors), 0.0)
        message = step.send[0].message
        assert isinstance(message, SurvivorSignature)
        signed.append((node, message.signature))
    for node in survivors:
        if node not in evil.colluders:
            refuses(evil, node, UnmaskRequest(7, tuple(signed)), "false co-signature")


# --- one message at a time -----------------------------------------------------------------------


def shown(node: NodeId = "node-0001") -> tuple[EvilCoordinator, Survivors]:
    evil = EvilCoordinator(one_chunk(5), 0)
    for each in evil.setup.cohort:
        evil.show_sharers(each, evil.setup.cohort)
    return evil, evil.survivors(node, evil.setup.cohort)


LIES = {
    "none": lambda s: (),
    "one missing": lambda s: s[1:],
    "unsorted": lambda s: s[::-1],
    "one twice": lambda s: (*s, s[-1]),
    "my own": lambda s: tuple(sorted((*s, ("node-0001", bytes(64))))),
    "a stranger": lambda s: (*s, ("stranger", bytes(64))),
    "another's name": lambda s: (*s[:-1], ("stranger", s[-1][1])),
}


@pytest.mark.req("M-24")
@pytest.mark.parametrize("lie", LIES)
def test_signatures_are_of_exactly_the_surviving_neighbours(lie: str) -> None:
    evil, message = shown()
    signatures = LIES[lie](message.sharers_signatures)
    wrong = changed(message, sharers_signatures=signatures)
    refuses(evil, "node-0001", wrong, "not those of my surviving neighbours")


@pytest.mark.req("M-24")
def test_a_neighbour_that_is_no_survivor_has_no_signature_there() -> None:
    evil, message = shown()
    refuses(
        evil,
        "node-0001",
        changed(message, survivors=evil.setup.cohort[:4]),
        "not those of my surviving neighbours",
    )


@pytest.mark.req("M-24")
@pytest.mark.parametrize("case", ["garbage", "swapped", "round", "adverts", "co-signed"])
def test_a_forged_signature_ends_the_round(case: str) -> None:
    evil, message = shown()
    setup, last = evil.setup, evil.setup.cohort[-1]
    signer, mine = TestSigner(last), evil.digest_told("node-0001")
    adverts = views.sharers_digest(bytes(32), setup.cohort)
    forged = {
        "garbage": bytes(64),
        "swapped": dict(message.sharers_signatures)["node-0002"],
        "round": views.sign_sharers(one_chunk(5, round_id=6), signer, mine),
        "adverts": views.sign_sharers(setup, signer, adverts),
        "co-signed": views.sign_survivors(setup, signer, mine),
    }[case]
    signatures = (*message.sharers_signatures[:-1], (last, forged))
    wrong = changed(message, sharers_signatures=signatures)
    refuses(evil, "node-0001", wrong, f"another list of sharers to {last}")


@pytest.mark.req("M-24")
@pytest.mark.req("M-11")
def test_survivors_are_part_of_the_sharers() -> None:
    """A node that shared nothing has no masks here: it cannot be in this sum."""
    evil = EvilCoordinator(one_chunk(5), 0)
    cohort = evil.setup.cohort
    for node in cohort[:4]:
        evil.show_sharers(node, cohort[:4])
    honest = evil.survivors("node-0001", cohort[:4])
    signatures = (*honest.sharers_signatures, (cohort[4], bytes(64)))
    wrong = changed(honest, survivors=cohort, sharers_signatures=signatures)
    refuses(evil, "node-0001", wrong, "sorted part of the sharers")


# --- what M-24 prevents --------------------------------------------------------------------------

SPARSE = {"neighbours": 6, "threshold": 3, "quorum": 8, "colluders": 1}
"""Windows of three places, of which two must survive; c = 7."""


def reveal(evil: EvilCoordinator, survivors: Ids, signers: Ids) -> dict[NodeId, UnmaskAnswer]:
    """Have `signers` co-sign and unmask. Raises what the first that refuses raises."""
    signed, answers = [], {}
    for node in signers:
        step = evil.client(node).receive(evil.survivors(node, survivors), 0.0)
        message = step.send[0].message
        assert isinstance(message, SurvivorSignature)
        signed.append((node, message.signature))
    for node in signers:
        step = evil.client(node).receive(UnmaskRequest(evil.setup.round_id, tuple(signed)), 0.0)
        answer = step.send[0].message
        assert isinstance(answer, UnmaskAnswer)
        answers[node] = answer
    return answers


def opened_secrets(
    evil: EvilCoordinator, answers: dict[NodeId, UnmaskAnswer]
) -> tuple[dict[NodeId, bytes], dict[NodeId, bytes]]:
    """Return the self-mask seeds and round secrets that the answers give away, by owner."""
    point = {node: index for index, node in enumerate(evil.setup.cohort, start=1)}
    found: list[dict[NodeId, bytes]] = []
    for kind in ("self_shares", "key_shares"):
        shares: dict[NodeId, dict[int, bytes]] = {}
        for node, answer in answers.items():
            for owner, share in getattr(answer, kind):
                shares.setdefault(owner, {})[point[node]] = share
        combine = functools.partial(_combine, threshold=evil.setup.threshold)
        enough = {o: s for o, s in shares.items() if len(s) >= evil.setup.threshold}
        found.append({owner: combine(held) for owner, held in enough.items()})
    return found[0], found[1]


def seeds_of(evil: EvilCoordinator, node: NodeId, round_secret: bytes) -> dict[NodeId, bytes]:
    peers = sorted(evil.neighbours[node])
    context = evil.setup.context
    return pairs.open_backup(round_secret, context, node, evil.backups[node], peers)


def isolates(evil: EvilCoordinator) -> RingVector | None:
    """Play the attack on a sparse graph with one colluding neighbour; return the input it opens.

    Of the victim's six neighbours, the colluder's pair mask is known and one honest node is
    declared dropped, so that its backup opens. The victim is told that the other four shared
    nothing, and masks with none of them; they hold shares of its self-mask seed and give them.
    """
    setup, colluder = evil.setup, evil.colluders[0]
    victim = min(evil.neighbours[colluder])
    dropped, *rest = sorted(evil.neighbours[victim] - {colluder})
    told = tuple(node for node in setup.cohort if node not in rest)
    for node in setup.cohort:
        evil.show_sharers(node, told if node == victim else setup.cohort)
    survivors = tuple(node for node in setup.cohort if node != dropped)
    signers = tuple(node for node in survivors if node != victim)
    try:
        answers = reveal(evil, survivors, signers)
    except RemoteProtocolError:
        return None
    self_seeds, round_secrets = opened_secrets(evil, answers)
    due = [masks.self_mask(self_seeds[victim], setup.context, negative=True)]
    seed = seeds_of(evil, dropped, round_secrets[dropped])[victim]
    due.append(masks.pair_mask(seed, me=dropped, peer=victim))
    known = evil.pairs[colluder][victim].mask_seed
    due.append(masks.pair_mask(known, me=colluder, peer=victim))
    opened = evil.masked[victim].copy()
    masks.apply_masks(opened, due)
    return ring.reduce(opened, setup.ring_bits)


def _combine(shares: dict[int, bytes], *, threshold: int) -> bytes:
    secret = shamir.combine(dict(sorted(shares.items())[:threshold]))
    assert secret is not None
    return secret


@pytest.mark.req("T-01")
@pytest.mark.req("M-24")
def test_an_input_cannot_be_isolated_on_a_sparse_graph() -> None:
    assert isolates(EvilCoordinator(one_chunk(12, **SPARSE), 1)) is None


@pytest.mark.req("M-24")
def test_without_the_check_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: M-24 skipped. The attack opens the input of one node, bit for bit."""
    monkeypatch.setattr(views, "verify_sharers", lambda *args: None)
    evil = EvilCoordinator(one_chunk(12, **SPARSE), 1)
    victim = min(evil.neighbours[evil.colluders[0]])
    opened = isolates(evil)
    assert opened is not None
    assert np.array_equal(opened, evil.fleet.inputs[victim])


# --- what M-25 prevents --------------------------------------------------------------------------

THIN = {"neighbours": 6, "threshold": 3, "quorum": 13, "colluders": 0}


def cuts_out(evil: EvilCoordinator, size: int) -> tuple[Ids, RingVector] | None:
    """Name the three nodes on either side of an arc as dropped; return the sum over the arc."""
    setup, circle = evil.setup, evil.graph.circle
    half, context = evil.graph.half, setup.context
    arc = circle[half : half + size]
    gap = {*circle[:half], *circle[half + size : 2 * half + size]}
    for node in setup.cohort:
        evil.show_sharers(node, setup.cohort)
    survivors = tuple(node for node in setup.cohort if node not in gap)
    assert len(survivors) >= setup.quorum
    try:
        answers = reveal(evil, survivors, survivors)
    except RemoteProtocolError:
        return None
    self_seeds, round_secrets = opened_secrets(evil, answers)
    total = np.zeros(setup.dim, dtype=np.uint32)
    due = []
    for node in arc:
        total += evil.masked[node]
        due.append(masks.self_mask(self_seeds[node], context, negative=True))
    for node in gap:
        for peer, seed in seeds_of(evil, node, round_secrets[node]).items():
            if peer in arc:
                due.append(masks.pair_mask(seed, me=node, peer=peer))
    masks.apply_masks(total, due)
    return tuple(sorted(arc)), ring.reduce(total, setup.ring_bits)


@pytest.mark.req("T-01")
@pytest.mark.req("M-25")
@pytest.mark.parametrize("size", [3, 4, 6])
def test_no_arc_of_the_circle_can_be_cut_out_of_the_sum(size: int) -> None:
    evil = EvilCoordinator(one_chunk(24, **THIN), 0)
    assert cuts_out(evil, size) is None
    over = [node for node in evil.setup.cohort if evil.client(node).phase is Phase.OVER]
    assert len(over) == 1  # the first that was asked


@pytest.mark.req("M-25")
@pytest.mark.parametrize("size", [3, 4, 6])
def test_without_that_check_it_can(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: M-25 skipped. The sum over a few neighbours opens, bit for bit."""
    monkeypatch.setattr(Graph, "is_whole", lambda *args: True)
    evil = EvilCoordinator(one_chunk(24, **THIN), 0)
    opened = cuts_out(evil, size)
    assert opened is not None
    arc, total = opened
    assert len(arc) == size < evil.setup.quorum
    assert np.array_equal(total, evil.fleet.plain_sum(arc))


@pytest.mark.req("M-25")
def test_a_node_refuses_each_survivor_set_with_a_gap_and_takes_the_others() -> None:
    """Every pair of lost nodes: closer than three places is a gap, wherever on the circle."""
    evil = EvilCoordinator(one_chunk(24, **THIN), 0)
    cohort, circle = evil.setup.cohort, evil.graph.circle
    for node in cohort:
        evil.show_sharers(node, cohort)
    askable = set(cohort)
    for distance in range(1, 7):
        lost = {circle[distance], circle[2 * distance]}
        survivors = tuple(node for node in cohort if node not in lost)
        node = min(askable - lost)
        askable.discard(node)
        if distance < 3:
            refuses(evil, node, evil.survivors(node, survivors), "a gap in the graph")
        else:
            step = evil.client(node).receive(evil.survivors(node, survivors), 0.0)
            assert isinstance(step.send[0].message, SurvivorSignature)
