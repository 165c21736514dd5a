"""`secagg privacy show`: rounds, totals, what they protect, and what is wrong with a ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nodes.cli import exit_code, secagg
from nodes.privacy_ledger import LEDGER, FileLedger, head_path
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import SumNoise, Unprotected
from secagg.dp.ledger import LedgerDamagedError, LedgerSetBackError
from secagg.dp.planning import plain_sentence
from secagg.errors import ConfigError
from tests.support.ledgers import NOW, OTHER, RUN, STEPS, SUM, charge, filled

DELTA = 1e-5
OTHER_SUM = SumNoise("skellam", 4e4, 10, 60.0, 300.0, 100)


def show(*arguments: str) -> str:
    result = CliRunner().invoke(secagg, ["privacy", "show", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def shown(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(show(*arguments, "--json"))
    return report


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Rounds of all three units in two runs."""
    ledger = filled(tmp_path / LEDGER, 5)
    charge(ledger, 5, Unprotected())
    for round_id in (1, 2):
        ledger.spend(OTHER, round_id, "record", STEPS, now=NOW + 86_400)
    charge(ledger, 8, OTHER_SUM)
    return tmp_path


@pytest.mark.req("B-12")
def test_totals_are_those_of_the_accountant_by_unit(state: Path) -> None:
    report = shown(str(state), "--epsilon", "9")
    client = epsilon_of([SUM] * 5 + [OTHER_SUM], DELTA)
    record = epsilon_of([STEPS] * 2, DELTA)
    totals = report["totals"]
    assert list(totals) == ["client", "record", "none"]
    assert totals["client"] == {
        "rounds": 6,
        "epsilon": client,
        "sentence": plain_sentence("client", client, DELTA),
        "outside": {"record": 2, "none": 1},
        "budget": 9.0,
        "left": 9 - client,
        "overspent": False,
    }
    assert (totals["record"]["epsilon"], totals["record"]["left"]) == (record, 9 - record)
    assert totals["none"]["epsilon"] is None
    assert "budget" not in totals["none"]
    assert (report["entries"], report["unfinished_bytes"], report["delta"]) == (9, 0, DELTA)
    assert report["head"] == json.loads(head_path(state / LEDGER).read_bytes())["hash"]


@pytest.mark.req("B-12")
def test_successive_equal_rounds_are_folded_unless_all_are_wanted(state: Path) -> None:
    rows = shown(str(state))["rounds"]
    assert [(r["first_round"], r["last_round"], r["rounds"], r["unit"]) for r in rows] == [
        (0, 4, 5, "client"),
        (5, 5, 1, "none"),
        (1, 2, 2, "record"),
        (8, 8, 1, "client"),
    ]
    assert rows[0]["date"] == "2023-11-14 22:13"
    assert (rows[0]["run"], rows[2]["run"]) == (RUN.hex(), OTHER.hex())
    assert rows[0]["epsilon_alone"] == epsilon_of([SUM], DELTA)
    assert rows[0]["epsilon_so_far"] == epsilon_of([SUM] * 5, DELTA)
    assert rows[3]["epsilon_so_far"] == epsilon_of([SUM] * 5 + [OTHER_SUM], DELTA)
    assert rows[1]["epsilon_alone"] is rows[1]["epsilon_so_far"] is None
    every = shown(str(state), "--all")["rounds"]
    assert [row["rounds"] for row in every] == [1] * 9
    assert every[1]["epsilon_so_far"] == epsilon_of([SUM] * 2, DELTA)


@pytest.mark.req("B-12")
def test_a_table_and_plain_sentences_are_printed(state: Path) -> None:
    text = show(str(state), "--epsilon", "0.5")
    assert re.search(r"11-14 22:13 +52525252 +0 to 4 \(5\) +client +discrete-gaussian", text)
    assert re.search(r"none +none +none +∞ +∞", text)
    assert re.search(r"record +dp-sgd +z = 1\.2, q = 0\.01, 100 steps", text)
    assert re.search(r"client +6 rounds, ε = [0-9.]+ at δ = 1e-05 of 0\.5, 0 left", text)
    plain = " ".join(text.split())
    assert plain_sentence("none", float("inf"), DELTA) in plain
    assert "Not in it: 2 rounds of unit record, which protect no whole node." in plain
    assert "Not in it: 6 rounds of unit client, which protect each row too" in plain
    assert plain.count("Not in it: 1 round without noise, about whose data") == 2
    assert "9 rounds, chain verified" in plain


@pytest.mark.req("B-12")
def test_printed_epsilons_are_never_below_the_truth(state: Path) -> None:
    printed = re.findall(r"^client +6 rounds, ε = ([0-9.]+)", show(str(state)), re.MULTILINE)
    exact = epsilon_of([SUM] * 5 + [OTHER_SUM], DELTA)
    assert exact <= float(printed[0]) <= exact * 1.001


@pytest.mark.req("B-09", "B-12")
def test_a_ledger_of_rounds_without_noise_says_that_nothing_is_promised(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / LEDGER)
    for round_id in range(3):
        charge(ledger, round_id, Unprotected())
    text = " ".join(show(str(tmp_path)).split())
    assert "none 3 rounds, ε = ∞" in text
    assert "Nothing is promised" in text


@pytest.mark.req("B-12")
def test_thousands_of_rounds_take_a_bounded_number_of_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    filled(tmp_path / LEDGER, 1000)
    assert shown(str(tmp_path))["rounds"][0]["rounds"] == 1000
    rows = shown(str(tmp_path), "--all")["rounds"]
    assert len(rows) == 1000
    assert sum("epsilon_so_far" in row for row in rows) <= 65
    assert rows[-1]["epsilon_so_far"] == epsilon_of({SUM: 1000}, DELTA)


@pytest.mark.req("B-05", "B-12")
def test_writes_that_were_cut_off_are_told(state: Path) -> None:
    with (state / LEDGER).open("ab") as file:
        file.write(b'{"event"')
    assert shown(str(state))["unfinished_bytes"] == 8
    assert "8 bytes behind the last entry" in show(str(state))
    charge(FileLedger(state / LEDGER), 20)
    assert "1 entry follows a write that was cut off" in show(str(state))


@pytest.mark.req("B-10", "B-12")
def test_a_broken_chain_exits_5_and_names_the_line(state: Path) -> None:
    path = state / LEDGER
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:3] + whole[4:]))
    with pytest.raises(LedgerDamagedError, match="line 4 does not follow") as caught:
        show(str(path))
    assert (caught.value.line, exit_code(caught.value)) == (4, 5)
    path.write_bytes(b"".join(whole[:-1]))
    with pytest.raises(LedgerSetBackError) as older:
        show(str(state))
    assert exit_code(older.value) == 5


@pytest.mark.parametrize("name", ["", "absent", "absent/privacy.jsonl"])
def test_a_place_without_a_ledger_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        show(str(tmp_path / name))
    assert "state folder" in caught.value.hint


def test_options_out_of_range_are_usage_errors(state: Path) -> None:
    for option, value in (("--delta", "0"), ("--delta", "1"), ("--epsilon", "0")):
        result = CliRunner().invoke(secagg, ["privacy", "show", str(state), option, value])
        assert result.exit_code == 2
