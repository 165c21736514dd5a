from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fl_core.augment import Layout, block_members, corrupt, make_view
from fl_core.config import TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.errors import ModelError
from fl_core.layouts import blocks_for, is_misread, named_blocks
from fl_core.normalise import CLIP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_known_layouts_are_those_of_the_column_names():
    names = [n for n in FEATURE_NAMES if not n.startswith("HH_jit")]
    assert torch.equal(block_members(115, ()), block_members(115, named_blocks(FEATURE_NAMES)))
    assert torch.equal(block_members(100, ()), block_members(100, named_blocks(names)))
    assert named_blocks(["a", "b", "H_L5_mean", "H_L5_weight"]) == (1, 1, 2)


@pytest.mark.req("L-54")
def test_as_many_columns_with_other_names_are_no_known_layout():
    series = [f"c{i % 5}@-{19 - i // 5}" for i in range(100)]
    for dropped, known in (("HH_jit", True), ("MI_dir", False), ("H_", False)):
        names = [n for n in FEATURE_NAMES if not n.startswith(dropped)]
        assert len(names) == 100
        assert is_misread(names) is not known
        assert blocks_for(names) == (() if known else named_blocks(names))
    assert is_misread(series)
    assert blocks_for(series) == (1,) * 100
    assert blocks_for(series[:7]) == ()
    assert not is_misread(series[:7])


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


STILL = TrainConfig(noise_std=0.0, gain_std=0.0, drop_rate=0.0)
NEW_RATES = ("window_drop_rate", "swap_rate", "mix_rate")


def parts_of(column):
    """Return (stream, window, statistic) of a column's name."""
    stream, rest = FEATURE_NAMES[column].rsplit("_L", 1)
    window, statistic = rest.split("_", 1)
    return stream, window, statistic


def window_of(column):
    return parts_of(column)[1]


@pytest.mark.req("L-54")
@pytest.mark.parametrize("width", [115, 100])
def test_a_partner_is_the_same_statistic_of_another_stream_in_the_same_window(width):
    names = [i for i, name in enumerate(FEATURE_NAMES) if width == 115 or "HH_jit" not in name]
    partner = Layout.of(width).partner.tolist()
    assert sorted(partner) == list(range(width))
    for column, other in enumerate(partner):
        assert partner[other] == column
        here, there = parts_of(names[column]), parts_of(names[other])
        assert here[1:] == there[1:]
        if here[0] == "HH_jit":
            assert other == column  # no further stream of three statistics is left
        else:
            assert here[0] != there[0]


@pytest.mark.req("L-54")
def test_a_swap_exchanges_whole_windows_and_nothing_else():
    rows = torch.randn((300, 115), generator=generator())
    layout = Layout.of(115)
    view = make_view(rows, layout, replace(STILL, swap_rate=0.4), generator(1))
    swapped = view != rows
    assert torch.equal(torch.where(swapped, rows[:, layout.partner], rows), view)
    assert torch.equal(view.sort(dim=1).values, rows.sort(dim=1).values)
    paired = layout.partner != torch.arange(115)
    for window in ("5", "3", "1", "0.1", "0.01"):
        of_it = torch.tensor([window_of(c) == window for c in range(115)]) & paired
        part = swapped[:, of_it]
        assert torch.equal(part.any(dim=1), part.all(dim=1))
        assert 0.25 < float(part[:, 0].float().mean()) < 0.55  # 300 draws of 0.4: 5 deviations
    assert not swapped[:, ~paired].any()


@pytest.mark.req("L-54")
def test_a_dropped_window_vanishes_in_all_streams():
    rows = torch.ones((300, 115))
    view = make_view(rows, Layout.of(115), replace(STILL, window_drop_rate=0.4), generator(1))
    assert set(view.unique().tolist()) == {0.0, 1.0}
    for window in ("5", "3", "1", "0.1", "0.01"):
        part = view[:, torch.tensor([window_of(c) == window for c in range(115)])]
        assert part.shape[1] == 23
        assert torch.equal(part.amin(dim=1), part.amax(dim=1))
        assert 0.25 < float((part[:, 0] == 0).float().mean()) < 0.55


