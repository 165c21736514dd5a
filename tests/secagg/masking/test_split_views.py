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
from secagg.masking import masks
from secagg.masking.client import MaskingClient, Phase
from secagg.masking.graph import graph_seed, neighbours_of
from secagg.primitives import shamir
from secagg.schemes import SCHEMES
from secagg.types import NodeId, RingVector, RoundSetup
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
        digests = tuple((n, masks.advert_digest(a)) for n, a in self.adverts.items())
        self.seed, degree = graph_seed(setup.offer_hash, digests), setup.neighbours
        self.neighbours = {
            n: neighbours_of(n, setup.cohort, degree=degree, seed=self.seed) for n in setup.cohort
        }
        self.boxes: dict[NodeId, dict[NodeId, bytes]] = {}
        for node in setup.cohort:
            theirs = tuple(self.adverts[peer] for peer in sorted(self.neighbours[node]))
            keys = PeerKeys(setup.round_id, digests, theirs)
            self.boxes[node] = dict(self._tell(node, keys, SealedShares).boxes)
        self.told: dict[NodeId, Ids] = {}
        self.signed: dict[NodeId, bytes] = {}
        self.masked: dict[NodeId, RingVector] = {}

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
        chunk = self._tell(node, PeerShares(self.setup.round_id, sharers, boxes), MaskedChunk)
        self.told[node], self.signed[node] = sharers, chunk.sharers_signature
        masked = ring.unpack(chunk.data, self.setup.dim, self.setup.ring_bits)
        assert masked is not None
        self.masked[node] = masked

    def digest_told(self, node: NodeId) -> bytes:
        return masks.sharers_digest(self.seed, self.told[node])

    def survivors(self, node: NodeId, survivors: Ids) -> Survivors:
        """Return the best message there is: colluders sign what the receiver was told."""
        signed = tuple(
            (
                owner,
                masks.sign_sharers(self.setup, TestSigner(owner), self.digest_told(node))
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
    monkeypatch.setattr(masks, "verify_sharers", lambda *args: None)
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
    adverts = masks.sharers_digest(bytes(32), setup.cohort)
    forged = {
        "garbage": bytes(64),
        "swapped": dict(message.sharers_signatures)["node-0002"],
        "round": masks.sign_sharers(one_chunk(5, round_id=6), signer, mine),
        "adverts": masks.sign_sharers(setup, signer, adverts),
        "co-signed": masks.sign_survivors(setup, signer, mine),
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

SPARSE = {"neighbours": 4, "threshold": 3, "quorum": 8}


def isolates(evil: EvilCoordinator) -> RingVector | None:
    """Play the attack on a sparse graph with one colluding neighbour; return the input it opens.

    Of the victim's four neighbours, the colluder's pair mask is known and one honest node is
    declared dropped, so that its key is revealed. The victim is told that the other two shared
    nothing, and masks with neither; they hold shares of its self-mask seed and give them.
    """
    setup, colluder = evil.setup, evil.colluders[0]
    victim = min(evil.neighbours[colluder])
    dropped, *rest = sorted(evil.neighbours[victim] - {colluder})
    told = tuple(node for node in setup.cohort if node not in rest)
    for node in setup.cohort:
        evil.show_sharers(node, told if node == victim else setup.cohort)
    survivors = tuple(node for node in setup.cohort if node != dropped)
    signed, answers = [], {}
    signers = [node for node in survivors if node != victim]
    try:
        for node in signers:
            step = evil.client(node).receive(evil.survivors(node, survivors), 0.0)
            message = step.send[0].message
            assert isinstance(message, SurvivorSignature)
            signed.append((node, message.signature))
    except RemoteProtocolError:
        return None
    for node in signers:
        step = evil.client(node).receive(UnmaskRequest(setup.round_id, tuple(signed)), 0.0)
        answer = step.send[0].message
        assert isinstance(answer, UnmaskAnswer)
        answers[node] = answer
    point = {node: index for index, node in enumerate(setup.cohort, start=1)}
    seed = {
        point[n]: dict(a.self_shares)[victim]
        for n, a in answers.items()
        if victim in dict(a.self_shares)
    }
    key = {
        point[n]: dict(a.key_shares)[dropped]
        for n, a in answers.items()
        if dropped in dict(a.key_shares)
    }
    combine = functools.partial(_combine, threshold=setup.threshold)
    opened = evil.masked[victim].copy()
    masks.add_self_mask(opened, setup.context, combine(seed), negative=True)
    public = {victim: evil.adverts[victim].mask_key}
    keys = {
        dropped: masks.mask_private_key(combine(key)),
        colluder: evil.client(colluder)._mask_key,
    }
    for node, private in keys.items():
        masks.add_pair_masks(opened, setup.context, private, me=node, peers=public)
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
    monkeypatch.setattr(masks, "verify_sharers", lambda *args: None)
    evil = EvilCoordinator(one_chunk(12, **SPARSE), 1)
    victim = min(evil.neighbours[evil.colluders[0]])
    opened = isolates(evil)
    assert opened is not None
    assert np.array_equal(opened, evil.fleet.inputs[victim])
