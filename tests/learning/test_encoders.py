"""The kinds of encoder: their parameters, what each part of a row reaches, and that they learn."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from fl_core.architectures import parameter_shapes
from fl_core.config import ENCODER_KINDS, ModelConfig, TrainConfig
from fl_core.data.builtin import build_device
from fl_core.data.dataset import DeviceData
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.detector import Detector
from fl_core.encoder_base import Encoder
from fl_core.encoders import build_encoder, embed
from fl_core.errors import ModelError
from fl_core.graph_encoders import adjacency
from fl_core.layouts import column_runs, neighbours, sequence_columns
from fl_core.metrics import quality
from fl_core.parameters import ParamSpec, draw_parameters, initial_parameters
from fl_core.training import train_local

KINDS = ("mlp", "cnn", "gnn", "gat")
MODELS = [
    {"input_dim": 115},
    {"input_dim": 100, "hidden": (6,)},
    {"input_dim": 20, "hidden": ()},
    {"input_dim": 24, "window": 8, "hidden": (5, 4, 3)},
]


@cache
def doorbell() -> DeviceData:
    return build_device("Danmini_Doorbell", seed=0, limit_rows=300)


def encoder_of(model: ModelConfig, seed: int = 0) -> Encoder:
    return build_encoder(model, initial_parameters(model, seed))


@pytest.mark.req("L-50")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", MODELS, ids=["uci", "no jitter", "unknown", "series"])
def test_the_layout_is_that_of_the_module_and_the_module_embeds(kind, settings):
    model = ModelConfig(kind=kind, embedding_dim=7, **settings)
    encoder = encoder_of(model)
    found = tuple((name, tuple(p.shape)) for name, p in encoder.named_parameters())
    assert found == parameter_shapes(model)
    assert found[-1] == ("skip.weight", (7, model.input_dim))  # the bypass of every kind
    rows = torch.randn((5, model.input_dim), generator=torch.Generator().manual_seed(0))
    z = encoder(rows)
    assert z.shape == (5, 7)
    assert torch.isfinite(z).all()
    alone = torch.cat([encoder(row[None]) for row in rows])
    assert torch.allclose(z, alone, atol=1e-5)  # a row's embedding is its own
    assert torch.equal(z, encoder_of(model)(rows))


@pytest.mark.req("L-50")
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_encoders_are_small_and_told_apart(kind):
    spec = ParamSpec.from_model(ModelConfig(input_dim=115, kind=kind))
    assert spec.dim < 50_000
    others = {ParamSpec.from_model(ModelConfig(input_dim=115, kind=k)).digest for k in KINDS}
    assert len(others) == len(KINDS)
    assert set(KINDS) <= set(ENCODER_KINDS)


def test_runs_are_streams_in_windows():
    runs = column_runs(115)
    names = [
        {FEATURE_NAMES[run.start + i].rsplit("_", 1)[0] for i in range(run.length)} for run in runs
    ]
    assert all(len(each) == 1 for each in names)
    flat = [each.pop() for each in names]
    for run, name in zip(runs, flat, strict=True):
        stream, window = name.rsplit("_", 1)
        assert window == flat[run.window].rsplit("_", 1)[1]
        assert stream == flat[5 * run.stream].rsplit("_", 1)[0]
    assert [(r.stream, r.window) for r in column_runs(6, window=2)] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("dim", "window"), [(115, 1), (100, 1), (20, 1), (24, 8)])
def test_a_sequence_has_every_column_once(dim, window):
    columns = sequence_columns(dim, window)
    assert len({len(channel) for channel in columns}) == 1
    assert sorted(c for channel in columns for c in channel) == list(range(dim))


def test_a_channel_is_one_statistic_along_the_windows():
    for channel in sequence_columns(115):
        names = [FEATURE_NAMES[column] for column in channel]
        windows = [name.split("_L")[1].split("_")[0] for name in names]
        assert windows == ["5", "3", "1", "0.1", "0.01"]
        rest = {name.replace(f"_L{w}_", "_") for name, w in zip(names, windows, strict=True)}
        assert len(rest) == 1


@pytest.mark.req("L-50")
@pytest.mark.parametrize(("dim", "window"), [(115, 1), (100, 1), (20, 1), (24, 8), (1, 1)])
def test_the_graph_is_symmetric_and_every_run_has_a_neighbour(dim, window):
    edges = adjacency(ModelConfig(input_dim=dim, window=window, kind="gnn"))
    beside = neighbours(column_runs(dim, window))
    assert torch.equal(edges, edges.T)
    assert torch.equal(edges.diagonal(), torch.ones(len(beside)))
    assert torch.equal(edges.sum(dim=1) - 1, torch.tensor([float(len(b)) for b in beside]))
    if dim > 1:
        assert all(beside)
    if dim == 115:  # HH in its third window: four other streams, two windows beside
        assert beside[2 * 5 + 2] == (2, 7, 11, 13, 17, 22)


def moved_by(encoder: Encoder, layer: torch.nn.Module, rows: torch.Tensor, column: int):
    """Return which outputs of `layer` move, over the rows, when one column of them moves."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    other = rows.clone()
    other[:, column] += 1.0
    with torch.inference_mode():
        encoder(rows), encoder(other)
    handle.remove()
    return ((seen[0] - seen[1]).abs() > 1e-7).any(dim=0)


