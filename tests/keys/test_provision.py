from __future__ import annotations

import json
from pathlib import Path

import pytest

from keys import RosterFile, load_identity, load_root_card, provision
from keys.authority import open_root
from secagg.errors import ConfigError, KeyMaterialError
from tests.keys.fleet import NOW, InsecureRng, snapshot

NODES = [f"plant-{letter}" for letter in "abcdefghi"]


@pytest.fixture
def places(tmp_path: Path):
    return provision(tmp_path / "run", "demo", "hub", NODES, now=NOW, rng=InsecureRng())


def test_every_party_is_ready_to_run(places) -> None:
    for node_id, folder in {"hub": places.coordinator, **places.nodes}.items():
        identity = load_identity(folder)
        rosters = RosterFile(folder / "roster.json", load_root_card(folder).root_key)
        roster = rosters.reload()
        assert roster is not None
        assert identity.node_id == node_id
        assert roster.member(node_id).transport_key == identity.transport_key
        assert roster.coordinator.node_id == "hub"
        assert [node.node_id for node in roster.nodes] == NODES
        assert len(roster.active(NOW)) == 10
        assert roster.federation == places.federation
    assert load_root_card(places.coordinator).root_key == places.root_key
    assert open_root(places.root).roster().version == 3


@pytest.mark.req("K-08")
def test_no_private_key_is_in_two_folders(places) -> None:
    folders = [places.root, places.coordinator, *places.nodes.values()]
    contents = [b"".join(snapshot(folder).values()) for folder in folders]
    secrets = [json.loads(next(f.glob("*.secret")).read_text())["payload"] for f in folders]
    assert len(set(secrets)) == 11
    for at, secret in enumerate(secrets):
        for part in (secret[4:40], secret[-40:-4]):
            assert [n for n, data in enumerate(contents) if part.encode() in data] == [at]


@pytest.mark.parametrize("nodes", [["../x"], ["a", "a/b"]])
def test_a_bad_name_is_refused(tmp_path: Path, nodes: list[str]) -> None:
    with pytest.raises(ConfigError):
        provision(tmp_path / "run", "demo", "hub", nodes, now=NOW, rng=InsecureRng())
    assert not (tmp_path / "x").exists()


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    for nodes in (["hub"], ["a", "a"]):
        with pytest.raises(ConfigError, match="twice"):
            provision(tmp_path / "run", "demo", "hub", nodes, now=NOW, rng=InsecureRng())


def test_a_folder_in_use_is_refused(places) -> None:
    with pytest.raises(KeyMaterialError, match="never overwritten"):
        provision(places.root.parent, "demo", "hub", NODES, now=NOW, rng=InsecureRng())
