"""Draws are a function of 64 bytes and of nothing else: not of floats, batches or counts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

from secagg.dp import keystream as keystream_module
from secagg.dp import sampler as sampler_module
from secagg.dp.keystream import SLACK, Keystream, side_stream
from secagg.dp.laws import Skellam
from secagg.dp.resolve import Resolver, Uniform
from secagg.dp.sampler import NoiseSampler, keystream, sampler_for
from secagg.dp.tables import SCALE_BITS, build
from secagg.dp.terms import MECHANISMS
from secagg.errors import ConfigError, LocalProtocolError
from tests.secagg.dp.probabilities import reference
from tests.support.randomness import InsecureLabelledRng

SEED = bytes(range(32))
VARIANCES = [2.0**-4, 1.0, 37.5, 144.0, 5000.0, 1e6, 1e12, 2.0**44]


def draws(mechanism: str, variance: float, count: int, label: str = "draws") -> np.ndarray:
    return sampler_for(mechanism, variance).draw(count, InsecureLabelledRng(1, label))


def with_band(sampler: NoiseSampler, band: float) -> NoiseSampler:
    return replace(sampler, table=build(sampler.law, band=band))


def ctr(key: bytes, size: int) -> bytes:
    return Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(size))


# --- one value per seed ----------------------------------------------------------------------

GOLDEN = {
    ("discrete-gaussian", 2.0**-4): "5dbbe46682f52cc0",
    ("discrete-gaussian", 5000.0): "15313593e6d40c67",
    ("discrete-gaussian", 1e12): "b762f9d9ac1161e5",
    ("skellam", 2.0**-4): "938a28158e734c96",
    ("skellam", 5000.0): "17f95a2d4b1aa549",
    ("skellam", 1e12): "be0309c44e789c91",
}


@pytest.mark.req("N-03")
@pytest.mark.parametrize(("mechanism", "variance"), GOLDEN)
def test_a_seed_gives_these_draws_on_every_machine(mechanism: str, variance: float) -> None:
    found = sampler_for(mechanism, variance).draw(100_000, keystream(SEED))
    digest = hashlib.sha256(found.astype("<i4").tobytes()).hexdigest()
    assert digest[:16] == GOLDEN[mechanism, variance]


@pytest.mark.req("N-03")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("variance", [1.0, 150.0, 1e6])
def test_the_draws_are_those_of_the_specification(mechanism: str, variance: float) -> None:
    """Word by word from sections 3 and 4, with real numbers of 60 digits instead of floats."""
    sampler = sampler_for(mechanism, variance)
    table, wanted = sampler.table, 500
    words = np.frombuffer(ctr(ctr(SEED, 32), 8 * 2 * wanted), "<u8").tolist()
    expected: list[int] = []
    with mpmath.workdps(60):
        for word in words:
            slot, place, uniform = word >> 52, word >> 32 & (table.width - 1), word >> 1 & 2**31 - 1
            ends = np.cumsum(table.weights)
            block = int(np.searchsorted(ends, slot, side="right"))
            if block == table.blocks:
                continue  # a tail of 2^-64
            x = (block - table.blocks // 2) * table.width + place
            mass = reference(sampler.law, x)
            if (uniform + 0.5) / 2**31 < table.scale * mass / table.weights[block] / 2**SCALE_BITS:
                expected.append(x)
    found = sampler.draw(wanted, keystream(SEED))
    assert found.tolist() == expected[:wanted]
    assert found.dtype == np.int32


@pytest.mark.req("N-03")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_fewer_draws_are_the_beginning_of_more(mechanism: str) -> None:
    many = draws(mechanism, 1e6, 50_000)
    for count in (0, 1, 7, 1000, 16_384, 49_999):
        assert np.array_equal(draws(mechanism, 1e6, count), many[:count])
    assert not np.array_equal(draws(mechanism, 1e6, 1000, "other"), many[:1000])


@pytest.mark.req("N-03")
@pytest.mark.parametrize("batch", [64, 1000, 1 << 16])
def test_the_size_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    law = Skellam(3.0)
    slow = NoiseSampler(law, build(law, tail_bits=2, band=0.25))  # so that many are settled late
    before = slow.draw(5000, InsecureLabelledRng(1, "batches"))
    monkeypatch.setattr(sampler_module, "_BATCH", batch)
    assert np.array_equal(slow.draw(5000, InsecureLabelledRng(1, "batches")), before)


@pytest.mark.req("N-03")
def test_the_source_is_asked_once_for_64_bytes() -> None:
    asked: list[int] = []

    def rng(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    for variance in VARIANCES:
        for count in (0, 1, 100_000):
            sampler_for("discrete-gaussian", variance).draw(count, rng)
    assert asked == [64] * 3 * len(VARIANCES)


# --- floats ----------------------------------------------------------------------------------


def with_errors(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """Make every exponential of the fast path wrong by up to `size` of it."""
    right = sampler_module._exp_of_minus
    noise = np.random.default_rng(5)

    def wrong(y: np.ndarray, out: np.ndarray) -> None:
        right(y, out)
        out *= (1 + size * noise.uniform(-1, 1, len(out))).astype(np.float32)

    monkeypatch.setattr(sampler_module, "_exp_of_minus", wrong)


@pytest.mark.req("N-04")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_wrong_floats_within_the_band_change_nothing(
    mechanism: str, variance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = draws(mechanism, variance, 300_000)
    with_errors(monkeypatch, 2.0**-19)
    assert np.array_equal(draws(mechanism, variance, 300_000), before)


def test_wrong_floats_beyond_the_band_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = draws("skellam", 1e6, 300_000)
    with_errors(monkeypatch, 2.0**-13)
    assert not np.array_equal(draws("skellam", 1e6, 300_000), before)


@pytest.mark.req("N-04")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("variance", VARIANCES)
def test_a_wide_band_gives_the_same_draws(mechanism: str, variance: float) -> None:
    """Every fourth proposal is settled exactly, and it makes no difference."""
    sampler = sampler_for(mechanism, variance)
    wide = with_band(sampler, 2.0**-2)
    found = wide.draw(3000, InsecureLabelledRng(1, "wide"))
    assert np.array_equal(found, sampler.draw(3000, InsecureLabelledRng(1, "wide")))


class Words:
    """A stream of given proposals, and a resolver that notes what it is asked."""

    def __init__(self, words: list[int]) -> None:
        self.words, self.asked = words, []

    def fill(self, buffer: np.ndarray) -> None:
        buffer[:-SLACK] = np.array(self.words, "<u8").view(np.uint8)

    def resolve(self, index: int, block: int, x: int, uniform: int) -> int | None:
        self.asked.append(index)
        return None


@pytest.mark.req("N-04")
@pytest.mark.parametrize("variance", [9.0, 150.0, 1e6])
def test_what_the_first_31_bits_leave_open_is_never_decided_by_floats(variance: float) -> None:
    """In every block, the cell that p(x)·2^31 lies in: also where that is small or below 1."""
    sampler = sampler_for("discrete-gaussian", variance)
    table = sampler.table
    ends = np.cumsum(table.weights).tolist()
    words = []
    for block in range(table.blocks):
        x = int(table.centre[block])
        p = table.scale * sampler.law.scaled(x, 400) << 31
        cell = p // (table.weights[block] << SCALE_BITS + 400)
        proposal = ends[block] - 1 << 52 | table.width >> 1 << 32
        uniforms = min(cell, 2**31 - 1), cell // 2, min(2 * cell + 1, 2**31 - 1)
        words += [proposal | uniform << 1 for uniform in uniforms]
    stream = Words(words)
    kept = sampler_module._Batch(len(words)).run(len(words), 0, table, stream, stream)
    assert set(range(0, len(words), 3)) <= set(stream.asked)
    surely = [i for i in range(1, len(words), 3) if i not in stream.asked]
    assert set(kept.tolist()) >= {int(table.centre[i // 3]) for i in surely}
    assert len(stream.asked) < len(words) * 0.6


@pytest.mark.req("N-04")
@pytest.mark.parametrize(("known", "bits"), [(0, 0), (1, 1), (2, 2)])
def test_an_open_call_is_settled_by_further_bits(known: int, bits: int) -> None:
    """U is known to lie in [known, known + 1)/2^bits, and is compared with 0.6."""
    sampler = sampler_for("discrete-gaussian", 1.0)
    resolver = Resolver(sampler.law, sampler.table, SEED)
    kept = 0
    for index in range(4000):
        number = Uniform(SEED, index, known=known, bits=bits)
        kept += resolver.keeps(0, Fraction(3, 5), number)  # F(0) is 1
        assert number.bits > bits
    chance = 0.6 * 2**bits - known
    assert abs(kept - 4000 * chance) < 5 * np.sqrt(4000 * chance * (1 - chance))


@pytest.mark.req("N-02")
def test_what_is_settled_exactly_tells_nothing_of_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the values that are kept, the same share goes the slow way wherever they lie."""
    sampler = with_band(sampler_for("discrete-gaussian", 10_000.0), 2.0**-4)
    slow: list[int] = []
    resolve = Resolver.resolve

    def noting(self: Resolver, index: int, block: int, x: int, uniform: int) -> int | None:
        settled = resolve(self, index, block, x, uniform)
        if settled is not None:
            slow.append(settled)
        return settled

    monkeypatch.setattr(Resolver, "resolve", noting)
    values = np.abs(sampler.draw(100_000, InsecureLabelledRng(1, "slow")))
    taken = np.abs(np.array(slow))
    share = len(taken) / len(values)
    assert 0.055 < share < 0.070  # a band of 1/16
    edges = [0, 25, 50, 75, 100, 150, 200, 300, 1000]
    of, hits = np.histogram(values, edges)[0], np.histogram(taken, edges)[0]
    assert np.all(np.abs(hits - share * of) < 5.5 * np.sqrt(share * of))  # 1e-6 in all, nearly


