from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fl_core.config import ModelConfig, TrainConfig
from fl_core.encoders import build_encoder, embed, standardise
from fl_core.errors import DataError, ModelError
from fl_core.losses import model_contrast
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.public_bank import PublicBank
from fl_core.training import train_local
from tests.learning.conftest import WIDTH, make_rows


@pytest.fixture(scope="module")
def start(model):
    return initial_parameters(model, 3), np.zeros(model.embedding_dim, np.float32)


def train(start, rows, model, config, seed=1):
    return train_local(*start, rows.train, rows.validation, model=model, config=config, seed=seed)


@pytest.mark.req("L-07")
def test_distance_weight_and_centroid_are_those_of_the_validation_rows(
    start, devices, model, config
):
    params, _ = start
    reference = np.linspace(-1, 1, model.embedding_dim).astype(np.float32)
    rows = devices[0]
    update = train((params, reference), rows, model, config)
    encoder = build_encoder(model, params + update.delta)
    z = embed(encoder, Normaliser.fit(rows.train).apply(rows.validation))
    z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    distance = np.mean([np.sum((row - reference) ** 2) / len(row) for row in z])
    assert update.distance == pytest.approx(distance, rel=1e-3)
    assert update.weight == pytest.approx(1 / (1 + distance), rel=1e-3)
    assert np.allclose(update.centroid, z.mean(axis=0), atol=1e-3)
    assert update.delta.dtype == update.centroid.dtype == np.float32
    assert update.samples == len(rows.train)


@pytest.mark.req("L-07")
def test_without_a_reference_every_node_weighs_one_half(start, devices, model, config):
    weights = [train(start, rows, model, config).weight for rows in devices]
    assert weights == pytest.approx([0.5] * 3, abs=1e-3)


@pytest.mark.req("L-07")
def test_a_node_off_the_reference_weighs_less(start, devices, model, config):
    params, _ = start
    near = train(start, devices[0], model, config).centroid
    close = train((params, near), devices[0], model, config)
    far = train((params, -near), devices[0], model, config)
    assert 0 < far.weight < close.weight <= 1
    assert far.distance > close.distance


@pytest.mark.req("L-06")
def test_alignment_draws_embeddings_to_the_reference(start, devices, model):
    params, _ = start
    reference = np.where(np.arange(model.embedding_dim) % 2, 1.0, -1.0)
    free = TrainConfig(steps=25, align_weight=0.0)
    drawn = TrainConfig(steps=25, align_weight=20.0)
    loose = train((params, reference), devices[0], model, free).distance
    assert train((params, reference), devices[0], model, drawn).distance < 0.7 * loose


@pytest.mark.req("L-11")
def test_equal_seeds_give_equal_updates_and_leave_no_trace(start, devices, model, config):
    torch.manual_seed(1)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = train(start, devices[0], model, config, seed=5)
    torch.manual_seed(2)
    again = train(start, devices[0], model, config, seed=5)
    other = train(start, devices[0], model, config, seed=6)
    assert np.array_equal(first.delta, again.delta)
    assert np.array_equal(first.centroid, again.centroid)
    assert (first.weight, first.loss) == (again.weight, again.loss)
    assert not np.array_equal(first.delta, other.delta)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)


def test_training_lowers_the_loss(start, devices, model):
    short = train(start, devices[0], model, TrainConfig(steps=1))
    long = train(start, devices[0], model, TrainConfig(steps=80))
    assert long.loss < short.loss


def test_the_inputs_are_left_as_they_are(start, devices, model, config):
    params, reference = start[0].copy(), start[1].copy()
    rows = devices[0].train.copy()
    train(start, devices[0], model, config)
    assert np.array_equal(start[0], params)
    assert np.array_equal(start[1], reference)
    assert np.array_equal(devices[0].train, rows)


@pytest.mark.req("L-12")
def test_a_loss_that_blows_up_is_an_error(start, devices, model):
    wild = TrainConfig(steps=50, learning_rate=10.0)
    huge = np.full(ParamSpec.from_model(model).dim, 3e38, np.float32)
    with pytest.raises(ModelError, match=r"not finite|is nan|is inf"):
        train((huge, start[1]), devices[0], model, wild)


