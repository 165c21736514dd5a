"""A reader of embeddings: sure where sites lie apart, guessing where not; and how to mislead it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fl_core.config import ModelConfig, TrainConfig
from fl_core.errors import DataError, ModelError
from fl_core.evaluation import site_number
from fl_core.leakage import Leakage, site_leakage
from fl_core.losses import reader_loss
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.training import check_objective, train_local
from tests.learning.conftest import make_rows


@pytest.mark.req("L-80")
def test_sites_that_lie_apart_are_told_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    apart = [rng.normal(site, 0.1, (200, 5)) for site in range(3)]
    alike = [rng.normal(0, 1, (200, 5)) for _ in range(3)]
    assert site_leakage(apart, seed=0).accuracy == 1.0
    found = site_leakage(alike, seed=0)
    assert abs(found.advantage) < 0.15
    assert found.chance == pytest.approx(1 / 3)


@pytest.mark.req("L-80")
def test_a_large_site_is_no_safe_guess() -> None:
    rng = np.random.default_rng(0)
    alike = [rng.normal(0, 1, (size, 5)) for size in (400, 20, 20)]
    assert abs(site_leakage(alike, seed=0).advantage) < 0.3


def test_the_same_seed_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    some = [rng.normal(site / 2, 1, (900, 5)) for site in range(2)]
    assert site_leakage(some, seed=1) == site_leakage(some, seed=1)


def test_too_little_is_refused() -> None:
    for bad in ([np.zeros((9, 2))], [np.zeros((9, 2)), np.zeros((3, 2))]):
        with pytest.raises(DataError, match="cannot be told apart"):
            site_leakage(bad, seed=0)


def test_an_advantage_is_a_share_of_what_is_above_chance() -> None:
    assert Leakage(1.0, 0.25).advantage == 1.0
    assert Leakage(0.25, 0.25).advantage == 0.0


def trained(rows, *, weight: float, site: int = 0):
    model = ModelConfig(rows.train.shape[1], hidden=(16,), embedding_dim=8, sites=3)
    config = TrainConfig(steps=10, batch_size=32, adversary_weight=weight)
    return model, train_local(
        initial_parameters(model, 0),
        np.zeros(8, np.float32),
        rows.train,
        rows.validation,
        model=model,
        config=config,
        seed=1,
        site=site,
    )


@pytest.mark.req("L-81")
def test_the_reader_lies_at_the_end_of_the_vector_and_learns_only_with_a_weight() -> None:
    rows = make_rows(0)
    model, idle = trained(rows, weight=0.0)
    names = [name for name, _ in ParamSpec.from_model(model).shapes]
    assert names[-2:] == ["reader.weight", "reader.bias"]
    size = 8 * 3 + 3
    assert not idle.delta[-size:].any()
    _, taught = trained(rows, weight=1.0)
    bias = taught.delta[-3:]
    assert bias[0] > 0 > max(bias[1:])  # its own site becomes likelier
    _, other = trained(rows, weight=1.0, site=4)  # modulo three
    assert other.delta[-2] > 0 > max(other.delta[-3], other.delta[-1])
    assert not np.array_equal(idle.delta[:-size], taught.delta[:-size])


@pytest.mark.req("L-81")
def test_the_reader_descends_and_the_embeddings_climb() -> None:
    torch.manual_seed(0)
    reader, z = nn.Linear(4, 2), torch.randn((6, 4), requires_grad=True)
    loss = reader_loss(z, reader, 1)
    plain = nn.functional.cross_entropy(reader(z), torch.ones(6, dtype=torch.int64))
    assert torch.allclose(loss, plain)
    (turned,) = torch.autograd.grad(loss, z, retain_graph=True)
    (straight,) = torch.autograd.grad(plain, z, retain_graph=True)
    assert torch.allclose(turned, -straight)
    of_reader = [torch.autograd.grad(each, reader.weight)[0] for each in (loss, plain)]
    assert torch.allclose(*of_reader)


@pytest.mark.req("L-81")
def test_an_adversary_without_sites_is_refused() -> None:
    with pytest.raises(ModelError, match="no sites to tell apart"):
        check_objective(ModelConfig(5), TrainConfig(adversary_weight=1.0))


def test_a_site_number_follows_from_the_name_alone() -> None:
    assert site_number("site-1") == site_number("site-1") != site_number("site-2")
    assert 0 <= site_number("x") < 1 << 63
