"""An attack of a coordinator on ckks gains something elsewhere, and here with its rules off."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from nodes.answer_journal import FileJournal
from nodes.attacks import ckks_offers
from nodes.attacks.catalogue import CKKS_ATTACKS
from nodes.attacks.noise_attacks import noise_attacks
from nodes.attacks.report import NOTHING, Attack, Played
from secagg.ckks import client, member, rlwe
from secagg.ckks.client import CkksClient, Phase
from secagg.ckks.parameters import choose
from secagg.primitives.hybrid import HybridKeys
from secagg.round_setup import RoundSetup
from secagg.wire.messages import CommitteeKeys, OpenRequest, WeightedSurvivors

NOISE = {each.name for each in noise_attacks("ckks")}  # in test_noise_attacks.py
OURS = {
    name: each
    for name, each in CKKS_ATTACKS.items()
    if each.attacker.startswith("coordinator") and name not in NOISE
}
PROMISED = {name: each for name, each in OURS.items() if each.promised}
BEYOND: Final = ("restored-machine", "too-many-accomplices")
FORGED = "relayed a forged key"
UNSAFE = "OfferRefused: thresholds_unsafe"
ENDS: Final = {
    "shared-key": "one sum over 6 inputs",
    "open-one": "1 survivors, 5 needed",
    "open-few": "3 survivors, 5 needed",
    "one-hot-weights": "a weight is not 1 to 4",
    "uneven-weights": "the weights let a few nodes outweigh all others",
    "two-sets": "4 co-signatures, 5 needed",
    "two-weightings": "4 co-signatures, 5 needed",
    "forged-survivors": "showed a false co-signature",
    "repeated-co-signature": "the co-signers are not distinct nodes of the round",
    "asked-twice": "WeightedSurvivors while over",
    "weighed-twice": "WeightedSurvivors while over",
    "two-committees": "survivors, 5 needed",
    "other-committee": "the keys are not of a sorted part of the committee",
    "outsiders": "while over",
    "restored-memory": "this round was answered before",
    "swapped-keys": FORGED,
    "swapped-x25519-keys": FORGED,
    "swapped-kem-keys": FORGED,
    "replayed-keys": FORGED,
    "replaced-shares": FORGED,
    "moved-boxes": FORGED,
    "replayed-boxes": FORGED,
    "replayed-ciphertext": FORGED,
    "different-offers": FORGED,
    "committee-grinding": "accomplices",
    "sybil-cohort": "OfferRefused: unknown_member",
    "small-cohort": UNSAFE,
    "lowered-threshold": UNSAFE,
    "lowered-quorum": UNSAFE,
    "understated-collusion": UNSAFE,
    "asks-for-distances": "OfferRefused: weights_forbidden",
    "probing-references": "OfferRefused: model_unsuitable",
}
"""Attack to part of how it ends with seven nodes."""
ELSEWHERE: Final = {
    "shared-key": "the usual way, for comparison: input of node-00 recovered, max error 0: ",
    "uneven-weights": "sum of 5 nodes opened apart, max error 0",
    "two-committees": "3 partial sums opened, max error 0",
    "outsiders": NOTHING,  # nobody sealed anything for them
    "swapped-x25519-keys": NOTHING,  # half of a hybrid key opens nothing there as well
    "swapped-kem-keys": NOTHING,
    "moved-boxes": NOTHING,  # there, too, a box is bound to its dealer
    "replayed-ciphertext": "a sum with an input of an earlier round in it",
    "different-offers": "a sum over 7 nodes, 4 of them on another model, unnoticed",
    "committee-grinding": "a committee with 165 accomplices, where 148 are withstood",
    "asks-for-distances": "the distances of 7 nodes were disclosed",
    "probing-references": "a coordinate of a centroid read, error 0.0000",
}
"""Attack to what it gains elsewhere; by default inputs that are read exactly."""
UNBLAMED: Final = ("shared-key", "restored-memory", "committee-grinding")


def play(name: str, n: int = 7) -> Played:
    return CKKS_ATTACKS[name].play(n, 64, 1)


@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("attack", PROMISED.values(), ids=lambda attack: attack.name)
def test_it_gains_nothing_here_and_what_it_gains_elsewhere_is_real(attack: Attack) -> None:
    played = attack.play(7, 64, 1)
    assert played.here == NOTHING
    assert played.failed
    assert not played.revealed
    assert ENDS[attack.name] in played.outcome
    if attack.name in ELSEWHERE:
        assert played.elsewhere.startswith(ELSEWHERE[attack.name])
    else:
        assert "recovered" in played.elsewhere
        assert played.elsewhere.endswith("max error 0")
    assert played.blamed == (() if attack.name in UNBLAMED else ("coordinator",))


def test_every_attack_has_its_expected_end() -> None:
    assert set(ENDS) == set(PROMISED)
    assert sorted(set(OURS) - set(PROMISED)) == sorted(BEYOND)


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("name", sorted(PROMISED))
def test_also_with_other_numbers_of_nodes(name: str, n: int) -> None:
    assert play(name, n).failed


def test_also_where_several_coefficients_share_a_polynomial() -> None:
    assert choose(30).committee.pack > 1
    played = play("replaced-shares", 30)
    assert played.failed
    assert "recovered" in played.elsewhere


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 6, 7])
@pytest.mark.parametrize("name", BEYOND)
def test_what_is_not_promised_is_lost(name: str, n: int) -> None:
    played = play(name, n)
    assert played.revealed
    assert "recovered" in played.here
    assert played.here.endswith("max error 0")


# --- the demonstration can fail: with its rules switched off, an attack succeeds ------------------

_on_keys, _on_survivors = CkksClient._on_committee_keys, CkksClient._on_survivors
_on_request = CkksClient._on_open_request


def _any_committee(self: CkksClient, message: CommitteeKeys, now: float) -> Any:
    """H-03 off: whoever is shown is the committee."""
    self._committee = tuple(key.node_id for key in message.keys)
    return _on_keys(self, message, now)


def _any_quorum(self: CkksClient, message: WeightedSurvivors, now: float) -> Any:
    """H-09 off."""
    self._setup = copy.copy(self._setup)
    object.__setattr__(self._setup, "quorum", 1)
    return _on_survivors(self, message, now)


def _any_weights(self: CkksClient, message: WeightedSurvivors, now: float) -> Any:
    """H-11 off: weights of 0 as well."""
    given = dict(zip(message.survivors, message.weights, strict=True))
    shown = WeightedSurvivors(message.round_id, message.survivors, bytes([1] * len(given)))
    step = _on_survivors(self, shown, now)
    member = self._member
    assert member is not None
    member._weighted = given
    if self._me in given and not given[self._me]:
        member._total[:] = 0
    return step


def _repeats_count(self: CkksClient, message: OpenRequest, now: float) -> Any:
    """H-10 off: signatures count, not signers."""
    if len(message.signatures) < 5:
        raise self._fault("too few")
    signed = tuple(sorted(dict(message.signatures).items()))
    return _on_request(self, OpenRequest(message.round_id, signed), now)


def _keeps_its_share(self: CkksClient, message: WeightedSurvivors, now: float) -> Any:
    vars(self)["kept"] = self._own if self._own is not None else vars(self).get("kept")
    self._own = vars(self)["kept"]
    return _on_survivors(self, message, now)


def _answers_again(self: CkksClient, message: OpenRequest, now: float) -> Any:
    """H-12 off: it goes on as if it had not answered."""
    keys = self._keys
    step = _on_request(self, message, now)
    self._keys, self._phase = keys, Phase.UPLOADED
    return step


def _handlers(**handlers: Callable[..., Any]) -> tuple[Any, str, Any]:
    table = dict(CkksClient._ACCEPTS)
    for phase, kind in CkksClient._ACCEPTS:
        if kind.__name__ in handlers:
            table[phase, kind] = handlers[kind.__name__]
    return CkksClient, "_ACCEPTS", table


def _one_secret() -> Callable[..., rlwe.Secret]:
    """H-06 off: everybody's secret is the same."""
    drawn: list[rlwe.Secret] = []

    def fresh(ring: Any, terms: int) -> rlwe.Secret:
        drawn.append(_fresh(ring, terms))
        return rlwe.Secret.from_coefficients(ring, drawn[0].coefficients)

    return fresh


