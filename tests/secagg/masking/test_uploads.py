"""Uploads: in turn, whole or not at all, and never more of them in memory than there are slots."""

from __future__ import annotations

import numpy as np
import pytest

from secagg import ring
from secagg.errors import RemoteProtocolError, ReplayError
from secagg.masking.uploads import BadUpload, Uploads
from secagg.round_setup import RoundSetup
from secagg.types import RingVector
from secagg.wire.messages import UPLOAD_SLOTS, MaskedChunk
from tests.support.fleet import make_setup
from tests.support.messages import changed

SETUP = make_setup(20, dim=70)  # 3 chunks of 32, 32 and 6 values
NODES = SETUP.cohort
TURN = SETUP.phase_timeout


def vector_of(node: str, setup: RoundSetup = SETUP) -> RingVector:
    rng = np.random.default_rng(NODES.index(node))
    return rng.integers(0, 1 << setup.ring_bits, setup.dim, dtype=np.uint32)


def chunks_of(node: str, setup: RoundSetup = SETUP) -> list[MaskedChunk]:
    vector, step = vector_of(node, setup), setup.chunk_values
    return [
        MaskedChunk(7, index, b"", ring.pack(vector[start : start + step], setup.ring_bits))
        for index, start in enumerate(range(0, setup.dim, step))
    ]


def with_padding_set(chunk: MaskedChunk, setup: RoundSetup = SETUP) -> MaskedChunk:
    """Return the chunk with one bit more, which the layout does not allow."""
    dim = setup.dim - chunk.index * setup.chunk_values
    for bit in reversed(range(8 * len(chunk.data))):
        data = bytearray(chunk.data)
        data[bit // 8] |= 1 << bit % 8
        if ring.unpack(bytes(data), dim, setup.ring_bits) is None:
            return changed(chunk, data=bytes(data))  # type: ignore[return-value]
    raise AssertionError("the chunk has no padding")


def buffered(uploads: Uploads) -> int:
    """Return the bytes of vector data that are held besides the sum."""
    return sum(len(data) for chunks in uploads._chunks.values() for data in chunks)


def started(*nodes: str, now: float = 0.0) -> Uploads:
    uploads = Uploads(SETUP)
    uploads.expect(nodes)
    uploads.grant(now)
    return uploads


def send(uploads: Uploads, node: str, chunks: list[MaskedChunk]) -> bool:
    complete = False
    for chunk in chunks:
        uploads.check_turn(node, chunk)
        complete = uploads.take(node, chunk)
    return complete


# --- turns ---------------------------------------------------------------------------------------


@pytest.mark.req("M-22")
def test_as_many_turns_as_slots_in_order_of_the_queue() -> None:
    uploads = Uploads(SETUP)
    uploads.expect(NODES)
    assert uploads.grant(0.0) == list(NODES[:UPLOAD_SLOTS])
    assert uploads.grant(0.0) == []
    assert send(uploads, NODES[3], chunks_of(NODES[3]))
    assert uploads.grant(1.0) == [NODES[UPLOAD_SLOTS]]


def test_there_are_eight_slots() -> None:
    assert UPLOAD_SLOTS == 8


@pytest.mark.req("M-22")
def test_a_chunk_outside_of_a_turn_is_refused_and_not_kept() -> None:
    uploads = started(*NODES)
    waiting, done, stranger = NODES[-1], NODES[0], "stranger"
    send(uploads, done, chunks_of(done))
    for node in (waiting, done, stranger):
        with pytest.raises(RemoteProtocolError, match="before its turn") as caught:
            uploads.check_turn(node, chunks_of(NODES[0])[0])
        assert caught.value.peer == node
    assert buffered(uploads) == 0


@pytest.mark.req("M-15")
def test_each_turn_has_its_own_deadline() -> None:
    uploads = started(*NODES, now=100.0)
    assert uploads.deadline == 100.0 + TURN
    send(uploads, NODES[0], chunks_of(NODES[0]))
    assert uploads.grant(110.0) == [NODES[8]]
    assert uploads.deadline == 100.0 + TURN  # seven of the first turns are still open
    assert uploads.expire(100.0 + TURN) == NODES[1:8]
    assert uploads.deadline == 110.0 + TURN
    assert uploads.grant(131.0) == list(NODES[9:16])
    assert uploads.expire(110.0 + TURN) == (NODES[8],)
    assert uploads.expire(131.0 + TURN) == NODES[9:16]
    assert uploads.deadline is None


@pytest.mark.req("M-15")
def test_a_timeout_that_comes_early_ends_the_oldest_turns_only() -> None:
    uploads = started(*NODES[:9], now=0.0)
    send(uploads, NODES[0], chunks_of(NODES[0]))
    uploads.grant(5.0)
    assert uploads.expire(6.0) == NODES[1:8]
    assert uploads.expire(6.0) == (NODES[8],)
    assert uploads.expire(6.0) == ()


@pytest.mark.req("M-22")
@pytest.mark.parametrize("how", ["forgotten", "late"])
def test_a_slot_that_gets_free_goes_to_the_next_in_line(how: str) -> None:
    uploads = started(*NODES)
    uploads.take(NODES[2], chunks_of(NODES[2])[0])
    if how == "forgotten":
        uploads.forget(NODES[2])
        freed = 1
    else:
        freed = len(uploads.expire(TURN))
        assert freed == UPLOAD_SLOTS
    assert buffered(uploads) == 0
    assert uploads.grant(TURN) == list(NODES[8 : 8 + freed])
    with pytest.raises(RemoteProtocolError, match="turn"):
        uploads.check_turn(NODES[2], chunks_of(NODES[2])[1])


def test_a_node_that_is_forgotten_in_the_queue_gets_no_turn() -> None:
    uploads = started(*NODES)
    uploads.forget(NODES[8])
    uploads.forget(NODES[0])
    assert uploads.grant(0.0) == [NODES[9]]
    uploads.forget("stranger")


# --- chunks --------------------------------------------------------------------------------------


@pytest.mark.req("M-16")
def test_a_whole_upload_enters_the_sum() -> None:
    uploads = started(*NODES)
    for node in NODES[:3]:
        chunks = chunks_of(node)
        assert [uploads.take(node, chunk) for chunk in chunks] == [False, False, True]
    expected = sum(vector_of(node).astype(np.uint64) for node in NODES[:3])
    top = 1 << SETUP.ring_bits
    assert np.array_equal(uploads.total % top, expected % top)
    assert uploads.total.dtype == np.uint32


@pytest.mark.req("M-16")
@pytest.mark.parametrize("given", [0, 1, 2])
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda chunk: changed(chunk, index=chunk.index + 1), "was due"),
        (lambda chunk: changed(chunk, index=2**20), "was due"),
        (lambda chunk: changed(chunk, data=chunk.data[:-1]), "bytes"),
        (lambda chunk: changed(chunk, data=chunk.data + b"\0"), "bytes"),
        (lambda chunk: changed(chunk, data=b""), "bytes"),
    ],
    ids=["early", "far", "short", "long", "empty"],
)
def test_a_bad_chunk_leaves_nothing_in_the_sum(spoil, match: str, given: int) -> None:  # type: ignore[no-untyped-def]
    uploads, chunks = started(*NODES), chunks_of(NODES[1])
    send(uploads, NODES[0], chunks_of(NODES[0]))
    before = uploads.total.copy()
    send(uploads, NODES[1], chunks[:given])
    with pytest.raises(BadUpload, match=match):
        uploads.take(NODES[1], spoil(chunks[given]))
    uploads.forget(NODES[1])  # as the coordinator does
    assert np.array_equal(uploads.total, before)
    assert buffered(uploads) == 0


