"""A round under record-level privacy: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest

from fl_core.config import CLIP_STEPS, RATE_UNITS, ModelConfig, TrainConfig
from fl_core.errors import DataError, ModelError
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.private_training import noise_variance, record_cost, sample_rows
from fl_core.public_bank import PublicBank
from fl_core.streaming import one_thread
from fl_core.training import train_local

from .conftest import NAMES, WIDTH, make_rows

MODEL = ModelConfig(input_dim=WIDTH, hidden=(16,), embedding_dim=8)
DIM = ParamSpec.from_model(MODEL).dim
START = initial_parameters(MODEL, 0)
BANK = PublicBank.from_rows(NAMES, make_rows(77).train[:50])
CONFIG = TrainConfig(
    steps=3,
    private="dp-sgd",
    objective="per-record",
    noise_multiplier=2.0,
    sampling_rate=0.25,
    nominal_rows=100,
    bank_digest=BANK.digest,
    bank_negatives=8,
)
LOGIT = replace(
    CONFIG, private="logit-dp", objective="in-batch", batch_size=5, temperature=1.0, steps=2
)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class InsecureBytes:
    """Secret bytes that a test can play again, one stream a call: SHA-256 of seed and call."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.calls = seed, []

    def __call__(self, count: int) -> bytes:
        head = f"{self.seed}/{len(self.calls)}".encode()
        self.calls.append(count)
        blocks = [
            hashlib.sha256(head + bytes([0]) + str(i).encode()).digest()
            for i in range(count // 32 + 1)
        ]
        return b"".join(blocks)[:count]


def no_noise(count: int, variance: float) -> np.ndarray:
    return np.zeros(count, np.int64)


def gaussian(seed: int):
    rng = np.random.default_rng(seed)
    return lambda count, variance: np.rint(rng.normal(0, math.sqrt(variance), count)).astype(int)


def train(rows, config=CONFIG, *, seed=1, secret=None, noise=no_noise, bank=BANK, reference=None):
    return train_local(
        START,
        np.zeros(8) if reference is None else reference,
        rows,
        make_rows(1).validation,
        model=MODEL,
        config=config,
        seed=seed,
        bank=bank,
        secret=secret or InsecureBytes(),
        noise=noise,
    )


@pytest.fixture(scope="module")
def rows():
    return make_rows(1).train[:40]


# ---------------------------------------------------------------- what comes out


@pytest.mark.req("Q-01")
@pytest.mark.parametrize("config", [CONFIG, LOGIT], ids=["dp-sgd", "logit-dp"])
def test_only_the_update_depends_on_the_rows(rows, config):
    few, many = train(rows[:1], config), train(rows, config)
    for update in (few, many):
        constants = (update.weight, update.distance, update.loss, update.samples)
        assert constants == (1.0, 0.0, 0.0, 0)
        assert not update.centroid.any()
        assert update.centroid.shape == (8,)
        assert update.delta.dtype == np.float32
    assert not np.array_equal(few.delta, many.delta)


@pytest.mark.req("Q-01")
def test_reference_and_validation_rows_are_not_looked_at(rows):
    plain = train(rows).delta
    assert np.array_equal(train(rows, reference=np.ones(8)).delta, plain)
    other = train_local(
        START, np.zeros(8), rows, np.full((1, WIDTH), np.nan), model=MODEL, config=CONFIG, seed=1,
        bank=BANK, secret=InsecureBytes(), noise=no_noise,
    )  # fmt: skip
    assert np.array_equal(other.delta, plain)


@pytest.mark.req("Q-03")
@pytest.mark.parametrize("config", [CONFIG, LOGIT], ids=["dp-sgd", "logit-dp"])
def test_no_row_makes_an_error(rows, config):
    bad = rows.copy()
    bad[0], bad[1], bad[2] = np.nan, np.inf, 1.7e308
    assert np.isfinite(train(bad, config).delta).all()
    assert np.isfinite(train(np.full_like(bad, np.nan), config).delta).all()
    assert not train(rows[:0], config).delta.any()  # without noise nothing moves


@pytest.mark.req("Q-03")
def test_a_row_that_is_not_finite_is_as_if_it_were_not_there(rows):
    bad = np.insert(rows, 7, np.nan, axis=0)
    assert np.array_equal(train(bad).delta, train(rows).delta)


@pytest.mark.req("Q-03")
def test_rows_are_not_normalised_by_each_other(rows):
    """All rows but the drawn ones may be anything: one step, sampled by the same coins."""
    config = replace(CONFIG, steps=1)
    drawn = sample_rows(len(rows), config, InsecureBytes())
    others = np.setdiff1d(np.arange(len(rows)), drawn)
    assert len(drawn)
    assert len(others)
    moved = rows.copy()
    moved[others] *= 1e9
    assert np.array_equal(train(moved, config).delta, train(rows, config).delta)


# ---------------------------------------------------------------- sampling


@pytest.mark.req("Q-06")
def test_every_row_has_its_own_exact_coin():
    """At q = 3/2^32, of all words exactly 0, 1 and 2 draw their row."""
    words = np.array([0, 1, 2, 3, 4, 2**32 - 1], "<u4").tobytes()
    config = replace(CONFIG, sampling_rate=3.9 / RATE_UNITS)
    assert sample_rows(6, config, lambda n: words[:n]).tolist() == [0, 1, 2]
    everyone = replace(CONFIG, sampling_rate=1.0)
    assert sample_rows(6, everyone, lambda n: words[:n]).tolist() == list(range(6))
    assert record_cost(config) == (2.0, 3 / RATE_UNITS, 3)


@pytest.mark.req("Q-06")
def test_a_row_more_leaves_the_other_coins_alone():
    secret = InsecureBytes()
    drawn = set(sample_rows(200, CONFIG, secret).tolist())
    assert drawn - {200} == set(sample_rows(201, CONFIG, InsecureBytes()).tolist()) - {200}
    assert secret.calls == [800]


@pytest.mark.req("Q-06")
def test_rows_come_at_the_rate_and_independently():
    """4000 rows, false alarm below 1e-6: five standard deviations."""
    drawn = np.zeros(4000)
    for seed in range(20):
        drawn[sample_rows(4000, CONFIG, InsecureBytes(seed))] += 1
    mean, spread = drawn.sum(), math.sqrt(80_000 * 0.25 * 0.75)
    assert abs(mean - 20_000) < 5 * spread
    assert abs(drawn.var() - 20 * 0.25 * 0.75) < 5 * 3.75 * math.sqrt(2 / 4000)


@pytest.mark.req("Q-07")
def test_logit_dp_keeps_a_uniform_part_of_too_many():
    kept = np.zeros(12)
    config = replace(LOGIT, sampling_rate=1.0)
    for seed in range(600):
        drawn = sample_rows(12, config, InsecureBytes(seed))
        assert len(drawn) == len(set(drawn.tolist())) == 5
        kept[drawn] += 1
    assert np.abs(kept - 250).max() < 6 * math.sqrt(600 * 5 / 12 * 7 / 12)


@pytest.mark.req("Q-06")
def test_the_coordinators_seed_does_not_draw_the_rows(rows):
    """One step with noise left out: the seed moves the views, the secret moves the batch."""
    config = replace(CONFIG, steps=1, noise_std=0.0, gain_std=0.0)
    asked = InsecureBytes(1)
    first = train(rows, config, secret=asked).delta
    assert asked.calls[0] == 4 * len(rows)
    assert np.array_equal(first, train(rows, config, secret=InsecureBytes(1)).delta)
    assert not np.array_equal(first, train(rows, config, secret=InsecureBytes(2)).delta)


# ---------------------------------------------------------------- noise


@pytest.mark.req("Q-06")
@pytest.mark.parametrize("config", [CONFIG, LOGIT], ids=["dp-sgd", "logit-dp"])
@pytest.mark.parametrize("n", [0, 40])
def test_noise_is_drawn_once_a_step_at_full_variance(rows, config, n):
    asked = []

    def noise(count, variance):
        asked.append((count, variance))
        return np.zeros(count, np.int32)

    train(rows[:n], config, noise=noise)
    assert asked == [(DIM, (2.0 * CLIP_STEPS) ** 2)] * config.steps
    assert noise_variance(config) == asked[0][1]


@pytest.mark.req("Q-06")
def test_the_noise_is_in_the_update_at_its_size(rows):
    """SGD without rows: the update is the sum of the noise. Chi-square at 1e-9 both sides."""
    config = replace(CONFIG, optimiser="sgd", learning_rate=0.5, steps=4, clip_norm=3.0)
    unit = 0.5 * 3.0 * 2.0 / (0.25 * 100) * math.sqrt(4)  # rate, clip, multiplier, batch, steps

    def chi(delta) -> float:
        return (float(np.square(delta / unit).sum()) - DIM) / math.sqrt(2 * DIM)

    assert abs(chi(train(rows[:0], config, noise=gaussian(5)).delta)) < 6.5
    assert chi(train(rows[:0], config, noise=no_noise).delta) < -6.5  # the test can fail
    half = gaussian(5)
    weak = train(rows[:0], config, noise=lambda n, v: half(n, v / 2)).delta
    assert abs(chi(weak)) > 6.5
    noised = train(rows, config, noise=gaussian(5)).delta - train(rows, config).delta
    assert np.linalg.norm(noised) > 0.5 * unit * math.sqrt(DIM)


@pytest.mark.req("Q-05")
def test_a_step_is_no_longer_than_its_records_can_make_it(rows):
    """SGD, no noise, every row drawn: at most rows * clip / nominal batch."""
    config = replace(
        CONFIG, optimiser="sgd", learning_rate=1.0, steps=1, sampling_rate=1.0, clip_norm=0.01
    )
    length = float(np.linalg.norm(train(rows, config).delta))
    assert 0 < length <= len(rows) * 0.01 / 100 * (1 + 1e-3)  # float32 parameters


@pytest.mark.req("Q-08")
@pytest.mark.parametrize(
    "drawn",
    [
        np.zeros(DIM),
        np.zeros(DIM - 1, np.int64),
        np.zeros((DIM, 1), np.int64),
        np.zeros(DIM, np.uint32),
        np.full(DIM, np.nan),
    ],
)
def test_noise_that_is_no_vector_of_integers_is_refused(rows, drawn):
    with pytest.raises(ModelError, match="noise sampler"):
        train(rows, noise=lambda count, variance: drawn)


# ---------------------------------------------------------------- refusals


@pytest.mark.req("Q-08")
@pytest.mark.parametrize("missing", ["bank", "secret", "noise"])
def test_nothing_is_trained_without_bank_secret_or_noise(rows, missing):
    given = {"bank": BANK, "secret": InsecureBytes(), "noise": no_noise}
    given[missing] = None
    with pytest.raises(ModelError, match="private training needs") as error:
        train_local(START, np.zeros(8), rows, rows, model=MODEL, config=CONFIG, seed=1, **given)
    assert error.value.hint


@pytest.mark.req("Q-04")
def test_a_bank_that_the_settings_do_not_name_is_refused(rows):
    other = PublicBank.from_rows(NAMES, make_rows(78).train[:50])
    with pytest.raises(ModelError, match="digest"):
        train(rows, bank=other)


@pytest.mark.req("Q-06")
def test_a_source_of_secrets_that_runs_dry_is_refused(rows):
    with pytest.raises(ModelError, match="secret bytes"):
        train(rows, secret=lambda count: bytes(count // 2))


@pytest.mark.req("Q-08")
@pytest.mark.parametrize(
    "rows", [np.zeros((3, WIDTH + 1)), np.zeros((3, WIDTH), bool), np.zeros(4)]
)
def test_tables_of_another_kind_are_refused(rows):
    with pytest.raises(DataError):
        train(rows)


@pytest.mark.req("Q-02")
def test_clipping_in_batch_info_nce_is_refused_with_reason_and_ways_out():
    with pytest.raises(ModelError, match="negative of every other row") as error:
        replace(CONFIG, objective="in-batch")
    assert "per-record" in error.value.hint
    assert "logit-dp" in error.value.hint


@pytest.mark.req("Q-10")
@pytest.mark.parametrize(
    "changes",
    [
        {"contrast_weight": 0.5},
        {"adversary_weight": 1.0},
        {"prox_weight": 0.1},
        {"moon_weight": 1.0},
        {"public_negatives": 8},
        {"window_drop_rate": 0.1},
        {"jitter_std": 0.1},
        {"swap_rate": 0.1},
        {"mix_rate": 0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_private_training_does_not_read_is_refused(changes):
    (name,) = changes
    for config in (CONFIG, LOGIT):
        with pytest.raises(ModelError, match=rf"TrainConfig.{name} is .* does not read it"):
            replace(config, **changes)


@pytest.mark.req("Q-08")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"private": "dp"}, "private is 'dp'"),
        ({"private": None}, "private is None"),
        ({"objective": "triplet"}, "objective is 'triplet'"),
        ({"optimiser": "lion"}, "optimiser is 'lion'"),
        ({"private": "logit-dp", "batch_size": 8}, "logit-dp is for the in-batch objective"),
        ({"private": "logit-dp", "objective": "in-batch"}, "batch_size is 128"),
        ({"window_normalisation": False}, "window_normalisation is off under private"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
        ({"noise_multiplier": 17.0}, "noise_multiplier is 17.0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is -1.0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"clip_norm": math.inf}, "clip_norm is inf"),
        ({"sampling_rate": 0.0}, "needs sampling_rate"),
        ({"sampling_rate": 1e-11}, "needs sampling_rate"),
        ({"sampling_rate": 1.5}, "sampling_rate is 1.5"),
        ({"nominal_rows": 0}, "needs sampling_rate"),
        ({"nominal_rows": 1.5}, "nominal_rows is 1.5"),
        ({"bank_digest": ""}, "needs sampling_rate"),
        ({"bank_digest": "AB" * 32}, "bank_digest is"),
        ({"bank_digest": 5}, "bank_digest is 5"),
        ({"bank_negatives": 0}, "no negatives"),
        ({"own_negatives": 65}, "own_negatives is 65"),
        ({"private": ""}, "not trained without private"),
        ({"private": "", "objective": "in-batch"}, "nothing adds noise"),
        ({"private": "", "objective": "in-batch", "noise_multiplier": 0.0, "optimiser": "sgd"},
         "not trained without private"),
    ],
)  # fmt: skip
def test_settings_that_are_unsound_or_out_of_range_are_refused(changes, text):
    with pytest.raises(ModelError, match=text):
        replace(CONFIG, **changes)


def test_private_settings_survive_a_round_trip():
    for config in (CONFIG, LOGIT):
        assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.req("Q-09")
def test_the_cost_is_that_of_a_sampled_gaussian_and_plain_training_has_none():
    assert record_cost(LOGIT) == (2.0, 0.25, 2)
    with pytest.raises(ModelError, match="no finite cost"):
        record_cost(TrainConfig())
