from __future__ import annotations

from typing import Final

import pytest

from nodes.attacks.catalogue import ATTACKS
from nodes.attacks.node_stage import Federation, make_setup
from nodes.attacks.report import NOTHING, Attack
from nodes.attacks.target_stage import TargetMove, TargetRound
from secagg.masking import masks

N, DIM = 7, 64
NOISE: Final = "the sum is noise"
CRASH: Final = "the server crashes: ValueError"
EVIL, VICTIM = "node-2", "node-1"
ROWS: Final = [each for each in ATTACKS.values() if each.attacker in ("node", "network")]

# name -> (gained elsewhere, outcome, part of the reason, blamed)
EXPECTED: Final[dict[str, tuple[str, str, str, tuple[str, ...]]]] = {
    "wrong-shares": (NOISE, "exact sum over 7 nodes", "wrong shares", (EVIL,)),
    "wrong-backup": (NOISE, "abort: bad_shares", "its backup does not hold", (EVIL,)),
    "dealer-lies": (NOISE, "abort: bad_shares", "", ()),
    "box-that-does-not-open": (
        "node-0 crashes: AuthenticationError",
        "exact sum over 7 nodes",
        "its sealed shares do not open",
        (f"{EVIL} (in doubt)",),
    ),
    "unasked-shares": (NOTHING, "exact sum over 7 nodes", "nobody asked for", (EVIL,)),
    # The victim cannot tell a wrong capsule from one that the coordinator altered.
    "wrong-capsule": (NOISE, "exact sum over 6 nodes", "the key of node-2", ("coordinator",)),
    "unsigned-advert": (NOISE, "exact sum over 6 nodes", "does not verify", (EVIL,)),
    "withheld-coin": (NOTHING, "exact sum over 15 nodes", "", ()),
    "submits-twice": (
        "its input counts twice",
        "exact sum over 7 nodes",
        "ReplayError: a second MaskedChunk",
        (EVIL,),
    ),
    "out-of-turn-upload": (NOTHING, "exact sum over 10 nodes", "before its turn", ("node-9",)),
    "garbage-chunks": (CRASH, "exact sum over 6 nodes", "chunk 0 has 37 bytes", (EVIL,)),
    "garbage-padding": (CRASH, "exact sum over 6 nodes", "padding bits set", (EVIL,)),
    "forged-co-signature": (NOTHING, "exact sum over 7 nodes", "does not verify", (EVIL,)),
    "truncated-frames": (CRASH, "exact sum over 6 nodes", "AuthenticationError", (VICTIM,)),
    "corrupted-frames": (
        "the sum is wrong (98%",
        "exact sum over 6 nodes",
        "AuthenticationError",
        (VICTIM,),
    ),
    "reordered-chunks": (NOISE, "exact sum over 6 nodes", "does not verify", (VICTIM,)),
    "oversize-frame": (CRASH, "exact sum over 6 nodes", "DecodeError", (VICTIM,)),
    "replayed-envelope": (
        NOISE,
        "exact sum over 7 nodes",
        "ReplayError",
        ("coordinator", VICTIM),
    ),
    "impersonation": (
        "the sum is off by just what the attacker chose",
        "exact sum over 7 nodes",
        "AuthenticationError",
        (VICTIM,),
    ),
}


def test_every_attack_has_its_expected_end() -> None:
    names = [attack.name for attack in ROWS]
    assert sorted(names) == sorted(EXPECTED)
    assert all(attack.summary.endswith(".") and attack.rules for attack in ROWS)


@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("attack", ROWS, ids=lambda attack: attack.name)
def test_attack_gains_nothing(attack: Attack) -> None:
    elsewhere, outcome, reason, blamed = EXPECTED[attack.name]
    played = attack.play(N, DIM, 1)
    assert played.failed
    assert played.here == NOTHING
    assert played.elsewhere.startswith(elsewhere)
    assert played.outcome.startswith(outcome)
    assert reason in played.outcome
    assert played.blamed == blamed


@pytest.mark.parametrize("attack", ROWS, ids=lambda attack: attack.name)
@pytest.mark.parametrize(("n", "dim"), [(5, 1), (12, 100)])
def test_attack_gains_nothing_at_other_sizes(attack: Attack, n: int, dim: int) -> None:
    played = attack.play(n, dim, 2)
    assert played.failed


def test_honest_rounds_are_exact_here_and_there() -> None:
    setup, parties = make_setup(N, DIM)
    elsewhere = TargetRound(setup, seed=3, attacked=EVIL).play(TargetMove())
    played = Federation(setup, parties, seed=3).play(elsewhere)
    assert (played.elsewhere, played.outcome, played.blamed) == (
        NOTHING,
        "exact sum over 7 nodes",
        (),
    )


def test_an_input_in_the_clear_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "apply_masks", lambda *_: None)  # of nodes only
    setup, parties = make_setup(N, DIM)
    stage = Federation(setup, parties, seed=4, tap=lambda stage, message, frame: [frame])
    played = stage.play(NOTHING)
    assert played.revealed
    assert not played.failed
    assert played.here == "input of node-0 recovered"
