"""The console script itself: exit codes, closed pipes, files that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.cli import COMMANDS, EXIT_CODES
from nodes.demo import DemoPlan, _sites
from nodes.templates import node_toml
from secagg.version import VERSION

REPO = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO)}


def secagg(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodes", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cwd,
        env=ENVIRONMENT,
    )


def test_the_version_and_every_command_have_help() -> None:
    assert secagg("--version").stdout == f"secagg, version {VERSION}\n"
    for name in COMMANDS:
        result = secagg(name, "--help")
        assert result.returncode == 0, result.stderr
        assert "\b" not in result.stdout
        assert "\\b" not in result.stdout


def test_a_failed_preflight_exits_7(tmp_path: Path) -> None:
    section = {"keys": "k", "state": "s", "coordinator": "tcp://127.0.0.1:9"}
    path = tmp_path / "node.toml"
    path.write_text(node_toml({"node": section, "data": {"source": "builtin"}}))
    result = secagg("preflight", "--config", str(path))
    assert result.returncode == 7, result.stderr
    assert "FAIL  keys" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("config", "init", "node", "--out", "no/such/folder/node.toml"), 5),
        (("simulate", "--no-train", "--nodes", "3", "--rounds", "1", "--out", "no/x.json"), 8),
        (("simulate", "--no-train", "--nodes", "3", "--rounds", "1", "--out", "."), 8),
        (("bench", "detection", "--only", "PCA, alone", "--out", "."), 8),
        (("demo", "--out", "/proc/secagg-demo"), 5),
        (("detect", "--model", "absent.safetensors", "--data", "."), 3),
        (("no-such-command",), 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else str(value),
)
def test_a_mistake_gives_one_line_and_its_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    result = secagg(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert code in EXIT_CODES
    assert "Traceback" not in result.stderr
    assert "rror" in result.stderr


@pytest.mark.parametrize("arguments", ["simulate --no-train --nodes 3 --rounds 1 --json", "keys"])
def test_a_reader_that_has_gone_is_no_error(arguments: str) -> None:
    line = f"set -o pipefail; {sys.executable} -m nodes {arguments} 2>/dev/null | true"
    result = subprocess.run(
        ["bash", "-c", line], timeout=100, check=False, env=ENVIRONMENT, capture_output=True
    )
    assert result.returncode in (0, 2)  # `keys` alone prints its help, which click calls usage
    assert b"Traceback" not in result.stderr


def test_more_than_nine_built_in_nodes_have_names_of_their_own(tmp_path: Path) -> None:
    sites = _sites(DemoPlan(tmp_path / "run", nodes=12))
    assert len({site.name for site in sites}) == len({site.node_id for site in sites}) == 12
    assert sites[9].name == "Danmini_Doorbell.2"
    assert sites[9].seed != sites[0].seed
