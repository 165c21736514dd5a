from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from fl_core.config import ModelConfig
from fl_core.encoders import build_encoder
from fl_core.errors import ModelError
from fl_core.parameters import ParamSpec, initial_parameters

MODEL = ModelConfig(input_dim=6, hidden=(5, 4), embedding_dim=3)


@pytest.mark.req("L-01")
def test_the_default_model_is_small():
    assert ParamSpec.from_model(ModelConfig(input_dim=115)).dim < 50_000


@pytest.mark.req("L-01")
def test_vector_to_module_and_back_is_exact():
    spec = ParamSpec.from_model(MODEL)
    vector = np.random.default_rng(0).normal(size=spec.dim).astype(np.float32)
    assert np.array_equal(spec.flatten(build_encoder(MODEL, vector)), vector)


@pytest.mark.req("L-01")
def test_the_digest_tells_architectures_apart():
    others = [
        MODEL,
        ModelConfig(input_dim=6, hidden=(4, 5), embedding_dim=3),
        ModelConfig(input_dim=6, hidden=(5,), embedding_dim=3),
        ModelConfig(input_dim=7, hidden=(5, 4), embedding_dim=3),
        ModelConfig(input_dim=6, hidden=(5, 4), embedding_dim=4),
        *(
            ModelConfig(12, kind=kind, hidden=(4,), embedding_dim=3, window=window)
            for kind in ("cnn", "gnn", "gat")
            for window in (1, 2, 3, 4, 6)
        ),
    ]
    digests = {ParamSpec.from_model(m).digest for m in others}
    assert len(digests) == len(others)
    assert {len(d) for d in digests} == {32}


@pytest.mark.req("L-02")
def test_first_parameters_are_the_same_bytes_everywhere():
    first = initial_parameters(MODEL, 7)
    assert np.array_equal(first, initial_parameters(MODEL, 7))
    assert not np.array_equal(first, initial_parameters(MODEL, 8))
    # Fixed: a change would make nodes and coordinators of different versions disagree in silence.
    assert hashlib.sha256(first.tobytes()).hexdigest()[:16] == "3a0fb0663e5ae267"


@pytest.mark.req("L-02")
def test_the_coordinators_part_needs_no_torch():
    code = (
        "import sys, fl_core.parameters as p, fl_core.server_opt, fl_core.config as c\n"
        "p.initial_parameters(c.ModelConfig(input_dim=5), 1)\n"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_building_an_encoder_leaves_torchs_global_generator_alone():
    before = torch.get_rng_state()
    build_encoder(MODEL, initial_parameters(MODEL, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        (np.zeros(5), r"has shape \(5,\)"),
        (np.full(ParamSpec.from_model(MODEL).dim, np.nan), "a NaN or an infinity"),
        (np.full(ParamSpec.from_model(MODEL).dim, 1e300), "a NaN or an infinity"),
        (np.array(["a"] * ParamSpec.from_model(MODEL).dim), "numbers"),
    ],
    ids=["length", "nan", "overflow", "text"],
)
def test_a_vector_that_does_not_fit_is_refused(vector, text):
    with pytest.raises(ModelError, match=text):
        build_encoder(MODEL, vector)


def test_another_module_is_refused():
    spec = ParamSpec.from_model(MODEL)
    other = ModelConfig(input_dim=6, hidden=(4,), embedding_dim=3)
    with pytest.raises(ModelError, match="differ from the layout"):
        spec.flatten(build_encoder(other, initial_parameters(other, 0)))


def test_a_negative_seed_is_refused():
    with pytest.raises(ModelError, match="the seed is -1"):
        initial_parameters(MODEL, -1)
