"""The figures of specs/30-masking.md section 7, from encoded messages."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from secagg.round_setup import RoundSetup
from secagg.schemes import SCHEMES
from secagg.types import NodeId
from secagg.wire.codec import encode
from secagg.wire.messages import MaskedChunk, Message
from tests.support.fleet import COORDINATOR, Fleet, TestSigner, make_setup
from tests.support.frames import sealed

SPEC = Path(__file__).parents[3] / "specs" / "30-masking.md"
ROW = re.compile(r"^\| (\d+) \| ([\d ]+) \| ([\d ]+) \| ([\d ]+) \| ([\d ]+) \|$", re.MULTILINE)
CHUNK = next(
    field.default for field in dataclasses.fields(RoundSetup) if field.name == "chunk_values"
)


def figures() -> list[tuple[int, ...]]:
    """Return (nodes, coordinates, vector, rest of the upload, download) in bytes, from the spec."""
    rows = ROW.findall(SPEC.read_text(encoding="utf-8"))
    return [tuple(int(cell.replace(" ", "")) for cell in row) for row in rows]


def measured(n: int, dim: int) -> tuple[int, int, int]:
    """Return what the node that sends or receives most does: vector and rest up, and down."""
    fleet = Fleet(SCHEMES["masking"], make_setup(n, dim=dim, chunk_values=CHUNK))
    sent: dict[str, Counter[NodeId]] = {kind: Counter() for kind in ("vector", "rest", "down")}

    def count(sender: str, receiver: str, message: Message) -> list[Message]:
        size = len(encode(message))
        if sender == COORDINATOR:
            sent["down"][receiver] += size
        else:
            sent["vector" if isinstance(message, MaskedChunk) else "rest"][sender] += size
        return [message]

    assert fleet.play(count).total is not None
    vector, rest, down = (max(counter.values()) for counter in sent.values())
    return vector, rest, down


def test_there_are_figures() -> None:
    assert len(figures()) == 3


@pytest.mark.parametrize("row", figures(), ids=lambda row: f"n={row[0]}")
def test_the_figures_are_the_code(row: tuple[int, ...]) -> None:
    n, dim, *stated = row
    found = measured(n, dim)
    for says, is_ in zip(stated, found, strict=True):
        assert abs(is_ - says) <= 0.01 * says, found


def test_ten_nodes_send_little_more_than_their_vectors() -> None:
    """100 000 values of 16 bits, envelopes included: the sum of ten takes 250 000 bytes."""
    setup = make_setup(10, dim=100_000, chunk_values=CHUNK)
    sent: Counter[NodeId] = Counter()

    def count(sender: str, receiver: str, message: Message) -> list[Message]:
        if sender != COORDINATOR:
            frame = sealed(message, TestSigner(sender), to=receiver, run_id=setup.run_id)
            sent[sender] += len(frame)
        return [message]

    assert Fleet(SCHEMES["masking"], setup).play(count).total is not None
    assert set(sent) == set(setup.cohort)
    assert 250_000 < max(sent.values()) <= 260_000, sent