def _withstands_few(n: int) -> Any:
    """R-05 off: a threshold that is not for the worst of many draws."""
    made = choose(n)
    committee = dataclasses.replace(made.committee, threshold=made.committee.threshold - 40)
    return dataclasses.replace(made, committee=committee)


_fresh = rlwe.Secret.fresh
_nothing = lambda *args, **kwargs: None  # noqa: E731
_yes = lambda *args: True  # noqa: E731
Off = tuple[Any, ...]
COUNT: Final[Off] = (RoundSetup, "cosigners", property(lambda self: 2))
ONE: Final[Off] = (RoundSetup, "cosigners", property(lambda self: 1))
EVEN: Final[Off] = (client, "is_even", _yes)
QUORUM: Final[Off] = _handlers(WeightedSurvivors=_any_quorum)
WEIGHTS: Final[Off] = _handlers(WeightedSurvivors=_any_weights)
ONCE: Final[Off] = _handlers(WeightedSurvivors=_keeps_its_share, OpenRequest=_answers_again)
REPEATS: Final[Off] = _handlers(OpenRequest=_repeats_count)
COMMITTEE: Final[Off] = _handlers(CommitteeKeys=_any_committee)
VIEWS: Final[Off] = (client, "verify_view", _nothing)
KEYS: Final[Off] = (client, "verify_key", _nothing)
DEALERS: Final[Off] = (member, "verify_dealer", _nothing)
CONTEXT: Final[Off] = (RoundSetup, "context", property(lambda self: (b"run", b"round", b"")))
SAME_KEYS: Final[Off] = (client, "HybridKeys", lambda secret: HybridKeys(bytes(32)))
NUMBERS: Final[Off] = (RoundSetup, "__post_init__", _nothing)
POLICY: Final[Off] = ("nodes.session.offer._terms_insecurity", lambda offer: "")
COLLUSION: Final[Off] = ("nodes.session.offer.check_policy", _nothing)
ANY_REFERENCE: Final[Off] = ("nodes.session.offer._LONGEST_REFERENCE", 1e12)
EXACT: Final[Off] = (client, "coarse", lambda distance: 8 * distance)
MEMBERS: Final[Off] = ("nodes.attacks.offer_attacks.check_offer", _nothing)
LOCKS: Final[Mapping[str, tuple[Off, ...]]] = {
    "open-one": (QUORUM, EVEN),
    "open-few": (QUORUM, EVEN),
    "one-hot-weights": (WEIGHTS,),
    "uneven-weights": (EVEN,),
    "two-sets": (COUNT,),
    "two-weightings": (COUNT,),
    "forged-survivors": (VIEWS,),
    "repeated-co-signature": (ONE, REPEATS),
    "asked-twice": (ONCE,),
    "weighed-twice": (ONCE,),
    "two-committees": (QUORUM, COUNT),
    "other-committee": (COMMITTEE,),
    "restored-memory": ((FileJournal, "claim", _yes),),
    "swapped-keys": (KEYS,),
    "replayed-keys": (KEYS,),
    "replaced-shares": (DEALERS,),
    "replayed-boxes": (CONTEXT, SAME_KEYS),
    "replayed-ciphertext": (CONTEXT, SAME_KEYS),
    "different-offers": (CONTEXT,),
    "committee-grinding": ((ckks_offers, "choose", _withstands_few),),
    "sybil-cohort": (MEMBERS,),
    "small-cohort": (COLLUSION,),
    "lowered-threshold": (POLICY,),
    "lowered-quorum": (POLICY, NUMBERS, EVEN),
    "understated-collusion": (COLLUSION,),
    "asks-for-distances": (COLLUSION,),
    "probing-references": (ANY_REFERENCE, EXACT),
}
"""Attack to what has to be switched off for it to work."""
TWICE_LOCKED: Final[Mapping[str, tuple[tuple[Off, ...], ...]]] = {
    "open-one": ((QUORUM,), (EVEN,)),
    "open-few": ((QUORUM,), (EVEN,)),
    "two-committees": ((QUORUM,), (COUNT,)),
    "replayed-boxes": ((CONTEXT,), (SAME_KEYS,)),
    "replayed-ciphertext": ((CONTEXT,), (SAME_KEYS,)),
    "lowered-quorum": ((POLICY,), (POLICY, NUMBERS)),  # a sum of two is uneven (H-11)
    "probing-references": ((ANY_REFERENCE,), (EXACT,)),  # a distance is told in eighths, up to 8
    "swapped-x25519-keys": ((KEYS,),),  # ML-KEM hides the share (H-05)
    "swapped-kem-keys": ((KEYS,),),  # X25519 hides the share (H-05)
    "moved-boxes": ((DEALERS,),),  # the box is bound to its dealer (H-05)
    "outsiders": ((),),  # nothing was ever sealed for them
}
"""Attack to what may be switched off without a gain, since another rule stands behind it."""
UNOPENED: Final = (
    "replayed-ciphertext",
    "different-offers",
    "committee-grinding",
    "asks-for-distances",
    "probing-references",
)
"""What they gain is a sum of other inputs, a full committee, or distances: no input is read."""