# --- the streams -----------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["gcm", "ctr"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream_module, "_THROUGH_GCM", request.param)


@pytest.mark.req("N-06")
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", [[1], [16, 16], [31, 2, 0, 100], [40] * 9, [5, 300_000, 262_150]])
def test_the_keystream_is_aes_in_counter_mode(sizes: list[int]) -> None:
    stream = keystream(SEED)
    assert b"".join(stream(size) for size in sizes) == ctr(SEED, sum(sizes))


def test_the_keystream_of_the_zero_key_starts_as_published() -> None:
    assert keystream(bytes(32))(16).hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.req("N-06")
def test_a_side_stream_is_the_one_of_the_specification() -> None:
    encrypt = Cipher(AES256(SEED), ECB()).encryptor()  # noqa: S305 - the reference
    for index in (0, 3, 2**64 - 1):
        numbers = index.to_bytes(16, "big") + (2**64 + index).to_bytes(16, "big")
        assert side_stream(SEED, index)(100) == ctr(encrypt.update(numbers), 100)


@pytest.mark.req("N-06")
def test_side_streams_are_distinct() -> None:
    firsts = {side_stream(SEED, index)(16) for index in (0, 1, 2, 255, 256, 1 << 32, 2**64 - 1)}
    assert len(firsts | {keystream(SEED)(16)}) == 8


