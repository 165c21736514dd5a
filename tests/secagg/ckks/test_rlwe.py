"""The algebra on SEAL: exact sums, bounded errors, uniform ciphertexts and quiet secrets."""

import hashlib
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import chdtrc  # type: ignore[import-untyped]  # scikit-learn brings scipy

from secagg.ckks import rlwe
from secagg.ckks.rlwe import ERROR_BOUND, Ring, Secret, add, open_sum, pack
from secagg.errors import LocalProtocolError
from tests.support.rlwe import SEED, N

RATE: Final = 1e-9
"""Probability at most that one of the statistics below fails without cause."""
SIGMAS: Final = 6.2  # two-sided, of a normal variable: below RATE
OTHER_SEED: Final = hashlib.sha256(b"other public elements").digest()

Integers = NDArray[np.int64]


@pytest.fixture(scope="module")
def ring() -> Ring:
    return Ring(N, 49)


def chi_square(counts: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the p-value of `counts`; cells that expect little are for the caller to join."""
    assert expected.min() >= 16
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(chdtrc(len(counts) - 1, statistic))


def uniform_p(residues: NDArray[np.uint64], modulus: int) -> float:
    """Return the lesser p-value of 256 equal ranges of [0, q) and of the low bytes."""
    flat = residues.reshape(-1)
    ranges = (flat.astype(np.float64) * (256 / modulus)).astype(np.int64)
    expected = np.full(256, flat.size / 256)
    cells = (ranges, (flat & np.uint64(255)).astype(np.int64))
    return 2 * min(chi_square(np.bincount(c, minlength=256), expected) for c in cells)


def message_of(kind: str, most: int, blocks: int, index: int) -> Integers:
    """Return the message of node `index`, within ±most."""
    shape = (blocks, N)
    if kind == "constant":
        return np.full(shape, most, dtype=np.int64)
    if kind == "extreme":
        return np.full(shape, (-most, most)[index % 2], dtype=np.int64)
    return np.random.default_rng(index).integers(-most, most, shape, endpoint=True)


def sum_of(secrets: list[Secret], weights: list[int]) -> Secret:
    coefficients = sum(w * secret.coefficients for secret, w in zip(secrets, weights, strict=True))
    return Secret.from_coefficients(secrets[0].ring, np.asarray(coefficients, dtype=np.int64))


def zero_total(ring: Ring, blocks: int) -> NDArray[np.uint64]:
    return np.zeros((blocks, ring.degree), dtype=np.uint64)


# --- sums -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "extreme", "random"])
@pytest.mark.parametrize("n", [1, 2, 10, 50])
@pytest.mark.parametrize("most", [1 << 15, None], ids=["16-bit", "edge"])
def test_the_sum_opens_to_messages_plus_errors_exactly(
    ring: Ring, n: int, kind: str, most: int | None
) -> None:
    most = most or ring.modulus // 2 // n - ERROR_BOUND  # one more could wrap
    secrets = [Secret.fresh(ring, 4) for _ in range(n)]
    messages = [message_of(kind, most, 2, i) for i in range(n)]
    total, alone = zero_total(ring, 2), np.zeros((2, N), dtype=np.int64)
    for secret, message in zip(secrets, messages, strict=True):
        ciphertext = secret.encrypt(message, SEED)
        assert int(ciphertext.max()) < ring.modulus
        add(total, ciphertext, ring)
        alone += open_sum(ring, secret, ciphertext, SEED)
    opened = open_sum(ring, sum_of(secrets, [1] * n), total, SEED)
    assert np.array_equal(opened, alone)
    assert np.abs(opened - sum(messages)).max() <= ERROR_BOUND * n


@pytest.mark.parametrize(
    "weights",
    [[1, 1, 1], [0, 1, 2], [1, 100, 4095], [0, 0, 7], [0, 0, 0]],
    ids=lambda weights: "-".join(map(str, weights)),
)
def test_a_weighted_sum_opens_under_the_weighted_secrets(weights: list[int]) -> None:
    ring = Ring(N, 51)
    secrets = [Secret.fresh(ring, 4) for _ in weights]
    total, alone = zero_total(ring, 3), np.zeros((3, N), dtype=np.int64)
    most = ring.modulus // 2 // max(1, sum(weights)) - ERROR_BOUND
    for i, (secret, weight) in enumerate(zip(secrets, weights, strict=True)):
        ciphertext = secret.encrypt(message_of("random", most, 3, i), SEED)
        add(total, ciphertext, ring, weight=weight)
        alone += weight * open_sum(ring, secret, ciphertext, SEED)
    opened = open_sum(ring, sum_of(secrets, weights), total, SEED)
    assert np.array_equal(opened, alone)


def test_adding_equals_the_slow_way_at_the_greatest_residues() -> None:
    ring = Ring(N, 51)
    q = ring.modulus
    edges = np.array([0, 1, q // 2, q - 2, q - 1], dtype=np.uint64)
    part = np.resize(edges, (1, N))
    for weight in (0, 1, 2, 4095, (1 << 64) // q - 1):
        for start in edges:
            total = np.full((1, N), start)
            add(total, part, ring, weight=weight)
            assert total[0, :5].tolist() == [(int(start) + weight * int(x)) % q for x in edges]


def test_a_sum_over_one_value_wraps_by_the_modulus(ring: Ring) -> None:
    half = ring.modulus // 2
    secrets = [Secret.fresh(ring, 4) for _ in range(2)]
    total = zero_total(ring, 1)
    for secret in secrets:
        add(total, secret.encrypt(np.full((1, N), half), SEED), ring)
    opened = open_sum(ring, sum_of(secrets, [1, 1]), total, SEED)
    assert np.abs(opened - (2 * half - ring.modulus)).max() <= 2 * ERROR_BOUND


# --- what does not open, and what is seen ---------------------------------------------------------


def test_a_wrong_seed_or_a_missing_secret_gives_noise(ring: Ring) -> None:
    secrets = [Secret.fresh(ring, 4) for _ in range(3)]
    total = zero_total(ring, 10)
    for secret in secrets:
        add(total, secret.encrypt(np.zeros((10, N), dtype=np.int64), SEED), ring)
    whole = sum_of(secrets, [1, 1, 1])
    assert np.abs(open_sum(ring, whole, total, SEED)).max() <= 3 * ERROR_BOUND
    nearly = whole.coefficients.copy()
    nearly[0] += 1
    for opened in (
        open_sum(ring, whole, total, OTHER_SEED),
        open_sum(ring, sum_of(secrets[:2], [1, 1]), total, SEED),
        open_sum(ring, Secret.from_coefficients(ring, nearly), total, SEED),
    ):
        assert uniform_p(ring.residues_of(opened), ring.modulus) > RATE


@pytest.mark.parametrize("kind", ["constant", "extreme", "random"])
def test_ciphertexts_are_uniform_and_never_the_same_twice(ring: Ring, kind: str) -> None:
    message = message_of(kind, 1 << 40, 60, 0)
    one, two = (Secret.fresh(ring, 4).encrypt(message, SEED) for _ in range(2))
    together = one.copy()
    add(together, two, ring)
    apart = np.where(one >= two, one - two, one + np.uint64(ring.modulus) - two)
    for residues in (one, two, together, apart):
        assert uniform_p(residues, ring.modulus) > RATE
    assert np.count_nonzero(one == two) < 5


def test_errors_are_fresh_even_under_one_secret(ring: Ring) -> None:
    secret = Secret.fresh(ring, 4)
    again = Secret.from_coefficients(ring, secret.coefficients)
    message = np.zeros((1, N), dtype=np.int64)
    one, two = (
        open_sum(ring, s, s.encrypt(message, SEED), SEED).reshape(-1) for s in (secret, again)
    )
    assert not np.array_equal(one, two)
    correlation = float(one @ two) / (10.5 * math.sqrt(N))
    assert abs(correlation) < SIGMAS


def test_the_test_of_uniformity_can_fail(ring: Ring) -> None:
    residues = ring.public_elements(SEED, 60)
    assert uniform_p(residues, ring.modulus) > RATE
    assert uniform_p(residues >> np.uint64(1), ring.modulus) < RATE
    assert uniform_p(residues & ~np.uint64(1), ring.modulus) < RATE


def test_a_secret_encrypts_once(ring: Ring) -> None:
    secret = Secret.fresh(ring, 4)
    message = np.zeros((1, N), dtype=np.int64)
    secret.encrypt(message, SEED)
    with pytest.raises(LocalProtocolError, match="once"):
        secret.encrypt(message, SEED)


# --- distributions --------------------------------------------------------------------------------


def looks_like_the_sampler(errors: Integers, terms: int = 1) -> bool:
    """Judge bound, mean, variance and kurtosis of a centred binomial of 2 x 21 bits, or several."""
    count, spread = errors.size, 10.5 * terms
    mean = float(errors.mean())
    variance = float(np.mean((errors - mean) ** 2))
    excess = float(np.mean((errors - mean) ** 4)) / variance**2 - 3
    return (
        int(np.abs(errors).max()) <= ERROR_BOUND * terms
        and abs(mean) < SIGMAS * math.sqrt(spread / count)
        and abs(variance - spread) < SIGMAS * spread * math.sqrt((2 - 2 / (42 * terms)) / count)
        and abs(excess + 2 / (42 * terms)) < SIGMAS * math.sqrt(24 / count)
    )


def test_errors_are_seals_centred_binomial(ring: Ring) -> None:
    secret = Secret.fresh(ring, 4)
    zero = np.zeros((1000, N), dtype=np.int64)
    errors = open_sum(ring, secret, secret.encrypt(zero, SEED), SEED).reshape(-1)
    assert looks_like_the_sampler(errors)
    unbounded = np.random.default_rng(0).normal(0, math.sqrt(10.5 - 1 / 12), errors.size)
    assert not looks_like_the_sampler(np.rint(unbounded).astype(np.int64))
    spoilt = errors.copy()
    spoilt[5] = ERROR_BOUND + 1
    assert not looks_like_the_sampler(spoilt)


@pytest.mark.parametrize("terms", [2, 7, 13])
def test_several_errors_are_added_and_the_message_once(ring: Ring, terms: int) -> None:
    secret = Secret.fresh(ring, 4)
    message = np.full((100, N), 1 << 40, dtype=np.int64)
    total = secret.encrypt(message, SEED, error_terms=terms)
    errors = (open_sum(ring, secret, total, SEED) - message).reshape(-1)
    assert looks_like_the_sampler(errors, terms)
    assert not looks_like_the_sampler(errors, terms - 1)


@pytest.mark.parametrize("terms", [1, 4, 9])
def test_coefficients_of_a_secret_are_sums_of_ternary_ones(ring: Ring, terms: int) -> None:
    drawn = np.concatenate([Secret.fresh(ring, terms).coefficients for _ in range(60)])
    assert int(np.abs(drawn).max()) <= terms
    law = np.ones(1)
    for _ in range(terms):
        law = np.convolve(law, np.full(3, 1 / 3))
    counts = np.bincount(drawn + terms, minlength=2 * terms + 1)
    expected = law * drawn.size
    kept = expected >= 16  # the far tails are one cell
    cells, likely = counts[kept].tolist(), expected[kept].tolist()
    cells[0] += counts[~kept].sum()
    likely[0] += expected[~kept].sum()
    assert chi_square(np.array(cells), np.array(likely)) > RATE


def test_a_secret_is_rebuilt_from_its_coefficients(ring: Ring) -> None:
    secret = Secret.fresh(ring, 4)
    again = Secret.from_coefficients(ring, secret.coefficients)
    message = message_of("random", 1 << 20, 2, 0)
    opened = open_sum(ring, again, secret.encrypt(message, SEED), SEED)
    assert np.abs(opened - message).max() <= ERROR_BOUND
    with pytest.raises(ValueError, match="read-only"):
        again.coefficients[0] = 1


# --- refusals of wrong calls ----------------------------------------------------------------------


def test_wrong_calls_are_refused(ring: Ring) -> None:
    half = ring.modulus // 2
    secret = Secret.fresh(ring, 1)
    total = zero_total(ring, 2)
    wrong: list[Callable[[], object]] = [
        lambda: secret.encrypt(np.full((1, N), half + 1), SEED),
        lambda: secret.encrypt(np.full((1, N), -half - 1), SEED),
        lambda: secret.encrypt(np.zeros((1, N - 1), dtype=np.int64), SEED),
        lambda: secret.encrypt(np.zeros((0, N), dtype=np.int64), SEED),
        lambda: secret.encrypt(np.zeros((1, N), dtype=np.float64), SEED),
        lambda: secret.encrypt(np.zeros((1, N), dtype=np.int64), SEED[:31]),
        lambda: secret.encrypt(np.zeros((1, N), dtype=np.int64), SEED, error_terms=0),
        lambda: Secret.fresh(ring, 0),
        lambda: Secret.fresh(ring, 65),
        lambda: Secret.from_coefficients(ring, np.zeros(N - 1, dtype=np.int64)),
        lambda: Secret.from_coefficients(ring, np.full(N, half + 1)),
        lambda: open_sum(ring, secret, np.full((1, N), ring.modulus, dtype=np.uint64), SEED),
        lambda: open_sum(ring, secret, total[:, 1:], SEED),
        lambda: add(total, total[:1], ring),
        lambda: add(total, total[:, 1:], ring),
        lambda: add(total, total.astype(np.int64), ring),
        lambda: add(total, total, ring, weight=-1),
        lambda: add(total, total, ring, weight=(1 << 64) // ring.modulus),
        lambda: pack(total[0], ring),
    ]
    for call in wrong:
        with pytest.raises(LocalProtocolError):
            call()
    secret.encrypt(np.full((1, N), -half), SEED)  # none of the refusals spent it


# --- secrets stay quiet ---------------------------------------------------------------------------


def test_secrets_are_not_in_their_repr(ring: Ring) -> None:
    secret = Secret.fresh(ring, 4)
    assert repr(secret) == f"Secret(ring=Ring(degree={N}, modulus={ring.modulus}))"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(rlwe, name) for name in rlwe.__all__)
