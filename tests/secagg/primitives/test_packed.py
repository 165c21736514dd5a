"""Packed Shamir sharing against exhaustive search in tiny fields, and every kind of liar."""

import itertools
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import ConfigError, LocalProtocolError
from secagg.primitives import packed
from secagg.primitives.packed import Opened, Share
from tests.support.randomness import InsecureLabelledRng

LARGEST_PRIME = 2**31 - 1
ints = np.random.default_rng


class Words:
    """Gives the words that are drawn, then nothing."""

    def __init__(self, words: list[int]) -> None:
        self._data = b"".join(word.to_bytes(4, "little") for word in words)

    def __call__(self, size: int) -> bytes:
        assert size <= len(self._data), "more is drawn than expected"
        out, self._data = self._data[:size], self._data[size:]
        return out


class Code:
    """One choice of numbers, and sharing and opening with it."""

    def __init__(self, threshold: int, pack: int, holders: int, size: int, bound: int) -> None:
        self.threshold, self.pack, self.holders = threshold, pack, holders
        self.size, self.bound = size, bound
        self.prime = packed.smallest_field(bound, holders, pack)

    def share(self, secret: NDArray[np.int64], label: str = "share") -> Share:
        return packed.share(
            secret,
            prime=self.prime,
            threshold=self.threshold,
            pack=self.pack,
            holders=self.holders,
            rng=InsecureLabelledRng(1, label),
        )

    def open(self, shares: Mapping[int, Share]) -> Opened | None:
        return packed.open_shares(
            shares,
            prime=self.prime,
            threshold=self.threshold,
            pack=self.pack,
            size=self.size,
            bound=self.bound,
        )

    def secret(self, seed: int) -> NDArray[np.int64]:
        return ints(seed).integers(-self.bound, self.bound, self.size, endpoint=True)


@st.composite
def codes(draw: st.DrawFn) -> Code:
    threshold, pack = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    holders = threshold + pack + draw(st.integers(0, 6))
    bound = draw(st.sampled_from([1, 40, 4_000, 10**6, 2**30 - 100]))
    return Code(threshold, pack, holders, draw(st.integers(1, 40)), bound)


def values_at(points: Mapping[int, int], targets: list[int], prime: int) -> list[int]:
    """Lagrange's formula, in integers and one place at a time."""
    values = []
    for target in targets:
        value = 0
        for i, term in points.items():
            for j in points:
                if j != i:
                    term = term * (target - j) * pow(i - j, -1, prime) % prime
            value += term
        values.append(value % prime)
    return values


def opened_as(found: Opened | None, secret: NDArray[np.int64], wrong: set[int]) -> bool:
    return found is not None and found.wrong == wrong and np.array_equal(found.secret, secret)


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


# --- wrong shares --------------------------------------------------------------------------------


def lies(code: Code, shares: Share, wrong: list[int], pattern: str) -> Iterator[tuple[int, Share]]:
    """Yield each liar's share: wrong everywhere, in one place, or in some; never nowhere."""
    rng = ints(len(wrong))
    length = shares.shape[1]
    for count, holder in enumerate(wrong):
        places = np.arange(length)
        if pattern == "full":
            where = places >= 0
        elif pattern == "same place":
            where = places == length // 2
        elif pattern == "own place":
            where = places == count % length
        else:
            where = (rng.random(length) < 0.3) | (places == rng.integers(length))
        errors = np.where(where, rng.integers(1, code.prime, length), 0)
        yield holder, ((shares[holder] + errors) % code.prime).astype(np.uint32)


@settings(max_examples=300, deadline=None)
@given(codes(), st.sampled_from(["full", "same place", "own place", "some"]), st.data())
def test_liars_are_named_and_corrected(code: Code, pattern: str, data: st.DataObject) -> None:
    secret = code.secret(5)
    shares = code.share(secret)
    least = code.threshold + code.pack
    present = data.draw(
        st.sets(st.integers(0, code.holders - 1), min_size=least, max_size=code.holders)
    )
    radius = (len(present) - least) // 2
    wrong = data.draw(st.permutations(sorted(present)))[: data.draw(st.integers(0, radius))]
    answers = {holder: shares[holder] for holder in present}
    answers |= lies(code, shares, wrong, pattern)
    assert opened_as(code.open(answers), secret, set(wrong))


