"""What daemons keep: durable, private, and refused when it is not theirs."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from nodes.session.events import ParticipantState, RunState
from nodes.store import hold_state, load_memory, load_run, save_memory, save_run
from secagg.errors import ConfigError


def a_run() -> RunState:
    rng = np.random.default_rng(0)
    return RunState(
        b"\x00\xff" * 8,
        7,
        5,
        rng.normal(size=30).astype(np.float32),
        rng.normal(size=4).astype(np.float32),
        {"step": np.array([5]), "first": rng.normal(size=30)},
        distances={"node-a": 0.1, "node-b": 1 / 3},
    )


@pytest.mark.req("S-04")
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    assert load_run(path, b"{}") is None
    run = a_run()
    save_run(path, run, b"{}")
    back = load_run(path, b"{}")
    assert back is not None
    assert (back.run_id, back.next_round, back.rounds_done) == (run.run_id, 7, 5)
    assert back.distances == run.distances
    assert np.array_equal(back.params, run.params)
    assert np.array_equal(back.reference, run.reference)
    assert back.optimiser.keys() == run.optimiser.keys()
    assert all(np.array_equal(back.optimiser[k], run.optimiser[k]) for k in run.optimiser)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped", "list", "null", "deep"])
def test_a_damaged_checkpoint_is_named_not_used(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_run(path, a_run(), b"{}")
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-9],
            "text": b"hello",
            "empty": b"",
            "flipped": bytes([data[0] ^ 0xFF]) + data[1:],
            "list": (2).to_bytes(8, "little") + b"[]",
            "null": (21).to_bytes(8, "little") + b'{"__metadata__": null}',
            "deep": (100_000).to_bytes(8, "little") + b"[" * 100_000,
        }[damage]
    )
    with pytest.raises(ConfigError, match="is not a checkpoint") as caught:
        load_run(path, b"{}")
    assert "start anew" in caught.value.hint


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_run(path, a_run(), b'{"rounds":3,"train":{"steps":1}}')
    with pytest.raises(ConfigError) as caught:
        load_run(path, b'{"rounds":5,"train":{"steps":1}}')
    assert "run.rounds 3 there, 5 here" in str(caught.value)
    assert "steps" not in str(caught.value)


@pytest.mark.req("S-05")
def test_a_nodes_memory_comes_back_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert load_memory(path) is None
    state = ParticipantState({b"\x80" * 16: 12, bytes(16): 3})
    save_memory(path, state)
    assert load_memory(path) == state
    for text in ("{}", "[" * 100_000, '{"rounds":{"xyz":1}}', '{"rounds":{"00":-1}}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="damaged") as caught:
            load_memory(path)
    assert "repeat a round" in caught.value.hint


@pytest.mark.req("S-05")
def test_a_state_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with hold_state(folder), pytest.raises(ConfigError, match="in use"), hold_state(folder):
        pass
    with hold_state(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
