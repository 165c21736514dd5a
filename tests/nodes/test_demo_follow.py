"""What `secagg demo` does while the run goes on."""

from __future__ import annotations

import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nodes.demo import _follow
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


def test_it_stops_once_every_node_has_died() -> None:
    told: list[dict[str, Any]] = []
    nodes = [worker(name, code=1, said=f"{name} broke") for name in ("a", "b")]
    with pytest.raises(ConfigError, match=r"every node ended unexpectedly.*b broke") as caught:
        _follow(worker("coordinator", code=None), nodes, told.append)
    assert caught.value.hint == "their logs are in logs"
    assert [record["node"] for record in told] == ["a", "b"]


def test_it_goes_on_while_a_node_lives() -> None:
    coordinator = worker("coordinator", code=None)
    nodes = [worker("a", code=1), worker("b", code=None)]
    over = {"event": "run.over", "complete": True}

    def emit(record: dict[str, Any]) -> None:
        if record["event"] == "node.died":
            coordinator.records.put(over)

    assert _follow(coordinator, nodes, emit) == (over, {})
