"""Configuration files: what is written can be read, and what is wrong is named with its mend."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from fl_core.errors import DataError
from nodes.cli import secagg
from nodes.config import DataSection, load_coordinator_config, load_node_config
from nodes.learner import load_data
from nodes.session.plan import HEAVIEST
from nodes.templates import coordinator_toml, field_notes, node_toml
from secagg.errors import ConfigError
from tests.support.federation import write_site

COORDINATOR = {"coordinator": {"keys": "k", "state": "s"}}
NODE = {
    "node": {"keys": "k", "state": "s", "coordinator": "tcp://h:1"},
    "data": {"source": "builtin", "device": "d"},
}


def test_the_written_files_read_back_with_the_values_given_and_defaults(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text(coordinator_toml({**COORDINATOR, "run": {"rounds": 3}, "train": {"steps": 7}}))
    config = load_coordinator_config(path)
    assert config.plan().rounds == 3
    assert config.train_config().steps == 7
    assert config.model_config().input_dim == 115
    assert config.folder == tmp_path
    path = tmp_path / "node.toml"
    path.write_text(node_toml({**NODE, "policy": {"schemes": ("masking",), "min_cohort": 5}}))
    node = load_node_config(path)
    assert node.node_policy().min_cohort == 5
    assert node.data.drop == ()


@pytest.mark.parametrize("text", [coordinator_toml(COORDINATOR), node_toml(NODE)])
def test_every_setting_in_a_written_file_is_explained(text: str) -> None:
    lines = text.splitlines()
    for table in tomllib.loads(text).values():
        for key in table:
            place = next(i for i, line in enumerate(lines) if line.startswith(f"{key} = "))
            assert lines[place - 1].startswith("# "), f"{key} has no comment"


def test_a_windows_path_or_quote_survives_the_template(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    odd = {**NODE, "data": {"source": 'C:\\data\\"x"', "device": "d"}}
    path.write_text(node_toml(odd))
    assert load_node_config(path).data.source == 'C:\\data\\"x"'


def test_notes_are_the_literals_behind_the_fields() -> None:
    from nodes.config import RunSection

    assert field_notes(RunSection)["rounds"] == "Rounds with a result."
    assert f"by 1 to {HEAVIEST}." in field_notes(RunSection)["weights"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("rounds = 8", "rounds = 'many'"), "Expected `int`, got `str` - at `$.run.rounds`"),
        (("rounds = 8", "rounds = 0"), "rounds is 0"),
        (("rounds = 8", "ruonds = 8"), "run.ruonds is not a setting; did you mean rounds?"),
        (("min_nodes = 3", "min_nodes = 2"), "min_nodes is 2"),
        (('scheme = "masking"', 'scheme = "insecure-plain"'), "lets the coordinator read"),
        (('scheme = "masking"', 'scheme = "xor"'), "no scheme 'xor'"),
        (('weights = "private"', 'weights = "coordinator"'), 'set scheme = "ckks"'),
        (('weights = "private"', 'weights = "both"'), "use one of: private, coordinator"),
        (("[coordinator]", "folder = '/etc'\n[coordinator]"), "Expected `Path`, got `str`"),
        (("[run]", "[runs]"), "[runs] is not a setting; did you mean run?"),
        (('bind = "tcp://0.0.0.0:7710"', 'bind = "tcp://0.0.0.0:99999"'), "port from 1 to 65535"),
        (('bind = "tcp://0.0.0.0:7710"', 'bind = "0.0.0.0:7710"'), "coordinator.bind is"),
        (("heartbeat = 2.0", "heartbeat = 20.0"), "less than two heartbeats"),
        (("input_dim = 115", "input_dim = 0"), "ModelConfig.input_dim is 0"),
        (("[run]", "[run"), "line"),
    ],
)
def test_a_wrong_setting_is_named_with_file_key_and_mend(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    path = tmp_path / "coordinator.toml"
    text = coordinator_toml({**COORDINATOR, "model": {"input_dim": 115}})
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ConfigError) as caught:
        load_coordinator_config(path)
    assert says in f"{caught.value} {caught.value.hint}"
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_policy_that_hides_nobody_and_a_missing_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(node_toml({**NODE, "policy": {"min_cohort": 2}}))
    with pytest.raises(ConfigError, match=r"policy\.min_cohort is 2"):
        load_node_config(path)
    path.write_text("[node]\nkeys = 'k'\nstate = 's'\ncoordinator = 'tcp://h:1'\n")
    path.write_text(node_toml({**NODE, "policy": {"schemes": ("mask",)}}))
    with pytest.raises(ConfigError, match=r"policy\.schemes has no choice 'mask'"):
        load_node_config(path)
    path.write_text(node_toml({**NODE, "node": {**NODE["node"], "coordinator": "tcp://h:0"}}))
    with pytest.raises(ConfigError, match=r"node\.coordinator is"):
        load_node_config(path)
    for max_fpr in (0.0, 1.0, -1.0, float("inf"), float("nan")):
        path.write_text(node_toml({**NODE, "detection": {"max_fpr": max_fpr}}))
        with pytest.raises(ConfigError, match=r"detection\.max_fpr is"):
            load_node_config(path)
    for odd in ({"seed": -1}, {"window": 0}):
        path.write_text(node_toml({**NODE, "data": {**NODE["data"], **odd}}))
        with pytest.raises(ConfigError, match=r"data\.seed is"):
            load_node_config(path)
    path.write_text("[node]\nkeys = 'k'\nstate = 's'\ncoordinator = 'tcp://h:1'\n")
    with pytest.raises(ConfigError, match="missing required field `data`"):
        load_node_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_node_config(tmp_path / "absent.toml")


def test_a_source_with_several_devices_needs_a_name_and_one_with_one_does_not(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"9 devices and data\.device names none") as caught:
        load_data(DataSection(source="builtin"))
    assert "Danmini_Doorbell" in caught.value.hint
    write_site(tmp_path / "pump.csv", seed=0)
    assert load_data(DataSection(source=str(tmp_path / "pump.csv"))).device == "pump"


def test_config_init_writes_once_and_says_what_to_do_next(tmp_path: Path) -> None:
    out = tmp_path / "node.toml"
    runner = CliRunner()
    arguments = ["config", "init", "node", "--device", "pump-1", "--out", str(out)]
    result = runner.invoke(secagg, arguments)
    assert result.exit_code == 0
    assert "secagg preflight --config" in result.stderr
    assert load_node_config(out).data.device == "pump-1"
    again = runner.invoke(secagg, arguments)
    assert isinstance(again.exception, ConfigError)
    assert runner.invoke(secagg, [*arguments, "--force"]).exit_code == 0
    shown = runner.invoke(secagg, ["config", "init", "coordinator", "--rounds", "5"])
    assert "rounds = 5" in shown.stdout


def test_config_init_writes_schemes_and_weights_for_both_sides(tmp_path: Path) -> None:
    hub, node, runner = tmp_path / "hub.toml", tmp_path / "node.toml", CliRunner()
    ckks = ("--scheme", "ckks", "--weights", "coordinator")
    runner.invoke(secagg, ["config", "init", "coordinator", *ckks, "--out", str(hub)])
    plan = load_coordinator_config(hub).plan()
    assert (plan.scheme, plan.weights) == ("ckks", "coordinator")
    arguments = ["config", "init", "node", "--scheme", "masking", *ckks, "--out", str(node)]
    runner.invoke(secagg, arguments)
    policy = load_node_config(node).node_policy()
    assert (policy.schemes, policy.weights) == (("masking", "ckks"), ("coordinator",))
    result = runner.invoke(secagg, ["config", "init", "coordinator", "--weights", "coordinator"])
    assert isinstance(result.exception, ConfigError)
    assert "--scheme ckks" in str(result.exception.hint)
    insecure = ["config", "init", "coordinator", "--scheme", "insecure-plain"]
    assert runner.invoke(secagg, insecure).exit_code == 2


def test_scheme_and_weights_reach_plan_and_policy(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.toml"
    run = {"scheme": "ckks", "weights": "coordinator"}
    path.write_text(coordinator_toml({**COORDINATOR, "run": run}))
    plan = load_coordinator_config(path).plan()
    assert (plan.scheme, plan.weights) == ("ckks", "coordinator")
    path = tmp_path / "node.toml"
    path.write_text(node_toml(NODE))
    assert load_node_config(path).node_policy().weights == ("private",), "disclosed only if allowed"
    policy = {"schemes": ("masking", "ckks"), "weights": ("private", "coordinator")}
    path.write_text(node_toml({**NODE, "policy": policy}))
    agreed = load_node_config(path).node_policy()
    assert (agreed.schemes, agreed.weights) == (policy["schemes"], policy["weights"])


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"schemes": ()}, "policy.schemes is empty"),
        ({"weights": ()}, "policy.weights is empty"),
        ({"weights": ("coordinators",)}, "policy.weights has no choice 'coordinators'"),
        ({"weights": ("coordinator",)}, "which only the scheme ckks has"),
    ],
)
def test_a_policy_that_would_refuse_every_round_is_refused(
    tmp_path: Path, policy: dict[str, object], says: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(node_toml({**NODE, "policy": policy}))
    with pytest.raises(ConfigError) as caught:
        load_node_config(path)
    assert says in str(caught.value)
    assert caught.value.hint
