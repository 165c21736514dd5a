"""`secagg privacy plan`: what it predicts is what a run would do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from nodes.commands.privacy import command
from nodes.rehearsal import build_simulation
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import SampledGaussian
from secagg.errors import ConfigError


def planned(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, ["plan", "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def said(*arguments: str) -> str:
    result = CliRunner().invoke(command, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_noise_is_that_of_a_run_with_the_same_settings() -> None:
    """The multiplier that a coordinator settles on before its first offer is the one foretold."""
    foretold = planned(  # so many that a sum of weights drowns in no draw of the noise
        "--nodes", "120", "--rounds", "2", "--epsilon", "100", "--collusion", "0.1",
        "--dropout", "0.2", "--clip", "0.5",
    )  # fmt: skip
    simulation = build_simulation(
        120,
        2,
        dropout=0.0,
        privacy={"unit": "client", "epsilon": 100.0, "clip": 0.5},
        tolerance=0.2,
        collusion=0.1,
        source=None,
    )
    result = next(iter(simulation.run()))
    assert result.outcome == "done"
    assert simulation.coordinator.run.noise_multiplier == pytest.approx(
        foretold["noise_multiplier"],
        rel=0.02,  # that noise comes in parts costs a little, which the plan leaves out
    )
    assert result.epsilon == pytest.approx(foretold["epsilon_one_round"], rel=0.02)


def test_more_nodes_hear_more_and_few_are_told_so() -> None:
    few, many = planned("--nodes", "30"), planned("--nodes", "3000")
    assert (few["usable"], many["usable"]) == (False, True)
    clearer = many["taken_back"]["signal_to_noise"] / few["taken_back"]["signal_to_noise"]
    assert 80 < clearer < 120, "noise of a mean falls with the number of nodes"
    assert "NOT USABLE" in said("--nodes", "30")
    assert "NOT USABLE" not in said("--nodes", "3000")


def test_taking_noise_back_is_what_dropouts_would_have_needed() -> None:
    made = planned("--nodes", "300")
    assert made["gain"] == pytest.approx(
        made["left_in"]["mean_norm"] / made["taken_back"]["mean_norm"]
    )
    assert made["gain"] > 1.2
    assert made["taken_back_worst"]["mean_norm"] >= made["taken_back"]["mean_norm"]


def test_records_are_noised_in_training() -> None:
    made = planned("--unit", "record", "--rounds", "10", "--steps", "7", "--epsilon", "2")
    step = SampledGaussian(made["noise_multiplier"], 0.05, 7)
    assert made["planned_rounds"] == 11
    assert 1.99 < epsilon_of({step: 11}, 1e-5) <= 2.0
    text = said("--unit", "record", "--epsilon", "2")
    assert "in each of 20 steps a round" in text
    assert "one row of a node's data" in text


def test_a_budget_out_of_reach_is_refused_with_what_to_change() -> None:
    result = CliRunner().invoke(command, ["plan", "--epsilon", "0.0000001"])
    assert isinstance(result.exception, ConfigError)
    assert "privacy.epsilon is 1e-07" in str(result.exception)
