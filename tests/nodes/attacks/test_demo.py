"""`secagg attack-demo`: the whole table, and an exit code that can be 1."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nodes.attacks.catalogue import ATTACKS, CATALOGUES, CKKS_ATTACKS
from nodes.cli import secagg
from secagg.masking.graph import Graph

ROOT = Path(__file__).parents[3]


@pytest.mark.req("A-03")
def test_every_attack_is_played_and_gains_nothing() -> None:
    result = CliRunner().invoke(secagg, ["attack-demo", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["attack"] for row in rows] == list(ATTACKS)
    assert all(row["failed"] for row in rows if row["promised"])
    assert not any(row["revealed"] or row["wrong_sum"] for row in rows if row["failed"])
    beyond = [row for row in rows if not row["promised"]]
    assert beyond, "what is not promised is shown"
    assert all(row["revealed"] and not row["failed"] for row in beyond), (
        "a row that gains nothing belongs to the promise"
    )
    assert all(row["outcome"] for row in rows)


@pytest.mark.req("A-03")
def test_every_attack_on_ckks_is_played_and_the_usual_way_falls_first() -> None:
    result = CliRunner().invoke(
        secagg, ["attack-demo", "--scheme", "ckks", "--nodes", "5", "--json"]
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["attack"] for row in rows] == list(CKKS_ATTACKS)
    usual = "the usual way, for comparison: input of node-00 recovered, max error 0: "
    assert rows[0]["elsewhere"].startswith(usual)
    assert "elsewhere is, for comparison" in rows[0]["summary"]
    assert all(row["failed"] == row["promised"] for row in rows)
    assert not any(row["revealed"] or row["wrong_sum"] for row in rows if row["failed"])
    assert all(row["outcome"] for row in rows)


def test_an_attack_is_looked_for_in_the_scheme_that_is_named() -> None:
    for scheme, attacks in CATALOGUES.items():
        result = CliRunner().invoke(secagg, ["attack-demo", "--scheme", scheme, "--list"])
        assert result.stdout.count("\n") == len(attacks)
    result = CliRunner().invoke(secagg, ["attack-demo", "--attack", "shared-key"])
    assert result.exit_code != 0
    assert "on masking" in str(result.exception)
    result = CliRunner().invoke(secagg, ["attack-demo", "--scheme", "insecure-plain"])
    assert result.exit_code == 2


def test_the_table_names_attack_gain_and_blame() -> None:
    arguments = ["attack-demo", "--attack", "both-shares", "--attack", "cut-arc"]
    result = CliRunner().invoke(secagg, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "input of node-00 recovered, max error 0" in result.stdout
    assert "2 attacks, 0 of them gained something here" in result.stdout


@pytest.mark.req("A-03")
def test_a_gain_is_exit_code_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "is_whole", lambda *args: True)
    result = CliRunner().invoke(secagg, ["attack-demo", "--attack", "cut-arc"])
    assert result.exit_code == 1
    assert "1 attacks, 1 of them gained something here" in result.stdout


def test_the_list_and_unknown_names() -> None:
    result = CliRunner().invoke(secagg, ["attack-demo", "--list"])
    assert result.stdout.count("\n") == len(ATTACKS)
    result = CliRunner().invoke(secagg, ["attack-demo", "--attack", "ouija"])
    assert result.exit_code != 0


@pytest.mark.req("A-01")
@pytest.mark.parametrize("target", ["semi_honest", "ckks_trusting"])
def test_nothing_but_the_attacks_imports_the_target(target: str) -> None:
    for path in [
        p for top in ("nodes", "keys", "secagg", "fl_core") for p in (ROOT / top).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == f"nodes.attacks.{target}":
                assert path.parent.name == "attacks", path


@pytest.mark.parametrize(("scheme", "section"), [("masking", 3), ("ckks", 4)])
def test_the_specification_names_every_attack_once_with_the_rules_that_stop_it(
    scheme: str, section: int
) -> None:
    known = CATALOGUES[scheme]
    text = (ROOT / "specs" / "40-attacks.md").read_text(encoding="utf-8")
    _, _, part = text.partition(f"## {section}.")
    part, _, _ = part.partition(f"## {section + 1}.")
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] != "attack"]
    assert sorted(name for row in rows for name in row[0].split(", ")) == sorted(known)
    for names, _, stopped in rows:
        attacks = [known[name] for name in names.split(", ")]
        rules = {rule for attack in attacks for rule in attack.rules}
        if rules:
            assert set(stopped.split(", ")) == rules, names
        assert bool(rules) == all(attack.promised for attack in attacks), names
