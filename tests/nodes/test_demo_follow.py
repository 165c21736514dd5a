"""What `secagg demo` does while the run goes on, and how it sums up."""

from __future__ import annotations

import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_core.metrics import quality
from nodes.demo import DemoPlan, _follow, _needed, _summary
from nodes.templates import coordinator_toml
from secagg.errors import ConfigError


def worker(name: str, *, code: int | None, said: str = "") -> Any:
    return SimpleNamespace(
        name=name,
        running=code is None,
        process=SimpleNamespace(returncode=code),
        log=Path("logs") / f"{name}.log",
        log_tail=lambda lines: said,
        records=queue.Queue(),
    )


def started(rounds_done: int) -> dict[str, Any]:
    return {"event": "round.started", "rounds_done": rounds_done, "rounds_total": 2}


def test_it_stops_once_every_node_has_died() -> None:
    told: list[dict[str, Any]] = []
    nodes = [worker(name, code=1, said=f"{name} broke") for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"2 of 2 nodes(.|\n)*a broke\nb: b broke") as caught:
        _follow(worker("coordinator", code=None), nodes, 1, told.append)
    assert caught.value.hint == "their logs are in logs"
    assert [record["node"] for record in told] == ["a", "b"]


@pytest.mark.parametrize(
    "records",
    [[], [started(0)], [started(1), {"event": "round.lost"}]],
    ids=["waiting", "first round", "last round lost"],
)
def test_it_stops_once_too_few_nodes_are_left_for_a_round(records: list[dict[str, Any]]) -> None:
    coordinator = worker("coordinator", code=None)
    for record in records:
        coordinator.records.put(record)
    nodes = [worker(name, code=None) for name in ("a", "b")] + [
        worker(name, code=-9, said=f"{name} broke") for name in ("c", "d")
    ]
    with pytest.raises(ConfigError, match=r"2 of 4 nodes ended.*2 are left and 3 are") as caught:
        _follow(coordinator, nodes, 3, lambda record: None)
    assert "\nc: killed by signal 9; c broke\nd: killed" in str(caught.value)
    assert "a:" not in str(caught.value)


def test_it_goes_on_while_enough_nodes_live() -> None:
    coordinator = worker("coordinator", code=None)
    nodes = [worker("a", code=1), worker("b", code=None)]
    over = {"event": "run.over", "complete": True}

    def emit(record: dict[str, Any]) -> None:
        if record["event"] == "node.died":
            coordinator.records.put(over)

    assert _follow(coordinator, nodes, 1, emit) == (over, {})


def test_a_last_round_may_end_without_those_who_have_given_their_part() -> None:
    coordinator = worker("coordinator", code=None)
    coordinator.records.put(started(1))
    nodes = [worker("a", code=1), worker("b", code=None), worker("c", code=None)]
    over = {"event": "run.over", "complete": True}

    def emit(record: dict[str, Any]) -> None:
        if record["event"] == "node.died":
            coordinator.records.put(over)

    assert _follow(coordinator, nodes, 3, emit) == (over, {})


def test_what_is_needed_is_what_the_coordinator_asks_for(tmp_path: Path) -> None:
    values = {"coordinator": {"keys": "keys", "state": "state"}, "model": {"input_dim": 6}}
    run = {"rounds": 1, "min_nodes": 6}
    (tmp_path / "coordinator.toml").write_text(coordinator_toml({**values, "run": run}))
    assert _needed(DemoPlan(tmp_path, nodes=9)) == 6
    assert _needed(DemoPlan(tmp_path, nodes=40)) > 6  # to hide among those who may collude


def test_the_mean_is_of_the_devices_that_have_attack_rows(tmp_path: Path) -> None:
    def report(device: str, found: dict[str, Any]) -> dict[str, Any]:
        sent = {"bytes_sent_per_round": 1, "bytes_received_per_round": 1, "peak_memory_mb": 1.0}
        return {"device": device, "quality": found, **sent}

    measured = {
        name: {"federated": quality(np.zeros(4), np.full(2, high), 0.5).to_dict()}
        for name, high in (("a", 1.0), ("b", 0.0))
    }
    reports = {name: report(name, measured.get(name, {})) for name in ("a", "b", "c")}
    over = {"peak_memory_mb": 1.0}
    found = _summary(DemoPlan(tmp_path), over, reports, 1.0)
    assert found["mean"]["federated"]["recall"] == 0.5
    assert found["devices"] == {**measured, "c": {}}
    assert _summary(DemoPlan(tmp_path), over, {"c": reports["c"]}, 1.0)["mean"] == {}
