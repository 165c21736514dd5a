"""The simulator runs the daemons' own machines; its sums are exact and its schedule repeats."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from nodes.cli import secagg
from nodes.rehearsal import build_simulation
from nodes.session.coordinator import Coordinator
from nodes.session.participant import Participant
from nodes.session.plan import HEAVIEST
from nodes.simulator import CRASH_POINTS, RoundResult
from secagg.errors import ConfigError
from secagg.schemes import SCHEMES


def play(n: int, rounds: int, **options: object) -> list[RoundResult]:
    options = {"source": None, "dropout": 0.0, **options}
    return list(build_simulation(n, rounds, **options).run())  # type: ignore[arg-type]


def test_without_dropouts_every_round_sums_everybody_exactly() -> None:
    results = play(12, 3)
    assert [(r.outcome, r.contributors, r.exact) for r in results] == [("done", 12, True)] * 3
    assert all(r.seconds < 60 for r in results)


@pytest.mark.parametrize("seed", range(4))
def test_with_dropouts_a_round_is_exact_or_releases_nothing(seed: int) -> None:
    results = play(15, 3, dropout=0.3, seed=seed)
    assert [r.exact for r in results if r.outcome == "done"] == [True] * 3
    assert all(r.exact is None for r in results if r.outcome != "done")
    assert any(r.crashed for r in results)
    back = results[-1].cohort + len(results[-2].crashed)
    assert back >= 12, "crashed nodes come back"


def test_the_seed_fixes_who_crashes_when_and_how_long_it_takes() -> None:
    def schedule(seed: int) -> list[tuple[object, ...]]:
        results = play(10, 2, dropout=0.2, seed=seed)
        return [(r.outcome, r.contributors, r.crashed, r.seconds) for r in results]

    assert schedule(3) == schedule(3)
    assert schedule(3) != schedule(4)


def test_a_connection_keeps_its_order() -> None:
    (result,) = play(4, 1)  # a rounding error once let an offer overtake its welcome here
    assert (result.contributors, result.crashed) == (4, ())
    assert result.seconds < 60


def test_it_runs_the_sessions_of_the_daemons() -> None:
    simulation = build_simulation(3, 1, dropout=0.0, source=None)
    assert type(simulation.coordinator) is Coordinator
    assert all(type(node.session) is Participant for node in simulation.nodes.values())


def test_a_sparse_graph_and_the_plain_scheme_give_exact_sums_too() -> None:
    assert play(130, 1, collusion=0.02, tolerance=0.15, dropout=0.02)[0].exact
    assert play(5, 1, scheme="insecure-plain")[0].exact


def test_the_command_prints_a_table_or_json() -> None:
    arguments = ["simulate", "--nodes", "5", "--rounds", "2", "--no-train"]
    result = CliRunner().invoke(secagg, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("exact") == 2
    result = CliRunner().invoke(secagg, [*arguments, "--json"])
    rounds = json.loads(result.stdout)["rounds"]
    assert [r["contributors"] for r in rounds] == [5, 5]


# --- ckks -----------------------------------------------------------------------------------------


@pytest.mark.req("H-01")
@pytest.mark.parametrize("weights", ["private", "coordinator"])
def test_sums_of_ckks_are_exact_or_not_released_whoever_crashes(weights: str) -> None:
    results = play(8, 3, scheme="ckks", weights=weights, dropout=0.3, seed=2)
    assert [r.exact for r in results if r.outcome == "done"] == [True] * 3
    assert all(r.exact is None for r in results if r.outcome != "done")
    crashed = {node for r in results for node in r.crashed}
    assert crashed, "the seed makes nodes crash at the messages of ckks"


def test_the_weights_that_the_coordinator_gave_are_told_and_follow_the_distances() -> None:
    (result,) = play(6, 1, scheme="ckks", weights="coordinator")
    assert result.exact
    assert len(result.weights) == result.contributors
    assert set(result.weights.values()) <= set(range(1, HEAVIEST + 1))
    assert len(set(result.weights.values())) > 1, "the distances of random updates differ"
    (private,) = play(6, 1, scheme="ckks")
    assert private.exact
    assert private.weights == {}


def test_nodes_of_every_scheme_can_crash_at_a_message_it_has() -> None:
    assert set(CRASH_POINTS) == set(SCHEMES)
    for scheme in SCHEMES:
        results = play(6, 1, scheme=scheme, dropout=1.0, seed=1)
        assert {node for r in results for node in r.crashed}, scheme


def test_the_command_says_what_was_compared_and_who_got_which_weight() -> None:
    arguments = ["simulate", "--nodes", "5", "--rounds", "1", "--no-train", "--scheme", "ckks"]
    result = CliRunner().invoke(secagg, arguments)
    assert result.exit_code == 0, result.output
    assert "every sum bit-equal to the plain sum of its inputs" in result.stdout
    assert "weights of" not in result.stdout
    result = CliRunner().invoke(secagg, [*arguments, "--weights", "coordinator"])
    assert "bit-equal to the plain weighted sum" in result.stdout
    assert "weights of the last round: 3 for node-0000" in result.stdout
    result = CliRunner().invoke(secagg, [*arguments, "--weights", "coordinator", "--json"])
    (row,) = json.loads(result.stdout)["rounds"]
    assert set(row["weights"]) == {f"node-{index:05d}" for index in range(5)}


def test_coordinator_weights_without_ckks_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot weigh what it does not see") as caught:
        play(5, 1, weights="coordinator")
    assert 'scheme = "ckks"' in str(caught.value.hint)


def test_it_trains_on_real_shards() -> None:
    results = play(4, 2, source="builtin", steps=3)
    losses = [r.loss for r in results]
    assert all(loss is not None and loss > 0 for loss in losses)
    assert [r.exact for r in results] == [True, True]
