"""What an evil network can do to a round: it holds, changes and makes up frames.

Frames here have no encryption around them, which the transport adds, so this network can do more
than a real one. What it caught it may also compare with the inputs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
import numpy as np

from nodes.attacks.base_puppet import COORDINATOR
from nodes.attacks.knowledge import VALUE_BITS
from nodes.attacks.node_stage import Federation, Frame, Tap, make_setup
from nodes.attacks.report import Attack, Played
from nodes.attacks.target_stage import TargetMove, TargetRound
from nodes.ephemeral import EphemeralIdentity
from secagg import ring
from secagg.types import NodeId, RingVector
from secagg.wire.envelope import MAX_ENVELOPE
from secagg.wire.messages import MaskedChunk, Message, UploadTurn

__all__ = ["NETWORK_ATTACKS"]

_VICTIM: Final = 1
_LEAST_DIM: Final = 16
"""Two chunks at least."""
_Strike: TypeAlias = Callable[[Federation, MaskedChunk, Frame], list[Frame]]
_Analogue: TypeAlias = Callable[[TargetRound], TargetMove]


def _attack(
    name: str,
    summary: str,
    rules: tuple[str, ...],
    tap: Callable[[NodeId], Tap],
    analogue: _Analogue,
    *,
    spares_victim: bool = False,
) -> Attack:
    """Return the attack of a network that does `tap` to one victim.

    Args:
        name: Of the attack.
        summary: Of the attack.
        rules: That stop it.
        tap: What is done, given the victim.
        analogue: The move against the target.
        spares_victim: The rules say that even the victim keeps its place in the round.
    """

    def play(n: int, dim: int, seed: int) -> Played:
        setup, parties = make_setup(n, max(dim, _LEAST_DIM))
        victim = setup.cohort[_VICTIM]
        target = TargetRound(setup, seed=seed, attacked=victim)
        elsewhere = target.play(analogue(target))
        costs = () if spares_victim else (victim,)
        stage = Federation(setup, parties, seed=seed, tap=tap(victim), first=victim, costs=costs)
        return stage.play(elsewhere)

    return Attack(name, "network", summary, rules, play)


def _on_upload(strike: _Strike) -> Callable[[NodeId], Tap]:
    """Return the tap that strikes at the first chunk of the victim's upload."""

    def tap_for(victim: NodeId) -> Tap:
        def tap(stage: Federation, message: Message, frame: Frame) -> list[Frame]:
            struck = isinstance(message, MaskedChunk) and message.index == 0
            if isinstance(message, MaskedChunk) and struck and frame.source == victim:
                return strike(stage, message, frame)
            return [frame]

        return tap

    return tap_for


def _changed(change: Callable[[bytes], bytes]) -> tuple[Callable[[NodeId], Tap], _Analogue]:
    """Return the tap that changes the bytes of a frame, and the same for the target's upload."""

    def strike(_: Federation, __: MaskedChunk, frame: Frame) -> list[Frame]:
        return [Frame(frame.source, frame.to, change(frame.data))]

    return _on_upload(strike), _uploads(lambda upload: [change(upload)])


def _uploads(change: Callable[[bytes], list[bytes]]) -> _Analogue:
    """Return the move that delivers other uploads to the target's server."""
    return lambda _: TargetMove(uploads=change)


def _reordered(victim: NodeId) -> Tap:
    """Hold the first chunk back until the second has passed."""
    held: list[Frame] = []

    def tap(_: Federation, message: Message, frame: Frame) -> list[Frame]:
        if not isinstance(message, MaskedChunk) or frame.source != victim or message.index > 1:
            return [frame]
        if message.index == 0:
            held.append(frame)
            return []
        return [frame, *held]

    return tap


def _halves_swapped(upload: bytes) -> bytes:
    middle = len(upload) // 2
    return upload[middle:] + upload[:middle]


def _replayed(victim: NodeId) -> Tap:
    """Deliver a frame twice, one of another run, and one that was for another node."""

    def tap(stage: Federation, message: Message, frame: Frame) -> list[Frame]:
        frames = [frame]
        if isinstance(message, MaskedChunk) and frame.source == victim:
            frames = [*_of_another_run(stage, message, frame), frame, frame]
        elif isinstance(message, UploadTurn) and frame.to == victim:
            other = next(node for node in stage.setup.cohort if node != victim)
            frames = [frame, Frame(COORDINATOR, other, frame.data)]
        return frames

    return tap


def _of_another_run(stage: Federation, chunk: MaskedChunk, frame: Frame) -> list[Frame]:
    """Return the same chunk as the victim sent it in another run, under other masks.

    Not the first one: it carries a signature that is bound to its run as well (M-24).
    """
    if chunk.index == 0:
        return []
    setup, signer = stage.setup, stage.parties[frame.source]
    start = chunk.index * setup.chunk_values
    dim = min(setup.chunk_values, setup.dim - start)
    masked = np.frombuffer(secrets.token_bytes(4 * dim), dtype=np.uint32)
    old = msgspec.structs.replace(chunk, data=ring.pack(masked, setup.ring_bits))
    run_id = secrets.token_bytes(16)
    return [Frame(frame.source, frame.to, stage.seal(old, signer, to=frame.to, run_id=run_id))]


def _impostor(stage: Federation, chunk: MaskedChunk, frame: Frame) -> list[Frame]:
    """Put chunks of the attacker's before the true one, signed by a stranger and by a colleague."""
    forged = MaskedChunk(chunk.round_id, 0, chunk.sharers_signature, bytes(len(chunk.data)))
    colleague = next(node for node in stage.setup.cohort if node != frame.source)
    return [
        Frame(frame.source, frame.to, stage.seal(forged, signer, to=frame.to))
        for signer in (EphemeralIdentity(frame.source), stage.parties[colleague])
    ] + [frame]


def _poison(target: TargetRound) -> RingVector:
    """Return what the attacker would like to be in the sum."""
    rng = np.random.default_rng(target.setup.dim)
    return rng.integers(1, 1 << VALUE_BITS, target.setup.dim, dtype=np.uint32)


def _poisoned(target: TargetRound) -> TargetMove:
    poison = _poison(target)
    forged = ring.pack(poison, target.setup.ring_bits)
    return TargetMove(uploads=lambda upload: [upload, forged], added=poison)


NETWORK_ATTACKS: Final[tuple[Attack, ...]] = (
    _attack(
        "truncated-frames",
        "The network delivers half of a frame.",
        ("W-02", "W-05"),
        *_changed(lambda data: data[: len(data) // 2]),
    ),
    _attack(
        "corrupted-frames",
        "The network flips a bit of a frame.",
        ("W-05",),
        *_changed(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ),
    _attack(
        "reordered-chunks",
        "The network delivers the second chunk before the first.",
        ("M-16", "M-24"),
        _reordered,
        _uploads(lambda upload: [_halves_swapped(upload)]),
    ),
    _attack(
        "oversize-frame",
        "The network appends to a frame what no receiver should hold.",
        ("W-02",),
        *_changed(lambda data: data + bytes(MAX_ENVELOPE)),
    ),
    _attack(
        "replayed-envelope",
        "The network delivers a frame twice, one of another run, and one to the wrong node.",
        ("W-06", "M-13", "M-16", "M-22"),
        _replayed,
        _uploads(lambda upload: [upload, upload]),
        spares_victim=True,
    ),
    _attack(
        "impersonation",
        "The network delivers chunks in a node's name that others signed.",
        ("W-05",),
        _on_upload(_impostor),
        _poisoned,
        spares_victim=True,
    ),
)
