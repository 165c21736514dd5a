"""Packed Shamir sharing against exhaustive search in tiny fields: secrecy, sums and bytes."""

import itertools
import traceback
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives import packed
from tests.support.packed import LARGEST_PRIME, Code, Words, codes, ints, opened_as, values_at
from tests.support.randomness import InsecureLabelledRng

# --- the field -----------------------------------------------------------------------------------


def test_the_field_is_the_smallest_prime_above() -> None:
    def slow(n: int) -> bool:
        return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))

    # 2047, 1373653 and 25326001 pass the strong test to the bases 2; 2, 3; 2, 3, 5
    pseudoprimes = [1_019, 686_822, 12_662_996]
    for bound in [*range(1, 200), 32_749, 65_000, 10**6, 10**9, *pseudoprimes]:
        prime = packed.smallest_field(bound, 5, 2)
        assert slow(prime)
        assert not any(slow(n) for n in range(2 * bound + 8, prime))


def test_the_largest_field() -> None:
    assert packed.smallest_field(2**30 - 5, 5, 3) == LARGEST_PRIME
    with pytest.raises(ConfigError) as refused:
        packed.smallest_field(2**30 - 4, 5, 2)
    assert refused.value.hint


@pytest.mark.parametrize("numbers", [(0, 5, 2), (1, 0, 2), (1, 5, 0)])
def test_a_field_of_nothing_is_our_own_fault(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(LocalProtocolError):
        packed.smallest_field(*numbers)


# --- sharing -------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(codes(), st.data())
def test_any_threshold_and_pack_holders_open(code: Code, data: st.DataObject) -> None:
    secret = code.secret(2)
    shares = code.share(secret)
    assert shares.shape == (code.holders, packed.share_length(code.size, code.pack))
    assert shares.dtype == np.uint32
    needed = code.threshold + code.pack
    chosen = data.draw(st.permutations(range(code.holders)))
    assert opened_as(code.open({h: shares[h] for h in chosen[:needed]}), secret, set())
    assert opened_as(code.open(dict(enumerate(shares))), secret, set())
    assert code.open({h: shares[h] for h in chosen[: needed - 1]}) is None


@settings(max_examples=40, deadline=None)
@given(codes())
def test_shares_lie_on_polynomials_of_the_degree(code: Code) -> None:
    """Every share follows by Lagrange's formula from the secrets and the first random ones."""
    secret = code.secret(3)
    shares = code.share(secret)
    length = shares.shape[1]
    padded = [*secret.tolist(), *[0] * (code.pack * length - code.size)]
    for column in range(length):
        known = {-place: padded[place * length + column] for place in range(code.pack)}
        known |= {h + 1: int(shares[h, column]) for h in range(code.threshold)}
        expected = values_at(known, list(range(1, code.holders + 1)), code.prime)
        assert shares[:, column].tolist() == expected


@pytest.mark.parametrize("prime", [11, LARGEST_PRIME])
def test_the_extremes_of_the_field_come_back(prime: int) -> None:
    most = (prime - 1) // 2
    secret = np.array([most, -most, 0, 1, -1], dtype=np.int64)
    rng = Words([prime - 1] * 6)
    shares = packed.share(secret, prime=prime, threshold=2, pack=2, holders=6, rng=rng)
    found = packed.open_shares(
        dict(enumerate(shares)), prime=prime, threshold=2, pack=2, size=5, bound=most
    )
    assert opened_as(found, secret, set())


def test_the_sampler_rejects_what_would_be_biased() -> None:
    """Words from the last multiple of the prime on are drawn again; others are reduced."""
    prime = 1_431_655_777  # three times it is just above 2^32
    limit = 2 * prime
    words = [limit, 5, limit - 1, 2**32 - 1, prime, prime + 7]
    secret = np.zeros(4, dtype=np.int64)
    code = {"prime": prime, "threshold": 1, "pack": 1, "holders": 3}
    shares = packed.share(secret, rng=Words(words), **code)
    assert shares[0].tolist() == [5, prime - 1, 0, 7]


def test_what_is_drawn_is_uniform() -> None:
    """Chi-square over fields of awkward size; reduction without rejection fails the last one."""
    for prime, cells in [(3, 3), (7, 7), (127, 127), (65_537, 64), (1_610_612_741, 6)]:
        count = 60_000
        rng = InsecureLabelledRng(2, f"uniform {prime}")
        secret = np.zeros(count, dtype=np.int64)
        code = {"threshold": 1, "pack": 1, "holders": 2, "prime": prime}
        drawn = packed.share(secret, rng=rng, **code)[0].astype(np.int64)
        cell = drawn * cells // prime
        expected = np.diff(-(-np.arange(cells + 1) * prime // cells)) / prime * count
        chi = ((np.bincount(cell, minlength=cells) - expected) ** 2 / expected).sum()
        assert chi < cells + 6 * (2 * cells) ** 0.5


@pytest.mark.parametrize(
    ("prime", "threshold", "pack", "holders"),
    [(5, 1, 1, 3), (5, 1, 2, 3), (5, 2, 1, 3), (7, 2, 1, 4), (7, 2, 2, 4)],
)
def test_the_shares_of_threshold_holders_are_uniform_whatever_the_secret(
    prime: int, threshold: int, pack: int, holders: int
) -> None:
    """All secrets times all random draws; one holder more narrows the secrets, all but one open."""
    views: dict[tuple[int, ...], dict[tuple[int, ...], Counter[tuple[int, ...]]]]
    views = defaultdict(lambda: defaultdict(Counter))
    most = (prime - 1) // 2
    for values in itertools.product(range(-most, most + 1), repeat=pack):
        secret = np.array(values, dtype=np.int64)
        for drawn in itertools.product(range(prime), repeat=threshold):
            rng = Words(list(drawn))
            code = {"prime": prime, "threshold": threshold, "pack": pack, "holders": holders}
            shares = packed.share(secret, rng=rng, **code)
            column = shares[:, 0].tolist()
            for size in range(1, threshold + pack + 1):
                for group in itertools.combinations(range(holders), size):
                    views[group][values][tuple(column[holder] for holder in group)] += 1
    for group, by_secret in views.items():
        if len(group) <= threshold:
            everything = set(itertools.product(range(prime), repeat=len(group)))
            for seen in by_secret.values():
                assert set(seen) == everything
                assert len(set(seen.values())) == 1
        possible = Counter(view for seen in by_secret.values() for view in seen)
        left = prime ** min(pack, threshold + pack - len(group))
        assert set(possible.values()) == {left}  # secrets that fit; one only for all


@pytest.mark.parametrize("threshold", [1, 3])
def test_shares_in_a_real_field_are_uniform_for_extreme_secrets(threshold: int) -> None:
    code = Code(threshold, 4, 12, 80_000, 40)
    for value in (-code.bound, code.bound):
        shares = code.share(np.full(code.size, value, dtype=np.int64), f"extreme {value}")
        for row in shares:
            counts = np.bincount(row, minlength=code.prime)
            expected = row.size / code.prime
            assert ((counts - expected) ** 2 / expected).sum() < code.prime + 6 * 16


def test_sharing_twice_gives_other_shares() -> None:
    code = Code(2, 2, 6, 20, 1_000)
    secret = code.secret(4)
    assert (code.share(secret, "a") != code.share(secret, "b")).any(axis=1).all()


@pytest.mark.parametrize(
    "change",
    [
        {"prime": 1_000},
        {"prime": 2},
        {"prime": 2**31 + 11},
        {"threshold": 0},
        {"pack": 0},
        {"threshold": 5},
        {"pack": 5},
        {"holders": 1_008},
        {"secret": np.array([505])},
        {"secret": np.array([-505])},
        {"secret": np.array([-(2**63)])},
        {"secret": np.array([1], dtype=np.int32)},
        {"secret": np.array([1.0])},
        {"secret": np.array([[1]])},
        {"secret": np.array([], dtype=np.int64)},
    ],
)
def test_what_cannot_be_shared_is_our_own_fault(change: dict[str, object]) -> None:
    right = {"secret": np.array([504, -504]), "prime": 1_009, "threshold": 2, "pack": 2}
    right |= {"holders": 6, "rng": InsecureLabelledRng(1, "x")}
    packed.share(**right)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError):
        packed.share(**{**right, **change})  # type: ignore[arg-type]


# --- sums ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_sums_of_shares_open_to_sums(
    weights: list[int], threshold: int, pack: int, weighted: bool
) -> None:
    factors = weights if weighted else [1] * len(weights)
    code = Code(threshold, pack, threshold + pack + 2, 13, 4 * max(1, sum(map(abs, factors))))
    secrets = [ints(node).integers(-4, 5, code.size) for node in range(len(weights))]
    dealt = [code.share(secret, f"node {node}") for node, secret in enumerate(secrets)]
    sums = {
        holder: packed.weighted_sum(
            [rows[holder] for rows in dealt],
            prime=code.prime,
            weights=weights if weighted else None,
        )
        for holder in range(code.holders)
    }
    expected = sum(w * s for w, s in zip(factors, secrets, strict=True))
    assert opened_as(code.open(sums), np.asarray(expected), set())
    sums[1] = (sums[1] + np.uint32(1)) % np.uint32(code.prime)
    assert opened_as(code.open(sums), np.asarray(expected), {1})


def test_sums_in_the_largest_field_do_not_wrap() -> None:
    top = np.full(3, LARGEST_PRIME - 1, dtype=np.uint32)
    weights = [-1, LARGEST_PRIME - 1, -1, 2**70 * LARGEST_PRIME - 1, -1]
    total = packed.weighted_sum([top] * 5, prime=LARGEST_PRIME, weights=weights)
    assert total.tolist() == [5] * 3
    assert packed.weighted_sum([top] * 5, prime=LARGEST_PRIME).tolist() == [LARGEST_PRIME - 5] * 3


@pytest.mark.parametrize(
    ("lengths", "weights"), [([], None), ([], []), ([2, 2], [1]), ([2], [1, 2]), ([1, 2], None)]
)
def test_a_sum_of_what_does_not_match_is_our_own_fault(
    lengths: list[int], weights: list[int] | None
) -> None:
    shares = [np.zeros(length, dtype=np.uint32) for length in lengths]
    with pytest.raises(LocalProtocolError):
        packed.weighted_sum(shares, prime=11, weights=weights)


# --- bytes, and what is shown --------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([3, 127, 257, 8_039, 65_537, LARGEST_PRIME]), st.integers(1, 70), st.data())
def test_shares_survive_their_bytes(prime: int, length: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, prime - 1), min_size=length, max_size=length))
    one = np.array(values, dtype=np.uint32)
    raw = packed.encode(one, prime)
    assert len(raw) == -(-length // 8) * max(8, (prime - 1).bit_length())
    back = packed.decode(raw, prime, length)
    assert back is not None
    assert back.dtype == np.uint32
    assert np.array_equal(back, one)
    assert packed.decode(raw + b"\0", prime, length) is None
    assert packed.decode(raw[:-1], prime, length) is None
    assert packed.decode(raw, prime, length + 8) is None


@pytest.mark.parametrize("prime", [3, 127, 8_039, 65_537, 2_000_000_063])
def test_bytes_of_what_is_no_field_element_are_refused(prime: int) -> None:
    bits = max(8, (prime - 1).bit_length())
    for place, value in itertools.product((0, 9), (prime, 2**bits - 1)):
        one = np.zeros(10, dtype=np.uint32)
        one[place] = value
        assert packed.decode(packed.encode(one, prime), prime, 10) is None
        one[place] = prime - 1
        assert packed.decode(packed.encode(one, prime), prime, 10) is not None


def test_nothing_shows_a_value() -> None:
    code = Code(2, 2, 6, 4, 10**6)
    secret = np.array([987_651, 987_652, -987_653, 987_654], dtype=np.int64)
    found = code.open(dict(enumerate(code.share(secret))))
    assert "98765" not in repr(found)
    code.prime = 1_009
    with pytest.raises(LocalProtocolError) as refused:
        code.share(secret)
    assert "98765" not in "".join(traceback.format_exception_only(refused.value))
    with pytest.raises(LocalProtocolError) as refused:
        code.open({h: np.full(2, 987_651, dtype=np.uint32) for h in range(6)})
    assert "98765" not in "".join(traceback.format_exception_only(refused.value))
