from __future__ import annotations

import pytest
import torch

from fl_core.augment import Layout, block_members, corrupt, make_view, named_blocks
from fl_core.config import TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.errors import ModelError
from fl_core.normalise import CLIP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_known_layouts_are_those_of_the_column_names():
    names = [n for n in FEATURE_NAMES if not n.startswith("HH_jit")]
    assert torch.equal(block_members(115, ()), block_members(115, named_blocks(FEATURE_NAMES)))
    assert torch.equal(block_members(100, ()), block_members(100, named_blocks(names)))
    assert named_blocks(["a", "b", "H_L5_mean", "H_L5_weight"]) == (1, 1, 2)


def test_each_column_belongs_to_one_run():
    members = block_members(115, ())
    assert members.shape == (25, 115)
    assert torch.equal(members.sum(dim=0), torch.ones(115))
    assert block_members(7, ()).shape == (7, 7)


def test_runs_that_do_not_add_up_are_refused():
    with pytest.raises(ModelError, match="add up to 5, the rows have 7"):
        block_members(7, (2, 3))


def test_a_view_without_changes_is_the_row():
    rows = torch.randn((30, 7), generator=generator())
    still = TrainConfig(noise_std=0.0, gain_std=0.0, drop_rate=0.0)
    assert torch.equal(make_view(rows, Layout.of(7), still, generator()), rows)


def test_a_view_drops_whole_runs():
    rows = torch.ones((400, 6))
    config = TrainConfig(noise_std=0.0, gain_std=0.0, drop_rate=0.3)
    view = make_view(rows, Layout.of(6, (3, 3)), config, generator())
    runs = view.reshape(400, 2, 3)
    assert set(runs.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(runs.amin(dim=2), runs.amax(dim=2))
    assert 0.2 < float((runs == 0).float().mean()) < 0.4


def test_every_corrupted_row_differs_and_stays_bounded():
    rows = torch.randn((500, 100), generator=generator()).clamp(-CLIP, CLIP)
    bad = corrupt(rows, block_members(100, ()), generator(1))
    assert torch.isfinite(bad).all()
    assert float(bad.abs().max()) <= CLIP
    changed = (bad != rows).any(dim=1)
    assert float(changed.float().mean()) > 0.98  # a mosaic may draw the row itself


def test_draws_come_from_the_given_generator_only():
    rows, members = torch.randn((9, 7), generator=generator()), block_members(7, ())
    state = torch.get_rng_state()
    for draw in (
        lambda g: make_view(rows, Layout.of(7), TrainConfig(), g),
        lambda g: corrupt(rows, members, g),
    ):
        assert torch.equal(draw(generator(3)), draw(generator(3)))
        assert not torch.equal(draw(generator(3)), draw(generator(4)))
    assert torch.equal(torch.get_rng_state(), state)
