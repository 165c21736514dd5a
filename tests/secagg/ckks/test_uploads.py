"""Uploads: in turn, in order, of exact sizes, below q; all of one enters the sum, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from secagg.ckks import rlwe
from secagg.ckks.ring import packed_size
from secagg.ckks.sealing import BOX_OVERHEAD
from secagg.ckks.uploads import Layout, Uploads
from secagg.errors import RemoteProtocolError, ReplayError
from secagg.relay import MemorySpool
from secagg.types import NodeId
from secagg.uploads import BadUpload
from secagg.wire.messages import MAX_CHUNK, UPLOAD_SLOTS, CipherChunk, SealedSecret
from tests.support.ckks import ckks_setup, ring_in, terms_in
from tests.support.scripts import snapshot

SETUP = ckks_setup(4, dim=3 * 4096 - 5)
"""Three blocks, one in a chunk."""
RING, TERMS = ring_in(SETUP), terms_in(SETUP)
LAYOUT = Layout.of(SETUP, RING)
COHORT = SETUP.cohort
BOX = BOX_OVERHEAD + TERMS.share_bytes


class Spool(MemorySpool):
    """A spool whose content a test can count."""

    def size(self) -> int:
        return sum(map(len, self._parts))


def taking(weights: dict[NodeId, int] | None = None) -> Uploads:
    uploads = Uploads(SETUP, RING, Spool())
    uploads.expect(weights or dict.fromkeys(COHORT, 1), COHORT)
    uploads.grant(0.0)
    return uploads


def residues(seed: int) -> rlwe.Residues:
    rng = np.random.default_rng(seed)
    return rng.integers(0, RING.modulus, (3, RING.degree), dtype=np.uint64)


def boxes_of(node: NodeId, size: int = BOX) -> tuple[bytes, ...]:
    others = [member for member in COHORT if member != node]
    return tuple(f"{node}>{member}".encode().ljust(size, b".") for member in others)


def sealed(node: NodeId, start: int = 0, boxes: tuple[bytes, ...] | None = None) -> SealedSecret:
    return SealedSecret(7, start, boxes_of(node) if boxes is None else boxes)


def chunk(values: rlwe.Residues, index: int) -> CipherChunk:
    return CipherChunk(7, index, rlwe.pack(values[index : index + 1], RING))


def upload(node: NodeId, values: rlwe.Residues) -> Iterator[SealedSecret | CipherChunk]:
    yield sealed(node)
    for index in range(3):
        yield chunk(values, index)


def give(uploads: Uploads, node: NodeId, values: rlwe.Residues) -> list[bool]:
    return [uploads.take(node, message) for message in upload(node, values)]


@pytest.mark.req("H-08")
def test_a_layout_covers_every_block_once() -> None:
    for dim, chunk_values, value_bits in (
        (1, 8, 16),
        (4096, 8, 16),
        (4097, 8192, 16),
        (50_000, 65_536, 16),
        (50_000, 12_288, 24),
    ):
        setup = ckks_setup(5, dim=dim, chunk_values=chunk_values, value_bits=value_bits)
        layout = Layout.of(setup, ring_in(setup))
        blocks = [block for index in range(layout.chunks) for block in layout.chunk(index)]
        assert blocks == list(range(layout.blocks))
        assert len(layout.chunk(layout.chunks)) == 0
        assert packed_size(layout.blocks_in_chunk, ring_in(setup)) <= MAX_CHUNK
        assert layout.boxes_in_batch * (BOX_OVERHEAD + layout.share_bytes) <= MAX_CHUNK


@pytest.mark.req("H-01")
def test_the_weighted_sum_is_exact() -> None:
    weights = dict(zip(COHORT, (1, 4, 2, 3), strict=True))
    uploads = taking(weights)
    expected = np.zeros((3, RING.degree), dtype=object)
    for seed, node in enumerate(COHORT):
        values = residues(seed)
        assert give(uploads, node, values) == [False, False, False, True]
        expected += weights[node] * values.astype(object)
    assert (uploads.total == (expected % RING.modulus).astype(np.uint64)).all()


@pytest.mark.req("H-05")
def test_each_member_gets_what_was_sealed_for_it() -> None:
    uploads = taking()
    for seed, node in enumerate(COHORT):
        give(uploads, node, residues(seed))
    for dealer in COHORT:
        for member in COHORT:
            if dealer != member:
                assert uploads.box(dealer, member).rstrip(b".").decode() == f"{dealer}>{member}"


@pytest.mark.req("H-08")
def test_nobody_uploads_before_its_turn_or_after() -> None:
    uploads = Uploads(SETUP, RING, MemorySpool())
    uploads.expect(dict.fromkeys(COHORT[:2], 1), COHORT)
    before = snapshot(uploads)
    with pytest.raises(RemoteProtocolError, match="turn"):
        uploads.take(COHORT[0], sealed(COHORT[0]))
    assert snapshot(uploads) == before
    uploads.grant(0.0)
    for node in (COHORT[2], "stranger"):
        with pytest.raises(RemoteProtocolError, match="turn"):
            uploads.take(node, sealed(COHORT[0]))
    give(uploads, COHORT[0], residues(1))
    with pytest.raises(RemoteProtocolError, match="turn"):
        uploads.take(COHORT[0], sealed(COHORT[0]))


@pytest.mark.req("H-08")
@pytest.mark.parametrize(
    ("done", "bad"),
    [
        (0, chunk(residues(1), 0)),  # before its boxes
        (0, sealed(COHORT[0], 1, boxes_of(COHORT[0])[1:])),
        (0, sealed(COHORT[0], 0, boxes_of(COHORT[0])[:2])),
        (0, sealed(COHORT[0], 0, ())),
        (0, sealed(COHORT[0], 0, (*boxes_of(COHORT[0]), bytes(BOX)))),
        (0, sealed(COHORT[0], 0, boxes_of(COHORT[0], BOX - 1))),
        (0, sealed(COHORT[0], 0, boxes_of(COHORT[0], BOX + 1))),
        (1, chunk(residues(1), 1)),
        (2, chunk(residues(1), 2)),
        (1, CipherChunk(7, 0, rlwe.pack(residues(1)[:1], RING)[:-1])),
        (1, CipherChunk(7, 0, rlwe.pack(residues(1)[:1], RING) + b"\0")),
        (1, CipherChunk(7, 0, rlwe.pack(residues(1)[:2], RING))),
        (2, sealed(COHORT[0], 3, ())),
    ],
)
def test_a_part_out_of_order_or_of_another_size_costs_the_turn(
    done: int, bad: SealedSecret | CipherChunk
) -> None:
    uploads, node = taking(), COHORT[0]
    for message in [*upload(node, residues(1))][:done]:
        uploads.take(node, message)
    with pytest.raises(BadUpload):
        uploads.take(node, bad)
    assert not uploads.total.any()


@pytest.mark.req("H-08")
@pytest.mark.req("H-17")
@pytest.mark.parametrize(("done", "again"), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2)])
def test_a_part_given_twice_changes_nothing(done: int, again: int) -> None:
    uploads, node = taking(), COHORT[0]
    parts = [*upload(node, residues(1))]
    for message in parts[:done]:
        uploads.take(node, message)
    before = snapshot(uploads)
    with pytest.raises(ReplayError) as caught:
        uploads.take(node, parts[again])
    assert caught.value.peer == node
    assert snapshot(uploads) == before
    assert [uploads.take(node, message) for message in parts[done:]][-1]


@pytest.mark.req("H-08")
@pytest.mark.parametrize("block", [0, 1, 2])
def test_residues_beyond_the_modulus_leave_the_sum_as_it_was(block: int) -> None:
    uploads = taking()
    give(uploads, COHORT[1], residues(2))
    before = uploads.total.copy()
    values = residues(1)
    values[block, -1] = RING.modulus
    assert int(values.max()) < 1 << RING.residue_bits
    with pytest.raises(BadUpload, match="modulus"):
        give(uploads, COHORT[0], values)
    assert (uploads.total == before).all()


@pytest.mark.req("H-08")
def test_an_upload_that_stops_midway_leaves_the_sum_as_it_was() -> None:
    uploads = taking()
    for message in [*upload(COHORT[0], residues(1))][:-1]:
        uploads.take(COHORT[0], message)
    assert not uploads.total.any()
    assert uploads.expire(SETUP.phase_timeout) == COHORT
    assert not uploads.total.any()
    assert not uploads._open
    with pytest.raises(RemoteProtocolError, match="turn"):
        uploads.take(COHORT[0], chunk(residues(1), 2))


@pytest.mark.req("H-08")
def test_boxes_come_in_batches_of_what_fits() -> None:
    setup = ckks_setup(300, dim=10, committee={"size": 300, "pack": 4})
    ring, layout = ring_in(setup), Layout.of(setup, ring_in(setup))
    assert layout.boxes_in_batch < 299
    uploads, dealer = Uploads(setup, ring, MemorySpool()), setup.cohort[0]
    uploads.expect({dealer: 1}, setup.cohort)
    uploads.grant(0.0)
    size = BOX_OVERHEAD + layout.share_bytes
    boxes = [index.to_bytes(2, "big").ljust(size) for index in range(299)]
    with pytest.raises(BadUpload):
        uploads.take(dealer, SealedSecret(7, 0, tuple(boxes)))
    for start in range(0, 299, layout.boxes_in_batch):
        batch = boxes[start : start + layout.boxes_in_batch]
        uploads.take(dealer, SealedSecret(7, start, tuple(batch)))
    zeros = np.zeros((1, ring.degree), dtype=np.uint64)
    assert uploads.take(dealer, CipherChunk(7, 0, rlwe.pack(zeros, ring)))
    for index, member in enumerate(setup.cohort[1:]):
        assert uploads.box(dealer, member)[:2] == index.to_bytes(2, "big")


@pytest.mark.req("H-18")
def test_what_is_held_does_not_grow_with_the_cohort() -> None:
    """Only open turns hold ciphertexts; boxes are in the spool and nowhere else."""
    n = 3 * UPLOAD_SLOTS
    setup = ckks_setup(n, dim=40, committee={"size": 4, "threshold": 1, "pack": 1})
    ring, spool = ring_in(setup), Spool()
    uploads = Uploads(setup, ring, spool)
    uploads.expect(dict.fromkeys(setup.cohort, 1), setup.cohort[:4])
    packed = rlwe.pack(np.ones((1, ring.degree), dtype=np.uint64), ring)
    size = BOX_OVERHEAD + terms_in(setup).share_bytes
    opened: list[NodeId] = []
    most = 0
    while opened or not uploads.total.any():
        for node in uploads.grant(0.0):
            n_boxes = 4 - (node in setup.cohort[:4])
            uploads.take(node, SealedSecret(7, 0, (bytes(size),) * n_boxes))
            opened.append(node)
        most = max(most, len(uploads._open))
        assert uploads.take(opened.pop(0), CipherChunk(7, 0, packed))
    assert most == UPLOAD_SLOTS
    assert (uploads.total == n).all()
    assert not uploads._open
    assert spool.size() == size * (4 * n - 4)
    state = {name: value for name, value in vars(uploads).items() if name != "_boxes"}
    assert len(repr(state)) < 20 * len(packed)
    assert bytes(size).hex() not in repr(state)
