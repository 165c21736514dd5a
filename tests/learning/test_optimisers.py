"""The optimisers are torch's own to the last bit, and leave torch's compiler alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fl_core.config import ModelConfig
from fl_core.encoders import Encoder, build_encoder
from fl_core.optimisers import Adam, Optimiser, Sgd
from fl_core.parameters import initial_parameters
from tests.support.federation import REPO

MODEL = ModelConfig(input_dim=12, hidden=(8,), embedding_dim=4)


def trained(steps: int, make: type[Optimiser] | type[torch.optim.Optimizer]) -> list[bytes]:
    """Parameters after some steps, of which some give the last layer no gradient."""
    encoder: Encoder = build_encoder(MODEL, initial_parameters(MODEL, 0))
    optimiser = make(encoder.parameters(), 0.01)  # type: ignore[arg-type]
    rows = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
    for step in range(steps):
        for parameter in encoder.parameters():
            parameter.grad = None
        (encoder(rows) ** 2).sum().backward()
        if step % 3 == 1:
            list(encoder.parameters())[-1].grad = None
        optimiser.step()
    return [parameter.detach().numpy().tobytes() for parameter in encoder.parameters()]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Adam, torch.optim.Adam), (Sgd, torch.optim.SGD)], ids=["adam", "sgd"]
)
def test_every_step_is_torchs_to_the_last_bit(
    ours: type[Optimiser], theirs: type[torch.optim.Optimizer]
) -> None:
    for steps in (0, 1, 2, 20):
        assert trained(steps, ours) == trained(steps, theirs)


def test_cleared_gradients_change_nothing() -> None:
    parameter = torch.ones(3, requires_grad=True)
    optimiser = Adam([parameter], 0.1)
    parameter.sum().backward()
    optimiser.clear()
    assert parameter.grad is None
    optimiser.step()
    assert torch.equal(parameter, torch.ones(3))


SITE = """
import sys
import numpy as np
from fl_core.config import ModelConfig, TrainConfig
from fl_core.detector import Detector
from fl_core.parameters import initial_parameters
from fl_core.training import train_local
rows = np.random.default_rng(0).normal(size=(400, 60))
names = tuple(f"c{i}" for i in range(60))
for model in (
    ModelConfig(input_dim=60, hidden=(8,), embedding_dim=4),
    ModelConfig(60, kind="gat", hidden=(8,), embedding_dim=4),
    ModelConfig(60, kind="timefreq", window=20, hidden=(8,), embedding_dim=21),
):
    train = TrainConfig(steps=2, batch_size=16)
    theta, g = initial_parameters(model, 0), np.zeros(model.embedding_dim)
    update = train_local(theta, g, rows, rows, model=model, config=train, seed=0)
    detector = Detector.fit_head(
        theta + update.delta, model, rows, rows, device="d", feature_names=names
    )
    detector.score(rows)
print(sorted(name for name in sys.modules if name in ("torch._dynamo", "sympy")))
"""


def test_a_node_never_loads_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SITE], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
