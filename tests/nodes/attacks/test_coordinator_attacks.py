"""Each attack of a coordinator gains something elsewhere and nothing here, unless a rule is off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from nodes.answer_journal import FileJournal
from nodes.attacks.catalogue import ATTACKS
from nodes.attacks.impostor import Impostor
from nodes.attacks.noise_attacks import noise_attacks
from nodes.attacks.report import Attack, Played
from secagg.masking import adverts, pairs, views
from secagg.masking.client import MaskingClient
from secagg.masking.graph import Graph
from secagg.round_setup import RoundSetup
from secagg.wire.messages import UnmaskAnswer

NOISE = {each.name for each in noise_attacks("masking")}  # in test_noise_attacks.py
OURS = {
    name: each
    for name, each in ATTACKS.items()
    if each.attacker.startswith("coordinator") and name not in NOISE
}
PROMISED = {name: each for name, each in OURS.items() if each.promised}
FORGED = "relayed a forged advert"
UNSAFE = "OfferRefused: thresholds_unsafe"
ENDS: Final = {
    "both-shares": "4 co-signatures, 5 needed",
    "split-survivors": "showed a false co-signature",
    "second-request": "Survivors while over",
    "late-upload": "one sum over 5 inputs",
    "split-adverts": "those who agreed are not a sorted part of those with adverts",
    "split-agreed": "showed another list of sharers to node-",
    "split-sharers": "showed another list of sharers to node-00",
    "restored-memory": "this round was answered before",
    "key-substitution": FORGED,
    "x25519-substitution": FORGED,
    "kem-key-substitution": FORGED,
    "capsule-substitution": "altered or was wrong from the start",
    "replayed-keys": FORGED,
    "replayed-capsules": "altered or was wrong from the start",
    "replayed-shares": "nothing opens",
    "replayed-signatures": "showed a false co-signature",
    "inconsistent-models": FORGED,
    "stale-model": FORGED,
    "cut-arc": "leave a gap in the graph",
    "grinding": "the adverts are not those that the coins were tossed for",
    "sybil-cohort": "OfferRefused: unknown_member",
    "small-cohort": UNSAFE,
    "cohort-of-two": "OfferRefused: cohort_too_small",
    "lowered-threshold": UNSAFE,
    "lowered-quorum": UNSAFE,
    "understated-collusion": UNSAFE,
    "sparse-offer": UNSAFE,
}
ELSEWHERE: Final = {
    "late-upload": "nothing",  # double masking stops it there as well
    "cut-arc": "sum of 5 nodes opened apart, max error 0",
    "stale-model": "a sum over 7 nodes, 4 of them on another model, unnoticed",
    "grinding": "5 of the victim's 8 neighbours collude, after ",
    "replayed-shares": "node-00 crashes: AuthenticationError",
    "replayed-capsules": "node-00 crashes: AuthenticationError",
}
UNBLAMED: Final = ("late-upload", "restored-memory")
"""A dropout like any other; a node that finds itself set back accuses nobody."""


def play(name: str, n: int = 7) -> Played:
    return ATTACKS[name].play(n, 64, 1)


@pytest.mark.req("A-01", "A-02")
@pytest.mark.parametrize("attack", PROMISED.values(), ids=lambda attack: attack.name)
def test_it_gains_nothing_here_and_what_it_gains_elsewhere_is_real(attack: Attack) -> None:
    played = attack.play(7, 64, 1)
    assert played.here == "nothing"
    assert played.failed
    if attack.name == "replayed-capsules" and not played.blamed:
        return  # the victim has other predecessors now: no old capsule was there to replay
    assert ENDS[attack.name] in played.outcome
    assert ELSEWHERE.get(attack.name, "recovered, max error 0") in played.elsewhere
    if attack.name == "replayed-shares":  # M-10 blames the sender of a box, not who relayed it
        assert played.blamed == tuple(f"node-{index:02d} (in doubt)" for index in range(7))
    else:
        assert played.blamed == (() if attack.name in UNBLAMED else ("coordinator",))


def test_every_attack_has_its_expected_end() -> None:
    assert set(ENDS) == set(PROMISED)


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 6, 10])
@pytest.mark.parametrize("name", sorted(PROMISED))
def test_also_with_other_numbers_of_nodes(name: str, n: int) -> None:
    assert play(name, n).failed


@pytest.mark.req("A-02")
@pytest.mark.parametrize("n", [5, 6, 7, 10])
@pytest.mark.parametrize("name", ["too-many-accomplices", "restored-machine"])
def test_what_is_not_promised_is_lost(name: str, n: int) -> None:
    played = play(name, n)
    assert not ATTACKS[name].promised
    assert played.revealed
    assert "recovered, max error 0" in played.here


# --- the demonstration can fail: with its rules switched off, an attack succeeds ------------------

_unmask = MaskingClient._on_unmask_request


def _answers_both(self: MaskingClient, message: Any, now: float) -> Any:
    """M-12 off: for each owner both shares."""
    held = sorted(self._held.items())
    step = _unmask(self, message, now)
    answer = UnmaskAnswer(
        message.round_id,
        tuple((owner, shares[1]) for owner, shares in held),
        tuple((owner, shares[0]) for owner, shares in held),
    )
    (out,) = step.send
    return type(step)((type(out)(out.to, answer),), done=True)


def _answers_again(self: MaskingClient, message: Any, now: float) -> Any:
    """M-13 off: it goes on as if it had not answered."""
    held, phase = dict(self._held), self._phase
    step = _unmask(self, message, now)
    self._held, self._phase = held, phase
    return step


def _accepts(answer: Callable[..., Any]) -> dict[Any, Any]:
    table = dict(MaskingClient._ACCEPTS)
    again = {("signed", kind): f for (phase, kind), f in table.items() if phase == "uploaded"}
    table = {key: answer if handler is _unmask else handler for key, handler in table.items()}
    return table | again if answer is _answers_again else table


def _unbound(offer_hash: bytes, digests: Any, coins: Any) -> bytes:
    return _graph_seed(bytes(32), digests, coins)


_graph_seed = adverts.graph_seed
_nothing = lambda *args, **kwargs: None  # noqa: E731
_yes = lambda *args: True  # noqa: E731
Off = tuple[object, str, Any]
COUNT: Final[Off] = (RoundSetup, "cosigners", property(lambda self: 2))
SIGNATURES: Final[Off] = (views, "verify_survivors", _nothing)
ADVERTS: Final[Off] = (adverts, "verify_advert", _nothing)
CONFIRMED: Final[Off] = (pairs, "confirmation", lambda seed: bytes(32))
NUMBERS: Final[Off] = (RoundSetup, "__post_init__", _nothing)
POLICY: Final = ("nodes.session.offer._graph_insecurity", _nothing)
COLLUSION: Final = ("nodes.session.offer.check_policy", _nothing)
MEMBERS: Final = ("nodes.attacks.offer_attacks.check_offer", _nothing)
LOCKS: Final[Mapping[str, tuple[Off | tuple[str, Any], ...]]] = {
    "both-shares": (COUNT,),
    "split-survivors": (SIGNATURES,),
    "second-request": ((MaskingClient, "_ACCEPTS", _accepts(_answers_again)),),
    "late-upload": ((MaskingClient, "_ACCEPTS", _accepts(_answers_both)),),
    "split-sharers": ((views, "verify_sharers", _nothing),),
    "restored-memory": ((FileJournal, "claim", _yes),),
    "key-substitution": (ADVERTS,),
    "replayed-signatures": (SIGNATURES,),
    "inconsistent-models": (
        (RoundSetup, "context", property(lambda self: (b"run", b"round", b""))),
        (adverts, "graph_seed", _unbound),
    ),
    "stale-model": (
        (RoundSetup, "context", property(lambda self: (b"run", b"round", b""))),
        (adverts, "graph_seed", _unbound),
    ),
    "cut-arc": ((Graph, "is_whole", _yes),),
    "grinding": ((MaskingClient, "_check_coins", _nothing),),
    "sybil-cohort": (MEMBERS,),
    "small-cohort": (COLLUSION,),
    "lowered-threshold": (POLICY, NUMBERS),
    "understated-collusion": (COLLUSION,),
    "sparse-offer": (POLICY, NUMBERS),
}
"""Attack to what has to be switched off for it to work."""
TWICE_LOCKED: Final = {
    "split-adverts": (CONFIRMED,),  # the seeds of both sides differ all the same (M-07)
    "split-agreed": (CONFIRMED, (views, "verify_sharers", _nothing)),  # too few hold shares (M-02)
    "x25519-substitution": (ADVERTS,),  # ML-KEM hides the seed (M-07)
    "kem-key-substitution": (ADVERTS, CONFIRMED),  # X25519 hides the seed (M-07)
    "capsule-substitution": (CONFIRMED,),  # X25519 hides the seed (M-07)
    "replayed-keys": (ADVERTS, CONFIRMED),  # what is revealed are never agreement keys (M-05)
    "replayed-capsules": (CONFIRMED,),  # keys and binding are of another round (M-05, M-07)
    "replayed-shares": (),  # an old box does not open (M-08)
    "cohort-of-two": (COLLUSION, POLICY),  # no round of two can be set up at all (M-03)
    "lowered-quorum": (POLICY, NUMBERS, COUNT),  # two nodes hold too few shares (M-02)
}
"""Attack to what may be switched off without a gain, since another rule stands behind it."""
UNOPENED: Final = ("grinding", "stale-model")
"""What they gain is a graph, or a sum over two models: no input, and no sum over fewer nodes."""


def _switch_off(monkeypatch: pytest.MonkeyPatch, rules: Any) -> None:
    for rule in rules:
        monkeypatch.setattr(*rule)


@pytest.mark.req("A-03")
@pytest.mark.parametrize("name", sorted(LOCKS))
def test_without_its_rules_the_attack_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(name).failed
    _switch_off(monkeypatch, LOCKS[name])
    played = play(name)
    assert not played.failed
    assert played.here != "nothing"
    assert played.revealed == (name not in UNOPENED)
    if name not in ("cut-arc", *UNOPENED):
        assert "recovered" in played.here
        assert played.here.endswith("max error 0")


@pytest.mark.req("A-03")
@pytest.mark.parametrize("name", sorted(TWICE_LOCKED))
def test_behind_some_rules_stands_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _switch_off(monkeypatch, TWICE_LOCKED[name])
    assert play(name).failed


def test_every_attack_is_known_to_be_locked_once_or_twice() -> None:
    assert set(LOCKS) | set(TWICE_LOCKED) == set(PROMISED)
    assert not set(LOCKS) & set(TWICE_LOCKED)


@pytest.mark.req("A-03")
def test_a_sum_without_any_key_check_opens_one_node_and_asks_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*ADVERTS)
    asked: list[str] = []
    tell = Impostor.play

    def watched(self: Impostor) -> None:
        tell(self)
        asked.extend(self._puppet.tape.chunks)

    monkeypatch.setattr(Impostor, "play", watched)
    assert play("key-substitution").here == "input of node-00 recovered, max error 0"
    assert asked == ["node-00"]
