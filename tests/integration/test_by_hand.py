"""A federation set up by typing commands, as the README tells it, without the demo's help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.federation import N_FEATURES, write_site

pytestmark = pytest.mark.timeout(240)
REPO = Path(__file__).parents[2]
SITES = ("plant-a", "plant-b", "plant-c")


class Shell:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}

    def spawn(self, line: str, where: str = ".") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "nodes", *line.split()],
            cwd=self.folder / where,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run(self, line: str, where: str = ".", *, code: int = 0) -> str:
        with self.spawn(line, where) as process:
            out, err = process.communicate(timeout=100)
        assert process.returncode == code, f"secagg {line}\n{out}\n{err}"
        return out + err


def fingerprint(text: str) -> str:
    found = re.search(r"(?:[a-z2-7]{4}-){7}[a-z2-7]{4}", text)
    assert found, text
    return found[0]


def test_the_readme_commands_make_a_federation_that_trains_and_detects(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    parties = ("hub", *SITES)
    for party in parties:
        (tmp_path / party).mkdir()
    said = shell.run("keys init root --name plants")
    root_print = fingerprint(said)
    for party in parties:
        role = "coordinator" if party == "hub" else "node"
        said = shell.run(f"keys request --node-id {party} --role {role} --out keys", party)
        (request,) = (tmp_path / party).rglob("*.request.json")
        (tmp_path / request.name).write_bytes(request.read_bytes())
        shell.run(
            f"keys approve {request.name} --root root --role {role} "
            f"--fingerprint {fingerprint(said)}"
        )
    for party in parties:
        (bundle,) = tmp_path.rglob(f"{party}.bundle.json")
        shell.run(f"keys install {bundle} --to keys --root-fingerprint {root_print}", party)
        shell.run(f"keys install {tmp_path / 'root' / 'roster.json'} --to keys", party)
    assert "plant-b" in shell.run("keys show keys", "plant-a")
    # A private key is in its own folder and nowhere else.
    secrets = {path: path.read_bytes() for path in tmp_path.rglob("*.secret")}
    assert len(secrets) == 5
    assert {path.parent.parent.name for path in secrets if path.parent.name == "keys"} == set(
        parties
    )

    shell.run(
        "config init coordinator --bind tcp://127.0.0.1:* --rounds 2 "
        f"--input-dim {N_FEATURES} --out coordinator.toml",
        "hub",
    )
    assert "new run" in shell.run("preflight --config coordinator.toml", "hub")
    coordinator = shell.spawn("coordinator --config coordinator.toml --events -", "hub")
    assert coordinator.stdout is not None
    endpoint = json.loads(coordinator.stdout.readline())["endpoint"]
    nodes = []
    for index, site in enumerate(SITES):
        write_site(tmp_path / site / "traffic.csv", seed=index, rows=200)
        shell.run(
            f"config init node --coordinator {endpoint} --source {tmp_path / site}/traffic.csv "
            f"--out node.toml",
            site,
        )
        report = shell.run("preflight --config node.toml", site)
        assert "FAIL" not in report
        nodes.append(shell.spawn("node --config node.toml", site))
    records = [json.loads(line) for line in coordinator.stdout]
    assert coordinator.wait(60) == 0
    assert records[-1]["event"] == "run.over"
    assert records[-1]["complete"]
    done = [record for record in records if record["event"] == "round.done"]
    assert [record["contributors"] for record in done] == [list(SITES)] * 2
    for site, node in zip(SITES, nodes, strict=True):
        _, err = node.communicate(timeout=100)
        assert node.returncode == 0, err
        assert "in the sum" in err
        assert (tmp_path / site / "state/detector.safetensors").exists()
    coordinator.communicate()
    out = shell.run("detect --model state/detector.safetensors --data traffic.csv", "plant-a")
    alerts = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    rows = [alert["row"] for alert in alerts]
    assert sum(row > 200 for row in rows) >= 40, "the planted attacks are rows 201 to 250"
