"""`secagg thresholds` prints what `choose` gives, and the tables of the specification."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nodes.cli import exit_code
from nodes.commands.thresholds import SIZES, command
from secagg.ckks import parameters as ckks
from secagg.ckks.sealing import BOX_OVERHEAD
from secagg.errors import ConfigError
from secagg.masking.parameters import choose, graph_failure_bits

SPEC = Path(__file__).parents[2] / "specs" / "31-thresholds.md"
PRINTED = re.findall(
    r"```text\n\$ secagg thresholds (.*)\n((?:.*\n)*?)```", SPEC.read_text(encoding="utf-8")
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_specification_has_a_table_for_each_of_three_settings() -> None:
    assert [arguments for arguments, _ in PRINTED] == [
        "--collusion 0.05 --dropout 0.05",
        "--collusion 0.1 --dropout 0.1",
        "--collusion 0.1 --dropout 0.3",
    ]


@pytest.mark.req("P-06")
@pytest.mark.parametrize(("arguments", "table"), PRINTED)
def test_the_specification_shows_what_the_command_prints(arguments: str, table: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 0, result.output
    printed = lines(result.stdout)
    assert printed[: len(lines(table))] == lines(table)
    assert len(lines(table)) == 3 + len(SIZES)
    assert "2^-(privacy bits) bounds" in result.stdout


def test_without_sizes_it_prints_ten_and_why_a_row_is_missing() -> None:
    result = run()
    assert result.exit_code == 0
    table, _, below = result.stdout.partition("5000: ")
    assert [int(line.split()[0]) for line in lines(table)[3:]] == [*SIZES[:-2]]
    assert below.count("at most 2048 neighbours is not enough") == 2
    assert below.count("use dropout 0.3") == 2
    assert "…" not in result.stdout, "no heading is cut off"


def test_json_holds_the_numbers_of_choose() -> None:
    (row,) = rows("--nodes", "500", "--collusion", "0.1", "--dropout", "0.3")
    made = choose(500, collusion=0.1, dropout=0.3)
    assert row["nodes"] == 500
    for name in ("neighbours", "threshold", "quorum", "cosigners", "colluders", "dropouts"):
        assert row[name] == getattr(made, name)
    bits = graph_failure_bits(
        500,
        neighbours=made.neighbours,
        threshold=made.threshold,
        quorum=made.quorum,
        colluders=made.colluders,
    )
    assert row["privacy_bits"] == round(bits, 1)
    assert 20 <= row["failure_bits"] < 25


def test_json_keeps_the_order_of_sizes_and_says_what_is_refused() -> None:
    found = rows("--nodes", "50", "--nodes", "10000", "--nodes", "20")
    assert [row["nodes"] for row in found] == [20, 50, 10_000]
    assert [row.get("privacy_bits", "refused") for row in found] == [None, None, "refused"]
    assert "10000 nodes cannot withstand" in found[2]["refused"]
    assert "use dropout 0.3" in found[2]["hint"]


def test_higher_bounds_ask_for_more_neighbours() -> None:
    fractions = ("--nodes", "1000", "--collusion", "0.1", "--dropout", "0.1")
    (usual,) = rows(*fractions)
    (safer,) = rows(*fractions, "--security-bits", "60")
    (livelier,) = rows(*fractions, "--failure-bits", "40")
    assert safer["neighbours"] > usual["neighbours"] < livelier["neighbours"]
    assert safer["privacy_bits"] >= 60
    assert livelier["failure_bits"] >= 40


@pytest.mark.req("P-01", "P-02")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--collusion", "0.6"), "collusion 0.6 is out of range"),
        (("--dropout", "nan"), "dropout nan is out of range"),
        (("--nodes", "2"), "a cohort of 2"),
        (("--nodes", "10", "--collusion", "0.4", "--dropout", "0.4"), "10 nodes cannot withstand"),
        (("--nodes", "10000"), "at most 2048 neighbours is not enough"),
    ],
)
def test_where_no_row_is_left_it_ends_as_a_wrong_setting(
    arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
    assert result.exception.hint
    assert exit_code(result.exception) == 5
    assert not result.stdout


@pytest.mark.parametrize("arguments", [("--security-bits", "0"), ("--nodes", "many")])
def test_a_wrong_command_line_is_one(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


# --- ckks -----------------------------------------------------------------------------------------


@pytest.mark.req("R-08")
def test_the_table_of_ckks_holds_what_its_choose_gives() -> None:
    made = ckks.choose(10, max_weight=4, value_bits=12, collusion=0.2, dropout=0.2)
    (row,) = rows(
        "--scheme", "ckks", "--nodes", "10", "--max-weight", "4", "--value-bits", "12",
        "--collusion", "0.2", "--dropout", "0.2",
    )  # fmt: skip
    for name in ("nodes", "colluders", "dropouts", "quorum", "cosigners"):
        assert row[name] == getattr(made, name)
    for name in ("degree", "modulus_bits", "values_per_coefficient"):
        assert row[name] == getattr(made.ring, name)
    for name in ("threshold", "pack", "silent"):
        assert row[name] == getattr(made.committee, name)
    assert row["members"] == made.committee.size == 10
    assert row["value_bytes"] == round(made.value_bytes, 2)
    # 10 members, of whom one is the node itself; each box is the share and what sealing adds.
    assert row["share_kilobytes"] == round(9 * (made.share_bytes + BOX_OVERHEAD) / 1000, 1)


def test_where_not_all_are_members_a_node_seals_for_each_of_them() -> None:
    (row,) = rows("--scheme", "ckks", "--nodes", "500", "--collusion", "0.1")
    made = ckks.choose(500, collusion=0.1)
    members = made.committee.size
    assert row["members"] == members < 500
    assert row["share_kilobytes"] == round(members * (made.share_bytes + BOX_OVERHEAD) / 1000, 1)


def test_the_table_of_ckks_is_printed_whole_with_the_reasons_of_what_is_refused() -> None:
    result = run("--scheme", "ckks")
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout, "no heading and no figure is cut off"
    assert [int(line.split()[0]) for line in lines(result.stdout)[3 : 3 + len(SIZES)]] == [*SIZES]
    assert "t + l answers open the sum" in result.stdout
    result = run("--scheme", "ckks", "--nodes", "5", "--nodes", "10000", "--value-bits", "24",
                 "--max-weight", "4")  # fmt: skip
    assert "10000: 10000 nodes with 24-bit values" in result.stdout
    assert "use value_bits 19 or max_weight 1" in result.stdout


def test_ckks_settings_that_cannot_be_met_end_as_a_wrong_setting() -> None:
    result = run("--scheme", "ckks", "--nodes", "10", "--dropout", "0.45")
    assert isinstance(result.exception, ConfigError)
    assert "10 nodes cannot withstand" in str(result.exception)
    assert "use dropout 0.3" in str(result.exception.hint)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--value-bits", "12"), "--value-bits is for --scheme ckks"),
        (("--max-weight", "2"), "--max-weight is for --scheme ckks"),
        (("--scheme", "ckks", "--security-bits", "60"), "--security-bits is for --scheme masking"),
        (("--scheme", "ckks", "--failure-bits", "30"), "--failure-bits is for --scheme masking"),
        (("--scheme", "insecure-plain"), "insecure-plain"),
    ],
)
def test_an_option_that_a_scheme_does_not_heed_is_refused(
    arguments: tuple[str, ...], says: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
