"""`secagg policy check` and `secagg config init policy`: sentences, weaknesses, every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import structs

from fl_core.config import ModelConfig, TrainConfig
from fl_core.parameters import ParamSpec
from nodes.cli import exit_code, secagg
from nodes.config import load_coordinator_config, load_node_config, training_bytes
from nodes.policy_file import PolicySection, load_policy, to_policy
from nodes.policy_sentences import explain, weaknesses
from nodes.session.offer import build_offer
from nodes.session.policy import NodePolicy
from nodes.templates import coordinator_toml, node_toml, policy_toml
from secagg.errors import ConfigError
from secagg.wire.codec import encode
from secagg.wire.messages import DpTerms, Heartbeat
from tests.support.run import make_plan, make_state

STRICT = {
    "min_cohort": 30,
    "require": "client",
    "epsilon": 4.0,
    "delta": 1e-6,
    "max_learning_rate": 1e-4,
    "max_steps": 10,
    "min_difference": 3,
    "max_rounds_a_day": 5,
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(secagg, [str(argument) for argument in arguments])


def checked(*arguments: object) -> dict[str, Any]:
    result = run("policy", "check", *arguments, "--json")
    assert result.exit_code in (0, 7), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(policy_toml(STRICT))
    return path


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.toml"
    section = {"keys": "k", "state": "s"}
    path.write_text(coordinator_toml({"coordinator": section, "model": {"input_dim": 6}}))
    return path


@pytest.mark.req("G-10")
def test_every_rule_is_explained_by_one_sentence_with_its_line(policy: Path) -> None:
    result = run("policy", "check", policy)
    assert result.exit_code == 0, result.output
    line = policy.read_text().split("\n").index("min_cohort = 30") + 1
    assert f"line {line}" in result.stdout.split("\n")[1]
    assert "only in rounds offered to at least 30 nodes." in result.stdout
    assert "(default)  architectures      It trains any model." in result.stdout
    shown = checked(policy)
    assert {rule["key"] for rule in shown["rules"]} == set(PolicySection.__struct_fields__)
    assert "allowed" not in shown
    numbers = {rule["key"]: rule["value"] for rule in shown["rules"]}
    for rule in shown["rules"]:
        assert rule["sentence"].endswith(".")
        if rule["key"] in STRICT and rule["key"] != "require":
            assert f"{numbers[rule['key']]:g}" in rule["sentence"]


@pytest.mark.req("G-10")
def test_a_sentence_changes_with_its_setting() -> None:
    plain = {remark.key: remark.sentence for remark in explain(NodePolicy())}
    changes: dict[str, object] = {
        **STRICT,
        "schemes": ("masking", "ckks"),
        "weights": ("private", "coordinator"),
        "collusion": 0.1,
        "architectures": ("ab" * 32,),
    }
    other = explain(NodePolicy(**changes))  # type: ignore[arg-type]
    assert {remark.key for remark in other} == set(changes)
    assert not {remark.sentence for remark in other} & set(plain.values())
    both = explain(NodePolicy(weights=("coordinator",), architectures=("a", "b")))
    assert "the 2 models" in {r.key: r.sentence for r in both}["architectures"]
    assert "has to apply" in {r.key: r.sentence for r in both}["weights"]


@pytest.mark.req("G-10")
def test_weak_settings_are_named_and_a_strong_policy_has_none() -> None:
    weak = NodePolicy(
        schemes=("insecure-plain",),
        weights=("coordinator",),
        collusion=0.05,
        require="client",
        epsilon=20.0,
        delta=0.01,
    )
    keys = [remark.key for remark in weaknesses(weak)]
    assert keys[0] == "schemes"
    assert set(keys) == set(PolicySection.__struct_fields__) - {"require"}
    assert "require" in {remark.key for remark in weaknesses(NodePolicy())}
    strong = NodePolicy(**{**STRICT, "architectures": ("ab" * 32,)})  # type: ignore[arg-type]
    assert weaknesses(strong) == []
    assert weaknesses(strong, colluders=1) == []
    assert [remark.key for remark in weaknesses(strong, colluders=2)] == ["min_difference"]


@pytest.mark.req("G-10")
def test_an_offer_that_a_coordinator_would_make_is_tested_against_every_rule(
    policy: Path, coordinator: Path
) -> None:
    result = run("policy", "check", policy, "--coordinator", coordinator, "--nodes", 9)
    assert result.exit_code == 7
    assert result.stdout.count("REFUSED") == 4
    assert "not tested, since they depend on earlier rounds: epsilon, " in result.stdout
    shown = checked(policy, "--coordinator", coordinator, "--nodes", 9)
    assert shown["allowed"] is False
    reasons = {refusal["key"]: refusal["reason"] for refusal in shown["refusals"]}
    assert reasons == {
        "min_cohort": "cohort_too_small",
        "require": "privacy_required",
        "max_learning_rate": "learning_rate_too_high",
        "max_steps": "training_too_long",
    }
    for refusal in shown["refusals"]:
        line = next(rule["line"] for rule in shown["rules"] if rule["key"] == refusal["key"])
        assert refusal["why"].startswith(f"policy.toml line {line}: {refusal['key']} = ")
    model = load_coordinator_config(coordinator).model_config()
    digest = ParamSpec.from_model(model).digest.hex()
    assert shown["offer"]["training"]["architecture"] == digest
    policy.write_text(policy_toml({"architectures": (digest,)}))
    result = run("policy", "check", policy, "--coordinator", coordinator, "--nodes", 9)
    assert result.exit_code == 0, result.output
    assert "allowed  no rule forbids this offer" in result.stdout
    assert digest in result.stdout
    crowd = checked(policy, "--coordinator", coordinator, "--nodes", 9, "--members", 12)
    assert crowd["allowed"] is True, "the coordinator counts the same members"


@pytest.mark.req("G-10")
def test_a_saved_offer_is_tested_with_the_members_of_the_roster(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    node = {"keys": "k", "state": "s", "coordinator": "tcp://h:1"}
    path.write_text(node_toml({"node": node, "data": {"source": "d"}}))
    saved = tmp_path / "offer.bin"
    saved.write_bytes(encode(build_offer(make_plan(), make_state(), ("a", "b", "c"), 1)))
    shown = checked(path, "--offer", saved)
    assert (shown["policy"], shown["allowed"]) == ("node.toml", True)
    assert shown["offer"]["training"] is None
    shown = checked(path, "--offer", saved, "--members", 9)
    assert [refusal["key"] for refusal in shown["refusals"]] == ["collusion"]
    assert "settings that cannot be read" in run("policy", "check", path, "--offer", saved).stdout


@pytest.mark.req("G-05", "G-10")
def test_the_unit_that_an_offer_protects_is_read_from_it(tmp_path: Path, policy: Path) -> None:
    rows: dict[str, Any] = {"private": "logit-dp", "optimiser": "sgd", "noise_multiplier": 1.0}
    rows |= {"sampling_rate": 0.01, "nominal_rows": 1000, "bank_digest": "ab" * 32}
    train = TrainConfig.from_dict({**rows, "batch_size": 16})
    training = training_bytes(ModelConfig(input_dim=6), train, 0, 2)
    noise = DpTerms("skellam", 1.0, 1024, 1.0, 3, False, False, (), None)
    plain = build_offer(make_plan(training=training), make_state(), ("a", "b", "c"), 1)
    saved = tmp_path / "offer.bin"
    for require, dp in (("record", None), ("client", noise)):
        offer = structs.replace(plain, dp=dp)
        saved.write_bytes(encode(offer))
        for wanted in ("record", "client"):
            policy.write_text(policy_toml({"require": wanted, "epsilon": 1.0, "delta": 1e-6}))
            assert checked(policy, "--offer", saved)["allowed"] is (wanted == require)


@pytest.mark.req("G-10")
@pytest.mark.parametrize("data", [b"", b"not an offer", encode(Heartbeat(1, "idle"))])
def test_what_is_no_offer_is_refused(tmp_path: Path, policy: Path, data: bytes) -> None:
    saved = tmp_path / "offer.bin"
    saved.write_bytes(data)
    result = run("policy", "check", policy, "--offer", saved)
    assert isinstance(result.exception, ConfigError)
    assert "offer.bin" in str(result.exception)
    assert exit_code(result.exception) == 5
    assert result.exception.hint


@pytest.mark.parametrize(
    "options",
    [
        ("--coordinator", "{c}"),
        ("--nodes", 5),
        ("--members", 5),
        ("--coordinator", "{c}", "--nodes", 5, "--offer", "{c}"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    policy: Path, coordinator: Path, options: tuple[object, ...]
) -> None:
    given = [str(option).format(c=coordinator) for option in options]
    assert run("policy", "check", policy, *given).exit_code == 2


@pytest.mark.req("G-03")
def test_a_policy_that_cannot_be_read_ends_as_a_wrong_setting(policy: Path) -> None:
    for text in ("min_cohort = 2\n", "[node\n", "node = 1\n"):
        policy.write_text(text)
        result = run("policy", "check", policy)
        assert isinstance(result.exception, ConfigError)
        assert "policy.toml" in str(result.exception)


@pytest.mark.req("G-03", "G-04")
def test_config_init_writes_a_policy_and_a_node_that_names_it(tmp_path: Path) -> None:
    out, node = tmp_path / "policy.toml", tmp_path / "node.toml"
    budget = ("--require", "client", "--epsilon", 8, "--delta", 1e-5, "--min-cohort", 12)
    result = run("config", "init", "policy", *budget, "--scheme", "ckks", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"secagg policy check {out}" in result.stderr
    made = to_policy(*load_policy(out))
    assert (made.require, made.epsilon, made.delta, made.min_cohort) == ("client", 8, 1e-5, 12)
    arguments = ("config", "init", "node", "--policy", "policy.toml", "--source", "d")
    assert run(*arguments, "--out", node).exit_code == 0
    assert load_node_config(node).node_policy() == made
    assert run(*arguments, "--scheme", "masking").exit_code == 2
    alone = run("config", "init", "node")
    assert "`secagg config init policy` writes" in alone.stdout.replace("\n# ", " ")
    assert "\n[policy]\n" in alone.stdout
    halved = run("config", "init", "policy", "--require", "record", "--epsilon", 1)
    assert isinstance(halved.exception, ConfigError)
    assert not halved.stdout
