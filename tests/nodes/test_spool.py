"""A round's messages on disk, and a disk that cannot take them."""

import errno
import gc
import os
from pathlib import Path

import pytest

from nodes.spool import FileSpool
from secagg.errors import ConfigError


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere") as caught:
        FileSpool(tmp_path / "nowhere")
    assert "coordinator.state" in str(caught.value.hint)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = FileSpool(tmp_path)

    def full(handle: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ConfigError, match="No space left"):
        spool.append(b"x")


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, real = FileSpool(tmp_path), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: real(handle, data[:3], at))
    assert spool.append(b"0123456789") == 0
    assert spool.append(b"abc") == 10
    assert spool.read(8, 0, 4) == b"89ab"
    assert spool.read(10, 1, 2) == b"bc"


def test_reading_past_the_end_is_not_a_short_answer(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.append(b"abc")
    with pytest.raises(ConfigError, match="cut short"):
        spool.read(0, 1, 3)


def test_the_file_goes_with_the_spool(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    handle = spool._handle
    del spool
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