def _switch_off(monkeypatch: pytest.MonkeyPatch, rules: tuple[Off, ...]) -> None:
    for rule in rules:
        monkeypatch.setattr(*rule)


@pytest.mark.req("A-03")
@pytest.mark.parametrize("name", sorted(LOCKS))
def test_without_its_rules_the_attack_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _switch_off(monkeypatch, LOCKS[name])
    played = play(name)
    assert not played.failed
    assert played.here != NOTHING
    assert played.revealed == (name not in UNOPENED)
    if played.revealed:
        assert played.here.endswith("max error 0")


@pytest.mark.req("A-03")
def test_one_secret_for_all_nodes_is_a_shared_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlwe.Secret, "fresh", _one_secret())
    assert play("shared-key").here == "inputs of 6 nodes recovered, max error 0"


@pytest.mark.req("A-03")
@pytest.mark.parametrize(
    ("name", "rules"), [(name, off) for name, cases in TWICE_LOCKED.items() for off in cases]
)
def test_behind_some_rules_stands_another(
    name: str, rules: tuple[Off, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _switch_off(monkeypatch, rules)
    assert play(name).failed


def test_every_attack_is_known_to_be_locked_once_or_twice() -> None:
    assert {"shared-key", *LOCKS, *TWICE_LOCKED} == set(PROMISED)
    both = set(LOCKS) & set(TWICE_LOCKED)
    for name in both:
        assert all(set(map(str, off)) < set(map(str, LOCKS[name])) for off in TWICE_LOCKED[name])
    assert {name for name, off in LOCKS.items() if len(off) > 1} <= {*both, "repeated-co-signature"}