@pytest.mark.parametrize(
    ("params", "reference", "text"),
    [
        (np.zeros(3), np.zeros(8), "the parameter vector has shape"),
        (None, np.zeros(9), "the reference vector has shape"),
        (None, np.full(8, np.inf), "the reference vector holds"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    start, devices, model, config, params, reference, text
):
    params = start[0] if params is None else params
    with pytest.raises(ModelError, match=text):
        train((params, reference), devices[0], model, config)


@pytest.mark.parametrize(
    ("n_train", "n_validation", "text"),
    [(1, 5, "too few"), (5, 0, "too few"), (0, 5, "there are none")],
)
def test_too_few_rows_are_refused(start, devices, model, config, n_train, n_validation, text):
    rows = devices[0]
    with pytest.raises(DataError, match=text):
        train_local(
            *start,
            rows.train[:n_train],
            rows.validation[:n_validation],
            model=model,
            config=config,
            seed=0,
        )


def test_a_wrong_width_is_refused(start, devices, config):
    model = ModelConfig(input_dim=19, hidden=(32,), embedding_dim=8)
    params = initial_parameters(model, 0)
    with pytest.raises(DataError, match="columns"):
        train((params, start[1]), devices[0], model, config)


def test_fewer_rows_than_a_batch_still_train(start, devices, model, config):
    rows = devices[0]
    update = train_local(
        *start, rows.train[:3], rows.validation[:1], model=model, config=config, seed=0
    )
    assert np.isfinite(update.delta).all()
    assert update.samples == 3


@pytest.mark.req("L-05")
def test_a_constant_embedding_standardises_to_zero():
    assert torch.equal(standardise(torch.full((2, 4), 3.0)), torch.zeros(2, 4))


def prepared(start, rows, model, seed=1, **settings):
    previous = settings.pop("previous", None)
    config = TrainConfig(**{"steps": 25, "batch_size": 64, **settings})
    return train_local(
        *start,
        rows.train,
        rows.validation,
        model=model,
        config=config,
        seed=seed,
        previous=previous,
    )


@pytest.mark.req("L-51")
def test_fedprox_keeps_parameters_nearer_to_the_start_as_mu_grows(start, devices, model):
    ways = [
        float(np.linalg.norm(prepared(start, devices[0], model, prox_weight=mu).delta))
        for mu in (0.0, 1.0, 30.0)
    ]
    assert ways[0] > 1.05 * ways[1] > 1.05 * ways[2] > 0


@pytest.mark.req("L-52")
def test_moon_moves_the_update_only_with_last_parameters(start, devices, model):
    rows = devices[0]
    plain = prepared(start, rows, model)
    previous = start[0] + plain.delta
    assert np.array_equal(prepared(start, rows, model, moon_weight=5.0).delta, plain.delta)
    assert np.array_equal(prepared(start, rows, model, previous=previous).delta, plain.delta)
    moon = prepared(start, rows, model, moon_weight=5.0, previous=previous)
    assert not np.array_equal(moon.delta, plain.delta)
    again = prepared(start, rows, model, moon_weight=5.0, previous=previous)
    assert np.array_equal(moon.delta, again.delta)
    with pytest.raises(ModelError, match="this node's last parameters"):
        prepared(start, rows, model, moon_weight=5.0, previous=np.zeros(3))


@pytest.mark.req("L-52")
def test_moon_draws_embeddings_to_the_shared_model_and_off_the_last(start, devices, model):
    rows = devices[0]
    previous = start[0] + prepared(start, devices[1], model, steps=80, seed=9).delta
    z = Normaliser.fit(rows.train).apply(rows.validation)

    def margin(delta):
        """Return how much nearer embeddings are to the shared model's than to the last one's."""
        here, shared, last = (
            standardise(torch.from_numpy(embed(build_encoder(model, params), z)))
            for params in (start[0] + delta, start[0], previous)
        )
        cosine = torch.nn.functional.cosine_similarity
        return float((cosine(here, shared) - cosine(here, last)).mean())

    free = prepared(start, rows, model).delta
    moon = prepared(start, rows, model, moon_weight=10.0, previous=previous).delta
    assert margin(moon) > margin(free) + 0.02


@pytest.mark.req("L-53")
def test_without_dynamic_weights_every_node_weighs_one(start, devices, model):
    reference = np.linspace(-1, 1, model.embedding_dim)
    weighed = prepared((start[0], reference), devices[0], model)
    plain = prepared((start[0], reference), devices[0], model, dynamic_weights=False)
    assert plain.weight == 1.0 > weighed.weight
    assert plain.distance == weighed.distance
    assert np.array_equal(plain.delta, weighed.delta)


@pytest.mark.req("L-53")
def test_without_window_normalisation_embeddings_are_taken_as_they_are(start, devices, model):
    reference = np.linspace(-0.5, 0.5, model.embedding_dim).astype(np.float32)
    rows = devices[0]
    off = prepared((start[0], reference), rows, model, window_normalisation=False)
    on = prepared((start[0], reference), rows, model)
    assert not np.array_equal(off.delta, on.delta)
    encoder = build_encoder(model, start[0] + off.delta)
    z = embed(encoder, Normaliser.fit(rows.train).apply(rows.validation))
    assert off.distance == pytest.approx(np.square(z - reference).mean(), rel=1e-3)
    assert off.weight == pytest.approx(1 / (1 + off.distance), rel=1e-6)
    mean = z.mean(axis=0)
    longest = np.sqrt(len(mean))
    shortened = mean * min(1.0, longest / np.linalg.norm(mean))
    assert np.allclose(off.centroid, shortened, rtol=1e-3, atol=1e-5)


@pytest.mark.req("L-53")
def test_without_window_normalisation_a_centroid_stays_within_its_bound(start, devices, model):
    params = start[0] * 50  # embeddings far longer than normalised ones
    update = prepared((params, start[1]), devices[0], model, window_normalisation=False, steps=1)
    assert update.distance > 1
    assert np.linalg.norm(update.centroid) == pytest.approx(np.sqrt(model.embedding_dim), rel=1e-4)


@pytest.mark.req("L-53")
@pytest.mark.parametrize("on", [True, False])
def test_window_normalisation_is_for_all_that_moon_compares(start, devices, model, monkeypatch, on):
    seen = []

    def spy(*embeddings, **settings):
        seen.extend(embeddings)
        return model_contrast(*embeddings, **settings)

    monkeypatch.setattr("fl_core.training.model_contrast", spy)
    common = {"moon_weight": 1.0, "previous": start[0] * 2, "steps": 1}
    prepared(start, devices[0], model, window_normalisation=on, **common)
    assert len(seen) == 3
    for z in seen:  # only a normalised embedding has the mean 0
        assert (z.detach().mean(dim=1).abs().max() < 1e-5) == on


@pytest.mark.req("L-53")
def test_nothing_to_train_is_refused(start, devices, model):
    for more in ({}, {"prox_weight": 1.0}, {"moon_weight": 1.0, "previous": start[0]}):
        with pytest.raises(ModelError, match="nothing to train"):
            prepared(start, devices[0], model, contrast_weight=0.0, align_weight=0.0, **more)
    reference = np.linspace(-1, 1, model.embedding_dim)
    for off in ("contrast_weight", "align_weight"):
        assert prepared((start[0], reference), devices[0], model, **{off: 0.0}).delta.any()


@pytest.mark.req("L-57")
def test_public_rows_are_negatives_under_the_nodes_own_statistics() -> None:
    rows = make_rows(0)
    model = ModelConfig(WIDTH, hidden=(16,), embedding_dim=8)
    bank = PublicBank.from_rows(rows.feature_names, make_rows(5).train)

    def update(config: TrainConfig, bank: PublicBank | None):
        return train_local(
            initial_parameters(model, 0),
            np.zeros(8, np.float32),
            rows.train,
            rows.validation,
            model=model,
            config=config,
            seed=1,
            bank=bank,
        )

    plain = TrainConfig(steps=5, batch_size=16)
    wider = replace(plain, public_negatives=32)
    assert np.array_equal(update(plain, bank).delta, update(plain, None).delta)
    assert update(wider, bank).loss > update(plain, None).loss  # more to be told from
    own = bank.under(Normaliser.fit(rows.train))
    public = Normaliser.fit(rows.train).apply(make_rows(5).train)
    assert np.allclose(own, public, atol=1e-2)  # the bank's grid, in units of a narrow column
    with pytest.raises(ModelError, match="there are no public rows"):
        update(wider, None)
    with pytest.raises(ModelError, match="digest"):
        update(replace(wider, bank_digest="0" * 64), bank)
