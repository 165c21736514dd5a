"""Arithmetic in prime fields against integers and exhaustive search; recurrences of both sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.primitives import field
from secagg.primitives.shamir import PRIME
from tests.support.packed import LARGEST_PRIME, ints, values_at


def test_primes_are_told_from_composites() -> None:
    for n in range(-3, 3_000):
        assert field.is_prime(n) == (n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)))
    assert field.is_prime(LARGEST_PRIME)
    assert not field.is_prime(46_337 * 46_327)
    assert field.is_prime(562_949_953_392_641)  # SEAL's of 49 bits for N = 2048
    assert not field.is_prime(3_215_031_751)  # passes to the bases 2, 3, 5 and 7


@pytest.mark.parametrize("prime", [3, 11, 65_537, LARGEST_PRIME])
def test_products_of_matrices_do_not_wrap(prime: int) -> None:
    left = np.full((2, 9), prime - 1, dtype=np.int64)
    right = ints(1).integers(0, prime, (9, 3))
    expected = [[-sum(column) % prime for column in right.T.tolist()]] * 2
    assert field.matrix_product(left, right, prime).tolist() == expected


@pytest.mark.parametrize("prime", [17, LARGEST_PRIME])
def test_the_matrix_interpolates_as_the_formula_does(prime: int) -> None:
    points, targets = (0, -1, 3, 5), (1, 2, 9)
    values = ints(2).integers(0, prime, (4, 1))
    found = field.matrix_product(field.lagrange_matrix(points, targets, prime), values, prime)
    known = dict(zip(points, values[:, 0].tolist(), strict=True))
    assert found[:, 0].tolist() == values_at(known, list(targets), prime)


def test_inverses_and_zeros() -> None:
    values = np.arange(1, 101)
    assert (values * field.inverses(values, 101) % 101 == 1).all()
    assert field.zeros([1, -5, 6], np.array([7, 3, 0, 2]), 101) == [1, 3]  # (x - 2) (x - 3)


def follows(coefficients: tuple[int, ...], sequence: tuple[int, ...], prime: int) -> bool:
    length = len(coefficients) - 1
    return all(
        sum(c * sequence[n - i] for i, c in enumerate(coefficients)) % prime == 0
        for n in range(length, len(sequence))
    )


@pytest.mark.parametrize(("prime", "size"), [(2, 8), (3, 6), (5, 4)])
def test_the_recurrence_of_every_short_sequence_is_the_shortest(prime: int, size: int) -> None:
    for sequence in itertools.product(range(prime), repeat=size):
        found = field.recurrence(sequence, prime)
        fitting = (
            [1, *rest]
            for length in range(size // 2 + 1)
            for rest in itertools.product(range(prime), repeat=length)
            if follows((1, *rest), sequence, prime)
        )
        assert found == next(fitting, None)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([LARGEST_PRIME, PRIME]), st.integers(0, 6), st.integers(0, 5), st.data())
def test_power_sums_follow_the_polynomial_of_their_points(
    prime: int, count: int, spare: int, data: st.DataObject
) -> None:
    points = data.draw(st.lists(st.integers(1, 999), min_size=count, max_size=count, unique=True))
    scales = [data.draw(st.integers(1, prime - 1)) for _ in points]
    terms = list(zip(scales, points, strict=True))
    sums = [sum(a * x**n for a, x in terms) % prime for n in range(2 * count + spare)]
    expected = [1]
    for x in points:
        shifted = zip([*expected, 0], [0, *expected], strict=True)
        expected = [(a - x * b) % prime for a, b in shifted]
    assert field.recurrence(sums, prime) == expected
