"""The public rows that every node normalises by."""

from __future__ import annotations

import numpy as np
import pytest

from fl_core.data.builtin import build_device
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.errors import DataError, ModelError
from fl_core.normalise import MIN_SCALE, Normaliser
from fl_core.public_bank import MAX_BANK_ROWS, PublicBank

NAMES = ("a", "b", "c")
ROWS = np.random.default_rng(0).normal(size=(30, 3)) * [1.0, 1e6, 0.0]

BUILTIN = "30a647814910cecb1e8d2231cc9b421e4659296dbf16a49969874da70236ac3c"
"""Another value means that nodes of this build cannot train privately with those of others."""


def test_the_built_in_bank_is_the_same_everywhere():
    assert PublicBank.builtin(FEATURE_NAMES).digest == BUILTIN


@pytest.mark.req("Q-04")
def test_columns_are_found_by_name():
    kept = [name for name in FEATURE_NAMES if not name.startswith("HH_jit_")]
    whole, part = PublicBank.builtin(FEATURE_NAMES), PublicBank.builtin(kept)
    at = [FEATURE_NAMES.index(name) for name in kept]
    assert np.array_equal(part.logs, whole.logs[:, at])
    assert np.array_equal(part.normaliser.scale, whole.normaliser.scale[at])
    assert part.digest != whole.digest
    assert PublicBank.builtin(kept[::-1]).digest != part.digest


@pytest.mark.req("Q-04")
def test_a_column_that_nobody_simulates_needs_a_bank_of_its_own():
    with pytest.raises(
        ModelError, match="no built-in public rows with a column 'temperature'"
    ) as e:
        PublicBank.builtin(["MI_dir_L5_weight", "temperature"])
    assert "supply a public bank" in e.value.hint


@pytest.mark.req("Q-04")
def test_the_built_in_bank_is_not_drawn_with_the_demonstration():
    """What rows they share are first packets of a stream, which are alike every time."""
    bank = {row.tobytes() for row in PublicBank.builtin(FEATURE_NAMES).logs}
    demo = PublicBank.from_rows(FEATURE_NAMES, build_device("Ecobee_Thermostat").train)
    assert len(bank) > 1000
    assert np.mean([row.tobytes() in bank for row in demo.logs]) < 0.02


def test_its_normaliser_is_that_of_its_rows_and_of_nothing_else():
    bank = PublicBank.from_rows(NAMES, ROWS)
    expected = Normaliser.fit(ROWS)
    assert np.allclose(bank.normaliser.location, expected.location, atol=1e-5)
    assert np.allclose(bank.normaliser.scale, expected.scale, atol=1e-5)
    assert bank.normaliser.scale[2] == MIN_SCALE
    assert np.allclose(bank.normalised(), expected.apply(ROWS), atol=1e-3)


@pytest.mark.req("Q-03")
def test_rows_are_normalised_one_by_one():
    bank = PublicBank.from_rows(NAMES, ROWS)
    rows = np.random.default_rng(1).normal(size=(9, 3)) * 100
    found = bank.apply(rows)
    assert np.array_equal(found, np.concatenate([bank.apply(row[None]) for row in rows]))


@pytest.mark.req("Q-03")
def test_a_row_that_is_not_finite_is_left_out_without_a_word():
    bank = PublicBank.from_rows(NAMES, ROWS)
    rows = np.random.default_rng(1).normal(size=(9, 3))
    bad = rows.copy()
    bad[3, 1], bad[5, 0] = np.nan, np.inf
    kept = [i for i in range(9) if i not in (3, 5)]
    assert np.array_equal(bank.apply(bad), bank.apply(rows[kept]))
    assert bank.apply(np.full((2, 3), np.nan)).shape == (0, 3)
    assert bank.apply(np.array([[1, 2, 3]])).shape == (1, 3)


@pytest.mark.parametrize(
    "rows",
    [np.zeros((2, 4)), np.zeros(3), np.zeros((2, 3), bool), np.zeros((2, 3), complex), [["x"] * 3]],
)
def test_what_is_no_table_of_these_columns_is_refused(rows):
    with pytest.raises(DataError):
        PublicBank.from_rows(NAMES, ROWS).apply(rows)


@pytest.mark.req("Q-04")
def test_another_bank_is_refused():
    bank = PublicBank.from_rows(NAMES, ROWS)
    bank.check(3, bank.digest)
    with pytest.raises(ModelError, match="columns, the model takes 4"):
        bank.check(4, bank.digest)
    moved = ROWS.copy()
    moved[4, 0] += 1e-3
    for other in (PublicBank.from_rows(NAMES, moved), PublicBank.from_rows(("a", "b", "d"), ROWS)):
        with pytest.raises(ModelError, match="digest") as e:
            other.check(3, bank.digest)
        assert "same public rows" in e.value.hint


def test_the_last_bit_of_a_row_does_not_move_the_digest():
    bank = PublicBank.from_rows(NAMES, ROWS)
    assert PublicBank.from_rows(NAMES, np.nextafter(ROWS, 0)).digest == bank.digest


@pytest.mark.parametrize(
    ("names", "rows", "error"),
    [
        (("a", "a", "c"), ROWS, ModelError),
        (NAMES, ROWS[:1], ModelError),
        (NAMES, np.zeros((MAX_BANK_ROWS + 1, 3)), ModelError),
        (NAMES, ROWS[:, :2], DataError),
        (NAMES, np.full((5, 3), np.nan), DataError),
    ],
)
def test_a_bank_that_cannot_be_is_refused(names, rows, error):
    with pytest.raises(error):
        PublicBank.from_rows(names, rows)


def test_the_largest_values_do_not_overflow():
    rows = np.full((MAX_BANK_ROWS, 1), 1.7e308)
    rows[::2] = -1.7e308
    normaliser = PublicBank.from_rows(("a",), rows).normaliser
    assert normaliser.location[0] == 0.0
    assert normaliser.scale[0] == pytest.approx(np.log(1.7e308), rel=1e-4)
