"""The ledger as a file: durable before it stands, whole after any crash, noticed if set back."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest

from nodes.privacy_ledger import LEDGER, FileLedger, head_path, read_ledger
from nodes.session.ledger import MemoryLedger, PrivacyLedger
from secagg.dp.events import Unprotected
from secagg.dp.ledger import (
    CANCEL,
    LedgerDamagedError,
    LedgerSetBackError,
    RoundSpentError,
    fragment_digest,
)
from secagg.errors import ConfigError, LocalProtocolError
from tests.support.ledgers import NOW, OTHER, RUN, STEPS, SUM, charge, filled, lines

DELTA = 1e-5
WHOLE = b"".join(line + b"\n" for line in lines(3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER


def rounds(path: Path) -> list[int]:
    return [entry.round_id for entry in FileLedger(path).history().entries]


# --- charges -------------------------------------------------------------------------------------


@pytest.mark.req("B-03")
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_round_is_charged_once_and_never_given_back(kind: str, path: Path) -> None:
    ledger: PrivacyLedger = MemoryLedger() if kind == "memory" else FileLedger(path)
    entry = ledger.spend(RUN, 7, "client", SUM, now=NOW)
    assert (entry.index, entry.round_id, entry.event) == (0, 7, SUM)
    for unit, event in (("client", SUM), ("record", STEPS), ("none", Unprotected())):
        with pytest.raises(RoundSpentError):
            ledger.spend(RUN, 7, unit, event, now=NOW)
    ledger.spend(OTHER, 7, "client", SUM, now=NOW)
    ledger.spend(RUN, 8, "record", STEPS, now=NOW)
    assert [entry.round_id for entry in ledger.history().entries] == [7, 7, 8]
    history = ledger.history()
    assert ledger.spent("client", DELTA) == history.spent("client", DELTA) > 0
    assert ledger.remaining("client", DELTA, 9.0) == history.remaining("client", DELTA, 9.0) < 9
    assert ledger.would_overspend("client", SUM, delta=DELTA, budget=ledger.spent("client", DELTA))
    assert not hasattr(ledger, "refund")


@pytest.mark.req("B-02", "B-04")
def test_charges_are_lines_that_outlive_the_process_and_are_its_own(path: Path) -> None:
    assert FileLedger(path).check() == 0
    assert list(path.parent.iterdir()) == []
    filled(path, 3)
    assert path.read_bytes() == WHOLE
    last = json.loads(lines(3)[-1])
    assert json.loads(head_path(path).read_bytes()) == {"count": 3, "hash": last["hash"]}
    for file in (path, head_path(path)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = FileLedger(path)
    assert again.check() == 3
    with pytest.raises(RoundSpentError):
        charge(again, 2)
    assert path.read_bytes() == WHOLE


@pytest.mark.req("B-13")
def test_two_processes_on_one_ledger_see_each_others_charges(path: Path) -> None:
    mine, theirs = filled(path, 1), FileLedger(path)
    charge(theirs, 1)
    with pytest.raises(RoundSpentError):
        charge(mine, 1)
    charge(mine, 2)
    assert mine.spent("client", DELTA) == theirs.spent("client", DELTA)
    assert rounds(path) == [0, 1, 2]


@pytest.mark.req("B-13")
def test_a_lock_that_another_process_holds_is_not_waited_for(path: Path) -> None:
    ledger = filled(path, 3)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for use in (ledger.check, lambda: charge(ledger, 9)):
            with pytest.raises(ConfigError, match="in use by another process"):
                use()
        assert len(read_ledger(path).history) == 3  # reading needs no lock
    charge(ledger, 9)


@pytest.mark.req("B-01", "B-04")
def test_the_charge_its_newline_and_its_head_are_forced_to_the_disk_in_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[tuple[str, int, bool]] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        mode = os.fstat(handle).st_mode
        inode = os.fstat(handle).st_ino
        what = "folder" if stat.S_ISDIR(mode) else "head"
        what = "ledger" if inode == path.stat().st_ino else what
        data = path.read_bytes()
        forced.append((what, data.count(b'"hash"'), data.endswith(b"\n")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    ledger = FileLedger(path)
    for count in (1, 2):
        forced.clear()
        charge(ledger, count)
        assert forced == [
            ("ledger", count, False),
            ("ledger", count, True),
            ("folder", count, True),
            ("head", count, True),
            ("folder", count, True),
        ]


def test_a_charge_out_of_range_is_a_bug_of_ours_and_leaves_nothing(path: Path) -> None:
    filled(path, 3)
    with pytest.raises(LocalProtocolError):
        FileLedger(path).spend(RUN, 9, "none", SUM, now=NOW)
    assert path.read_bytes() == WHOLE


# --- writes that were cut off --------------------------------------------------------------------


@pytest.mark.req("B-05")
def test_a_line_cut_off_anywhere_charges_nothing_and_is_named_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # this many are slow
    lasting = b"".join(line + b"\n" for line in lines(2))
    filled(path, 2)
    head = head_path(path).read_bytes()
    for cut in range(1, len(lines(3)[2]) + 1):
        fragment = lines(3)[2][:cut]
        path.write_bytes(lasting + fragment)
        head_path(path).write_bytes(head)
        reading = read_ledger(path)
        assert (len(reading.history), reading.fragment) == (2, fragment)
        charge(FileLedger(path), 9)
        assert path.read_bytes().startswith(lasting + fragment + CANCEL)
        entry = FileLedger(path).history().entries[2]
        assert (entry.round_id, entry.torn) == (9, fragment_digest(fragment))


@pytest.mark.req("B-05")
def test_a_line_cut_off_again_and_again_is_named_whole(path: Path) -> None:
    filled(path, 1)
    with path.open("ab") as file:
        file.write(b"one" + CANCEL + b"two")
    charge(FileLedger(path), 1)
    assert FileLedger(path).history().entries[1].torn == fragment_digest(b"one" + CANCEL + b"two")
    charge(FileLedger(path), 2)
    assert rounds(path) == [0, 1, 2]


@pytest.mark.req("B-05")
def test_a_disk_that_fills_up_in_the_middle_of_a_line_makes_no_charge(path: Path) -> None:
    ledger = filled(path, 1)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(ConfigError, match="file too large") as caught:
                charge(ledger, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "make room" in caught.value.hint
    assert rounds(path) == [0]
    charge(ledger, 1)
    assert rounds(path) == [0, 1]
    assert FileLedger(path).history().entries[1].torn is not None


@pytest.mark.req("B-01")
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_fails_gives_no_entry_and_loses_none(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    ledger = filled(path, 2)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ConfigError) as caught:
        charge(ledger, 2)
    assert caught.value.hint
    monkeypatch.undo()
    kept = rounds(path)
    assert kept == ([0, 1, 2] if call == "replace" else [0, 1])  # what was committed stays
    charge(ledger, 3)
    assert rounds(path) == [*kept, 3]


@pytest.mark.req("B-06")
def test_a_failing_head_holds_up_the_next_charge(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ledger = filled(path, 2)
    monkeypatch.setattr(os, "replace", fail)
    for round_id in (2, 3, 4):
        with pytest.raises(ConfigError):
            charge(ledger, round_id)
    monkeypatch.undo()
    assert rounds(path) == [0, 1, 2]


@pytest.mark.req("B-10")
def test_a_path_that_cannot_hold_a_ledger_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (f"missing/{LEDGER}", ".", "fifo"):
        with pytest.raises(ConfigError) as caught:
            charge(FileLedger(tmp_path / name), 1)
        assert caught.value.hint
        with pytest.raises(ConfigError) as caught:
            read_ledger(tmp_path / name)
        assert caught.value.hint


# --- damage and older copies ---------------------------------------------------------------------


@pytest.mark.req("B-02", "B-06", "B-10")
def test_any_changed_byte_of_the_file_is_noticed(path: Path) -> None:
    filled(path, 3)
    for place in range(len(WHOLE)):
        for flip in (1, 0x80)[: 1 + (place % 8 == 0)]:
            path.write_bytes(WHOLE[:place] + bytes([WHOLE[place] ^ flip]) + WHOLE[place + 1 :])
            with pytest.raises((LedgerDamagedError, LedgerSetBackError)) as caught:
                read_ledger(path)
            assert caught.value.hint
    with pytest.raises(ConfigError):
        charge(FileLedger(path), 9)


@pytest.mark.req("B-10")
def test_damage_is_named_with_file_line_and_remedy_and_nothing_is_charged(path: Path) -> None:
    filled(path, 3)
    one, two, three = WHOLE.splitlines(keepends=True)
    for damaged, number in (
        (one + three, 2),
        (one + three + two, 2),
        (two + three, 1),
        (one + two + b"\n" + three, 3),
        (one + two.replace(b'"shares":10', b'"shares":99') + three, 2),
        (one + bytes(len(two)) + b"\n" + three, 2),
        (WHOLE + b"hello\n", 4),
        (WHOLE + WHOLE, 4),
    ):
        path.write_bytes(damaged)
        for use in (FileLedger(path).check, lambda: charge(FileLedger(path), 9)):
            with pytest.raises(LedgerDamagedError, match=f"{path}: line {number} ") as caught:
                use()
            assert "newest whole copy" in caught.value.hint
        assert path.read_bytes() == damaged
        with pytest.raises(LedgerDamagedError, match=f"line {number} "):
            read_ledger(path)


@pytest.mark.req("B-06")
def test_an_older_copy_of_the_file_is_refused_at_the_next_start(path: Path) -> None:
    filled(path, 3)
    for size in (*range(0, len(WHOLE), 9), len(WHOLE) - 1):
        path.write_bytes(WHOLE[:size])
        with pytest.raises(LedgerSetBackError, match=r"entries, but .*head saw 3"):
            FileLedger(path).check()
    path.unlink()
    for use in (FileLedger(path).check, lambda: charge(FileLedger(path), 9)):
        with pytest.raises(LedgerSetBackError, match="has 0 entries"):
            use()
    path.unlink(missing_ok=True)
    with pytest.raises(LedgerSetBackError, match="has 0 entries"):
        read_ledger(path)


@pytest.mark.req("B-06")
def test_another_ledger_of_the_same_length_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for round_id in range(3):
        FileLedger(other).spend(OTHER, round_id, "client", SUM, now=NOW)
    filled(path, 3)
    shutil.copy(other, path)
    with pytest.raises(LedgerSetBackError, match="another history"):
        FileLedger(path).check()


@pytest.mark.req("B-06")
def test_a_ledger_one_ahead_of_its_head_was_killed_between_and_is_mended(path: Path) -> None:
    filled(path, 3)
    head = head_path(path).read_bytes()
    charge(FileLedger(path), 3)
    newest = head_path(path).read_bytes()
    head_path(path).write_bytes(head)
    assert len(read_ledger(path).history) == 4
    assert head_path(path).read_bytes() == head  # reading changes nothing
    assert FileLedger(path).check() == 4
    assert head_path(path).read_bytes() == newest


@pytest.mark.req("B-06")
def test_a_head_that_is_missing_older_or_damaged_is_refused_and_the_hint_mends_it(
    path: Path,
) -> None:
    filled(path, 1)
    older = head_path(path).read_bytes()
    for round_id in (1, 2):
        charge(FileLedger(path), round_id)
    newest = head_path(path).read_bytes()
    for damage in (None, older, b"", b"{}", newest[:-9], newest.replace(b"3", b"03", 1)):
        if damage is None:
            head_path(path).unlink()
        else:
            head_path(path).write_bytes(damage)
        for use in (FileLedger(path).check, lambda: read_ledger(path)):
            with pytest.raises(ConfigError, match=r"head (is missing|knows only 1|is d)") as e:
                use()
        if "move it away" in e.value.hint:
            head_path(path).unlink()
            with pytest.raises(LedgerSetBackError, match="head is missing") as e:
                FileLedger(path).check()
        command = e.value.hint.partition("anew: ")[2]
        assert command == f"echo '{newest.decode().strip()}' > {head_path(path)}"
        head_path(path).write_bytes(newest)
        assert FileLedger(path).check() == 3


@pytest.mark.req("B-06")
def test_a_ledger_set_back_under_a_running_party_is_noticed(path: Path) -> None:
    ledger = filled(path, 1)
    older = path.read_bytes(), head_path(path).read_bytes()
    charge(ledger, 1)
    path.write_bytes(older[0])
    head_path(path).write_bytes(older[1])
    for use in (ledger.history, lambda: charge(ledger, 1)):
        with pytest.raises(LedgerSetBackError, match="replaced or cut") as caught:
            use()
    assert "restores its state folder" in caught.value.hint
    path.unlink()
    with pytest.raises(LedgerSetBackError, match="replaced or cut"):
        charge(ledger, 1)


@pytest.mark.req("B-06")
def test_a_ledger_replaced_by_one_as_long_under_a_running_party_is_noticed(path: Path) -> None:
    ledger, whole = filled(path, 2), path.read_bytes()
    edited = whole.replace(b"R".hex().encode(), b"Q".hex().encode())
    for other in (edited, whole[:-1], whole[:-1] + b"x", whole[:-2] + b"\n\n"):
        path.write_bytes(other)
        with pytest.raises(LedgerSetBackError, match="replaced or cut"):
            charge(ledger, 2)
    path.write_bytes(whole)
    charge(ledger, 2)


@pytest.mark.req("B-12")
def test_a_live_ledger_can_be_read_between_any_two_steps_of_a_charge(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(path, 2)
    seen: set[int] = set()
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def look(*arguments: object, real: object = real) -> object:
            result = real(*arguments)  # type: ignore[operator]
            seen.add(len(read_ledger(path).history))
            return result

        monkeypatch.setattr(os, name, look)
    charge(ledger, 2)
    assert seen == {2, 3}


@pytest.mark.req("B-12")
def test_a_ledger_that_grows_between_two_looks_of_a_reader_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, pread = filled(path, 2), os.pread

    def grow(handle: int, size: int, at: int) -> bytes:
        data = pread(handle, size, at)
        if not data:  # all was read
            monkeypatch.setattr(os, "pread", pread)
            for round_id in (2, 3, 4):
                charge(ledger, round_id)
        return data

    monkeypatch.setattr(os, "pread", grow)
    assert len(read_ledger(path).history) == 2
    assert len(read_ledger(path).history) == 5