def test_a_stream_ends_before_its_counter_wraps() -> None:
    stream = Keystream(SEED)
    stream._left = 10
    assert len(stream(10)) == 10
    with pytest.raises(LocalProtocolError, match="0 left"):
        stream(1)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        keystream(bytes(size))


def test_a_buffer_is_filled_but_for_its_slack() -> None:
    buffer = np.zeros(100 + SLACK, np.uint8)
    Keystream(SEED).fill(buffer)
    assert buffer[:100].tobytes() == ctr(SEED, 100)


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.req("N-05")
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    "variance", [0.0, -1.0, 0.0624, 2.0**44 * (1 + 2.0**-52), float("inf"), float("nan")]
)
def test_a_variance_out_of_range_is_refused(mechanism: str, variance: float) -> None:
    with pytest.raises(ConfigError) as caught:
        sampler_for(mechanism, variance)
    assert "2^-4 to 2^44" in caught.value.hint


@pytest.mark.req("N-05")
def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(ConfigError, match="laplace"):
        sampler_for("laplace", 1.0)


@pytest.mark.parametrize("count", [-1, (1 << 32) + 1])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        sampler_for("skellam", 1.0).draw(count, keystream(SEED))


def test_a_sampler_is_kept() -> None:
    assert sampler_for("skellam", 25.0) is sampler_for("skellam", 25.0)
    assert sampler_for("skellam", 25.0).variance == 25.0
    assert repr(sampler_for("skellam", 25.0)) == "NoiseSampler(law=Skellam(variance=25.0))"
