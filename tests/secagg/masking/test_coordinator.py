"""What costs a node its place at the coordinator, and what it may not change."""

from __future__ import annotations

import numpy as np
import pytest

from secagg import ring
from secagg.errors import LocalProtocolError, RemoteProtocolError, ReplayError
from secagg.masking import adverts, views
from secagg.masking.coordinator import MaskingCoordinator, Phase
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed, PeersMissed, RoundFailed, SumReady
from secagg.types import (
    AbortReason,
)
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
)
from tests.secagg.masking.test_uploads import buffered, with_padding_set
from tests.support.fleet import TestSigner, make_setup
from tests.support.messages import changed
from tests.support.scripts import EXCHANGES, Recording, deaths, snapshot

SETUP = make_setup(5, dim=70)  # 3 chunks of 32, 32 and 6 values; 19 bits
ROUND = Recording(SCHEMES["masking"], SETUP)
NODE = "node-0002"
SIZE = ring.packed_size(32, SETUP.ring_bits)
PHASES = [
    Phase.KEYS,
    Phase.AGREEMENT,
    Phase.SHARES,
    Phase.INPUT,
    Phase.SIGNATURES,
    Phase.UNMASK,
]


def coordinator_before(kind: type[Message]) -> tuple[MaskingCoordinator, list[Message]]:
    """Return a coordinator that awaits `kind` from NODE, and NODE's honest messages."""
    mine = [m for sender, m in ROUND.to_coordinator if sender == NODE and isinstance(m, kind)]
    first = next(i for i, (_, m) in enumerate(ROUND.to_coordinator) if m is mine[0])
    role = ROUND.coordinator(first)
    assert isinstance(role, MaskingCoordinator)
    return role, mine


def costs_its_place(role: MaskingCoordinator, message: Message, match: str) -> None:
    step = role.receive(NODE, message, 0.0)
    blamed = [event for event in step.events if isinstance(event, PeerBlamed)]
    assert [event.peer for event in blamed] == [NODE]
    assert match in blamed[0].reason
    with pytest.raises(RemoteProtocolError):
        role.receive(NODE, message, 0.0)


def test_the_phases_follow_each_other() -> None:
    seen = []
    for count in range(len(ROUND.to_coordinator) + 1):
        role = ROUND.coordinator(count)
        assert isinstance(role, MaskingCoordinator)
        if role.phase not in seen:
            seen.append(role.phase)
    assert seen == [*PHASES, Phase.OVER]


@pytest.mark.req("M-04")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"node_id": "node-0003"}, "names another node"),
        ({"suite": 2}, "suite"),
        ({"agreement_key": b"\x09" + bytes(31)}, "signature"),
        ({"kem_key": bytes(1184)}, "signature"),
        ({"round_commitment": bytes(32)}, "signature"),
        ({"self_commitment": bytes(32)}, "signature"),
        ({"coin_commitment": bytes(32)}, "signature"),
        ({"signature": bytes(64)}, "signature"),
    ],
)
def test_a_bad_advert(change: dict[str, object], match: str) -> None:
    role, (advert,) = coordinator_before(KeyAdvert)
    costs_its_place(role, changed(advert, **change), match)


@pytest.mark.req("M-04")
@pytest.mark.parametrize(
    "keys", [{"agreement_key": bytes(32)}, {"kem_key": b"\xff" * 1184}], ids=str
)
def test_an_advert_with_a_useless_key_costs_only_its_sender(keys: dict[str, bytes]) -> None:
    """One node signs a key of small order: the others must not stumble over it."""
    role, (advert,) = coordinator_before(KeyAdvert)
    assert isinstance(advert, KeyAdvert)
    honest = {"agreement_key": advert.agreement_key, "kem_key": advert.kem_key}
    commitments = (advert.round_commitment, advert.self_commitment, advert.coin_commitment)
    bad = adverts.make_advert(
        SETUP, TestSigner(NODE), **{**honest, **keys}, commitments=commitments
    )
    costs_its_place(role, bad, "key")


