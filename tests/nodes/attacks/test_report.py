from __future__ import annotations

import pytest

from nodes.attacks.report import NOTHING, Played


@pytest.mark.req("A-02")
@pytest.mark.parametrize(
    ("here", "revealed", "wrong_sum", "failed"),
    [
        (NOTHING, False, False, True),
        ("input of node-0 recovered", True, False, False),
        ("a wrong sum was released", False, True, False),
        ("2 honest nodes lost their place", False, False, False),
        (NOTHING, False, True, False),
    ],
)
def test_an_attack_failed_if_it_gained_nothing_of_any_kind(
    here: str, revealed: bool, wrong_sum: bool, failed: bool
) -> None:
    played = Played(NOTHING, here, "no end", (), revealed=revealed, wrong_sum=wrong_sum)
    assert played.failed is failed
