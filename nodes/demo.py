"""A whole federation on one machine: provision, start the real commands, watch, collect.

There is no protocol code here: the demo writes the files that an operator would write, starts
`secagg coordinator` and `secagg node` as processes of their own, reads the coordinator's events,
and puts the nodes' reports side by side.
"""

from __future__ import annotations

import json
import os
import queue
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fl_core.data.sources import BUILTIN, list_devices, load_device
from fl_core.detector import Detector
from fl_core.evaluation import DetectionQuality, mean_quality
from keys import provision
from nodes.config import load_coordinator_config
from nodes.node_daemon import DETECTOR, REPORT
from nodes.store import write_json
from nodes.supervisor import Fleet, Worker
from nodes.telemetry import Emit, Record
from nodes.templates import coordinator_toml, node_toml
from secagg.errors import ConfigError, RunIncompleteError
from secagg.schemes import scheme_named

__all__ = ["DemoPlan", "DemoResult", "free_folder", "run_demo"]

COORDINATOR_ID: Final = "coordinator"
_COORDINATOR_TOML: Final = "coordinator.toml"
_START_TIMEOUT: Final = 60.0
_REPORT_TIMEOUT: Final = 600.0


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What to run."""

    folder: Path
    """Empty or missing; everything of the run goes here."""
    source: str = BUILTIN
    """Data source, as in node.toml."""
    nodes: int = 9
    """Nodes; at least 3."""
    rounds: int = 8
    """Rounds with a result."""
    scheme: str = "masking"
    """How updates are summed."""
    weights: str = "private"
    """Who applies the consistency weights: the nodes, or under ckks the coordinator."""
    seed: int = 0
    """Seed of data, model and training."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    privacy: dict[str, Any] = field(default_factory=dict)
    """Table [privacy] of the coordinator; each node's policy asks for the same."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Changes to coordinator.toml by table, for tests."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came out."""

    folder: Path
    report: dict[str, Any]
    model: Path


@dataclass(frozen=True, slots=True)
class _Site:
    node_id: str
    device: str
    name: str
    """Of the device in the detector; copies of a device are numbered."""
    seed: int


def free_folder(base: Path) -> Path:
    """Return `base`, or `base-2`, `base-3`, ... if it is taken."""
    candidate, count = base, 1
    while candidate.exists():
        count += 1
        candidate = base.with_name(f"{base.name}-{count}")
    return candidate


