"""Each attack on noise gains something elsewhere, and here only with its rules switched off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pytest

from nodes import privacy_ledger
from nodes.attacks import noise_attacks as played_here
from nodes.attacks.catalogue import CATALOGUES
from nodes.attacks.noise_attacks import noise_attacks
from nodes.attacks.noise_stage import NoiseStage, missing_noise
from nodes.attacks.report import NOTHING, Played
from nodes.session import policy
from nodes.session.guard import Guard
from secagg.ckks.client import CkksClient
from secagg.dp.levels import level_for
from secagg.masking.client import MaskingClient
from secagg.phases import PhasedClient
from secagg.round_setup import RoundSetup
from secagg.steps import Outgoing, Step
from secagg.wire.messages import ExcessRequest, ExcessSeeds

SCHEMES: Final = ("masking", "ckks")
NAMES: Final = tuple(each.name for each in noise_attacks("masking"))
ENDS: Final = {
    "fewer-dropouts": "7 contributors, where 6 are co-signed",
    "seeds-twice": "ExcessRequest while over",
    "seeds-for-another-view": "3 co-signatures, 5 needed",
    "weaker-noise": "OfferRefused: budget_spent: policy.epsilon = 40",
    "beyond-budget": "OfferRefused: budget_spent: policy.epsilon = 40",
    "older-ledger": "OfferRefused: budget_spent: this node's privacy ledger cannot be used",
    "older-ledger-and-head": "has 1 entries, but a receipt signed by this node saw 2 entries",
    "intersection": "OfferRefused: cohort_too_similar: policy.min_difference = 2",
    "intersection-under-noise": "whose difference has the noise of both",
}
ELSEWHERE: Final = {
    "fewer-dropouts": "80% of the noise that the sum over 4 honest nodes is due",
    "seeds-twice": "80% of the noise that the sum over 4 honest nodes is due",
    "seeds-for-another-view": "95% of the noise that the sum over 4 honest nodes is due",
    "weaker-noise": "1 rounds of epsilon above all bounds together, where 40 is allowed",
    "beyond-budget": "5 rounds of epsilon above all bounds together, where 40 is allowed",
    "older-ledger": "4 rounds of epsilon above all bounds together, where 40 is allowed",
    "older-ledger-and-head": "4 rounds of epsilon above all bounds together, where 40 is allowed",
    "intersection": "input of node-00 recovered, max error 0",
    "intersection-under-noise": "input of node-00 recovered, max error 0",
}
UNBLAMED: Final = ("older-ledger", "older-ledger-and-head", "intersection-under-noise")
"""A ledger that was set back is nobody's proven fault, and two cohorts are none at all."""


def play(name: str, scheme: str, n: int = 7) -> Played:
    return CATALOGUES[scheme][name].play(n, 64, 1)


@pytest.mark.req("A-01", "A-02", "X-05", "X-06", "X-07", "B-07", "G-05", "G-07", "T-08")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_it_gains_nothing_here_and_what_it_gains_elsewhere_is_real(name: str, scheme: str) -> None:
    played = play(name, scheme)
    assert played.failed
    assert not played.revealed
    assert ENDS[name] in played.outcome
    assert "/" not in played.outcome, "no place on this machine"
    assert played.elsewhere == ELSEWHERE[name]
    assert played.blamed == (() if name in UNBLAMED else ("coordinator",))


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_also_with_other_numbers_of_nodes(name: str, scheme: str, n: int) -> None:
    assert play(name, scheme, n).failed
    assert play(name, scheme, n).elsewhere != NOTHING


# --- the rows can fail ---------------------------------------------------------------------------


def _keeps_all(self: PhasedClient, contributors: int) -> None:
    """X-05 off: seeds of components that are needed are kept as well."""
    seeds = self._excess
    self._end()
    self._phase = self._ANSWERED
    self._excess, self._contributors = seeds, contributors


def _believes(self: PhasedClient, message: ExcessRequest, now: float) -> Step:
    """X-05 off: the coordinator's word for the number of dropouts is taken, once."""
    step = _believes_always(self, message, now)
    self._end()
    return step