@pytest.mark.parametrize("pattern", ["full", "same place", "own place", "some"])
def test_every_set_of_liars_is_found(pattern: str) -> None:
    code = Code(2, 2, 8, 9, 40)
    secret = code.secret(6)
    shares = code.share(secret)
    for count in range(3):
        for wrong in itertools.combinations(range(8), count):
            answers = dict(enumerate(shares)) | dict(lies(code, shares, list(wrong), pattern))
            assert opened_as(code.open(answers), secret, set(wrong))


@pytest.mark.parametrize("bound", [40, 2**30 - 100])
@pytest.mark.parametrize("pattern", ["full", "same place", "own place", "some"])
def test_as_many_liars_as_the_code_corrects_at_size(bound: int, pattern: str) -> None:
    code = Code(10, 4, 30, 256, bound)
    secret = code.secret(7)
    shares = code.share(secret)
    wrong = [0, 3, 4, 11, 17, 20, 28, 29]
    answers = dict(enumerate(shares)) | dict(lies(code, shares, wrong, pattern))
    assert opened_as(code.open(answers), secret, set(wrong))


def slow_readings(code: Code, column: list[int]) -> dict[tuple[int, ...], frozenset[int]]:
    """Return secrets to liars, for each polynomial that misses no more than can be corrected."""
    needed = code.threshold + code.pack
    readings = {}
    for chosen in itertools.combinations(range(len(column)), needed):
        known = {holder + 1: column[holder] for holder in chosen}
        values = values_at(known, list(range(1, len(column) + 1)), code.prime)
        wrong = frozenset(h for h, value in enumerate(values) if value != column[h])
        if 2 * len(wrong) <= len(column) - needed:
            readings[tuple(values_at(known, list(range(0, -code.pack, -1)), code.prime))] = wrong
    return readings


def _centred(value: int, prime: int) -> int:
    return value - prime if value > prime // 2 else value


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 2), st.integers(1, 2), st.integers(0, 4), st.data())
def test_opening_any_word_finds_what_trying_everything_finds(
    threshold: int, pack: int, spare: int, data: st.DataObject
) -> None:
    """Any words at all, honest or not: one column, and all the numbers of the field allowed."""
    code = Code(threshold, pack, threshold + pack + spare, pack, 3)
    code.bound = (code.prime - 1) // 2
    column = code.share(code.secret(8))[:, 0].tolist()
    for holder in data.draw(st.sets(st.integers(0, code.holders - 1))):
        column[holder] = data.draw(st.integers(0, code.prime - 1))
    found = code.open({h: np.array([v], dtype=np.uint32) for h, v in enumerate(column)})
    readings = slow_readings(code, column)
    assert len(readings) <= 1
    if not readings:
        assert found is None
        return
    ((secret, wrong),) = readings.items()
    centred = np.array([_centred(value, code.prime) for value in secret])
    assert opened_as(found, centred, set(wrong))