def _claim(folder: Path) -> None:
    """Make the run folder; what is in one already is never touched."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists and is not an empty folder", hint="choose another --out"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make {folder}: {error.strerror}", hint="choose another --out"
        ) from error


def run_demo(plan: DemoPlan, emit: Emit) -> DemoResult:
    """Run the federation to its end.

    Args:
        plan: What to run.
        emit: Gets the coordinator's records and the demo's own.

    Raises:
        ConfigError: the plan cannot be run.
        DataError: the data cannot be used.
        RunIncompleteError: the run ended without all its rounds.
    """
    started = time.monotonic()
    _check_scheme(plan)
    sites = _sites(plan)
    columns = _columns(plan, sites[0])
    _claim(plan.folder)
    emit({"event": "demo.provisioning", "folder": str(plan.folder), "nodes": len(sites)})
    provision(
        plan.folder / "keys",
        "demo",
        COORDINATOR_ID,
        [site.node_id for site in sites],
        now=int(time.time()),
        rng=os.urandom,
    )
    (plan.folder / "logs").mkdir()
    (plan.folder / "nodes").mkdir()
    with Fleet() as fleet:
        coordinator = _start_coordinator(plan, fleet, columns)
        listening = _next_record(coordinator, _START_TIMEOUT)
        emit(listening)
        nodes = [_start_node(plan, fleet, site, listening["endpoint"]) for site in sites]
        over, weights = _follow(coordinator, nodes, _needed(plan), emit)
        reports = _await_reports(plan, nodes, sites, emit)
    report = _summary(plan, over, reports, time.monotonic() - started)
    if plan.weights == "coordinator":
        report["weights_of_last_round"] = weights
    write_json(plan.folder / "report.json", report)
    model = plan.folder / "model.safetensors"
    found = [plan.folder / "nodes" / name / "state" / DETECTOR for name in sorted(reports)]
    Detector.merge([Detector.load(path) for path in found]).save(model)
    return DemoResult(plan.folder, report, model)


def _check_scheme(plan: DemoPlan) -> None:
    """Refuse what the coordinator or a node would refuse, before anything is made."""
    scheme_named(plan.scheme).check()
    if plan.weights == "coordinator" and plan.scheme != "ckks":
        raise ConfigError(
            f"under {plan.scheme} the coordinator cannot weigh what it does not see",
            hint="use --scheme ckks, or --weights private",
        )


def _sites(plan: DemoPlan) -> list[_Site]:
    if plan.nodes < 3:
        raise ConfigError(
            f"--nodes is {plan.nodes}", hint="a sum over fewer than 3 nodes hides nobody; use 3 up"
        )
    devices = list_devices(plan.source)
    if plan.source != BUILTIN and plan.nodes > len(devices):
        raise ConfigError(
            f"{plan.source} has {len(devices)} devices, --nodes asks for {plan.nodes}",
            hint=f"use --nodes {len(devices)} or fewer"
            if len(devices) >= 3
            else "the demo needs data of at least 3 devices (a column `device` makes them)",
        )
    sites = []
    for index in range(plan.nodes):
        copy, device = index // len(devices), devices[index % len(devices)]
        name = re.sub(r"[^a-z0-9._-]+", "-", device.lower()).strip("-._") or f"device-{index}"
        mark = f".{copy + 1}" if copy else ""
        sites.append(_Site(name[:55] + mark, device, device + mark, plan.seed + copy))
    if len({site.node_id for site in sites}) != len(sites):
        raise ConfigError(f"two devices of {plan.source} have names too much alike")
    return sites


def _columns(plan: DemoPlan, site: _Site) -> tuple[str, ...]:
    return load_device(plan.source, site.device, seed=site.seed, drop=plan.drop).feature_names


def _start_coordinator(plan: DemoPlan, fleet: Fleet, columns: tuple[str, ...]) -> Worker:
    insecure = plan.scheme == "insecure-plain"
    values: dict[str, dict[str, Any]] = {
        "coordinator": {
            "keys": "keys/coordinator",
            "state": "coordinator",
            "bind": "tcp://127.0.0.1:*",
        },
        "run": {
            "rounds": plan.rounds,
            "columns": list(columns),
            "min_nodes": max(3, -(-2 * plan.nodes // 3)),
            "scheme": plan.scheme,
            "weights": plan.weights,
            "allow_insecure": insecure,
            "seed": plan.seed,
            "join_timeout": 90.0,
            "give_up": 180.0,
            "input_timeout": 120.0,
        },
        "privacy": {**plan.privacy, "drop": list(plan.drop)},
        "model": {"input_dim": len(columns)},
    }
    for table, changes in plan.settings.items():
        values[table] = {**values.get(table, {}), **changes}
    path = plan.folder / _COORDINATOR_TOML
    path.write_text(coordinator_toml(values))
    arguments = ["coordinator", "--config", str(path), "--events", "-"]
    return fleet.start(COORDINATOR_ID, arguments, plan.folder / "logs/coordinator.log", events=True)


def _needed(plan: DemoPlan) -> int:
    """Return the fewest nodes that the coordinator starts a round with."""
    config = load_coordinator_config(plan.folder / _COORDINATOR_TOML)
    return config.plan().least_cohort(plan.nodes)


def _start_node(plan: DemoPlan, fleet: Fleet, site: _Site, endpoint: str) -> Worker:
    folder = plan.folder / "nodes" / site.node_id
    folder.mkdir()
    source = plan.source if plan.source == BUILTIN else str(Path(plan.source).resolve())
    values: dict[str, dict[str, Any]] = {
        "node": {
            "keys": f"../../keys/nodes/{site.node_id}",
            "state": "state",
            "coordinator": endpoint,
        },
        "data": {
            "source": source,
            "device": site.device,
            "name": site.name,
            "drop": list(plan.drop),
            "seed": site.seed,
        },
        "policy": {"schemes": [plan.scheme], "weights": [plan.weights], **_required(plan)},
        "detection": {"baselines": True},
    }
    path = folder / "node.toml"
    path.write_text(node_toml(values))
    arguments = ["node", "--config", str(path)]
    return fleet.start(site.node_id, arguments, plan.folder / f"logs/{site.node_id}.log")


def _required(plan: DemoPlan) -> dict[str, Any]:
    """Return what a node's policy says of privacy: the coordinator cannot offer less."""
    unit = plan.privacy.get("unit", "none")
    if unit == "none":
        return {}
    return {"require": unit, "epsilon": plan.privacy["epsilon"], "delta": plan.privacy["delta"]}


def _next_record(coordinator: Worker, seconds: float) -> Record:
    try:
        record = coordinator.records.get(timeout=seconds)
    except queue.Empty:
        record = None
    if record is None:
        raise ConfigError(
            f"the coordinator did not start: {coordinator.log_tail()}",
            hint=f"its log is {coordinator.log}",
        )
    return record


