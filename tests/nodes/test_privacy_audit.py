"""`secagg privacy audit`: what it prints, and that it fails when noise is left out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nodes.cli import secagg
from nodes.commands.privacy_audit import FAILED
from secagg.dp.audit import separation_of
from secagg.errors import ConfigError

FEW = ["--nodes", "36", "--canaries", "10", "--rounds", "2", "--epsilon", "25", "--dim", "600"]


def played(*arguments: str) -> Result:
    return CliRunner().invoke(secagg, ["privacy", "audit", *arguments], catch_exceptions=False)


def found(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = played(*arguments, "--json")
    report: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, report


@pytest.mark.req("V-08", "V-10")
def test_it_prints_claim_estimate_bound_and_verdict() -> None:
    result = played(*FEW)
    text = " ".join(result.stdout.split())
    assert "36 nodes of which 10 are canaries, 2 rounds, 611 parameters" in text
    assert re.search(r"claimed ε = (25|24\.\d+) at δ = 1e-05, by the ledger", text)
    assert re.search(r"estimate ε about [\d.]+ by the mean score, .*; no bounds", text)
    assert re.search(r"lower bound ε > [\d.]+ at δ = 1e-05, with 95% confidence", text)
    assert re.search(r"noise \d\.\d\d times too weak is noticed in 95 runs of 100", text)
    assert "SELF-TEST" not in text
    passed = "nothing speaks against the claim" in text
    assert result.exit_code == (0 if passed else FAILED), "1 in 20 by chance"
    assert "round 1: done, 36 of 36" in result.stderr


@pytest.mark.req("V-08", "V-09")
@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "skellam"])
def test_the_self_test_is_labelled_and_fails(mechanism: str) -> None:
    result = played(*FEW, "--mechanism", mechanism, "--leave-out-noise")
    assert result.exit_code == FAILED
    assert result.stdout.startswith("SELF-TEST     noise was left out on purpose")
    assert "FAILED: the releases show more than the claim allows" in result.stdout


@pytest.mark.req("V-08", "V-09")
def test_json_holds_all_that_was_found() -> None:
    code, report = found(*FEW, "--leave-out-noise")
    assert code == FAILED
    assert report["noise_left_out"] is True
    assert report["passed"] is False
    assert report["unit"] == "client"
    assert report["given"] + report["zeros"] == report["right"] == 20
    assert report["bound"] == max(report["additive_bound"], report["guessing_bound"])
    assert report["bound"] > 10 * report["claimed"]


def test_settings_out_of_range_are_usage_errors() -> None:
    for option, value in (("--nodes", "2"), ("--epsilon", "0"), ("--scheme", "insecure-plain")):
        assert played(option, value).exit_code == 2
    with pytest.raises(ConfigError, match="40 canaries among 36 nodes"):
        played(*FEW, "--canaries", "40")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.req("V-06", "V-08")
@pytest.mark.parametrize("scheme", ["masking", "ckks"])
def test_the_audit_as_it_is_called(scheme: str) -> None:
    code, honest = found("--scheme", scheme)
    truth = separation_of(honest["claimed"], honest["delta"]) / honest["rounds"] ** 0.5
    assert honest["claimed"] == pytest.approx(8.0, rel=1e-3)
    assert honest["mean"] == pytest.approx(truth, abs=6 / honest["given"] ** 0.5)
    assert honest["estimate"] == pytest.approx(8.0, abs=5.0)
    assert 2.0 < honest["bound"] < 12.0
    assert code == (0 if honest["passed"] else FAILED), "passes in 19 runs of 20"
    code, faulty = found("--scheme", scheme, "--leave-out-noise")
    assert code == FAILED
    assert faulty["right"] == 500
    assert faulty["additive_bound"] > 500
    assert faulty["guessing_bound"] > 40
