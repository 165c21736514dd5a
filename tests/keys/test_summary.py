from __future__ import annotations

from pathlib import Path

import pytest

from keys.enrolment import rotate
from keys.names import Role
from keys.summary import State, summarise
from secagg.errors import KeyMaterialError
from tests.keys.fleet import NOW, YEAR, Fleet, snapshot


def test_a_party_before_install_knows_only_itself(fleet: Fleet) -> None:
    request = fleet.ask("plant-a")
    summary = summarise(fleet.path / "plant-a", now=NOW)
    assert summary.owner is not None
    assert summary.owner.fingerprint == request.fingerprint
    assert (summary.owner.certified, summary.owner.encrypted, summary.owner.rotating) == (
        False,
        False,
        False,
    )
    assert (summary.version, summary.members) == (None, ())


def test_the_root_shows_members_and_revocations(fleet: Fleet) -> None:
    fleet.enrol("hub", Role.COORDINATOR)
    fleet.enrol("plant-a")
    fleet.root.revoke("plant-a", now=NOW + 5, reason="gateway stolen")
    summary = summarise(fleet.root.folder, now=NOW)
    assert [(line.node_id, line.state) for line in summary.members] == [("hub", State.VALID)]
    (dead,) = summary.revoked
    assert (dead.node_id, dead.until, dead.note) == ("plant-a", NOW + 5, "gateway stolen")
    assert summary.owner is None
    assert summary.root_fingerprint == fleet.root.card.fingerprint


@pytest.mark.parametrize(
    ("now", "state"),
    [(NOW - 301, State.EARLY), (NOW, State.VALID), (NOW + YEAR, State.EXPIRED)],
)
def test_states_follow_the_clock(fleet: Fleet, now: int, state: State) -> None:
    fleet.enrol("plant-a")
    assert summarise(fleet.path / "plant-a", now=now).members[0].state is state


def test_expiring_lists_what_ends_in_time(fleet: Fleet) -> None:
    fleet.grant(fleet.ask("plant-a"), days=10)
    fleet.grant(fleet.ask("plant-b"), days=90)
    day = 86_400
    for days, names in ((9, []), (11, ["plant-a"]), (91, ["plant-a", "plant-b"])):
        summary = summarise(fleet.root.folder, now=NOW, expiring_s=days * day)
        assert [line.node_id for line in summary.members] == names


def test_looking_changes_nothing_and_unlocks_nothing(fleet: Fleet) -> None:
    fleet.enrol("plant-a")
    rotate(fleet.path / "plant-a", now=NOW, rng=fleet.rng)
    before = snapshot(fleet.path)
    summary = summarise(fleet.path / "plant-a", now=NOW)
    assert summary.owner is not None
    assert summary.owner.rotating
    assert snapshot(fleet.path) == before


def test_any_other_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyMaterialError, match="neither a root nor a party"):
        summarise(tmp_path, now=NOW)