@pytest.mark.req("L-50")
def test_a_convolution_sees_the_windows_beside_and_no_further():
    encoder = encoder_of(ModelConfig(input_dim=115, kind="cnn"))
    rows = torch.randn((9, 115), generator=torch.Generator().manual_seed(1))
    column = FEATURE_NAMES.index("HH_L1_mean")  # third window
    moved = moved_by(encoder, encoder.layers[0], rows, column)  # (hidden, 5)
    assert moved.any(dim=0).tolist() == [False, True, True, True, False]
    assert moved_by(encoder, encoder.layers[1], rows, column).any(dim=0).all()


@pytest.mark.req("L-50")
@pytest.mark.parametrize("kind", ["gnn", "gat"])
def test_a_graph_layer_reaches_the_neighbours_and_no_further(kind):
    encoder = encoder_of(ModelConfig(input_dim=115, kind=kind))
    rows = torch.randn((9, 115), generator=torch.Generator().manual_seed(1))
    column = FEATURE_NAMES.index("HH_L1_mean")
    moved = moved_by(encoder, encoder.layers[0], rows, column).any(dim=1)  # (25, hidden) -> (25,)
    assert moved.nonzero().flatten().tolist() == [2, 7, 11, 12, 13, 17, 22]


def test_a_convolution_is_the_mean_over_the_neighbours():
    model = ModelConfig(input_dim=20, kind="gnn", hidden=(4,))
    layer = encoder_of(model).layers[0]
    h = torch.randn((2, 20, 32), generator=torch.Generator().manual_seed(2))
    # of an unknown layout all are neighbours of all
    expected = layer.map(h.mean(dim=1, keepdim=True)).expand(-1, 20, -1)
    assert torch.allclose(layer(h), expected, atol=1e-5)


def test_attention_is_what_the_paper_says():
    model = ModelConfig(input_dim=100, kind="gat", hidden=(6,))
    layer = encoder_of(model).layers[0]
    assert layer.heads == 2
    h = torch.randn((1, 20, 32), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = layer(h)[0]
        mapped = layer.map(h)[0]
        for i, others in enumerate(neighbours(column_runs(100))):
            for head in range(2):
                part = mapped[:, 3 * head : 3 * head + 3]
                a = torch.cat((layer.attend_weight[head], layer.attend_weight[2 + head]))
                seen = [*others, i]
                logits = torch.stack([a @ torch.cat((part[i], part[j])) for j in seen])
                shares = torch.nn.functional.leaky_relu(logits, 0.2).softmax(dim=0)
                expected = shares @ part[seen]
                assert torch.allclose(found[i, 3 * head : 3 * head + 3], expected, atol=1e-5)


@pytest.mark.req("L-50")
@pytest.mark.parametrize("kind", ["cnn", "gnn", "gat"])
def test_layers_that_would_fill_memory_are_refused(kind):
    with pytest.raises(ModelError, match="numbers for a row"):
        ModelConfig(input_dim=65_536, kind=kind)


def test_attention_between_too_many_runs_is_refused():
    ModelConfig(input_dim=200, kind="gnn")
    with pytest.raises(ModelError, match="160000 numbers for a row"):
        ModelConfig(input_dim=200, kind="gat")


@pytest.mark.req("L-02")
def test_first_values_go_by_all_inputs_of_an_output():
    shapes = (("a.weight", (50, 4, 25)), ("a.bias", (50,)), ("b.weight", (50, 4)))
    values = draw_parameters(shapes, 0)
    kernel, bias, square = values[:5000], values[5000:5050], values[5050:]
    assert 0.095 < np.abs(kernel).max() <= 0.1  # 1 / sqrt(4 * 25)
    assert 0.05 < np.abs(bias).max() <= 0.1
    assert 0.4 < np.abs(square).max() <= 0.5


@pytest.mark.req("L-50", "L-11")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_and_detects(kind):
    data = doorbell()
    model = ModelConfig(input_dim=115, kind=kind)
    start, g = initial_parameters(model, 0), np.zeros(model.embedding_dim, np.float32)

    def train(steps: int):
        config = TrainConfig(steps=steps, batch_size=64)
        return train_local(
            start, g, data.train, data.validation, model=model, config=config, seed=1
        )

    long = train(30)
    assert long.loss < train(1).loss - 0.2
    assert np.array_equal(long.delta, train(30).delta)
    detector = Detector.fit_head(
        start + long.delta,
        model,
        data.train,
        data.validation,
        device=data.device,
        feature_names=data.feature_names,
    )
    found = quality(
        detector.score(data.test_benign), detector.score(data.test_attack), detector.threshold()
    )
    assert found.auc > 0.95


def test_embedding_in_parts_is_embedding_at_once():
    model = ModelConfig(input_dim=20, kind="cnn", hidden=(4,), embedding_dim=3)
    encoder = encoder_of(model)
    rows = np.random.default_rng(0).normal(size=(1100, 20)).astype(np.float32)
    with torch.inference_mode():
        whole = encoder(torch.from_numpy(rows)).numpy()
    assert np.allclose(embed(encoder, rows), whole, atol=1e-5)