def _believes_always(self: PhasedClient, message: ExcessRequest, now: float) -> Step:
    """X-07 off as well: as often as it likes."""
    dropouts = len(self._setup.cohort) - message.contributors
    level = level_for(dropouts, self._setup.noise_levels)
    seeds = self._excess[level:] if level else self._excess
    return Step((Outgoing(self._coordinator, ExcessSeeds(self._setup.round_id, seeds)),))


def _answers(answer: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def switch(patch: pytest.MonkeyPatch) -> None:
        for kind in (MaskingClient, CkksClient):
            table: dict[Any, Any] = dict(vars(kind)["_ACCEPTS"])
            changed = {
                key: answer if key[1] is ExcessRequest else handler
                for key, handler in table.items()
            }
            assert changed != table
            patch.setattr(kind, "_ACCEPTS", changed)

    return switch


def _settles(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PhasedClient, "_settle", _keeps_all)


def _counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RoundSetup, "cosigners", property(lambda self: 2))


def _budget(patch: pytest.MonkeyPatch) -> None:
    reason, _ = policy._RULES["epsilon"]
    patch.setitem(policy._RULES, "epsilon", (reason, lambda case: ""))


def _head(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(privacy_ledger, "_check_head", lambda *_: None)


def _receipts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guard, "set_back", lambda *_: "")


def _similar(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "_closeness", lambda *_: "")


def _no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(played_here, "draw_noise", lambda _, dim, *__: np.zeros(dim, dtype=np.int64))


Off = Callable[[pytest.MonkeyPatch], None]
LOCKS: Final[Mapping[str, tuple[Off, ...]]] = {
    "fewer-dropouts": (_settles, _answers(_believes)),
    "seeds-twice": (_settles, _answers(_believes_always)),
    "seeds-for-another-view": (_counts,),
    "weaker-noise": (_budget,),
    "beyond-budget": (_budget,),
    "older-ledger": (_head,),
    "older-ledger-and-head": (_receipts,),
    "intersection": (_similar,),
    "intersection-under-noise": (_no_noise,),
}
"""Attack to what has to be switched off for it to work."""
NOT_ENOUGH: Final[Mapping[str, tuple[tuple[Off, ...], ...]]] = {
    "fewer-dropouts": ((_settles,), (_answers(_believes),)),  # it counts, and it has forgotten
    "seeds-twice": ((_answers(_believes_always),), (_settles, _answers(_believes))),
}
"""Attack to what may be switched off without a gain: another part of the rule is behind it."""
REVEALED: Final = ("intersection", "intersection-under-noise")
"""What is gained is an input; by the others less noise, or more rounds, than is allowed."""


@pytest.mark.req("A-03")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NAMES)
def test_without_its_rules_the_attack_works(
    name: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in LOCKS[name]:
        rule(monkeypatch)
    played = play(name, scheme)
    assert not played.failed
    assert played.here != NOTHING
    if (name, scheme) == ("seeds-for-another-view", "ckks"):
        assert "input of node-01 recovered" in played.here  # two views open more than seeds do
        return
    assert played.revealed == (name in REVEALED)
    assert played.here.split(" of ")[-1] == ELSEWHERE[name].split(" of ")[-1]


@pytest.mark.req("A-03")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("name", "rules"), [(name, off) for name, cases in NOT_ENOUGH.items() for off in cases]
)
def test_behind_some_rules_stands_another(
    name: str, rules: tuple[Off, ...], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in rules:
        rule(monkeypatch)
    assert play(name, scheme).failed


def test_every_attack_has_its_end_and_its_lock() -> None:
    assert set(NAMES) == set(ENDS) == set(ELSEWHERE) == set(LOCKS)
    for scheme in SCHEMES:
        assert {each.name for each in noise_attacks(scheme)} <= set(CATALOGUES[scheme])


@pytest.mark.req("A-02", "X-05")
def test_seeds_that_are_due_are_no_gain_and_one_more_is() -> None:
    stage = NoiseStage("masking", 7, 16, 1)
    parts, honest = stage.components, stage.honest(stage.puppet.nodes)
    assert missing_noise(parts, honest, {}) == ""
    assert missing_noise(parts, honest, dict.fromkeys(honest, 2)) == "", "nobody is missing"
    fewer = honest[1:]
    assert missing_noise(parts, fewer, dict.fromkeys(fewer, 1)) == ""
    assert missing_noise(parts, fewer, {**dict.fromkeys(fewer, 1), fewer[0]: 2}) != ""
