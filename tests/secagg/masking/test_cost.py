"""The figures of specs/30-masking.md section 7, from encoded messages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from secagg.schemes import SCHEMES
from secagg.wire.codec import encode
from secagg.wire.messages import MaskedChunk, Message
from tests.support.fleet import COORDINATOR, Fleet, make_setup

SPEC = Path(__file__).parents[3] / "specs" / "30-masking.md"
ROW = re.compile(r"^\| (\d+) \| ([\d ]+) \| ([\d ]+) \| ([\d ]+) \| ([\d ]+) \|$", re.MULTILINE)


def figures() -> list[tuple[int, ...]]:
    """Return (nodes, coordinates, vector, rest of the upload, download) in bytes, from the spec."""
    rows = ROW.findall(SPEC.read_text(encoding="utf-8"))
    return [tuple(int(cell.replace(" ", "")) for cell in row) for row in rows]


def test_there_are_figures() -> None:
    assert len(figures()) == 3


@pytest.mark.parametrize("row", figures(), ids=lambda row: f"n={row[0]}")
def test_the_figures_are_the_code(row: tuple[int, ...]) -> None:
    n, dim, vector, rest, download = row
    fleet = Fleet(SCHEMES["masking"], make_setup(n, dim=dim, chunk_values=32_768))
    sent: Counter[str] = Counter()

    def count(sender: str, receiver: str, message: Message) -> list[Message]:
        size = len(encode(message))
        if sender == fleet.setup.cohort[0]:
            sent["vector" if isinstance(message, MaskedChunk) else "rest"] += size
        elif receiver == fleet.setup.cohort[0] and sender == COORDINATOR:
            sent["download"] += size
        return [message]

    outcome = fleet.play(count)
    assert outcome.total is not None
    measured = (sent["vector"], sent["rest"], sent["download"])
    for stated, found in zip((vector, rest, download), measured, strict=True):
        assert abs(found - stated) <= 0.01 * stated, measured
