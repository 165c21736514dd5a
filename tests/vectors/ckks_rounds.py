"""Rounds of ckks that end with a sum, or with too few nodes."""

from __future__ import annotations

from typing import Any

from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    SealedSecret,
    SumShare,
    SurvivorSignature,
)
from tests.vectors.ckks_cast import FIVE, OUTSIDER, THREE, WEIGHTED, ckks_casts
from tests.vectors.rounds import Case
from tests.vectors.stage import Silence

__all__ = ["WITHOUT_E", "ckks_rounds"]

WITHOUT_E = (2, 2, 2, 2, 0)
"""Weights that are even over four of five nodes, with two that collude."""

A, B, C, D, E = (f"node-{letter}" for letter in "abcde")


def ckks_rounds() -> list[Case]:
    """Return every case."""
    return [*_bases(), *_dropouts(), *_too_few()]


def _everybody(base: str, *but: str) -> dict[str, Any]:
    return {"sum": [node for node in ckks_casts()[base].cohort if node not in but]}


def _bases() -> list[Case]:
    def case(base: str, about: str, *rules: str) -> Case:
        return Case(base, base, about, rules, _everybody(base), to_the_end=True)

    return [
        case(THREE, "three nodes, all in the committee, one value in a polynomial of shares",
             "H-01", "H-03", "H-04", "H-05", "H-08", "H-10", "H-12"),
        case(FIVE, "five nodes, four values in a coefficient, two coefficients in a polynomial",
             "H-01", "H-13"),
        case(OUTSIDER, "node-b is not in the committee: its part ends with its co-signature. A "
             "committee so small is refused in a real offer (R-06)", "H-01", "H-03"),
        case(WEIGHTED, "the coordinator weighs, by 2, 1, 2, 1 and 1", "H-01", "H-11", "H-16"),
        Case("ckks-5-weighted-zero", WEIGHTED, "node-e has the weight 0: it does not upload, and "
             "opens with the others", ("H-01", "H-11", "H-12"), _everybody(WEIGHTED, E),
             to_the_end=True, weights=WITHOUT_E),
    ]  # fmt: skip


def _dropouts() -> list[Case]:
    def case(base: str, suffix: str, about: str, silent: Silence, *but: str) -> Case:
        name, expect = f"{base}-dropout-{suffix}", _everybody(base, *but)
        rules = ("H-01", "H-15")
        return Case(name, base, about, rules, expect, silent=silent, to_the_end=True)

    return [
        case(FIVE, "keys", "node-c never announces its keys", {C: (Announcement, 0)}, C),
        case(FIVE, "input", "node-c seals its shares and sends no ciphertext",
             {C: (CipherChunk, 0)}, C),
        case(FIVE, "signatures", "node-a does not co-sign", {A: (SurvivorSignature, 0)}),
        case(FIVE, "opening", "node-b and node-e do not answer",
             {B: (SumShare, 0), E: (SumShare, 0)}),
        case(OUTSIDER, "keys", "node-b, which is not in the committee, never announces its keys",
             {B: (Announcement, 0)}, B),
        case(OUTSIDER, "input", "node-b goes before it uploads", {B: (SealedSecret, 0)}, B),
    ]  # fmt: skip


def _too_few() -> list[Case]:
    def case(base: str, reason: str, about: str, silent: Silence) -> Case:
        name = f"{base}-{reason.replace('_', '-')}"
        expect = {"failed": reason}
        return Case(name, base, about, ("H-15",), expect, silent=silent, to_the_end=True)

    return [
        case(THREE, "too_few_keys", "two nodes announce keys, three are needed",
             {C: (Announcement, 0)}),
        case(OUTSIDER, "committee_too_small", "three nodes, and two members: three have to answer",
             {C: (Announcement, 0)}),
        case(THREE, "too_few_inputs", "two nodes upload", {C: (CipherChunk, 0)}),
        case(WEIGHTED, "cohort_too_uneven", "weights 2, 1, 2 and 1 are left",
             {E: (CipherChunk, 0)}),
        case(FIVE, "too_few_signatures", "three co-sign, four are needed",
             {A: (SurvivorSignature, 0), D: (SurvivorSignature, 0)}),
        case(THREE, "too_few_answers", "one member answers, two are needed",
             {A: (SumShare, 0), B: (SumShare, 0)}),
    ]  # fmt: skip
