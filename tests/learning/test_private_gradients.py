"""What one record may do to a step, to the last grid step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fl_core.augment import Layout, block_members, make_view
from fl_core.config import CLIP_STEPS, ModelConfig, TrainConfig
from fl_core.encoders import build_encoder, standardise
from fl_core.losses import record_info_nce
from fl_core.normalise import CLIP
from fl_core.parameters import initial_parameters
from fl_core.per_record import (
    PATTERNS,
    RecordGradients,
    chunks,
    draw_patterns,
)
from fl_core.streaming import one_thread

WIDTH = 20
MODEL = ModelConfig(input_dim=WIDTH, hidden=(32,), embedding_dim=8)
CONFIG = TrainConfig(
    objective="per-record",
    private="dp-sgd",
    noise_multiplier=1.0,
    sampling_rate=0.5,
    nominal_rows=10,
    bank_digest="0" * 64,
    own_negatives=2,
    bank_negatives=6,
)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module", params=["mlp", "cnn", "gnn", "gat"])
def step(request):
    """Everything public of one step, for each kind of encoder: gradients, patterns, public rows."""
    model = replace(MODEL, kind=request.param)
    generator = torch.Generator().manual_seed(3)
    bank = torch.randn((40, WIDTH), generator=generator)
    encoder = build_encoder(model, initial_parameters(model, 1))
    members = block_members(WIDTH, ())
    patterns = draw_patterns(members, bank, CONFIG, generator)
    return RecordGradients(encoder, CONFIG), patterns, bank[:6], encoder


def records(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(n, WIDTH)).astype(np.float32) * 3)
    return rows, rng.integers(0, PATTERNS, n)


def square(vector) -> int:
    """Squared length in Python's integers."""
    return sum(int(value) ** 2 for value in vector)


@pytest.mark.req("Q-05")
def test_vectorised_gradients_are_those_of_a_loop(step):
    gradients, patterns, bank, encoder = step
    rows, chosen = records(7)
    variants = patterns.apply(rows, torch.from_numpy(chosen))
    found = gradients.raw(variants, bank)
    for one, expected in zip(variants, found, strict=True):
        encoder.zero_grad()
        z, public = standardise(encoder(one)), standardise(encoder(bank))
        negatives = torch.cat((z[2:], public))
        record_info_nce(z[0], z[1], negatives, temperature=CONFIG.temperature).backward()
        looped = torch.cat([p.grad.flatten() for p in encoder.parameters()])
        assert torch.allclose(looped, expected, rtol=1e-4, atol=1e-5)
        assert looped.norm() > 0.01
    encoder.zero_grad()


def test_views_are_those_of_plain_training():
    config = TrainConfig(noise_std=0.3, gain_std=0.2, drop_rate=0.2)
    members = block_members(115, ())
    bank = torch.zeros((2, 115))
    patterns = draw_patterns(members, bank, config, torch.Generator().manual_seed(5))
    rows = torch.randn((PATTERNS, 115))
    view = make_view(rows, Layout.of(115), config, torch.Generator().manual_seed(5))
    found = patterns.apply(rows, torch.arange(PATTERNS))[:, 0]
    assert torch.allclose(found, view, atol=1e-4)


def test_corrupted_variants_differ_and_stay_in_range():
    config = TrainConfig(noise_std=0.0, gain_std=0.0, own_negatives=3)
    members = block_members(115, ())
    bank = torch.full((4, 115), 5.0)
    patterns = draw_patterns(members, bank, config, torch.Generator().manual_seed(5))
    rows = torch.full((PATTERNS, 115), 15.0)
    variants = patterns.apply(rows, torch.arange(PATTERNS))
    assert torch.equal(variants[:, 0], rows)
    changed = (variants[:, 2:] != rows[:, None]).any(dim=2)
    assert changed.float().mean() > 0.95  # a shift past the clip may be cut back
    assert variants[:, 2:].abs().max() <= CLIP
    assert (variants[:, 2:] == 5.0).any()  # taken from public rows


