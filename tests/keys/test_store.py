from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keys import store
from keys.store import (
    create_once,
    locked,
    make_private_folder,
    read_public,
    read_secret,
    write_atomic,
)
from secagg.errors import ConfigError, KeyMaterialError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.req("K-21")
@pytest.mark.parametrize("write", [write_atomic, create_once])
def test_a_written_file_is_for_its_owner_alone(path: Path, write) -> None:
    before = os.umask(0)
    try:
        write(path, b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.req("K-21")
def test_the_temporary_file_is_private_from_its_first_byte(path: Path, monkeypatch) -> None:
    modes = []
    sync = os.fsync

    def watch(handle: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    before = os.umask(0)
    try:
        write_atomic(path, b"x")
    finally:
        os.umask(before)
    assert modes[0] == 0o600


@pytest.mark.req("K-21")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_secret_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    write_atomic(path, b"x")
    path.chmod(mode)
    with pytest.raises(KeyMaterialError, match="lets others") as caught:
        read_secret(path, 10)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.req("K-21")
def test_folders_are_private(tmp_path: Path) -> None:
    new, empty, used = (tmp_path / name for name in ("new/deep", "empty", "used"))
    make_private_folder(new)
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    empty.mkdir(mode=0o755)
    make_private_folder(empty)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    used.mkdir(mode=0o755)
    (used / "x").touch()
    with pytest.raises(ConfigError) as caught:
        make_private_folder(used)
    assert caught.value.hint == f"chmod 700 {used}"


@pytest.mark.req("K-20")
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_before_the_rename_leaves_the_old_file(path: Path, monkeypatch, step) -> None:
    write_atomic(path, b"old")

    def fail(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(os, "fdopen", fail)
    with pytest.raises(KeyMaterialError, match="no space left"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


@pytest.mark.req("K-20")
def test_a_name_left_by_a_killed_writer_or_planted_is_passed_over(path: Path, monkeypatch) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(b"kept")
    monkeypatch.setattr(store, "_serial", iter([7, 8]))
    path.with_name(f".file.{os.getpid()}.7.tmp").symlink_to(victim)
    write_atomic(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert victim.read_bytes() == b"kept"


@pytest.mark.req("K-20")
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_process_killed_between_write_and_rename_leaves_the_old_file(path, step) -> None:
    write_atomic(path, b"old")
    module, _, name = step.rpartition(".")
    code = (
        "import os, pathlib; from keys.store import write_atomic\n"
        f"setattr({module}, '{name}', lambda *a: os.kill(os.getpid(), 9))\n"
        f"write_atomic(pathlib.Path({str(path)!r}), b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    (left,) = (each for each in path.parent.iterdir() if each != path)
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.req("K-20")
def test_file_and_folder_are_forced_to_the_disk_in_that_order(path: Path, monkeypatch) -> None:
    calls = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda h: (
            calls.append("folder" if stat.S_ISDIR(os.fstat(h).st_mode) else "file"),
            sync(h),
        ),
    )
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1]
    )
    write_atomic(path, b"x")
    assert calls == ["file", "rename", "folder"]


@pytest.mark.req("K-24")
def test_create_once_never_overwrites(path: Path) -> None:
    create_once(path, b"first")
    with pytest.raises(KeyMaterialError, match="never overwritten"):
        create_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.req("K-06")
def test_a_long_file_is_refused(path: Path) -> None:
    path.write_bytes(b"x" * 11)
    with pytest.raises(KeyMaterialError, match="longer than 10"):
        read_public(path, 10)
    path.write_bytes(b"x" * 10)
    assert read_public(path, 10) == b"x" * 10


def test_a_missing_file_a_folder_and_a_fifo_give_one_clear_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, cause in (("no", "no such file"), ("", "not a file"), ("fifo", "not a file")):
        with pytest.raises(KeyMaterialError, match=cause) as caught:
            read_public(tmp_path / name, 10)
        assert caught.value.hint


@pytest.mark.req("K-22")
def test_one_holds_the_lock_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), (tmp_path / ".lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_in_no_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError), locked(tmp_path / "none"):
        pass


def test_the_public_names_are_those_exported() -> None:
    assert all(hasattr(store, name) for name in store.__all__)