@pytest.mark.req("M-26")
@pytest.mark.parametrize(
    "lie",
    [
        lambda capsules: capsules[1:],
        lambda capsules: capsules[::-1],
        lambda capsules: capsules + capsules[-1:],
        lambda capsules: (*capsules[:-1], ("stranger", *capsules[-1][1:])),
        lambda capsules: (*capsules[:-1], (NODE, *capsules[-1][1:])),
        lambda capsules: (),
    ],
)
def test_capsules_are_for_exactly_the_successors(lie) -> None:
    role, (message,) = coordinator_before(Encapsulations)
    assert isinstance(message, Encapsulations)
    costs_its_place(role, changed(message, capsules=lie(message.capsules)), "successors")


@pytest.mark.req("M-26")
def test_everybody_learns_who_agreed_and_gets_what_its_predecessors_sent() -> None:
    lost = "node-0004"
    script = Recording(SCHEMES["masking"], SETUP, fault=deaths({lost: Encapsulations}))
    sent = {
        (sender, receiver): (sender, capsule, confirmation)
        for sender, message in script.to_coordinator
        if isinstance(message, Encapsulations)
        for receiver, capsule, confirmation in message.capsules
    }
    assert lost not in {sender for sender, _ in sent}
    for node in SETUP.cohort[:4]:
        message = script.to_client[node][1]
        assert isinstance(message, PeerEncapsulations)
        assert message.agreed == SETUP.cohort[:4]
        due = sorted(entry for (_, receiver), entry in sent.items() if receiver == node)
        assert list(message.capsules) == due


@pytest.mark.req("M-08")
@pytest.mark.parametrize(
    "lie",
    [
        lambda boxes: boxes[1:],
        lambda boxes: boxes[::-1],
        lambda boxes: boxes + boxes[-1:],
        lambda boxes: (*boxes[:-1], ("stranger", boxes[-1][1])),
        lambda boxes: (),
    ],
)
def test_boxes_are_for_exactly_the_neighbours(lie) -> None:
    role, (shares,) = coordinator_before(SealedShares)
    assert isinstance(shares, SealedShares)
    costs_its_place(role, changed(shares, boxes=lie(shares.boxes)), "neighbours")


@pytest.mark.req("M-08")
def test_no_box_is_for_a_neighbour_that_did_not_agree() -> None:
    lost = "node-0004"
    script = Recording(SCHEMES["masking"], SETUP, fault=deaths({lost: Encapsulations}))
    for sender, message in script.to_coordinator:
        if isinstance(message, SealedShares):
            receivers = [receiver for receiver, _ in message.boxes]
            assert receivers == [n for n in SETUP.cohort if n not in (sender, lost)]
    assert script.outcome.contributors == SETUP.cohort[:4]


@pytest.mark.req("M-16")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"index": 1}, "where 0 was due"),
        ({"index": 2**20}, "where 0 was due"),
        ({"data": bytes(SIZE - 1)}, f"{SIZE - 1} bytes"),
        ({"data": bytes(SIZE + 1)}, f"{SIZE + 1} bytes"),
        ({"data": b"\0"}, "1 bytes"),
    ],
)
def test_a_chunk_out_of_order_or_of_another_size(change: dict[str, object], match: str) -> None:
    role, chunks = coordinator_before(MaskedChunk)
    before = role._uploads.total.copy()
    costs_its_place(role, changed(chunks[0], **change), match)
    assert np.array_equal(role._uploads.total, before)


@pytest.mark.req("M-16")
def test_set_padding_bits_cost_the_whole_upload() -> None:
    role, chunks = coordinator_before(MaskedChunk)
    assert isinstance(chunks[2], MaskedChunk)
    for chunk in chunks[:2]:
        role.receive(NODE, chunk, 0.0)
    before = role._uploads.total.copy()
    costs_its_place(role, with_padding_set(chunks[2], SETUP), "padding")
    assert np.array_equal(role._uploads.total, before)


