from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fl_core.augment import Layout
from fl_core.config import ModelConfig, TrainConfig
from fl_core.encoders import build_encoder, standardise
from fl_core.losses import alignment, info_nce, model_contrast, proximity
from fl_core.objectives import local_step
from fl_core.parameters import initial_parameters


def slow_info_nce(u, v, tau, extra=()):
    """Term by term, as specs/90-learning.md section 4 writes it."""

    def cos(a, b):
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    total = 0.0
    for i in range(len(u)):
        below = sum(math.exp(cos(u[i], n) / tau) for n in [*v, *extra])
        total -= math.log(math.exp(cos(u[i], v[i]) / tau) / below)
    return total / len(u)


@pytest.mark.req("L-04")
@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("n_extra", [0, 3])
def test_info_nce_is_the_standard_one(tau, n_extra):
    rng = np.random.default_rng(1)
    u, v, w = (rng.normal(size=(n, 6)) for n in (5, 5, n_extra))
    got = info_nce(
        torch.tensor(u),
        torch.tensor(v),
        temperature=tau,
        synthetic=torch.tensor(w) if n_extra else None,
    )
    assert float(got) == pytest.approx(slow_info_nce(u, v, tau, w), rel=1e-9)


@pytest.mark.req("L-04")
def test_info_nce_is_not_the_misprint_that_is_constant():
    u = torch.eye(4)
    apart = info_nce(u, u, temperature=0.1)
    alike = info_nce(torch.ones(4, 4), torch.ones(4, 4), temperature=0.1)
    assert float(apart) < 0.001
    assert float(alike) == pytest.approx(math.log(4))


@pytest.mark.req("L-05")
def test_standardised_embeddings_have_mean_0_and_size_root_k():
    z = standardise(torch.tensor(np.random.default_rng(0).normal(3.0, 5.0, size=(40, 16))))
    assert torch.allclose(z.mean(dim=1), torch.zeros(40, dtype=z.dtype), atol=1e-9)
    assert torch.allclose(z.square().sum(dim=1), torch.full((40,), 16.0, dtype=z.dtype), rtol=1e-4)


@pytest.mark.req("L-05")
def test_a_centroid_of_standardised_embeddings_is_not_trivially_zero():
    rng = np.random.default_rng(0)
    rows = torch.tensor(rng.normal(size=16) + 0.2 * rng.normal(size=(200, 16)))
    centroid = standardise(rows).mean(dim=0)
    assert float(centroid.square().mean()) > 0.5


@pytest.mark.req("L-06")
def test_alignment_is_the_mean_square_over_rows_and_coordinates():
    z, g = np.random.default_rng(0).normal(size=(7, 4)), np.arange(4.0)
    expected = np.mean([np.sum((row - g) ** 2) / 4 for row in z])
    assert float(alignment(torch.tensor(z), torch.tensor(g))) == pytest.approx(expected)


@pytest.mark.req("L-06")
def test_alignment_to_zero_moves_no_direction():
    z = torch.randn((8, 5), generator=torch.Generator().manual_seed(0), requires_grad=True)
    alignment(standardise(z), torch.zeros(5)).backward()
    assert float(z.grad.abs().max()) < 1e-4


@pytest.mark.req("L-06")
@pytest.mark.parametrize("kind", ["mlp", "timefreq"])
def test_before_there_is_a_reference_nothing_pulls_at_the_embedding(kind):
    k = 14 if kind == "timefreq" else 6
    model = ModelConfig(8, kind=kind, hidden=(8,), embedding_dim=k, window=4)
    rows = torch.randn((16, 8), generator=torch.Generator().manual_seed(0))

    def gradient(align_weight, reference):
        config = TrainConfig(
            window_normalisation=False, align_weight=align_weight, contrast_weight=1e-3
        )
        encoder = build_encoder(model, initial_parameters(model, 0))
        layout, drawn = Layout.of(8), torch.Generator().manual_seed(1)
        local_step(encoder, rows, layout, reference, config, drawn).loss.backward()
        return torch.cat([p.grad.ravel() for p in encoder.parameters() if p.grad is not None])

    none, some = torch.zeros(k), torch.full((k,), 0.5)
    assert torch.equal(gradient(1.0, none), gradient(0.0, none))
    assert not torch.equal(gradient(1.0, some), gradient(0.0, some))


@pytest.mark.req("L-52")
def test_moons_loss_is_the_value_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    shared = torch.tensor([[3.0, 0.0], [1.0, 1.0]])  # cosines 1 and 1/sqrt 2
    previous = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # cosines 0 and -1
    terms = []
    for near, far in ((1.0, 0.0), (1 / math.sqrt(2), -1.0)):
        near, far = math.exp(near / 0.5), math.exp(far / 0.5)
        terms.append(-math.log(near / (near + far)))
    loss = model_contrast(z, shared, previous, temperature=0.5)
    assert float(loss) == pytest.approx(sum(terms) / 2, rel=1e-6)
    # as far from both: a coin's
    assert float(model_contrast(z, z, z, temperature=0.5)) == pytest.approx(math.log(2))


@pytest.mark.req("L-51")
def test_proximity_is_half_the_squared_way():
    here = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    there = [torch.tensor([0.0, 0.0]), torch.tensor([[1.0]])]
    assert float(proximity(here, there)) == 4.5
