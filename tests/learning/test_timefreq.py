"""The time-frequency transformer: its shape, its losses, and what it finds odd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fl_core.augment import Layout
from fl_core.config import ModelConfig, TrainConfig
from fl_core.detector import Detector
from fl_core.encoders import build_encoder, embed
from fl_core.errors import ModelError
from fl_core.objectives import local_step
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.timefreq import FLOOR, SPREAD_GAIN, TimeFrequencyEncoder
from fl_core.training import train_local

W, C = 16, 3
MODEL = ModelConfig(
    input_dim=W * C, kind="timefreq", window=W, stages=2, hidden=(16,), embedding_dim=7 * C
)
CONFIG = TrainConfig(steps=15, batch_size=32, learning_rate=5e-3)
START = initial_parameters(MODEL, 3)
NONE_YET = np.zeros(MODEL.embedding_dim, np.float32)


def series(length: int, seed: int, *, period: float = 8.3) -> np.ndarray:
    """Three channels of one rhythm: its sine, its cosine, and the sum of both; (length, C)."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * (np.arange(length) / period + rng.uniform())
    pair = np.stack((np.sin(angle), np.cos(angle)), axis=1)
    clean = np.concatenate((pair, pair.sum(axis=1, keepdims=True)), axis=1)
    return clean + 0.05 * rng.normal(size=(length, C))


def windows(values: np.ndarray) -> np.ndarray:
    """Every window of (length, C), flattened oldest step first: (length - W + 1, W C)."""
    views = np.lib.stride_tricks.sliding_window_view(values, W, axis=0)  # (n, C, W)
    return views.transpose(0, 2, 1).reshape(len(views), W * C)


TRAIN, VALIDATION = windows(series(400, 0)), windows(series(150, 1))


def train(config: TrainConfig = CONFIG, params=START, reference=NONE_YET, seed: int = 1, **more):
    return train_local(
        params, reference, TRAIN, VALIDATION, model=MODEL, config=config, seed=seed, **more
    )


@pytest.fixture(scope="module")
def detector() -> Detector:
    params, reference = START, NONE_YET
    for number in range(2):
        update = train(replace(CONFIG, steps=150), params, reference, seed=number)
        params, reference = params + update.delta, update.centroid
    names = [f"c{c}_t{t}" for t in range(W) for c in range(C)]
    return Detector.fit_head(
        params, MODEL, TRAIN, VALIDATION, device="pump", feature_names=names, max_fpr=0.02
    )


# --- shape ----------------------------------------------------------------------------------------


@pytest.mark.req("L-40")
@pytest.mark.parametrize(("window", "channels", "stages"), [(4, 1, 1), (15, 2, 3), (32, 19, 2)])
def test_the_layout_is_that_of_the_module(window, channels, stages):
    model = ModelConfig(
        input_dim=window * channels,
        kind="timefreq",
        window=window,
        stages=stages,
        hidden=(32,),
        embedding_dim=7 * channels,
    )
    params = initial_parameters(model, 0)
    encoder = build_encoder(model, params)  # refuses another layout
    assert isinstance(encoder, TimeFrequencyEncoder)
    assert np.array_equal(ParamSpec.from_model(model).flatten(encoder), params)
    z = embed(encoder, np.zeros((5, window * channels), np.float32))
    assert z.shape == (5, 7 * channels)
    assert np.isfinite(z).all()
    if stages == 2:
        assert len(params) < 50_000


@pytest.mark.req("L-40")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"window": 3, "input_dim": 9}, "too short"),
        ({"hidden": (16, 16)}, "hidden"),
        ({"hidden": (18,)}, "hidden"),
        ({"hidden": ()}, "hidden"),
        ({"embedding_dim": 8}, "3 channels"),
        ({"window": 5}, "multiple"),
    ],
)
def test_settings_that_fit_no_window_are_refused(change, match):
    with pytest.raises(ModelError, match=match) as caught:
        replace(MODEL, **change)
    assert caught.value.hint


