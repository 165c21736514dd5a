"""Opening packed shares against trying every reading of them, and every kind of liar."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import LocalProtocolError
from secagg.primitives import packed
from secagg.primitives.packed import Share
from tests.support.packed import Code, codes, ints, opened_as, values_at


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
