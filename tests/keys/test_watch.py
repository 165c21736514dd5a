from __future__ import annotations

from pathlib import Path

import pytest

from keys.enrolment import install_roster
from keys.store import write_atomic
from keys.watch import RosterFile, read_floor
from secagg.errors import KeyMaterialError
from tests.keys.fleet import NOW, Fleet


def published(fleet: Fleet) -> bytes:
    return (fleet.root.folder / "roster.json").read_bytes()


@pytest.fixture
def path(fleet: Fleet) -> Path:
    fleet.enrol("plant-a")
    return fleet.path / "plant-a" / "roster.json"


@pytest.fixture
def file(fleet: Fleet, path: Path) -> RosterFile:
    return RosterFile(path, fleet.root.card.root_key)


@pytest.mark.req("K-19")
def test_a_new_version_is_taken_up_while_running(fleet: Fleet, path: Path, file) -> None:
    first = file.reload()
    assert first.version == 2
    assert file.reload() is None
    fleet.root.revoke("plant-a", now=NOW)
    install_roster(published(fleet), path.parent)
    second = file.reload()
    assert (second.version, second.members) == (3, ())
    assert file.current is second
    assert file.reload() is None


@pytest.mark.req("K-19")
def test_a_file_written_again_without_change_is_not_news(path: Path, file) -> None:
    file.reload()
    write_atomic(path, path.read_bytes().removesuffix(b"\n"))
    assert file.reload() is None


@pytest.mark.req("K-17")
def test_an_old_copy_is_refused_running_and_after_a_restart(fleet: Fleet, path: Path, file) -> None:
    old = path.read_bytes()
    fleet.root.revoke("plant-a", now=NOW)
    write_atomic(path, published(fleet))
    now = file.reload()
    write_atomic(path, old)
    with pytest.raises(KeyMaterialError, match="version 3 was seen before"):
        file.reload()
    assert file.current is now
    assert file.document == published(fleet)
    with pytest.raises(KeyMaterialError, match="version 3 was seen before"):
        RosterFile(path, fleet.root.card.root_key).reload()
    write_atomic(path, published(fleet))
    assert file.reload() is None


@pytest.mark.req("K-18")
def test_a_fork_is_refused_after_a_restart(fleet: Fleet, path: Path, tmp_path: Path, file) -> None:
    """A root restored from a backup signs another version 3."""
    import shutil

    from keys.authority import open_root

    shutil.copytree(fleet.root.folder, tmp_path / "backup")
    fleet.root.revoke("plant-a", now=NOW)
    write_atomic(path, published(fleet))
    file.reload()
    twin = open_root(tmp_path / "backup")
    twin.revoke("plant-a", now=NOW, reason="another")
    write_atomic(path, (tmp_path / "backup" / "roster.json").read_bytes())
    with pytest.raises(KeyMaterialError, match="contradicts"):
        RosterFile(path, fleet.root.card.root_key).reload()


@pytest.mark.req("K-19")
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", None])
def test_a_bad_file_keeps_the_current_roster(path: Path, file, content: bytes | None) -> None:
    good, current = path.read_bytes(), file.reload()
    if content is None:
        path.unlink()
    else:
        write_atomic(path, content)
    for _ in range(2):
        with pytest.raises(KeyMaterialError):
            file.reload()
    assert file.current is current
    write_atomic(path, good)
    assert file.reload() is None


@pytest.mark.req("K-19")
def test_the_floor_is_on_the_disk_before_the_roster_is_used(fleet, path, file, monkeypatch) -> None:
    file.reload()
    fleet.root.revoke("plant-a", now=NOW)
    write_atomic(path, published(fleet))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyMaterialError, match="no space"):
        file.reload()
    assert file.current.version == 2
    monkeypatch.undo()
    assert file.reload().version == 3
    assert read_floor(path)[0] == 3


@pytest.mark.req("K-19")
@pytest.mark.parametrize("text", ["", "3", "x y\n", "3 ab\n", "0 " + "0" * 64 + "\n"])
def test_a_damaged_floor_is_not_taken_for_none(path: Path, file, text: str) -> None:
    path.with_name("roster.version").write_text(text)
    with pytest.raises(KeyMaterialError, match=r"roster\.version: damaged"):
        file.reload()


def test_another_root_is_refused(fleet: Fleet, path: Path) -> None:
    with pytest.raises(KeyMaterialError, match="root signature"):
        RosterFile(path, bytes(32)).reload()