@pytest.mark.req("M-16")
def test_a_chunk_beyond_the_last_is_a_second_input() -> None:
    role, chunks = coordinator_before(MaskedChunk)
    for chunk in chunks:
        role.receive(NODE, chunk, 0.0)
    before = snapshot(role)
    for chunk in (*chunks, changed(chunks[2], index=3)):
        with pytest.raises(ReplayError):
            role.receive(NODE, chunk, 0.0)
    assert snapshot(role) == before


@pytest.mark.req("M-22")
def test_inputs_are_folded_into_one_sum_and_not_kept() -> None:
    """After an upload the role has grown by nothing: what it held in chunks is gone."""
    role, chunks = coordinator_before(MaskedChunk)
    assert isinstance(chunks[0], MaskedChunk)
    for chunk in chunks:
        role.receive(NODE, chunk, 0.0)
    assert buffered(role._uploads) == 0
    picture = repr(snapshot(role))
    assert repr(chunks[0].data) not in picture
    assert role._uploads.total.shape == (SETUP.dim,)


@pytest.mark.req("M-11")
def test_a_false_co_signature_costs_its_sender_only() -> None:
    role, (signature,) = coordinator_before(SurvivorSignature)
    other = views.sign_survivors(
        SETUP, TestSigner(NODE), views.view_digest(role._sharers_digest, SETUP.cohort[:4])
    )
    costs_its_place(role, changed(signature, signature=other), "signature")


@pytest.mark.req("M-11")
def test_a_co_signature_under_other_sharers_costs_its_sender_only() -> None:
    role, (signature,) = coordinator_before(SurvivorSignature)
    other = views.sign_survivors(
        SETUP, TestSigner(NODE), views.view_digest(bytes(32), SETUP.cohort)
    )
    costs_its_place(role, changed(signature, signature=other), "signature")


@pytest.mark.req("M-24")
@pytest.mark.parametrize("case", ["other sharers", "other node", "survivors", "garbage", "none"])
def test_an_upload_signed_for_other_sharers_costs_its_sender_only(case: str) -> None:
    role, chunks = coordinator_before(MaskedChunk)
    digest, signer = role._sharers_digest, TestSigner(NODE)
    signatures = {
        "other sharers": views.sign_sharers(
            SETUP, signer, views.sharers_digest(role._graph_seed, SETUP.cohort[:4])
        ),
        "other node": views.sign_sharers(SETUP, TestSigner("node-0003"), digest),
        "survivors": views.sign_survivors(SETUP, signer, digest),
        "garbage": bytes(64),
        "none": b"",
    }
    before = role._uploads.total.copy()
    costs_its_place(role, changed(chunks[0], sharers_signature=signatures[case]), "signature")
    assert np.array_equal(role._uploads.total, before)


@pytest.mark.req("M-24")
def test_an_upload_is_signed_once_with_its_first_chunk() -> None:
    role, chunks = coordinator_before(MaskedChunk)
    role.receive(NODE, chunks[0], 0.0)
    before = role._uploads.total.copy()
    again = changed(chunks[1], sharers_signature=chunks[0].sharers_signature)  # type: ignore[attr-defined]
    costs_its_place(role, again, "carries a signature")
    assert np.array_equal(role._uploads.total, before)


@pytest.mark.req("M-09")
@pytest.mark.req("M-24")
def test_every_sharer_gets_one_list_and_the_signatures_of_its_neighbours() -> None:
    lists, survivors = set(), set()
    for node in SETUP.cohort:
        shares, _, shown = ROUND.to_client[node][2:5]
        assert isinstance(shares, PeerShares)
        assert isinstance(shown, Survivors)
        lists.add(shares.sharers)
        survivors.add(shown.survivors)
        assert [n for n, _ in shown.sharers_signatures] == [n for n in SETUP.cohort if n != node]
    assert lists == survivors == {SETUP.cohort}


