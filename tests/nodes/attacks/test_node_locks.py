"""Each attack of a node or a network gains something as soon as the rules that stop it are off.

With the same rules off a round without an attack still is exact: what is gained is the attack's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from nodes.attacks import node_stage
from nodes.attacks.catalogue import ATTACKS
from nodes.attacks.node_stage import Federation, make_setup
from nodes.attacks.report import NOTHING, Played
from secagg import ring
from secagg.errors import RemoteProtocolError
from secagg.masking import adverts, client, coordinator, pairs, uploads
from secagg.masking.client import MaskingClient
from secagg.masking.coordinator import MaskingCoordinator
from secagg.masking.recovery import Recovery
from secagg.masking.uploads import Uploads
from secagg.primitives import shamir
from secagg.steps import PeerBlamed
from secagg.wire import codec, envelope
from secagg.wire.messages import (
    Coin,
    KeyAdvert,
    MaskedChunk,
    PeerShares,
    SurvivorSignature,
    UnmaskAnswer,
)

N, DIM = 7, 64
ROWS: Final = {name: each for name, each in ATTACKS.items() if each.attacker in ("node", "network")}
Off = Callable[[pytest.MonkeyPatch], None]


def attribute(owner: object, name: str, value: Any) -> Off:
    return lambda patch: patch.setattr(owner, name, value)


def handled(kind: type, handler: Callable[..., Any]) -> Off:
    """The coordinator handles a message otherwise."""
    table = MaskingCoordinator._ACCEPTS
    (phase,) = (phase for phase, (accepted, _) in table.items() if accepted is kind)
    return lambda patch: patch.setitem(table, phase, (kind, handler))


# --- shares ---------------------------------------------------------------------------------------


def _shut_box_ends_round(self: MaskingClient, message: Any, now: float) -> Any:
    step = _on_peer_shares(self, message, now)
    if any(isinstance(event, PeerBlamed) for event in step.events):
        raise self._fault("a box does not open")
    return step


def _takes_any_share(self: Recovery, sender: str, answer: UnmaskAnswer) -> str:
    _take_shares(self, sender, answer)
    return ""


_SHARED: Final = (client.Phase.SHARED, PeerShares)
_on_peer_shares = MaskingClient._ACCEPTS[_SHARED]
_take_shares = Recovery.take
UNCHECKED_SECRETS: Final = attribute(Recovery, "_matches", lambda *_: True)
UNDECODED: Final = attribute(shamir, "decode", lambda *_: None)
EMPTY_COMMITMENTS: Final = attribute(adverts, "self_commitment", lambda seed: bytes(32))
UNCONFIRMED: Final = attribute(pairs, "confirmation", lambda seed: bytes(32))
SHARES_ASKED_OR_NOT: Final = attribute(Recovery, "take", _takes_any_share)


def SHUT_BOX_ENDS_ROUND(patch: pytest.MonkeyPatch) -> None:  # noqa: N802 - a rule like the others
    patch.setitem(MaskingClient._ACCEPTS, _SHARED, _shut_box_ends_round)


# --- keys, coins and signatures, as the coordinator checks them -----------------------------------


def _any_advert(self: MaskingCoordinator, sender: str, message: KeyAdvert) -> bool:
    self._seen.adverts[sender] = message
    return True


def _any_signature(self: MaskingCoordinator, sender: str, message: SurvivorSignature) -> bool:
    self._signatures[sender] = message.signature
    return True


def _coins_that_came(self: MaskingCoordinator, now: float) -> Any:
    nodes = sorted(self._coins)
    return self._send_peer_keys(now, nodes, tuple(self._coins[node] for node in nodes))


def COINS_THAT_CAME(patch: pytest.MonkeyPatch) -> None:  # noqa: N802
    phase = coordinator.Phase.COINS
    assert MaskingCoordinator._ACCEPTS[phase][0] is Coin
    reason, _ = MaskingCoordinator._CLOSES[phase]
    patch.setitem(MaskingCoordinator._CLOSES, phase, (reason, _coins_that_came))


UNSIGNED_ADVERTS: Final = handled(KeyAdvert, _any_advert)
UNSIGNED_VIEWS: Final = handled(SurvivorSignature, _any_signature)
NODES_TAKE_ANY_COINS: Final = attribute(MaskingClient, "_check_coins", lambda *_: None)


# --- uploads --------------------------------------------------------------------------------------


def _again(self: MaskingCoordinator, sender: str, message: Any, now: float) -> Any:
    """Expect another upload of a node that has given one."""
    again = isinstance(message, MaskedChunk) and sender in self._answered
    if again:
        self._answered.discard(sender)
        self._waiting.add(sender)
    try:
        return _receive(self, sender, message, now)
    except RemoteProtocolError:
        if again:
            self._waiting.discard(sender)
            self._answered.add(sender)
        raise


def _always_its_turn(self: Uploads, sender: str, chunk: MaskedChunk) -> int:
    self._turns._until.setdefault(sender, float("inf"))
    return _check_turn(self, sender, chunk)


def _chunk_again(self: Uploads, sender: str, chunk: MaskedChunk) -> int:
    """Let `take` see a chunk that came before."""
    return _check_turn(self, sender, msgspec.structs.replace(chunk, index=self._setup.n_chunks))


def _as_it_comes(self: Uploads, sender: str, chunk: MaskedChunk) -> bool:
    due = len(self._chunks.get(sender, ()))
    return _take_chunk(self, sender, msgspec.structs.replace(chunk, index=due))


def _unsigned_chunk(self: MaskingCoordinator, sender: str, message: MaskedChunk) -> bool:
    self._uploads.check_turn(sender, message)
    if message.sharers_signature:
        self._sharers_signatures[sender] = message.sharers_signature
    return self._uploads.take(sender, message)


class _AnySize(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class _RingOfAnySize:
    """`ring` for the uploads alone: `unpack` goes by its own size."""

    @staticmethod
    def unpack(data: bytes, dim: int, bits: int) -> Any:
        return ring.unpack(data, dim, bits)

    @staticmethod
    def packed_size(dim: int, bits: int) -> int:
        return _AnySize()


def _filled_up(data: bytes, dim: int, bits: int) -> Any:
    return _unpack(data.ljust(_packed_size(dim, bits), b"\0"), dim, bits)


def _past_the_padding(data: bytes, dim: int, bits: int) -> Any:
    whole = _unpack(data, -(-dim // 8) * 8, bits)
    return None if whole is None else whole[:dim]


_receive = MaskingCoordinator.receive
_check_turn, _take_chunk = Uploads.check_turn, Uploads.take
_unpack, _packed_size = ring.unpack, ring.packed_size
ANSWERS_FORGOTTEN: Final = attribute(MaskingCoordinator, "receive", _again)
NO_TURNS: Final = attribute(Uploads, "check_turn", _always_its_turn)
REPEATED_CHUNKS: Final = attribute(Uploads, "check_turn", _chunk_again)
UNORDERED_CHUNKS: Final = attribute(Uploads, "take", _as_it_comes)
UNSIGNED_CHUNKS: Final = handled(MaskedChunk, _unsigned_chunk)
ANY_CHUNK_SIZE: Final = attribute(uploads, "ring", _RingOfAnySize)
ANY_SIZE: Final = attribute(ring, "packed_size", lambda dim, bits: _AnySize())
FILLED_UP: Final = attribute(ring, "unpack", _filled_up)
PADDING_IGNORED: Final = attribute(ring, "unpack", _past_the_padding)


# --- frames ---------------------------------------------------------------------------------------


def _of_any(*fields: str) -> Callable[..., Any]:
    """Open an envelope with what it says itself of its sender, receiver or run."""

    def opened(frame: bytes, **due: Any) -> Any:
        first, rest = frame[18 : 18 + frame[17]], frame[18 + frame[17] :]
        said = {
            "run_id": frame[1:17],
            "sender": first.decode(),
            "receiver": rest[1 : 1 + rest[0]].decode(),
        }
        return _open(frame, **due | {name: said[name] for name in fields})

    return opened


def _decoded(data: bytes, *, sender: str) -> Any:
    return codec._DECODER.decode(data)


_open = envelope.open_envelope
UNSIGNED_FRAMES: Final = attribute(envelope, "verify", lambda *_, **__: None)
RAW_DECODER: Final = attribute(envelope, "decode", _decoded)
ANY_LENGTH: Final = attribute(envelope, "MAX_ENVELOPE", 1 << 40)
ANY_RUN: Final = attribute(node_stage, "open_envelope", _of_any("run_id"))
ANY_RECEIVER: Final = attribute(node_stage, "open_envelope", _of_any("receiver"))
ANY_SENDER: Final = attribute(node_stage, "open_envelope", _of_any("sender"))


class Lock(NamedTuple):
    rules: tuple[str, ...]
    """What is off, as the specifications number it."""
    off: tuple[Off, ...]
    here: str
    """What the attack then gains."""


class Behind(NamedTuple):
    off: tuple[Off, ...]
    outcome: str
    """Part of what is said of the end, by the rule that stands behind."""


WRONG: Final = "a wrong sum was released"
NODE_LOCKS: Final[dict[str, tuple[Lock, ...]]] = {
    "wrong-shares": (
        Lock(("M-19",), (UNCHECKED_SECRETS,), WRONG),
        Lock(("M-18",), (UNDECODED,), "6 honest nodes lost their place"),
    ),
    "wrong-backup": (Lock(("M-27",), (UNCONFIRMED,), WRONG),),
    "dealer-lies": (
        Lock(("M-19",), (UNCHECKED_SECRETS,), WRONG),
        Lock(("M-04",), (EMPTY_COMMITMENTS,), WRONG),
    ),
    "box-that-does-not-open": (
        Lock(("M-10",), (SHUT_BOX_ENDS_ROUND,), "1 honest nodes lost their place"),
    ),
    "unasked-shares": (
        Lock(
            ("M-12",),
            (SHARES_ASKED_OR_NOT,),
            "the coordinator took 7 shares that nobody asked for",
        ),
    ),
    "wrong-capsule": (Lock(("M-26",), (UNCONFIRMED,), WRONG),),
    "unsigned-advert": (Lock(("M-04",), (UNSIGNED_ADVERTS,), "6 honest nodes lost their place"),),
    "withheld-coin": (
        Lock(("M-06",), (COINS_THAT_CAME,), "15 honest nodes lost their place"),
        Lock(("M-06",), (COINS_THAT_CAME, NODES_TAKE_ANY_COINS), "it chose between two graphs"),
    ),
    "submits-twice": (
        Lock(("M-13", "M-22"), (ANSWERS_FORGOTTEN, NO_TURNS), "its input counts twice"),
    ),
    "out-of-turn-upload": (
        Lock(("M-22",), (NO_TURNS,), "the coordinator held 9 uploads, 8 allowed"),
    ),
    "garbage-chunks": (
        Lock(("M-16",), (ANY_SIZE,), "coordinator crashes: ValueError"),
        Lock(("M-16",), (ANY_CHUNK_SIZE, FILLED_UP), WRONG),
    ),
    "garbage-padding": (
        Lock(
            ("M-16",), (PADDING_IGNORED,), "an upload that is not in its one form entered the sum"
        ),
    ),
    "forged-co-signature": (Lock(("M-11",), (UNSIGNED_VIEWS,), "6 honest nodes lost their place"),),
    "truncated-frames": (
        Lock(("W-02", "W-05"), (UNSIGNED_FRAMES, RAW_DECODER), "coordinator crashes: DecodeError"),
    ),
    "corrupted-frames": (Lock(("W-05",), (UNSIGNED_FRAMES,), WRONG),),
    "reordered-chunks": (
        Lock(("M-16", "M-24"), (REPEATED_CHUNKS, UNORDERED_CHUNKS, UNSIGNED_CHUNKS), WRONG),
    ),
    "oversize-frame": (
        Lock(("W-02",), (ANY_LENGTH,), "MB were copied of a frame that is too long"),
    ),
    "replayed-envelope": (
        Lock(("W-06",), (ANY_RUN,), WRONG),
        Lock(("W-06",), (ANY_RECEIVER,), "1 honest nodes lost their place"),
        Lock(("M-16",), (REPEATED_CHUNKS,), "1 honest nodes lost their place"),
        Lock(("M-13", "M-22"), (ANSWERS_FORGOTTEN, NO_TURNS), WRONG),
    ),
    "impersonation": (
        Lock(("W-05",), (UNSIGNED_FRAMES,), WRONG),
        Lock(("W-05",), (ANY_SENDER,), "node-0 is blamed, who did nothing"),
    ),
}
"""Attack to the rules that stop it; each lock holds a door of its own."""
TWICE_LOCKED: Final[dict[str, tuple[Behind, ...]]] = {
    "withheld-coin": (Behind((NODES_TAKE_ANY_COINS,), "exact sum over 15 nodes"),),
    "submits-twice": (
        Behind((ANSWERS_FORGOTTEN,), "it uploads before its turn"),
        Behind((NO_TURNS,), "a second MaskedChunk"),
    ),
    "garbage-chunks": (
        Behind((ANY_CHUNK_SIZE,), "padding bits set"),
        Behind((FILLED_UP,), "chunk 0 has 37 bytes"),
    ),
    "truncated-frames": (
        Behind((UNSIGNED_FRAMES,), "not a message of this protocol"),
        Behind((RAW_DECODER,), "does not verify"),
    ),
    "reordered-chunks": (
        Behind((REPEATED_CHUNKS, UNORDERED_CHUNKS), "does not verify"),
        Behind((UNSIGNED_CHUNKS,), "chunk 1 where 0 was due"),
    ),
    "replayed-envelope": (
        Behind((ANSWERS_FORGOTTEN,), "exact sum over 7 nodes"),
        Behind((NO_TURNS,), "exact sum over 7 nodes"),
    ),
}
"""Attack to what may be off without a gain: the rest of its lock, which then is on, stops it."""


def _cases(table: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}-{index}")
        for name, cases in table.items()
        for index, case in enumerate(cases, start=1)
    ]


def _honest(name: str) -> Played:
    sparse = {"neighbours": 8, "threshold": 5} if name == "withheld-coin" else {}
    setup, parties = make_setup(16 if sparse else N, DIM - 3, **sparse)
    return Federation(setup, parties, seed=5).play(NOTHING)


@pytest.mark.req("A-03")
@pytest.mark.parametrize(("name", "lock"), _cases(NODE_LOCKS))
def test_without_its_rules_the_attack_works(
    name: str, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for off in lock.off:
        off(monkeypatch)
    played = ROWS[name].play(N, DIM, 1)
    assert not played.failed
    assert played.here.endswith(lock.here)
    assert played.wrong_sum == played.outcome.startswith("wrong sum")
    assert not played.revealed  # a node or a network sees no masked input but its own
    honest = _honest(name)
    assert honest.here == NOTHING
    assert honest.outcome.startswith("exact sum")


@pytest.mark.req("A-03")
@pytest.mark.parametrize(("name", "behind"), _cases(TWICE_LOCKED))
def test_behind_some_rules_stands_another(
    name: str, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for off in behind.off:
        off(monkeypatch)
    played = ROWS[name].play(N, DIM, 1)
    assert played.failed
    assert played.here == NOTHING
    assert behind.outcome in played.outcome


def test_every_attack_and_each_of_its_rules_has_a_lock() -> None:
    assert set(NODE_LOCKS) == set(ROWS)
    for name, attack in ROWS.items():
        assert set(attack.rules) == {rule for lock in NODE_LOCKS[name] for rule in lock.rules}, name


def test_what_takes_two_rules_is_locked_twice_and_no_half_of_it_is_left_out() -> None:
    """So that a switch that turned nothing off would be found: with the others it gains nothing."""
    for name, locks in NODE_LOCKS.items():
        halves = [set(behind.off) for behind in TWICE_LOCKED.get(name, ())]
        for lock in locks:
            alone = any(set(other.off) < set(lock.off) for other in locks)
            assert len(lock.off) == 1 or alone or sum(x < set(lock.off) for x in halves) == 2, name
        assert all(any(x < set(lock.off) for lock in locks) for x in halves), name
