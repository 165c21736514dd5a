"""The journal of answers: one claim a round, durable before it stands, and damage is named."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest

from nodes import answer_journal
from nodes.answer_journal import FileJournal
from nodes.node_daemon import ANSWERS
from nodes.session.journal import AnswerJournal, MemoryJournal
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.answers import LINE, RUN

OTHER = b"Q" * 16
ONE, TWO = b"1" * 32, b"2" * 32
ROUND_READABLE = LINE.index(b',"digest"') + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ANSWERS


# --- one claim a round ---------------------------------------------------------------------------


@pytest.mark.req("S-14")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_round_is_claimed_once_whatever_the_digest(kind: str, path: Path) -> None:
    journal: AnswerJournal = MemoryJournal() if kind == "memory" else FileJournal(path)
    assert journal.claim(RUN, 7, ONE)
    assert not journal.claim(RUN, 7, ONE)
    assert not journal.claim(RUN, 7, TWO)
    assert journal.claim(RUN, 8, ONE)
    assert journal.claim(OTHER, 7, ONE)
    assert not journal.claim(RUN, 7, TWO)


@pytest.mark.req("S-14")
def test_claims_are_lines_that_outlive_the_process_and_are_its_own(path: Path) -> None:
    assert FileJournal(path).check() == 0
    assert not path.exists()
    assert FileJournal(path).claim(RUN, 7, ONE)
    assert path.read_bytes() == LINE
    assert json.loads(LINE) == {"run": RUN.hex(), "round": 7, "digest": ONE.hex()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = FileJournal(path)
    assert again.check() == 1
    assert not again.claim(RUN, 7, TWO)
    assert again.claim(RUN, 2**53, TWO)
    assert FileJournal(path).check() == 2
    assert path.read_bytes().startswith(LINE)


@pytest.mark.req("S-14")
def test_a_claim_sees_what_another_process_claimed_since_the_last(path: Path) -> None:
    mine, theirs = FileJournal(path), FileJournal(path)
    assert mine.claim(RUN, 1, ONE)
    assert theirs.claim(RUN, 2, ONE)
    assert not mine.claim(RUN, 2, ONE)
    assert not theirs.claim(RUN, 1, ONE)


@pytest.mark.req("S-14")
def test_the_line_and_the_files_name_are_forced_to_the_disk_before_the_claim_stands(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        forced.append(("folder" if folder else "file", path.read_bytes()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    journal = FileJournal(path)
    assert journal.claim(RUN, 7, ONE)
    assert forced == [("file", LINE), ("folder", LINE)]
    assert journal.claim(RUN, 8, ONE)
    assert [what for what, _ in forced] == ["file", "folder", "file"]
    assert forced[-1][1].count(b"\n") == 2


def test_a_claim_of_another_size_is_a_bug_of_ours(path: Path) -> None:
    for run_id, digest in ((b"R", ONE), (RUN, b"1" * 31)):
        with pytest.raises(LocalProtocolError):
            FileJournal(path).claim(run_id, 7, digest)
    assert not path.exists()


# --- what the disk can do ------------------------------------------------------------------------


@pytest.mark.req("S-16")
def test_a_line_cut_off_anywhere_counts_as_an_answer_or_is_refused(path: Path) -> None:
    before = LINE.replace(b":7,", b":6,")
    for cut in range(1, len(LINE)):
        path.write_bytes(before + LINE[:cut])
        if cut < ROUND_READABLE:
            with pytest.raises(ConfigError, match="line 2 was cut off") as caught:
                FileJournal(path).claim(RUN, 9, ONE)
            assert f"sed -i '2d' {path}" in caught.value.hint
            continue
        assert FileJournal(path).check() == 2
        assert not FileJournal(path).claim(RUN, 7, ONE), cut
        assert FileJournal(path).claim(RUN, 9, ONE), cut
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert [line["round"] for line in lines] == [6, 7, 9], cut
        assert FileJournal(path).check() == 3


@pytest.mark.req("S-16")
@pytest.mark.parametrize(
    "damage",
    [
        b"\n",
        b"hello\n",
        LINE[:-5] + b"\n",
        LINE.replace(b"52", b"5g", 1),
        LINE.replace(b":7,", b":07,"),
        LINE.replace(b":", b": ", 1),
        LINE[:-1] + b" \n",
        LINE.replace(b"\n", b"\r\n"),
        bytes(len(LINE)) + b"\n",
    ],
)
def test_a_damaged_line_is_named_with_its_remedy_and_nothing_is_claimed(
    path: Path, damage: bytes
) -> None:
    path.write_bytes(LINE + damage + LINE.replace(b":7,", b":8,"))
    for use in (FileJournal(path).check, lambda: FileJournal(path).claim(RUN, 9, ONE)):
        with pytest.raises(ConfigError, match=f"{path}: line 2 is not an answer") as caught:
            use()
        assert f"sed -i '2d' {path}" in caught.value.hint
    subprocess.run(["sed", "-i", "2d", str(path)], check=True)
    assert FileJournal(path).check() == 2


@pytest.mark.req("S-16")
@pytest.mark.parametrize("tail", [bytes(40), LINE[:-1] + b"x", LINE[:60] + bytes(9), b"[" * 9999])
def test_a_last_line_that_is_no_part_of_an_answer_is_refused(path: Path, tail: bytes) -> None:
    path.write_bytes(LINE + tail)
    with pytest.raises(ConfigError, match="line 2"):
        FileJournal(path).check()


@pytest.mark.req("S-15")
def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_none_of_it(path: Path) -> None:
    journal = FileJournal(path)
    assert journal.claim(RUN, 7, ONE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(LINE) + 50, limits[1]))
    try:
        with pytest.raises(ConfigError, match="file too large") as caught:
            journal.claim(RUN, 8, ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "make room" in caught.value.hint
    assert path.read_bytes() == LINE
    assert journal.claim(RUN, 8, ONE)


@pytest.mark.req("S-15")
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fails_makes_no_claim(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(answer_journal.os, call, fail)
    with pytest.raises(ConfigError, match="input/output error"):
        FileJournal(path).claim(RUN, 7, ONE)
    monkeypatch.undo()
    assert path.read_bytes() == b""
    assert FileJournal(path).claim(RUN, 7, ONE)


@pytest.mark.req("S-15")
def test_a_path_that_cannot_hold_a_journal_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing/answers.jsonl", ".", "fifo"):
        with pytest.raises(ConfigError) as caught:
            FileJournal(tmp_path / name).claim(RUN, 7, ONE)
        assert caught.value.hint


@pytest.mark.req("S-15")
def test_a_lock_that_another_process_holds_is_not_waited_for(path: Path) -> None:
    assert FileJournal(path).claim(RUN, 7, ONE)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="in use by another process"):
            FileJournal(path).claim(RUN, 8, ONE)
    assert FileJournal(path).claim(RUN, 8, ONE)


@pytest.mark.req("S-14")
def test_a_journal_set_back_under_a_running_node_is_noticed(path: Path) -> None:
    journal = FileJournal(path)
    assert journal.claim(RUN, 7, ONE)
    older = path.read_bytes()
    assert journal.claim(RUN, 8, ONE)
    path.write_bytes(older)
    with pytest.raises(ConfigError, match="replaced or cut") as caught:
        journal.claim(RUN, 8, TWO)
    assert "restores its state folder" in caught.value.hint
    path.unlink()
    with pytest.raises(ConfigError, match="replaced or cut"):
        journal.claim(RUN, 8, TWO)