@pytest.mark.req("M-12")
@pytest.mark.parametrize(
    "lie",
    [
        lambda m: changed(m, key_shares=m.self_shares),
        lambda m: changed(m, key_shares=m.self_shares, self_shares=()),
        lambda m: changed(m, self_shares=m.self_shares[::-1]),
        lambda m: changed(m, self_shares=m.self_shares[:1] + m.self_shares),
        lambda m: changed(m, self_shares=(*m.self_shares, ("stranger", bytes(33)))),
    ],
)
def test_shares_nobody_asked_for(lie) -> None:
    role, (answer,) = coordinator_before(UnmaskAnswer)
    costs_its_place(role, lie(answer), "nobody asked for")


@pytest.mark.req("M-21")
@pytest.mark.parametrize("kind", EXCHANGES)
def test_another_round_another_phase_and_strangers_change_nothing(kind: type[Message]) -> None:
    role, mine = coordinator_before(kind)
    before = snapshot(role)
    with pytest.raises(ReplayError):
        role.receive(NODE, changed(mine[0], round_id=8), 0.0)
    with pytest.raises(RemoteProtocolError):
        role.receive("stranger", mine[0], 0.0)
    for _, message in ROUND.to_coordinator:
        if not isinstance(message, kind):
            with pytest.raises(RemoteProtocolError):
                role.receive(NODE, message, 0.0)
    assert snapshot(role) == before


@pytest.mark.req("M-14")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (KeyAdvert, AbortReason.TOO_FEW_KEYS),
        (Encapsulations, AbortReason.TOO_FEW_AGREEMENTS),
        (SealedShares, AbortReason.TOO_FEW_SHARES),
        (MaskedChunk, AbortReason.TOO_FEW_INPUTS),
        (SurvivorSignature, AbortReason.TOO_FEW_SIGNATURES),
        (UnmaskAnswer, AbortReason.TOO_FEW_UNMASK_ANSWERS),
    ],
)
def test_a_deadline_without_a_quorum_releases_nothing(
    kind: type[Message], reason: AbortReason
) -> None:
    first = next(i for i, (_, m) in enumerate(ROUND.to_coordinator) if isinstance(m, kind))
    role = ROUND.coordinator(first)
    assert isinstance(role, MaskingCoordinator)
    missed = PeersMissed(role.phase.value, SETUP.cohort)
    step = role.on_timeout(1e6)
    assert step.events == (missed, RoundFailed(reason, 0, 4))
    assert step.done
    assert not step.send
    assert role._uploads.total.size == 0
    assert role.on_timeout(2e6).events == ()
    for sender, message in ROUND.to_coordinator:
        with pytest.raises(RemoteProtocolError):
            role.receive(sender, message, 2e6)


@pytest.mark.req("M-15")
@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_deadline_goes_on_with_a_quorum(kind: type[Message]) -> None:
    """Everybody but NODE has answered; at the deadline the round goes on without it."""
    role = SCHEMES["masking"].coordinator(SETUP)
    role.start(0.0)
    events = []
    phase = PHASES[EXCHANGES.index(kind)].value
    for sender, message in ROUND.to_coordinator:
        if isinstance(message, kind) and sender == NODE:
            continue
        if EXCHANGES.index(type(message)) > EXCHANGES.index(kind):
            break
        role.receive(sender, message, 0.0)
    step = role.on_timeout(1e6)
    events += step.events
    assert [event for event in events if isinstance(event, PeersMissed)] == [
        PeersMissed(phase, (NODE,))
    ]
    assert not any(isinstance(event, RoundFailed) for event in events)
    assert all(out.to != NODE for out in step.send)
    if kind is UnmaskAnswer:
        result = next(event for event in events if isinstance(event, SumReady))
        assert np.array_equal(result.total, ROUND.fleet.plain_sum())


@pytest.mark.req("M-15")
def test_each_phase_has_a_deadline() -> None:
    role = SCHEMES["masking"].coordinator(SETUP)
    assert role.start(10.0).deadline == 10.0 + SETUP.input_timeout
    for sender, message in ROUND.to_coordinator:
        step = role.receive(sender, message, 20.0)
        if step.send:
            assert step.deadline == 20.0 + SETUP.phase_timeout
    assert step.done
    assert step.deadline is None


