from __future__ import annotations

from typing import Final

import pytest

from nodes.attacks.catalogue import CKKS_ATTACKS
from nodes.attacks.ckks_node_moves import make_ckks_setup
from nodes.attacks.ckks_trusting import TRUSTING
from nodes.attacks.node_stage import Federation
from nodes.attacks.report import NOTHING, Attack
from secagg.roles import Scheme
from secagg.schemes import SCHEMES

N, DIM = 7, 64
EVIL = "node-1"
WRONG: Final = "a wrong sum was released"
ENTERED: Final = "an upload that is not in its one form entered the sum"
CRASH: Final = "coordinator crashes: ValueError"
LOST: Final = "6 honest nodes lost their place"
ROWS: Final = [each for each in CKKS_ATTACKS.values() if each.attacker == "node"]
SIX, SEVEN = "exact sum over 6 nodes", "exact sum over 7 nodes"

# name -> (gained elsewhere, outcome, part of the reason, blamed)
EXPECTED: Final[dict[str, tuple[str, str, str, tuple[str, ...]]]] = {
    "unsigned-key": (WRONG, SIX, "does not verify", (EVIL,)),
    "others-key": (NOTHING, SIX, "names another node", (EVIL,)),
    "unusable-key": (LOST, SIX, "X25519 key is not usable", (EVIL,)),
    "impossible-distance": (NOTHING, SIX, "DecodeError", (EVIL,)),
    "greatest-distance": (NOTHING, SIX, "", ()),
    "unasked-distance": ("the coordinator took a distance", SIX, "unasked", (EVIL,)),
    "malformed-ciphertext": (CRASH, SIX, "beyond the modulus", (EVIL,)),
    "short-ciphertext": (CRASH, SIX, "chunk 0 has 12031 bytes", (EVIL,)),
    "noise-ciphertext": (WRONG, "abort: sum_out_of_range", "", ()),
    "impossible-values": (WRONG, "abort: sum_out_of_range", "", ()),
    "other-shares": (WRONG, "abort: sum_out_of_range", "", ()),
    "scattered-shares": (WRONG, "abort: bad_shares", "", ()),
    "framed-member": (WRONG, SEVEN, "or was dealt not to fit", ("node-0 (in doubt)",)),
    "accused-dealer": (CRASH, SEVEN, "or node-1 says so wrongly", ("node-0 (in doubt)",)),
    "shut-box": (WRONG, SEVEN, "its share does not open", (f"{EVIL} (in doubt)",)),
    "shut-boxes": (WRONG, "abort: too_few_answers", "its share does not open", (EVIL,)),
    "boxes-left-out": (
        "an upload that is not in its one form",
        SIX,
        "5 shares in one message",
        (EVIL,),
    ),
    "ciphertext-first": (LOST, SIX, "before all of its shares", (EVIL,)),
    "reordered-chunks": (WRONG, SIX, "chunk 2 where 0 was due", (EVIL,)),
    "submits-twice": (WRONG, SEVEN, "ReplayError: a second SealedSecret", (EVIL,)),
    "out-of-turn-upload": (
        "the coordinator held 9 uploads, 8 allowed",
        "exact sum over 10 nodes",
        "before its turn",
        ("node-9",),
    ),
    "forged-co-signature": (NOTHING, SEVEN, "does not verify", (EVIL,)),
    "wrong-answer": (WRONG, SEVEN, "its answer does not fit", (f"{EVIL} (in doubt)",)),
    "silent-member": (NOTHING, SEVEN, "", ()),
    "malformed-answer": (WRONG, SEVEN, "its share of the sum is malformed", (EVIL,)),
    "accused-stranger": (CRASH, SEVEN, "names dealers that are none", (EVIL,)),
    "second-answer": (WRONG, SEVEN, "ReplayError: a second SumShare", (EVIL,)),
}
BEYOND: Final[dict[str, tuple[str, str]]] = {
    "values-over-bound": (WRONG, "wrong sum over 7 nodes"),
}
"""What is not promised: attack to what it gains here, and the outcome."""


def test_every_attack_has_its_expected_end() -> None:
    assert sorted(attack.name for attack in ROWS) == sorted({**EXPECTED, **BEYOND})
    assert all(attack.summary.endswith(".") for attack in ROWS)
    assert all(bool(attack.rules) == attack.promised for attack in ROWS)


@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_attack_gains_nothing(name: str) -> None:
    elsewhere, outcome, reason, blamed = EXPECTED[name]
    played = CKKS_ATTACKS[name].play(N, DIM, 1)
    assert played.failed
    assert played.here == NOTHING
    assert played.elsewhere.startswith(elsewhere)
    assert played.outcome.startswith(outcome)
    assert reason in played.outcome
    assert played.blamed == blamed


@pytest.mark.parametrize("attack", ROWS, ids=lambda attack: attack.name)
@pytest.mark.parametrize(("n", "dim"), [(5, 1), (12, 100)])
def test_attack_gains_as_much_at_other_sizes(attack: Attack, n: int, dim: int) -> None:
    assert attack.play(n, dim, 2).failed == attack.promised


@pytest.mark.parametrize("name", ["values-over-bound", "impossible-values", "noise-ciphertext"])
def test_attack_uploads_several_chunks_of_different_sizes(name: str) -> None:
    attack = CKKS_ATTACKS[name]
    played = attack.play(5, 33_000, 1)
    assert played.failed == attack.promised
    assert not played.blamed, "its chunks have the sizes that are due"


@pytest.mark.req("A-02")
@pytest.mark.parametrize("name", sorted(BEYOND))
def test_what_is_not_promised_is_shown(name: str) -> None:
    here, outcome = BEYOND[name]
    played = CKKS_ATTACKS[name].play(N, DIM, 1)
    assert not CKKS_ATTACKS[name].promised
    assert played.here == here
    assert played.outcome.startswith(outcome)
    assert not played.revealed


@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("scheme", [SCHEMES["ckks"], TRUSTING], ids=lambda each: each.name)
def test_honest_rounds_are_exact_here_and_there(scheme: Scheme, weighs: bool) -> None:
    setup, parties = make_ckks_setup(N, DIM, weighs=weighs)
    played = Federation(setup, parties, seed=3, scheme=scheme).play(NOTHING)
    assert (played.here, played.outcome, played.blamed) == (NOTHING, SEVEN, ())