@pytest.mark.req("Q-05")
@pytest.mark.parametrize("clip", [1e-3, 1.0, 1000.0])
def test_no_gradient_is_longer_than_the_clip_on_the_grid(step, clip):
    _, _, _, encoder = step
    gradients = RecordGradients(encoder, TrainConfig(clip_norm=clip))
    rng = np.random.default_rng(1)
    width = 997
    hostile = [rng.normal(size=width) * 10.0**power for power in (-40, -8, -3, 0, 3, 20, 37)]
    hostile += [
        np.full(width, clip / math.sqrt(width)),  # just at the clip, all alike
        np.full(width, 3.4e38),
        np.eye(width)[3] * clip,
        np.eye(width)[3] * 3e38,
        np.nextafter(np.float32(clip), np.float32(np.inf)) * np.eye(width)[0],
        np.zeros(width),
    ]
    with np.errstate(over="ignore"):
        matrix = torch.from_numpy(np.array(hostile).astype(np.float32))
    found = gradients.clipped(matrix)
    assert torch.equal(found, found.trunc())
    lengths = [square(row) for row in found]
    assert max(lengths) <= CLIP_STEPS**2
    assert min(lengths[5:9]) > (0.99 * CLIP_STEPS) ** 2  # long ones are used in full
    for row, whole in zip(matrix.double(), found.double(), strict=True):
        if row.norm() <= clip:  # short ones are kept, but for what is cut off
            assert (row / clip * CLIP_STEPS - whole).abs().max() < 2


@pytest.mark.req("Q-05")
@pytest.mark.parametrize("width", [997, 5000, 34_624])
def test_rounding_makes_no_gradient_longer(step, width):
    """Equal coordinates with a fraction above one half: rounding to nearest would lengthen all."""
    gradients, _, _, _ = step
    found = gradients.clipped(torch.full((1, width), 9.0))[0]
    coordinate = CLIP_STEPS / math.sqrt(width)
    assert width < 34_624 or coordinate % 1 > 0.5
    assert square(found) <= CLIP_STEPS**2
    assert found[0] == math.floor(coordinate * (1 - 2**-18))


@pytest.mark.req("Q-05")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_counts_as_zero(step, value):
    gradients, _, _, _ = step
    matrix = torch.ones((3, 50))
    matrix[1, 7] = value
    found = gradients.clipped(matrix)
    assert square(found[1]) == 0
    assert torch.equal(found[0], found[2])
    assert square(found[0]) > 0


@pytest.mark.req("Q-05")
@pytest.mark.parametrize("n", [1, 2, 40, 75])
def test_a_record_less_takes_away_its_own_integers_and_no_more(step, n):
    gradients, patterns, bank, _ = step
    rows, chosen = records(n)
    rows[n // 2] *= 1e3  # one that is far out
    total = gradients.total(rows, chosen, patterns, bank)
    for gone in {0, n // 2, n - 1}:
        kept = np.arange(n) != gone
        without = gradients.total(rows[kept], chosen[kept], patterns, bank)
        own = gradients.total(rows[[gone]], chosen[[gone]], patterns, bank)
        assert np.array_equal(total - without, own)  # to the last grid step
        assert 0 < square(own) <= CLIP_STEPS**2


@pytest.mark.req("Q-05")
def test_another_record_in_the_batch_changes_no_bit_of_the_rest(step):
    gradients, patterns, bank, _ = step
    rows, chosen = records(60)
    total = gradients.total(rows, chosen, patterns, bank)
    for value in (0.0, 20.0, -7.5):
        other = rows.clone()
        other[30] = value
        moved = gradients.total(other, chosen, patterns, bank) - total
        own = [gradients.total(r[[30]], chosen[[30]], patterns, bank) for r in (other, rows)]
        assert np.array_equal(moved, own[0] - own[1])


@pytest.mark.req("Q-05")
def test_the_order_of_records_does_not_matter(step):
    gradients, patterns, bank, _ = step
    rows, chosen = records(50)
    order = np.random.default_rng(2).permutation(50)
    assert np.array_equal(
        gradients.total(rows, chosen, patterns, bank),
        gradients.total(rows[order], chosen[order], patterns, bank),
    )


def test_no_records_add_up_to_nothing(step):
    gradients, patterns, bank, _ = step
    rows, chosen = records(0)
    total = gradients.total(rows, chosen, patterns, bank)
    assert total.dtype == np.int64
    assert not total.any()


@pytest.mark.req("Q-05")
def test_a_record_without_finite_gradient_is_silent_in_a_sum(step):
    gradients, patterns, bank, _ = step
    rows, chosen = records(20)
    bad = rows.clone()
    bad[4] = math.nan
    kept = np.arange(20) != 4
    assert np.array_equal(
        gradients.total(bad, chosen, patterns, bank),
        gradients.total(rows[kept], chosen[kept], patterns, bank),
    )


def test_every_record_has_one_place_that_its_pattern_fixes():
    rng = np.random.default_rng(0)
    for n in (0, 1, 16, 17, 300):
        chosen = rng.integers(0, PATTERNS, n)
        table = chunks(chosen)
        held = table[table >= 0]
        assert sorted(held) == list(range(n))
        for chunk in table:
            for slot, record in enumerate(chunk):
                assert record < 0 or chosen[record] % table.shape[1] == slot