@pytest.mark.req("M-15")
def test_a_node_known_to_be_gone_is_not_waited_for_in_later_phases() -> None:
    """It answered, then its connection broke: the next phase closes without its deadline."""
    uploaded = next(
        index
        for index, (sender, message) in enumerate(ROUND.to_coordinator, start=1)
        if sender == NODE and isinstance(message, MaskedChunk) and message.index == 2
    )
    role = ROUND.coordinator(uploaded)
    assert isinstance(role, MaskingCoordinator)
    role.drop(NODE, 0.0)
    signatures = [
        (sender, message)
        for sender, message in ROUND.to_coordinator[uploaded:]
        if sender != NODE and not isinstance(message, UnmaskAnswer)
    ]
    for sender, message in signatures:
        role.receive(sender, message, 0.0)
    assert role.phase is Phase.UNMASK


def test_it_starts_once_and_nothing_comes_before() -> None:
    role = SCHEMES["masking"].coordinator(SETUP)
    with pytest.raises(RemoteProtocolError):
        role.receive(*ROUND.to_coordinator[0], 0.0)
    assert role.drop(NODE, 0.0).events == ()
    role.start(0.0)
    with pytest.raises(LocalProtocolError):
        role.start(0.0)


@pytest.mark.req("M-06")
def test_every_node_gets_the_same_list_of_adverts() -> None:
    lists = set()
    for node in SETUP.cohort:
        keys = ROUND.to_client[node][0]
        assert isinstance(keys, PeerKeys)
        lists.add(keys.digests)
    assert len(lists) == 1


# --- c co-signatures -----------------------------------------------------------------------------

FEWER = make_setup(10, dim=9, threshold=6, colluders=1, quorum=8)  # c = 6
WIDE = Recording(SCHEMES["masking"], FEWER)


def up_to(kind: type[Message], n_given: int) -> MaskingCoordinator:
    """Return a coordinator of ten that got messages of `kind` from the first `n_given`."""
    role = SCHEMES["masking"].coordinator(FEWER)
    role.start(0.0)
    given = 0
    for sender, message in WIDE.to_coordinator:
        if isinstance(message, kind):
            if given == n_given:
                continue
            given += 1
        elif given:
            break
        role.receive(sender, message, 0.0)
    assert isinstance(role, MaskingCoordinator)
    return role


@pytest.mark.req("M-03")
@pytest.mark.req("M-11")
@pytest.mark.req("M-14")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SurvivorSignature, AbortReason.TOO_FEW_SIGNATURES),
        (UnmaskAnswer, AbortReason.TOO_FEW_UNMASK_ANSWERS),
    ],
)
def test_after_the_input_c_nodes_are_enough_and_one_fewer_is_not(
    kind: type[Message], reason: AbortReason
) -> None:
    assert FEWER.cosigners == 6
    enough = up_to(kind, 6).on_timeout(1e6)
    assert not any(isinstance(event, RoundFailed) for event in enough.events)
    short = up_to(kind, 5).on_timeout(1e6)
    assert short.events[-1] == RoundFailed(reason, 5, 6)
    assert not short.send


@pytest.mark.req("M-03")
@pytest.mark.req("M-14")
@pytest.mark.parametrize("kind", [KeyAdvert, Encapsulations, SealedShares])
def test_up_to_the_input_it_takes_the_quorum(kind: type[Message]) -> None:
    enough = up_to(kind, 8).on_timeout(1e6)
    assert not any(isinstance(event, RoundFailed) for event in enough.events)
    failed = up_to(kind, 7).on_timeout(1e6).events[-1]
    assert isinstance(failed, RoundFailed)
    assert (failed.alive, failed.needed) == (7, 8)


@pytest.mark.req("M-11")
def test_a_request_has_exactly_c_signatures_and_goes_to_all_signers() -> None:
    seen = set()
    for node in FEWER.cohort:
        request = WIDE.to_client[node][-1]
        assert isinstance(request, UnmaskRequest)
        assert len(request.signatures) == FEWER.cosigners
        seen.add(request.signatures)
    assert len(seen) == 1
