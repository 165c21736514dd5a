"""What daemons keep on disk: checkpoints and a node's memory, each replaced atomically."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from keys.store import make_private_folder, write_atomic
from nodes.session.events import ParticipantState, RunState
from secagg.dp.receipts import MAX_RECEIPT
from secagg.errors import ConfigError, DecodeError
from secagg.types import NodeId
from secagg.wire.codec import MAX_FRAME, decode, encode
from secagg.wire.messages import RoundOffer

__all__ = [
    "hold_state",
    "load_memory",
    "load_offer",
    "load_receipts",
    "load_run",
    "save_memory",
    "save_offer",
    "save_receipt",
    "save_run",
    "sync_folder",
    "write_json",
]

_FORMAT: Final = "secagg-checkpoint/1"


class _Memory(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rounds: dict[str, Annotated[int, msgspec.Meta(ge=0)]]
    """Run id in hexadecimal to the newest round."""
    last_sum: tuple[str, ...] | None = None
    begun: tuple[float, ...] = ()


class _RunHeader(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    format: str
    run_id: bytes
    next_round: int
    rounds_done: int
    finished: bool
    training: str
    distances: dict[str, float] = {}
    clip: float = 0.0
    noise_multiplier: float = 0.0


@contextlib.contextmanager
def hold_state(folder: Path) -> Iterator[None]:
    """Make a folder and keep it to ourselves for as long as the block runs.

    Two processes with one identity or one memory could answer a round twice (S-05).

    Raises:
        ConfigError: another process holds it.
    """
    fresh = [place for place in (folder, *folder.parents) if not place.exists()]
    make_private_folder(folder)
    for place in fresh:  # what is kept in a folder lasts no longer than the folder's own name
        with contextlib.suppress(PermissionError):  # a parent that we may enter but not list
            sync_folder(place.parent)
    with (folder / ".daemon").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder} is in use by another process",
                hint="stop the other coordinator or node, or give this one its own state folder",
            ) from None
        yield


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk; what a file holds is forced by its own fsync.

    Raises:
        OSError: the folder cannot be opened or the disk failed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_run(path: Path, state: RunState, training: bytes) -> None:
    """Write a checkpoint; it is on the disk when this returns (S-04)."""
    header = _RunHeader(
        _FORMAT,
        state.run_id,
        state.next_round,
        state.rounds_done,
        state.finished,
        training.decode(),
        state.distances,
        state.clip,
        state.noise_multiplier,
    )
    tensors: dict[str, NDArray[Any]] = {
        "params": state.params,
        "reference": state.reference,
        **{f"optimiser.{name}": array for name, array in state.optimiser.items()},
    }
    metadata = {"run": msgspec.json.encode(header).decode()}
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomic(path, save(tensors, metadata))


def load_run(path: Path, training: bytes) -> RunState | None:
    """Read the checkpoint, or None where there is none.

    Raises:
        ConfigError: the file is damaged, or was made under other model or training settings.
    """
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        fields = json.loads(data[8 : 8 + size])
        header = msgspec.json.decode(fields["__metadata__"]["run"], type=_RunHeader)
        tensors = load(data)
        optimiser = {
            name.removeprefix("optimiser."): array
            for name, array in tensors.items()
            if name.startswith("optimiser.")
        }
        params, reference = tensors["params"], tensors["reference"]
    except (
        AttributeError,
        KeyError,
        OSError,
        RecursionError,
        SafetensorError,
        TypeError,
        ValueError,
        msgspec.MsgspecError,
    ) as error:
        raise ConfigError(
            f"{path} is not a checkpoint: {error}", hint="restore it, or move it away to start anew"
        ) from error
    if header.format != _FORMAT or header.training.encode() != training:
        raise ConfigError(
            f"{path} is of other settings: {_differences(header.training, training)}",
            hint="restore those settings, or choose another coordinator.state folder",
        )
    return RunState(
        run_id=header.run_id,
        next_round=header.next_round,
        rounds_done=header.rounds_done,
        params=params,
        reference=reference,
        optimiser=optimiser,
        finished=header.finished,
        distances=header.distances,
        clip=header.clip,
        noise_multiplier=header.noise_multiplier,
    )


def _differences(stored: str, wanted: bytes) -> str:
    """Name the settings that differ, as ``run.rounds 3 there, 5 here``."""
    there, here = _flat(json.loads(stored)), _flat(json.loads(wanted))
    names = sorted(n for n in there.keys() | here.keys() if there.get(n) != here.get(n))
    return "; ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in names)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for table, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{table}.{key}": inner for key, inner in value.items()}
        else:
            flat[f"run.{table}"] = value
    return flat


def save_memory(path: Path, state: ParticipantState) -> None:
    """Write what a node must not forget; it is on the disk when this returns (S-05)."""
    rounds = {run.hex(): newest for run, newest in state.rounds.items()}
    write_atomic(path, msgspec.json.encode(_Memory(rounds, state.last_sum, state.begun)))


def load_memory(path: Path) -> ParticipantState | None:
    """Read a node's memory, or None where there is none.

    Raises:
        ConfigError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        memory = msgspec.json.decode(path.read_bytes(), type=_Memory)
        rounds = {bytes.fromhex(run): newest for run, newest in memory.rounds.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}",
            hint="restore it; if you remove it, this node may be asked to repeat a round",
        ) from error
    return ParticipantState(rounds, memory.last_sum, memory.begun)


def save_receipt(folder: Path, node: NodeId, receipt: bytes) -> None:
    """Keep the newest receipt of a node's privacy ledger; it is a witness, not forced to disk."""
    make_private_folder(folder)
    _replace(folder / node, receipt)


def save_offer(path: Path, offer: RoundOffer) -> None:
    """Keep the newest offer, for people to hold a policy against; not forced to disk.

    Raises:
        OSError: the folder cannot be written.
    """
    _replace(path, encode(offer))


def load_offer(path: Path) -> RoundOffer | None:
    """Read the newest offer that a node was given, or None where there is none.

    Raises:
        ConfigError: the file holds no offer of this version.
    """
    hint = "give the offer.bin of a node of this version of secagg"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FRAME + 1)
        message = decode(data, sender=str(path))
    except FileNotFoundError:
        return None
    except DecodeError as error:
        raise ConfigError(str(error), hint=hint) from error
    if not isinstance(message, RoundOffer):
        raise ConfigError(f"{path} is a {type(message).__name__}, no offer", hint=hint)
    return message


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(data)
    fresh.replace(path)


def load_receipts(folder: Path) -> dict[NodeId, bytes]:
    """Return node to the newest receipt of its ledger; a damaged one helps nobody and is left."""
    if not folder.exists():
        return {}
    found: dict[NodeId, bytes] = {}
    for place in folder.iterdir():
        if place.name.startswith(".") or not place.is_file():
            continue
        with contextlib.suppress(OSError), place.open("rb") as file:
            found[place.name] = file.read(MAX_RECEIPT + 1)
    return found


def write_json(path: Path, value: object) -> None:
    """Write an indented JSON file atomically."""
    write_atomic(path, json.dumps(value, indent=2).encode() + b"\n")
