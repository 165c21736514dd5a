"""SEAL behind the algebra: files only in memory, and libraries that are missing or do not fit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secagg.ckks import seal
from secagg.ckks.rlwe import Ring, Secret, open_sum
from secagg.errors import ConfigError
from tests.support.rlwe import SEED, N


@pytest.fixture(scope="module")
def ring() -> Ring:
    return Ring(N, 49)


# --- nothing outlives a call ----------------------------------------------------------------------


class Recorder:
    """Passes save and load on to a SEAL object and notes what their path stands for."""

    def __init__(self, thing: Any, files: list[str]) -> None:
        self._thing, self._files = thing, files

    def save(self, path: str) -> None:
        self._files.append(str(Path(path).readlink()))
        self._thing.save(path)

    def load(self, context: Any, path: str) -> None:
        self._files.append(str(Path(path).readlink()))
        self._thing.load(context, path)


def test_seal_touches_only_memory_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files: list[str] = []
    save, load = seal.Channel.save, seal.Channel.load

    def recorded_load(channel: seal.Channel, thing: Any, frame: seal.Frame) -> Any:
        load(channel, Recorder(thing, files), frame)
        return thing

    monkeypatch.setattr(
        seal.Channel, "save", lambda channel, thing: save(channel, Recorder(thing, files))
    )
    monkeypatch.setattr(seal.Channel, "load", recorded_load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ring = Ring(N, 49)
    secret = Secret.fresh(ring, 4)
    open_sum(ring, secret, secret.encrypt(np.zeros((2, N), dtype=np.int64), SEED), SEED)
    assert len(files) > 15
    assert set(files) == {"/memfd:secagg (deleted)"}
    assert list(tmp_path.iterdir()) == []


def test_no_memory_file_outlives_its_operation(ring: Ring) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    message = np.zeros((1, N), dtype=np.int64)
    before = open_files()
    kept: list[object] = []
    for _ in range(200):
        secret = Secret.fresh(Ring(N, 49), 2)
        kept.append((secret, secret.encrypt(message, SEED)))
        frame = ring.context.ciphertext_frame(2, ntt=False)
        frame.data[0] ^= 1
        with pytest.raises(RuntimeError), seal.Channel(ring.context) as channel:
            channel.load(ring.context.api.Ciphertext(), frame)
    assert open_files() == before


# --- libraries that are missing or do not fit -----------------------------------------------------


def test_secagg_imports_without_the_libraries() -> None:
    program = (
        "import sys; sys.modules['tenseal'] = sys.modules['zstandard'] = None\n"
        "import secagg, secagg.ckks, secagg.ckks.rlwe\n"
        "from secagg.errors import ConfigError\n"
        "try: secagg.ckks.rlwe.Ring(2048, 49)\n"
        "except ConfigError as error: print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install tenseal==0.3.18 zstandard" in done.stdout


def refused(match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        Ring(N, 49)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["tenseal.sealapi", "zstandard"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    refused(name)


def test_a_system_without_memory_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    refused("memfd_create")


def test_a_tenseal_that_lacks_a_name_is_refused(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ring.context.api, "KeyGenerator")
    refused("KeyGenerator")


@pytest.mark.parametrize(
    ("name", "match"), [("_plaintext_prefix", "keys"), ("_ciphertext_prefix", "ciphertexts")]
)
def test_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, match: str) -> None:
    right = getattr(seal, name)
    monkeypatch.setattr(seal, name, lambda *args, **kwargs: right(*args, **kwargs) + b"\0")
    refused(match)


@pytest.mark.parametrize(
    ("start", "end", "match"),
    [
        (b"\x5e\xa1\x11", b"", "header"),
        (b"\x5e\xa1\x10\x04\x03\x01", b"", "compression"),
        (b"\x5e\xa1\x10\x04\x03\x02", b"\0" * 40, "decompress"),
    ],
    ids=["magic", "zlib", "damaged"],
)
def test_another_header_or_compression_is_refused(
    monkeypatch: pytest.MonkeyPatch, start: bytes, end: bytes, match: str
) -> None:
    save = seal.Channel.save

    def altered(channel: seal.Channel, thing: Any) -> bytes:
        saved = save(channel, thing)
        return start + saved[len(start) : len(saved) - len(end)][: 16 - len(start)] + end

    monkeypatch.setattr(seal.Channel, "save", altered)
    refused(match)


def test_residues_that_do_not_come_back_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    read = seal.Channel.read
    monkeypatch.setattr(
        seal.Channel, "read", lambda *args: np.roll(read(*args), 1, axis=1), raising=True
    )
    refused("SEAL")


def test_a_load_that_seal_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = seal.Context.key_frame

    def out_of_range(context: seal.Context) -> seal.Frame:
        made = frame(context)
        made.data = made.data[:-8] + b"\xff" * 8
        return made

    monkeypatch.setattr(seal.Context, "key_frame", out_of_range)
    refused("does not read")