@pytest.mark.req("L-40")
def test_the_digest_tells_windows_stages_and_kinds_apart():
    others = [replace(MODEL, stages=1), replace(MODEL, window=W * C // 4, embedding_dim=28)]
    others.append(ModelConfig(input_dim=W * C, hidden=(16,), embedding_dim=21))
    digests = {ParamSpec.from_model(each).digest for each in [MODEL, *others]}
    assert len(digests) == 4


@pytest.mark.req("L-40")
def test_the_first_column_is_the_first_channel_of_the_oldest_step():
    encoder = build_encoder(MODEL, START)
    rows = torch.zeros(1, W * C)
    rows[0, C + 2] = 1.0
    at = torch.nonzero(encoder.windows(rows))
    assert at.tolist() == [[0, 1, 2]]


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.req("L-42")
def test_the_loss_averages_over_the_stages_of_each_path():
    encoder = build_encoder(MODEL, START)
    rows = torch.from_numpy(TRAIN[:8].astype(np.float32))
    target, found = encoder.windows(rows), encoder.reconstruct(rows)
    paths = (found.time, found.frequency)
    by_stage = [sum((target - path[i]).square().mean().item() for path in paths) for i in range(2)]
    assert found.loss(target).item() == pytest.approx(np.mean(by_stage), rel=1e-5)
    last = replace(found, time=found.time[-1:], frequency=found.frequency[-1:])
    assert last.loss(target).item() == pytest.approx(by_stage[-1], rel=1e-5)
    assert by_stage[0] != pytest.approx(by_stage[1], rel=1e-3)


@pytest.mark.req("L-42")
def test_every_stage_of_both_paths_learns():
    found = build_encoder(MODEL, START)
    rows = torch.from_numpy(TRAIN[:8].astype(np.float32))
    found.reconstruct(rows).loss(found.windows(rows)).backward()
    grads = {name: float(p.grad.abs().sum()) for name, p in found.named_parameters()}
    assert all(value > 0 for name, value in grads.items() if name.endswith("out.weight"))


@pytest.mark.req("L-42")
def test_the_frequency_error_is_that_of_the_spectrum():
    rows = torch.from_numpy(TRAIN[:4].astype(np.float32))
    encoder = build_encoder(MODEL, START)
    gap = encoder.windows(rows) - encoder.reconstruct(rows).frequency[-1]
    spectrum = torch.fft.fft(gap, dim=1, norm="ortho").abs().square().mean()
    assert gap.square().mean().item() == pytest.approx(spectrum.item(), rel=1e-4)


@pytest.mark.req("L-41")
def test_the_contrast_ties_a_windows_time_code_to_its_frequency_code():
    config = replace(CONFIG, steps=60, reconstruction_weight=0.0, align_weight=0.0)
    encoder = build_encoder(MODEL, START + train(config).delta)
    rows = torch.from_numpy(TRAIN[:4].astype(np.float32))
    found = encoder.reconstruct(rows)
    likeness = torch.nn.functional.cosine_similarity(
        found.time_code[:, None], found.frequency_code[None], dim=2
    )
    assert likeness.argmax(dim=1).tolist() == [0, 1, 2, 3]


@pytest.mark.req("L-41", "L-42")
@pytest.mark.parametrize("name", ["reconstruction_weight", "contrast_weight"])
def test_each_weight_counts(name):
    encoder = build_encoder(MODEL, START)
    batch = torch.from_numpy(TRAIN[:8].astype(np.float32))

    def loss(weight: float) -> float:
        config = replace(CONFIG, **{name: weight})
        generator = torch.Generator().manual_seed(0)
        layout, g = Layout.of(W * C, ()), torch.zeros(7 * C)
        return float(local_step(encoder, batch, layout, g, config, generator).loss.detach())

    assert loss(2.0) - loss(1.0) == pytest.approx(loss(1.0) - loss(0.0), rel=1e-3)
    assert loss(1.0) > loss(0.0)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.req("L-11")
def test_equal_seeds_give_equal_updates():
    first, again, other = train(), train(), train(seed=2)
    assert np.array_equal(first.delta, again.delta)
    assert (first.loss, first.distance) == (again.loss, again.distance)
    assert not np.array_equal(first.delta, other.delta)


def test_the_loss_falls_on_a_rhythm():
    config = replace(CONFIG, contrast_weight=0.0, align_weight=0.0)
    before = train(replace(config, steps=1)).loss
    after = train(replace(config, steps=1), START + train(replace(config, steps=150)).delta).loss
    assert after < before / 4


def test_the_further_terms_reach_it():
    reference = np.linspace(-1, 1, 7 * C).astype(np.float32)
    plain = train(reference=reference)
    for change in (
        {"align_weight": 0.0},
        {"prox_weight": 1.0},
        {"moon_weight": 1.0},
        {"window_normalisation": False},
    ):
        other = train(replace(CONFIG, **change), reference=reference, previous=START + plain.delta)
        assert not np.array_equal(other.delta, plain.delta), change
    held = train(replace(CONFIG, prox_weight=100.0)).delta
    assert np.linalg.norm(held) < 0.5 * np.linalg.norm(train().delta)


@pytest.mark.req("L-44")
def test_record_level_privacy_is_refused():
    private = TrainConfig(
        private="dp-sgd",
        objective="per-record",
        noise_multiplier=1.0,
        sampling_rate=0.1,
        nominal_rows=100,
        bank_digest="0" * 64,
    )
    with pytest.raises(ModelError, match="timefreq encoder has no objective"):
        train(private)


# --- detection ------------------------------------------------------------------------------------


@pytest.mark.req("L-43")
def test_the_embedding_is_the_discrepancies_of_both_paths():
    encoder = build_encoder(MODEL, START)
    rows = torch.from_numpy(TRAIN[:4].astype(np.float32))
    x, found = encoder.windows(rows).detach().numpy(), encoder.reconstruct(rows)
    time = np.stack([each.detach().numpy() for each in found.time])
    frequency = np.stack([each.detach().numpy() for each in found.frequency])
    pairs = ((time, x), (frequency, x), (time, frequency))
    variances = [(a - b).var(axis=2).mean(axis=0) for a, b in pairs]
    z = embed(encoder, TRAIN[:4].astype(np.float32))
    residuals = [path[-1] - x for path in (time, frequency)]
    first = [each[:, -1] for each in residuals]
    first += [each[:, -W // 4 :].mean(axis=1) for each in residuals]
    spreads = SPREAD_GAIN * np.sqrt(np.concatenate(variances, axis=1) + FLOOR)
    assert np.allclose(z[:, : 4 * C], np.concatenate(first, axis=1), atol=1e-4)
    assert np.allclose(z[:, 4 * C :], spreads, atol=1e-4)


@pytest.mark.req("L-43")
def test_a_level_moves_the_residuals_and_not_the_spreads():
    encoder = build_encoder(MODEL, START)
    rows = torch.from_numpy(TRAIN[:4].astype(np.float32))
    x, found = encoder.windows(rows), encoder.reconstruct(rows)
    usual = encoder.discrepancies(x, found).detach().numpy()
    moved = encoder.discrepancies(x - 1.5, found).detach().numpy()
    assert np.allclose(moved[:, : 4 * C], usual[:, : 4 * C] + 1.5, atol=1e-4)
    assert np.allclose(moved[:, 4 * C :], usual[:, 4 * C :], atol=1e-4)
    one = replace(found, time=found.time[-1:], frequency=found.frequency[-1:])
    usual = encoder.discrepancies(x, one).detach().numpy()
    wider = encoder.discrepancies(one.time[0] + 2.0 * (x - one.time[0]), one).detach().numpy()
    assert np.allclose(wider[:, 4 * C : 5 * C], 2.0 * usual[:, 4 * C : 5 * C], atol=1e-3)


def broken_rhythm() -> np.ndarray:
    return windows(series(120, 5, period=3.1))


def spiked() -> np.ndarray:
    rows = windows(series(120, 6)).copy()
    rows[:, -C] += 2.5  # channel 0 at the last step
    return rows


def broken_correlation() -> np.ndarray:
    values = series(120, 7)
    values[:, 2] = -values[:, 2]  # each channel alone stays usual
    return windows(values)


@pytest.mark.req("L-43")
@pytest.mark.parametrize("anomalous", [broken_rhythm, spiked, broken_correlation])
def test_what_breaks_the_pattern_scores_above_what_keeps_it(detector, anomalous):
    normal = detector.score(windows(series(150, 4)))
    odd = detector.score(anomalous())
    assert np.median(odd) > np.quantile(normal, 0.99)
    assert np.mean(odd > detector.threshold()) > 0.8
    assert np.mean(normal > detector.threshold()) < 0.1


@pytest.mark.req("L-17")
def test_a_file_keeps_it(detector, tmp_path):
    detector.save(tmp_path / "model.safetensors")
    again = Detector.load(tmp_path / "model.safetensors")
    assert again.model == MODEL
    rows = broken_rhythm()
    assert np.array_equal(again.score(rows), detector.score(rows))
