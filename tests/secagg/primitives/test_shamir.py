"""Shamir sharing against an independent solver, and the primality of the field."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import LocalProtocolError
from secagg.primitives.shamir import (
    PRIME,
    SHARE_SIZE,
    combine,
    decode,
    lagrange_at_zero,
    lie_on_one_polynomial,
    split,
)
from tests.support.randomness import InsecureLabelledRng


def probably_prime(n: int) -> bool:
    """Miller-Rabin with the first forty primes: error below 4^-40 for a number not built for it."""
    bases = [p for p in range(2, 174) if all(p % q for q in range(2, p))]
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def slow_combine(shares: dict[int, bytes]) -> int:
    """Solve the Vandermonde system by Gaussian elimination; return the constant coefficient."""
    size = len(shares)
    rows = [
        [pow(x, power, PRIME) for power in range(size)] + [int.from_bytes(share, "little")]
        for x, share in shares.items()
    ]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], PRIME - 2, PRIME)
        rows[column] = [value * inverse % PRIME for value in rows[column]]
        for row in range(size):
            if row != column:
                factor = rows[row][column]
                rows[row] = [
                    (a - factor * b) % PRIME for a, b in zip(rows[row], rows[column], strict=True)
                ]
    return rows[0][size]


@pytest.mark.req("M-18")
def test_the_field_is_the_smallest_prime_above_2_256() -> None:
    assert PRIME == 2**256 + 297
    assert probably_prime(PRIME)
    assert not any(probably_prime(n) for n in range(2**256 + 1, PRIME, 2))


def test_the_primality_test_can_fail() -> None:
    assert not probably_prime(2**256 + 299)
    assert not probably_prime((2**127 - 1) * (2**89 - 1))
    assert probably_prime(2**127 - 1)


@pytest.mark.req("M-18")
@settings(max_examples=40, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.sets(st.integers(1, 10_001), min_size=1, max_size=9),
    st.data(),
)
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, points: set[int], data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(1, len(points)))
    shares = split(secret, sorted(points), threshold, InsecureLabelledRng(1, "shamir"))
    assert all(len(share) == SHARE_SIZE for share in shares.values())
    chosen = data.draw(st.permutations(sorted(points)))[:threshold]
    subset = {point: shares[point] for point in chosen}
    assert combine(subset) == secret
    assert slow_combine(subset) == int.from_bytes(secret, "little")


@pytest.mark.req("M-18")
@pytest.mark.parametrize("threshold", [1, 2, 19, 20, 21, 39, 40, 41, 60])
def test_shares_are_values_of_the_drawn_polynomial(threshold: int) -> None:
    """Computed term by term with reduced powers; a share has no other choice than the draws."""
    points = [*range(1, 60), 2**31 - 1]
    shares = split(b"\xfe" * 32, points, threshold, InsecureLabelledRng(4, "draws"))
    rng = InsecureLabelledRng(4, "draws")
    terms = [int.from_bytes(b"\xfe" * 32, "little")]
    terms += [int.from_bytes(rng(49), "little") for _ in range(threshold - 1)]
    for point in points:
        value = sum(c * pow(point, power, PRIME) for power, c in enumerate(terms)) % PRIME
        assert shares[point] == value.to_bytes(SHARE_SIZE, "little")


def slow_lagrange(points: tuple[int, ...]) -> tuple[int, ...]:
    coefficients = []
    for i in points:
        value = 1
        for j in points:
            if j != i:
                value = value * j * pow(j - i, PRIME - 2, PRIME) % PRIME
        coefficients.append(value)
    return tuple(coefficients)


@pytest.mark.req("M-18")
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([3, 15, 10_001, 2**16, 2**21, 2**31 - 1]).flatmap(
        lambda largest: st.lists(
            st.integers(1, largest), min_size=1, max_size=min(largest, 12), unique=True
        )
    )
)
def test_the_coefficients_are_lagranges(points: list[int]) -> None:
    assert lagrange_at_zero(tuple(points)) == slow_lagrange(tuple(points))


@pytest.mark.req("M-18")
@pytest.mark.parametrize("points", [range(1, 52), range(9_950, 10_002), range(2**31 - 50, 2**31)])
def test_the_coefficients_of_many_points(points: range) -> None:
    assert lagrange_at_zero(tuple(points)) == slow_lagrange(tuple(points))


@pytest.mark.parametrize("points", [(), (1, 1), (0, 1), (-1, 2), (1, 2**31)])
def test_points_without_coefficients_are_our_own_fault(points: tuple[int, ...]) -> None:
    with pytest.raises(LocalProtocolError):
        lagrange_at_zero(points)


@pytest.mark.req("M-18")
@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\1" + bytes(31)])
def test_every_32_bytes_are_a_secret(secret: bytes) -> None:
    shares = split(secret, [1, 2, 3], 2, InsecureLabelledRng(2, "extremes"))
    for pair in itertools.combinations(shares, 2):
        assert combine({point: shares[point] for point in pair}) == secret


@pytest.mark.req("M-18")
def test_one_share_too_few_fits_every_secret() -> None:
    """With t - 1 shares, for any claimed secret there is a polynomial of degree t - 1."""
    shares = split(b"s" * 32, [1, 2, 3, 4, 5], 3, InsecureLabelledRng(3, "few"))
    known = {1: shares[1], 4: shares[4]}
    for claimed in (0, 1, 2**255):
        forged = {**{x: int.from_bytes(y, "little") for x, y in known.items()}, 0: claimed}
        third = _value_at(forged, 5).to_bytes(SHARE_SIZE, "little")
        assert combine({**known, 5: third}) == claimed.to_bytes(32, "little")
    assert combine(known) != b"s" * 32


def _value_at(points: dict[int, int], x: int) -> int:
    total = 0
    for i, y in points.items():
        term = y
        for j in points:
            if j != i:
                term = term * (x - j) * pow(i - j, -1, PRIME) % PRIME
        total += term
    return total % PRIME


@pytest.mark.req("M-18")
def test_shares_of_one_secret_differ_with_the_randomness() -> None:
    one = split(b"s" * 32, [1, 2, 3], 2, InsecureLabelledRng(1, "a"))
    two = split(b"s" * 32, [1, 2, 3], 2, InsecureLabelledRng(1, "b"))
    assert all(one[point] != two[point] for point in one)


@pytest.mark.req("M-18")
def test_a_value_beyond_32_bytes_is_no_secret() -> None:
    assert combine({1: (2**256).to_bytes(33, "little")}) is None
    assert combine({1: (PRIME + 5).to_bytes(33, "little")}) == (5).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("secret", "points", "threshold"),
    [
        (bytes(31), [1, 2], 1),
        (bytes(33), [1, 2], 1),
        (bytes(32), [1, 1], 1),
        (bytes(32), [0, 1], 1),
        (bytes(32), [1, 2**31], 1),
        (bytes(32), [], 1),
        (bytes(32), [1, 2], 0),
        (bytes(32), [1, 2], 3),
    ],
)
def test_wrong_arguments_are_our_own_fault(
    secret: bytes, points: list[int], threshold: int
) -> None:
    with pytest.raises(LocalProtocolError):
        split(secret, points, threshold, InsecureLabelledRng(1, "x"))


def test_a_share_of_another_size_is_our_own_fault() -> None:
    with pytest.raises(LocalProtocolError):
        combine({1: bytes(32)})


# --- wrong shares --------------------------------------------------------------------------------


def slow_decode(shares: dict[int, bytes], threshold: int) -> tuple[bytes, frozenset[int]] | None:
    """Try the polynomial through every choice of shares."""
    for chosen in itertools.combinations(shares, threshold):
        good = {x: int.from_bytes(shares[x], "little") for x in chosen}
        wrong = frozenset(
            x
            for x, y in shares.items()
            if _value_at(good, x) != int.from_bytes(y, "little") % PRIME
        )
        if 2 * len(wrong) <= len(shares) - threshold:
            secret = _value_at(good, 0)
            return (secret.to_bytes(32, "little"), wrong) if secret < 2**256 else None
    return None


@st.composite
def words(draw: st.DrawFn) -> tuple[dict[int, bytes], int, bytes, frozenset[int]]:
    """Shares, the threshold, the secret and whose shares are wrong, from none to all."""
    points = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=8)))
    threshold = draw(st.integers(1, len(points)))
    secret = draw(st.sampled_from([bytes(32), b"\xff" * 32, b"s" * 32]))
    shares = split(secret, points, threshold, InsecureLabelledRng(5, "words"))
    wrong = draw(st.sets(st.sampled_from(points)))
    for point in wrong:
        error = draw(st.sampled_from([1, PRIME - 1, point, 2**200]))
        value = (int.from_bytes(shares[point], "little") + error) % PRIME
        shares[point] = value.to_bytes(SHARE_SIZE, "little")
    return shares, threshold, secret, frozenset(wrong)


@pytest.mark.req("M-18")
@settings(max_examples=300, deadline=None)
@given(words())
def test_decoding_finds_what_trying_everything_finds(
    word: tuple[dict[int, bytes], int, bytes, frozenset[int]],
) -> None:
    shares, threshold, secret, wrong = word
    found = decode(shares, threshold)
    assert found == slow_decode(shares, threshold)
    if 2 * len(wrong) <= len(shares) - threshold:
        assert found == (secret, wrong)
    first = {x: int.from_bytes(shares[x], "little") for x in sorted(shares)[:threshold]}
    assert lie_on_one_polynomial(shares, threshold, challenge=b"c" * 32) == all(
        _value_at(first, x) == int.from_bytes(share, "little") for x, share in shares.items()
    )


@pytest.mark.req("M-18")
@pytest.mark.parametrize(("size", "threshold"), [(60, 60), (60, 59), (60, 40), (61, 40), (33, 1)])
def test_decoding_at_the_radius_and_beyond(size: int, threshold: int) -> None:
    points = [3 * place + 1 for place in range(size)]
    radius = (size - threshold) // 2
    shares = split(b"r" * 32, points, threshold, InsecureLabelledRng(6, "radius"))
    rng = InsecureLabelledRng(7, "errors")
    for count, point in enumerate(points[::-1][: radius + 1], start=1):
        shares[point] = rng(32) + b"\0"
        if count <= radius:
            assert decode(shares, threshold) == (b"r" * 32, frozenset(points[-count:]))
    if size > threshold:
        assert decode(shares, threshold) is None
    else:
        assert decode(shares, threshold) != (b"r" * 32, frozenset())


@pytest.mark.req("M-18")
def test_a_share_and_the_prime_more_is_the_same_share() -> None:
    shares = split(b"s" * 32, [1, 2, 3, 4], 2, InsecureLabelledRng(8, "more"))
    value = int.from_bytes(shares[2], "little") + PRIME
    shares[2] = value.to_bytes(SHARE_SIZE, "little")
    assert decode(shares, 2) == (b"s" * 32, frozenset())
    assert lie_on_one_polynomial(shares, 2, challenge=bytes(32))


def test_a_decoded_value_beyond_32_bytes_is_no_secret() -> None:
    constant = dict.fromkeys([1, 2, 3], (2**256).to_bytes(33, "little"))
    assert decode(constant, 1) is None
    assert lie_on_one_polynomial(constant, 1, challenge=bytes(32))


@pytest.mark.req("M-18")
def test_the_challenge_may_be_the_inverse_of_a_point() -> None:
    """Where the geometric series has no closed form."""
    shares = split(b"s" * 32, [1, 2, 3, 4], 2, InsecureLabelledRng(9, "series"))
    one = (1).to_bytes(32, "little")
    assert lie_on_one_polynomial(shares, 2, challenge=one)
    assert not lie_on_one_polynomial({**shares, 1: bytes(33)}, 2, challenge=one)


@pytest.mark.parametrize("threshold", [-1, 0, 3])
def test_a_threshold_that_shares_cannot_have_is_our_own_fault(threshold: int) -> None:
    shares = {1: bytes(33), 2: bytes(33)}
    with pytest.raises(LocalProtocolError):
        decode(shares, threshold)
    with pytest.raises(LocalProtocolError):
        lie_on_one_polynomial(shares, threshold, challenge=bytes(32))


@pytest.mark.parametrize("shares", [{1: bytes(32)}, {0: bytes(33)}])
def test_shares_that_cannot_be_decoded_are_our_own_fault(shares: dict[int, bytes]) -> None:
    with pytest.raises(LocalProtocolError):
        decode(shares, 1)
    with pytest.raises(LocalProtocolError):
        lie_on_one_polynomial(shares, 1, challenge=bytes(32))