@pytest.mark.req("M-16")
def test_padding_bits_cost_the_whole_upload() -> None:
    """Also the chunks before, which were right."""
    uploads, chunks = started(*NODES), chunks_of(NODES[1])
    send(uploads, NODES[1], chunks[:2])
    with pytest.raises(BadUpload, match="padding"):
        uploads.take(NODES[1], with_padding_set(chunks[2]))
    assert not uploads.total.any()


@pytest.mark.req("M-16")
@pytest.mark.req("M-21")
def test_a_chunk_that_was_received_changes_nothing() -> None:
    uploads, chunks = started(*NODES), chunks_of(NODES[0])
    for index, chunk in enumerate(chunks[:2]):
        assert uploads.check_turn(NODES[0], chunk) == index
        uploads.take(NODES[0], chunk)
        for earlier in chunks[: index + 1]:
            with pytest.raises(ReplayError, match="second time"):
                uploads.check_turn(NODES[0], earlier)
    assert uploads.take(NODES[0], chunks[2])
    assert np.array_equal(uploads.total, vector_of(NODES[0]))


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.req("M-22")
def test_what_is_held_is_bounded_by_the_slots_and_not_by_the_cohort() -> None:
    """The worst schedule: everybody tries to send all but the last chunk as soon as it may."""
    setup = make_setup(60, dim=70)
    chunks = [MaskedChunk(7, 0, b"", ring.pack(np.ones(32, np.uint32), setup.ring_bits))]
    chunks += [changed(chunks[0], index=1)]  # type: ignore[list-item]
    whole = len(chunks[0].data) * 2
    uploads = Uploads(setup)
    uploads.expect(setup.cohort)
    uploads.grant(0.0)
    most = 0
    for turn in range(20):
        for node in setup.cohort:
            for chunk in chunks:
                try:
                    uploads.check_turn(node, chunk)
                except RemoteProtocolError:
                    continue
                uploads.take(node, chunk)
        most = max(most, buffered(uploads))
        assert len(uploads._chunks) <= UPLOAD_SLOTS
        uploads.expire((turn + 1) * TURN)
        uploads.grant((turn + 1) * TURN)
    assert most == UPLOAD_SLOTS * whole
    assert buffered(uploads) == 0


@pytest.mark.req("M-22")
def test_a_complete_upload_is_folded_and_not_kept() -> None:
    uploads, chunks = started(*NODES), chunks_of(NODES[0])
    send(uploads, NODES[0], chunks[:2])
    assert buffered(uploads) == len(chunks[0].data) + len(chunks[1].data)
    uploads.take(NODES[0], chunks[2])
    assert buffered(uploads) == 0
    assert NODES[0] not in uploads._chunks