def _follow(
    coordinator: Worker, nodes: Sequence[Worker], needed: int, emit: Emit
) -> tuple[Record, dict[str, int]]:
    """Pass the coordinator's records on until the run is over.

    Args:
        coordinator: Whose records.
        nodes: All that were started; nobody starts one again.
        needed: Nodes that a round starts with at least.
        emit: Gets the records, and one for each node that died.

    Returns:
        The last record, and what the contributors of the last round were weighed by.

    Raises:
        ConfigError: the coordinator died, or so many nodes that it would wait for them in vain.
        RunIncompleteError: the run ended without all its rounds.
    """
    mourned: dict[str, str] = {}
    weights: dict[str, int] = {}
    last_round = False  # it may end without those who have given their part
    while True:
        try:
            record = coordinator.records.get(timeout=0.5)
        except queue.Empty:
            for node in nodes:
                if not node.running and node.process.returncode and node.name not in mourned:
                    mourned[node.name] = _last_words(node)
                    emit({"event": "node.died", "node": node.name, "log": mourned[node.name]})
            left = len(nodes) - len(mourned)
            if left < (1 if last_round else needed):  # the coordinator would wait for them
                said = "\n".join(f"{name}: {log}" for name, log in mourned.items())
                raise ConfigError(
                    f"{len(mourned)} of {len(nodes)} nodes ended unexpectedly, {left} are left and "
                    f"{needed} are needed; they said\n{said}",
                    hint=f"their logs are in {nodes[-1].log.parent}",
                ) from None
            continue
        if record is None:
            raise ConfigError(
                f"the coordinator ended early: {coordinator.log_tail()}",
                hint=f"its log is {coordinator.log}",
            )
        emit(record)
        if record["event"] == "round.started":
            last_round = record["rounds_done"] + 1 == record["rounds_total"]
        if record["event"] == "round.lost":
            last_round = False
        if record["event"] == "round.done":
            weights = dict(zip(record["contributors"], record["weights"], strict=True))
        if record["event"] == "run.over":
            if not record["complete"]:
                raise RunIncompleteError(
                    record["reason"], done=record["rounds_done"], wanted=record["rounds_total"]
                )
            return record, weights


def _last_words(node: Worker) -> str:
    """Say what a dead node ended with; one that was killed has not logged why."""
    code = node.process.returncode
    return (f"killed by signal {-code}; " if code < 0 else "") + node.log_tail(2)


def _await_reports(
    plan: DemoPlan, nodes: Sequence[Worker], sites: Sequence[_Site], emit: Emit
) -> dict[str, dict[str, Any]]:
    """Wait until the nodes have measured their detectors; return the reports that there are."""
    deadline = time.monotonic() + _REPORT_TIMEOUT
    reports: dict[str, dict[str, Any]] = {}
    while time.monotonic() < deadline:
        for site in sites:
            path = plan.folder / "nodes" / site.node_id / "state" / REPORT
            if site.node_id not in reports and path.exists():
                reports[site.node_id] = json.loads(path.read_bytes())
                emit({"event": "demo.report", "node": site.node_id, "of": len(sites)})
        if len(reports) == len(sites) or not any(node.running for node in nodes):
            break
        time.sleep(0.2)
    if not reports:
        raise ConfigError("no node has written a report", hint=f"see {plan.folder / 'logs'}")
    return reports


def _summary(
    plan: DemoPlan, over: Record, reports: dict[str, dict[str, Any]], wall: float
) -> dict[str, Any]:
    qualities = [
        {method: DetectionQuality(**row) for method, row in report["quality"].items()}
        for report in reports.values()
    ]
    n = len(reports)
    return {
        "data": plan.source,
        "dropped_columns": list(plan.drop),
        "scheme": plan.scheme,
        "weights": plan.weights,
        "rounds": plan.rounds,
        "seed": plan.seed,
        "wall_seconds": round(wall, 1),
        "bytes_sent_per_node_and_round": round(
            sum(report["bytes_sent_per_round"] for report in reports.values()) / n
        ),
        "bytes_received_per_node_and_round": round(
            sum(report["bytes_received_per_round"] for report in reports.values()) / n
        ),
        "peak_memory_mb": {
            "coordinator": over["peak_memory_mb"],
            "largest_node": max(report["peak_memory_mb"] for report in reports.values()),
        },
        "mean": mean_quality([each for each in qualities if each]),  # of those with attack rows
        "devices": {report["device"]: report["quality"] for report in reports.values()},
        "nodes": reports,
    }