@pytest.mark.req("L-54")
def test_a_mixed_row_stays_between_two_rows_and_nearer_to_its_own():
    corners = torch.eye(40)  # of a simplex: the shares of rows can be read off a view
    view = make_view(corners, Layout.of(40), replace(STILL, mix_rate=0.95), generator(1))
    assert torch.allclose(view.sum(dim=1), torch.ones(40), atol=1e-6)
    assert float(view.min()) >= 0
    assert float(view.diagonal().min()) >= 0.8 - 1e-6
    assert int((view > 0).sum(dim=1).max()) <= 2
    assert float((view.diagonal() < 1).float().mean()) > 0.5


@pytest.mark.req("L-54")
def test_jitter_is_one_gain_for_the_whole_row():
    rows = torch.ones((400, 115))
    view = make_view(rows, Layout.of(115), replace(STILL, jitter_std=0.2), generator(1))
    assert torch.equal(view.amin(dim=1), view.amax(dim=1))
    gains = view[:, 0]
    assert abs(float(gains.mean()) - 1) < 0.05  # 400 draws: 5 deviations
    assert 0.15 < float(gains.std()) < 0.25


@pytest.mark.req("L-54")
def test_rates_of_zero_draw_nothing():
    rows = torch.randn((50, 115), generator=generator())
    members, config = block_members(115, ()), TrainConfig(drop_rate=0.1)
    source = generator(3)
    # the views of before: noise, a gain a run, missing runs
    noise = config.noise_std * torch.randn(rows.shape, generator=source)
    gain = 1.0 + config.gain_std * torch.randn((50, 25), generator=source) @ members
    dropped = (torch.rand((50, 25), generator=source) < config.drop_rate).to(rows.dtype)
    expected = (rows + noise) * gain * (1.0 - dropped @ members)
    drawn = generator(3)
    assert torch.equal(make_view(rows, Layout.of(115), config, drawn), expected)
    assert torch.equal(drawn.get_state(), source.get_state())


@pytest.mark.req("L-54")
@pytest.mark.parametrize(("width", "blocks"), [(7, ()), (6, (3, 3)), (115, (5,) * 23)])
def test_an_unknown_layout_swaps_nothing_and_drops_single_runs(width, blocks):
    layout = Layout.of(width, blocks)
    rows = torch.randn((100, width), generator=generator())
    swapped = make_view(rows, layout, replace(STILL, swap_rate=0.9), generator(1))
    assert torch.equal(swapped, rows)
    view = make_view(rows, layout, replace(STILL, window_drop_rate=0.5), generator(1))
    gone = (view == 0).float() @ layout.members.T / layout.members.sum(dim=1)  # (100, runs)
    assert set(gone.unique().tolist()) == {0.0, 1.0}
    assert bool((gone.mean(dim=1) < 1).any())


@pytest.mark.req("L-54")
@pytest.mark.parametrize("name", [*NEW_RATES, "jitter_std"])
def test_each_augmentation_changes_views_by_the_given_generator_only(name):
    rows = torch.randn((30, 115), generator=generator())
    config = replace(STILL, **{name: 0.3})
    state = torch.get_rng_state()
    first, again, other = (make_view(rows, Layout.of(115), config, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, rows)
    assert torch.equal(torch.get_rng_state(), state)
    for rate in (-0.1, 0.96) if name in NEW_RATES else (-0.1, 11.0):
        with pytest.raises(ModelError, match=name):
            replace(STILL, **{name: rate})


@pytest.mark.req("L-54")
def test_windows_of_a_series_as_wide_as_traffic_have_no_runs():
    assert torch.equal(Layout.of(100, window=20).members, torch.eye(100))
    assert torch.equal(Layout.of(100, window=20).partner, torch.arange(100))
    assert len(Layout.of(100).members) == 20
