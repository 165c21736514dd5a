"""Each attack of a node on ckks gains something as soon as the rules that stop it are off.

With the same rules off a round without an attack still is exact: what is gained is the attack's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from nodes.attacks.catalogue import CKKS_ATTACKS
from nodes.attacks.ckks_node_moves import make_ckks_setup
from nodes.attacks.node_stage import Federation
from nodes.attacks.report import NOTHING
from secagg import ring as packing
from secagg.ckks import coefficients, opening, rlwe, uploads
from secagg.ckks.coordinator import CkksCoordinator, Phase
from secagg.ckks.member import Member
from secagg.ckks.opening import Opening
from secagg.ckks.uploads import Uploads
from secagg.errors import DecodeError, RemoteProtocolError
from secagg.primitives import hybrid, packed
from secagg.schemes import SCHEMES
from secagg.steps import PeerBlamed
from secagg.uploads import Turns
from secagg.wire import codec, envelope
from secagg.wire.messages import (
    Announcement,
    CipherChunk,
    SealedSecret,
    SealingKey,
    SumShare,
)

N, DIM = 7, 64
ROWS: Final = {
    name: each for name, each in CKKS_ATTACKS.items() if each.attacker == "node" and each.promised
}
Off = Callable[[pytest.MonkeyPatch], None]


def attribute(owner: object, name: str, value: Any) -> Off:
    return lambda patch: patch.setattr(owner, name, value)


def handled(phase: Phase, handler: Callable[..., Any]) -> Off:
    """The coordinator handles the messages of a phase otherwise."""
    kinds, _ = CkksCoordinator._ACCEPTS[phase]
    return lambda patch: patch.setitem(CkksCoordinator._ACCEPTS, phase, (kinds, handler))


# --- announcements --------------------------------------------------------------------------------


def _any_announcement(self: CkksCoordinator, sender: str, message: Announcement) -> bool:
    self._keys.setdefault(message.key.node_id, message.key)
    self._keys.setdefault(sender, message.key)
    if message.distance is not None:
        self._distances[sender] = message.distance
    return True


def _any_number(data: bytes, *, sender: str) -> Any:
    """Decode an announcement whatever its distance is."""
    try:
        return _decode(data, sender=sender)
    except DecodeError:
        _, round_id, key, distance = msgspec.msgpack.decode(data)
        return Announcement(round_id, SealingKey(*key), distance)


_decode = codec.decode
UNCHECKED_KEYS: Final = handled(Phase.KEYS, _any_announcement)
USABLE: Final = attribute(hybrid, "check_public", lambda *_: None)
ANY_FIELD: Final = attribute(envelope, "decode", _any_number)


# --- uploads --------------------------------------------------------------------------------------


def _again(self: CkksCoordinator, sender: str, message: Any, now: float) -> Any:
    """Expect another message of a node that has given what it owed."""
    again = isinstance(message, SealedSecret | CipherChunk | SumShare) and sender in self._answered
    if again:
        self._answered.discard(sender)
        self._waiting.add(sender)
        if self._phase is Phase.OPENING:
            self._asked._until.setdefault(sender, float("inf"))
    try:
        return _receive(self, sender, message, now)
    except RemoteProtocolError:
        if again:
            self._waiting.discard(sender)
            self._answered.add(sender)
        raise


def _reduced(data: bytes, blocks: int, ring: Any) -> Any:
    """Take residues modulo q, and bytes that are missing for zeros."""
    size = packing.packed_size(blocks * ring.degree, ring.residue_bits)
    data = data.ljust(size, b"\0")
    found = _unpack(data, blocks, ring)
    if found is not None:
        return found
    high_bits = ring.residue_bits - 32
    count = blocks * ring.degree
    high = packing.unpack(data[4 * count :], count, high_bits)
    low = np.frombuffer(data, "<u4", count)
    assert high is not None
    words = (high.astype(np.uint64) << np.uint64(32)) | low
    return (words % np.uint64(ring.modulus)).reshape(blocks, -1)


class _AnySize(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _any_size(blocks: int, ring: Any) -> _AnySize:
    return _AnySize(_packed_size(blocks, ring))


def _any_boxes(self: Uploads, sender: str, upload: Any, message: SealedSecret) -> None:
    upload.boxes += message.boxes
    self._open[sender] = upload


def _chunk_as_it_comes(self: Uploads, sender: str, upload: Any, chunk: CipherChunk) -> None:
    upload.chunks.append(chunk.data)
    self._open[sender] = upload


_receive = CkksCoordinator.receive
_unpack, _packed_size = rlwe.unpack, uploads.packed_size
ANSWERS_FORGOTTEN: Final = attribute(CkksCoordinator, "receive", _again)
NO_TURNS: Final = attribute(Turns, "has", lambda *_: True)
MODULO_Q: Final = attribute(rlwe, "unpack", _reduced)
ANY_CHUNK_SIZE: Final = attribute(uploads, "packed_size", _any_size)
ANY_BOXES: Final = attribute(Uploads, "_take_boxes", _any_boxes)
ANY_ORDER: Final = attribute(Uploads, "_take_chunk", _chunk_as_it_comes)


# --- opening --------------------------------------------------------------------------------------


def _first_answers(shares: Any, *, threshold: int, pack: int, **rest: Any) -> Any:
    """Open by the first shares, whoever lies."""
    few = dict(sorted(shares.items())[: threshold + pack])
    rest["bound"] = (rest["prime"] - 1) // 2
    return _open_shares(few, threshold=threshold, pack=pack, **rest)


def _read_anything(opened: Any, parameters: Any, **rest: Any) -> Any:
    dim = rest.pop("dim")
    places = opened.size * parameters.values_per_coefficient
    values = _read_sum(opened, parameters, **rest | {"weight": 1 << 40, "dim": places})
    return None if values is None else values[:dim]


def _answers_anyway(self: Member) -> SumShare:
    """H-12 off: what did not open counts as nothing."""
    data = packed.encode(self._total, self._prime)
    return SumShare(self._setup.round_id, data, ())


def _any_answer(self: Opening, sender: str, answer: SumShare) -> str:
    """Take any answer: dealers that are none, values that are not in the field."""
    for dealer in answer.unopened:
        self._accused.setdefault(dealer, []).append(sender)
    if answer.share:
        bits = (self._terms.committee.modulus - 1).bit_length()
        share = packing.unpack(answer.share, self._terms.share_length, bits)
        assert share is not None
        self._shares[self._committee.index(sender)] = share
    return ""


def _any_words(shares: Any, prime: int, length: int) -> Any:
    return np.stack(shares).astype(np.int64) % prime


def ALL_MUST_ANSWER(patch: pytest.MonkeyPatch) -> None:  # noqa: N802 - a rule like the others
    needed = CkksCoordinator._needed.fget  # type: ignore[attr-defined]

    def all_of_them(self: CkksCoordinator) -> int:
        return len(self._members) if self._phase is Phase.OPENING else needed(self)

    patch.setattr(CkksCoordinator, "_needed", property(all_of_them))


def _any_signature(self: CkksCoordinator, sender: str, message: Any) -> bool:
    self._signatures[sender] = message.signature
    return True


_open_shares = packed.open_shares
_read_sum = coefficients.read_sum
UNSIGNED_VIEWS: Final = handled(Phase.SIGNATURES, _any_signature)
UNDECODED: Final = attribute(packed, "open_shares", _first_answers)
UNTESTED: Final = attribute(Opening, "_is_true", lambda *_: True)
UNBOUNDED: Final = attribute(opening, "read_sum", _read_anything)
BEYOND_DOUBT: Final = attribute(opening, "PeerBlamed", lambda peer, why, **_: PeerBlamed(peer, why))
ANSWERS_ANYWAY: Final = attribute(Member, "answer", _answers_anyway)
ANY_ANSWER: Final = attribute(Opening, "take", _any_answer)
ANY_WORDS: Final = attribute(packed, "_stack", _any_words)

FRAMED: Final = "node-0 is blamed, who did nothing"
WRONG: Final = "a wrong sum was released"
ENTERED: Final = "an upload that is not in its one form entered the sum"
LOST: Final = "6 honest nodes lost their place"
NODE_LOCKS: Final[dict[str, tuple[tuple[tuple[Off, ...], str], ...]]] = {
    "unsigned-key": (((UNCHECKED_KEYS,), LOST),),
    "others-key": (((UNCHECKED_KEYS,), LOST),),
    "unusable-key": (((USABLE,), LOST),),
    "impossible-distance": (((ANY_FIELD,), "coordinator crashes: ValueError"),),
    "unasked-distance": (
        ((UNCHECKED_KEYS,), "the coordinator took a distance that nobody asked for"),
    ),
    "malformed-ciphertext": (((MODULO_Q,), LOST),),
    "short-ciphertext": (((ANY_CHUNK_SIZE, MODULO_Q), LOST),),
    "noise-ciphertext": (((UNTESTED, UNBOUNDED), WRONG),),
    "impossible-values": (((UNTESTED, UNBOUNDED), WRONG),),
    "other-shares": (((UNTESTED, UNBOUNDED), WRONG),),
    "scattered-shares": (((UNTESTED, UNBOUNDED), WRONG),),
    "framed-member": (((BEYOND_DOUBT,), FRAMED),),
    "accused-dealer": (((BEYOND_DOUBT,), FRAMED),),
    "shut-box": (((ANSWERS_ANYWAY, BEYOND_DOUBT), FRAMED),),
    "shut-boxes": (((ANSWERS_ANYWAY, UNTESTED, UNBOUNDED), WRONG),),
    "boxes-left-out": (((ANY_BOXES, ANY_ORDER), ENTERED),),
    "ciphertext-first": (((ANY_ORDER,), LOST),),
    "reordered-chunks": (((ANY_ORDER,), LOST),),
    "submits-twice": (((ANSWERS_FORGOTTEN, NO_TURNS), LOST),),
    "out-of-turn-upload": (((NO_TURNS,), "the coordinator held 9 uploads, 8 allowed"),),
    "forged-co-signature": (((UNSIGNED_VIEWS,), LOST),),
    "wrong-answer": (
        ((UNDECODED,), LOST),
        ((UNDECODED, UNTESTED, UNBOUNDED), WRONG),
    ),
    "silent-member": (((ALL_MUST_ANSWER,), LOST),),
    "malformed-answer": (((ANY_ANSWER,), "coordinator crashes: LocalProtocolError"),),
    "accused-stranger": (((ANY_ANSWER, BEYOND_DOUBT), "node-nobody is blamed, who did nothing"),),
    "second-answer": (((ANSWERS_FORGOTTEN, UNDECODED), LOST),),
}
"""Attack to what has to be switched off, and what it then gains."""
TWICE_LOCKED: Final[dict[str, tuple[tuple[tuple[Off, ...], str], ...]]] = {
    "short-ciphertext": (((ANY_CHUNK_SIZE,), "beyond the modulus"), ((MODULO_Q,), "bytes")),
    "noise-ciphertext": (
        ((UNTESTED,), "abort: sum_out_of_range"),
        ((UNBOUNDED,), "abort: sum_out_of_range"),
    ),
    "impossible-values": (
        ((UNTESTED,), "abort: sum_out_of_range"),
        ((UNBOUNDED,), "abort: sum_out_of_range"),
    ),
    "other-shares": (
        ((UNTESTED,), "abort: sum_out_of_range"),
        ((UNBOUNDED,), "abort: sum_out_of_range"),
    ),
    "scattered-shares": (((UNBOUNDED,), "abort: bad_shares"),),
    "shut-box": (
        ((ANSWERS_ANYWAY,), "exact sum over 7 nodes"),
        ((BEYOND_DOUBT,), "exact sum over 7 nodes"),
    ),
    "accused-stranger": (
        ((ANY_ANSWER,), "exact sum over 7 nodes"),
        ((BEYOND_DOUBT,), "names dealers that are none"),
    ),
    "shut-boxes": (
        ((ANSWERS_ANYWAY,), "abort: sum_out_of_range"),
        ((UNTESTED, UNBOUNDED), "abort: too_few_answers"),
    ),
    "boxes-left-out": (((ANY_BOXES,), "before all of its shares"), ((ANY_ORDER,), "5 shares")),
    "submits-twice": (
        ((ANSWERS_FORGOTTEN,), "before its turn"),
        ((NO_TURNS,), "a second SealedSecret"),
    ),
    "second-answer": (
        ((ANSWERS_FORGOTTEN,), "exact sum over 7 nodes"),
        ((UNDECODED,), "a second SumShare"),
    ),
    "malformed-answer": (((ANY_ANSWER, ANY_WORDS), "exact sum over 7 nodes"),),
    "greatest-distance": (((UNCHECKED_KEYS,), "exact sum over 6 nodes"),),  # it is left out
}
"""Attack to what may be off without a gain, and part of the outcome: another rule stands behind."""


def _cases(table: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(name, *case, id=f"{name}-{index}")
        for name, cases in table.items()
        for index, case in enumerate(cases, start=1)
    ]


@pytest.mark.req("A-03")
@pytest.mark.parametrize(("name", "off", "here"), _cases(NODE_LOCKS))
def test_without_its_rules_the_attack_works(
    name: str, off: tuple[Off, ...], here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in off:
        rule(monkeypatch)
    played = ROWS[name].play(N, DIM, 1)
    assert not played.failed
    assert played.here == here
    assert played.wrong_sum == (here == WRONG)
    assert not played.revealed
    setup, parties = make_ckks_setup(N, DIM, weighs=name == "impossible-distance")
    honest = Federation(setup, parties, seed=5, scheme=SCHEMES["ckks"]).play(NOTHING)
    assert (honest.here, honest.outcome) == (NOTHING, "exact sum over 7 nodes")


@pytest.mark.req("A-03")
@pytest.mark.parametrize(("name", "off", "outcome"), _cases(TWICE_LOCKED))
def test_behind_some_rules_stands_another(
    name: str, off: tuple[Off, ...], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule in off:
        rule(monkeypatch)
    played = ROWS[name].play(N, DIM, 1)
    assert played.failed
    assert outcome in played.outcome


def test_every_attack_has_a_lock() -> None:
    assert set(NODE_LOCKS) | {"greatest-distance"} == set(ROWS)
    assert set(TWICE_LOCKED) <= set(ROWS)