@pytest.mark.parametrize("spare", [1, 3, 5])
@pytest.mark.parametrize("pattern", ["full", "same place", "own place", "some"])
def test_one_liar_too_many_never_deceives_if_the_spare_is_odd(spare: int, pattern: str) -> None:
    """Then e + 1 wrong ones and e that are said to be wrong are together within the spare."""
    code = Code(2, 3, 5 + spare, 18, 5)
    secret = code.secret(9)
    shares = code.share(secret)
    for wrong in itertools.combinations(range(code.holders), spare // 2 + 1):
        answers = dict(enumerate(shares)) | dict(lies(code, shares, list(wrong), pattern))
        assert code.open(answers) is None


def disguise(code: Code, shares: Share, liars: list[int], honest: list[int]) -> dict[int, Share]:
    """Let the liars add a polynomial that is 0 at all holders but themselves and `honest`.

    Then it is the honest ones, if they are few enough, that look wrong. Nothing secret is needed.
    """
    zeros = [h + 1 for h in range(code.holders) if h not in {*liars, *honest}]
    assert len(zeros) == code.threshold + code.pack - 1
    scale = [1]
    for zero in zeros:  # 1 at the first secret's point
        scale.append(scale[-1] * -zero % code.prime)
    answers = dict(enumerate(shares))
    for liar in liars:
        value = pow(scale[-1], -1, code.prime)
        for zero in zeros:
            value = value * (liar + 1 - zero) % code.prime
        answers[liar] = ((shares[liar].astype(np.int64) + value) % code.prime).astype(np.uint32)
    return answers


def test_one_liar_too_many_can_deceive_if_the_spare_is_even() -> None:
    """The limit of any decoder: e + 1 liars who add a codeword leave e honest ones that miss it.

    The sum is off by one everywhere, so no bound helps. Whoever must not be deceived by A liars
    asks that the named ones and A are within the spare.
    """
    code = Code(2, 1, 7, 5, 10)
    secret = np.zeros(5, dtype=np.int64)
    answers = disguise(code, code.share(secret), [0, 1, 4], [2, 6])
    found = code.open(answers)
    assert opened_as(found, secret + 1, {2, 6})
    assert found is not None
    assert len(found.wrong) + 3 > 7 - 2 - 1


@pytest.mark.parametrize("count", range(5))
def test_an_answer_that_names_few_is_true_for_as_many_more(count: int) -> None:
    """Liars who have others named for them are at least the spare and one, less those."""
    code = Code(2, 1, 7, 5, 10)
    secret = np.zeros(5, dtype=np.int64)
    liars, honest = list(range(5 - count)), list(range(5 - count, 5))
    found = code.open(disguise(code, code.share(secret), liars, honest))
    if count <= 2:  # these liars are 3 to 5
        assert opened_as(found, secret + 1, set(honest))
        assert len(liars) + count == 5 > 7 - 2 - 1
    else:
        assert opened_as(found, secret, set(liars))


def test_a_value_beyond_the_bound_is_no_answer() -> None:
    code = Code(2, 2, 6, 5, 10)
    for value, place in itertools.product((11, -11), range(5)):
        secret = np.zeros(5, dtype=np.int64)
        secret[place] = value
        answers = dict(enumerate(code.share(secret)))
        assert code.open(answers) is None
        code.bound = 11
        assert opened_as(code.open(answers), secret, set())
        code.bound = 10


def test_random_answers_are_no_answer() -> None:
    code = Code(3, 2, 12, 60, 1_000)
    rows = ints(10).integers(0, code.prime, (12, 30)).astype(np.uint32)
    assert code.open(dict(enumerate(rows))) is None
    assert code.open({}) is None


@pytest.mark.parametrize(
    "shares",
    [
        {0: np.zeros(3, dtype=np.uint32)},
        {0: np.zeros((1, 2), dtype=np.uint32)},
        {0: np.zeros(2, dtype=np.int64)},
        {0: np.full(2, 1_009, dtype=np.uint32)},
        {-1: np.zeros(2, dtype=np.uint32)},
        {1_008: np.zeros(2, dtype=np.uint32)},
    ],
)
def test_what_the_decoder_would_not_give_is_our_own_fault(shares: dict[int, Share]) -> None:
    good = {holder: np.zeros(2, dtype=np.uint32) for holder in range(6)}
    right = {"prime": 1_009, "threshold": 2, "pack": 2, "size": 4, "bound": 5}
    assert opened_as(packed.open_shares(good, **right), np.zeros(4, dtype=np.int64), set())
    with pytest.raises(LocalProtocolError):
        packed.open_shares({**good, **shares}, **right)


@pytest.mark.parametrize(
    "change",
    [{"prime": 1_007}, {"threshold": 0}, {"pack": 0}, {"size": 0}, {"bound": -1}, {"bound": 505}],
)
def test_opening_with_wrong_numbers_is_our_own_fault(change: dict[str, int]) -> None:
    right = {"prime": 1_009, "threshold": 2, "pack": 2, "size": 4, "bound": 5}
    with pytest.raises(LocalProtocolError):
        packed.open_shares({}, **{**right, **change})


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
