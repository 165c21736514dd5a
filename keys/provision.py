"""A whole federation on one machine, for demos and tests: every step a real one.

The steps are those of `secagg keys init`, `request`, `approve` and `install`, in one process. Each
party's secrets are made in its own folder and are in no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keys.authority import Authority, init_root
from keys.enrolment import install_bundle, install_roster, make_request
from keys.names import Rng, Role, check_node_id
from keys.roster import MAX_ROSTER_BYTES
from keys.store import make_private_folder, read_public
from secagg.errors import ConfigError

__all__ = ["Provisioned", "provision"]


@dataclass(frozen=True)
class Provisioned:
    """Where everything lies.

    Attributes:
        root: Folder of the root.
        coordinator: Folder of the coordinator.
        nodes: Node id to folder, in the order asked for.
        federation: Id.
        root_key: Ed25519 public key, 32 bytes.
    """

    root: Path
    coordinator: Path
    nodes: dict[str, Path]
    federation: str
    root_key: bytes


def provision(
    folder: Path,
    federation: str,
    coordinator_id: str,
    node_ids: Sequence[str],
    *,
    now: int,
    rng: Rng,
    days: int = 365,
) -> Provisioned:
    """Make `root/`, `coordinator/` and `nodes/<id>/` under `folder`, ready to run.

    Args:
        folder: Where; made if missing.
        federation: Name of the federation.
        coordinator_id: Node id of the coordinator.
        node_ids: Node ids, distinct.
        now: Unix seconds.
        rng: Source of all keys.
        days: Validity of the certificates.

    Raises:
        ConfigError: A name, or the folder, cannot be used, or an id is given twice.
        KeyMaterialError: A folder is in use already.
    """
    for node_id in (coordinator_id, *node_ids):
        check_node_id(node_id)
    if len({coordinator_id, *node_ids}) != 1 + len(node_ids):
        raise ConfigError("a node id is given twice", hint="give each party a name of its own")
    make_private_folder(folder)
    root = init_root(folder / "root", federation, now=now, rng=rng)
    make_private_folder(folder / "nodes")
    places = Provisioned(
        root=root.folder,
        coordinator=folder / "coordinator",
        nodes={node_id: folder / "nodes" / node_id for node_id in node_ids},
        federation=root.card.federation,
        root_key=root.card.root_key,
    )
    _enrol(
        root, Role.COORDINATOR, {coordinator_id: places.coordinator}, now=now, rng=rng, days=days
    )
    if places.nodes:
        _enrol(root, Role.NODE, places.nodes, now=now, rng=rng, days=days)
    newest = read_public(root.folder / "roster.json", MAX_ROSTER_BYTES)
    install_roster(newest, places.coordinator)
    return places


def _enrol(
    root: Authority, role: Role, folders: dict[str, Path], *, now: int, rng: Rng, days: int
) -> None:
    requests = [
        make_request(path, node_id, role, now=now, rng=rng) for node_id, path in folders.items()
    ]
    bundles = root.approve(
        requests,
        now=now,
        fingerprints=[request.fingerprint for request in requests],
        grant=role,
        days=days,
    )
    for path, bundle in zip(folders.values(), bundles, strict=True):
        install_bundle(bundle, path, now=now, root_fingerprint=root.card.fingerprint)
