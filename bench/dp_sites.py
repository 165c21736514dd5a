"""Real traffic dealt to devices and to a thousand small sites, and one round of all these at once.

A site holds a few benign rows of one device. Its training is that of `fl_core.training`: the same
draws from the same seeds, views, loss and optimiser, only with the sites stacked, so that a round
of a thousand takes seconds. `tests/bench/test_dp_bench.py` compares the two.

Source of the rows: N-BaIoT (Meidan et al. 2018), as a compressed numpy file with the fields `X`,
`part`, `device`, `device_names`, `feature_names`, `dup_in_train` and `dup_within_part`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, grad, vmap

from bench.common import BenchError
from fl_core.augment import Layout, corrupt, make_view
from fl_core.config import ModelConfig, TrainConfig
from fl_core.encoders import build_encoder, standardise
from fl_core.losses import alignment, info_nce
from fl_core.normalise import Normaliser
from fl_core.parameters import ParamSpec

__all__ = [
    "DATA",
    "Deal",
    "Device",
    "Site",
    "SiteTrainer",
    "SiteUpdates",
    "deal",
    "load",
]

DATA: Final = Path(__file__).resolve().parents[2] / "shared/data/nbaiot/nbaiot_iid10.npz"
"""Where the rows are looked for unless a path is given; they are no part of the project."""

SITE_TRAIN: Final = 12
SITE_HELD: Final = 3
"""Rows of a site that it trains on, and that it keeps for its centroid and weight."""

_TRAIN, _TEST, _ATTACK = 0, 1, 2
_TOGETHER: Final = 50  # sites stacked at a time: parameters and moments stay in the cache
_BETAS: Final = (0.9, 0.999)
_ADAM_EPSILON: Final = 1e-8  # torch's own, as in fl_core.training


@dataclass(frozen=True, eq=False)
class Device:
    """Benign rows of one device and the attacks it is tested against, raw."""

    device: str
    feature_names: tuple[str, ...]
    benign: NDArray[np.float64]
    """Of the training part."""
    test_benign: NDArray[np.float64]
    """Without those that occur in the training part or twice."""
    test_attack: NDArray[np.float64]
    """All attacks, each once: they carry no device."""


@dataclass(frozen=True, eq=False)
class Site:
    """One node with a few rows of one device, raw."""

    device: int
    train: NDArray[np.float64]
    held: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Deal:
    """Who has which row of the training part."""

    sites: tuple[Site, ...]
    validation: tuple[NDArray[np.float64], ...]
    """Of every device, some tenth of its rows, which no site has."""
    train: tuple[NDArray[np.float64], ...]
    """Of every device, all others."""


def load(path: Path, *, jitter: bool) -> tuple[Device, ...]:
    """Read the nine devices.

    Args:
        path: The numpy file.
        jitter: Whether to keep the `HH_jit` columns, whose means are absolute times.

    Raises:
        BenchError: there is no such file.
    """
    if not path.exists():
        raise BenchError(f"there is no {path}", hint="give --data the N-BaIoT rows")
    with np.load(path, allow_pickle=False) as file:
        columns = [str(name) for name in file["feature_names"]]
        kept = [i for i, name in enumerate(columns) if jitter or not name.startswith("HH_jit")]
        rows, part, device = file["X"][:, kept], file["part"], file["device"]
        fresh = ~file["dup_within_part"] & ~file["dup_in_train"]
        names = [str(name) for name in file["device_names"]]
    attacks = rows[(part == _ATTACK) & fresh]
    return tuple(
        Device(
            device=name,
            feature_names=tuple(columns[i] for i in kept),
            benign=rows[(part == _TRAIN) & (device == number)],
            test_benign=rows[(part == _TEST) & (device == number) & fresh],
            test_attack=attacks,
        )
        for number, name in enumerate(names)
    )


def deal(devices: Sequence[Device], *, sites: int, seed: int) -> Deal:
    """Deal the benign rows to sites, devices in proportion to their rows; a tenth stays back.

    Raises:
        BenchError: there are too few rows for so many sites.
    """
    counts = np.array([len(each.benign) for each in devices])
    shares = sites * counts / counts.sum()
    of_device = np.floor(shares).astype(int)
    of_device[np.argsort(of_device - shares, kind="stable")[: sites - of_device.sum()]] += 1
    size = SITE_TRAIN + SITE_HELD
    dealt, train, validation = [], [], []
    for number, each in enumerate(devices):
        taken = size * int(of_device[number])
        if taken >= len(each.benign):
            raise BenchError(f"{each.device} has too few rows", hint="use fewer sites")
        order = np.random.default_rng((seed, number)).permutation(len(each.benign))
        rows = each.benign[order]
        train.append(rows[:taken])
        validation.append(rows[taken:])
        dealt += [
            Site(number, own[:SITE_TRAIN], own[SITE_TRAIN:])
            for own in rows[:taken].reshape(-1, size, rows.shape[1])
        ]
    return Deal(tuple(dealt), tuple(validation), tuple(train))


@dataclass(frozen=True, eq=False)
class SiteUpdates:
    """What every site found in a round, as `fl_core.training.LocalUpdate` has it of one."""

    deltas: NDArray[np.float32]
    """Shape (sites, dim)."""
    centroids: NDArray[np.float32]
    """Shape (sites, k)."""
    weights: NDArray[np.float64]
    """Shape (sites,)."""


class SiteTrainer:
    """All sites' local training under one setting."""

    def __init__(self, sites: Sequence[Site], model: ModelConfig, config: TrainConfig) -> None:
        fitted = [Normaliser.fit(site.train) for site in sites]
        pairs = list(zip(fitted, sites, strict=True))
        self._rows = torch.from_numpy(np.stack([n.apply(s.train) for n, s in pairs]))
        self._held = torch.from_numpy(np.stack([n.apply(s.held) for n, s in pairs]))
        self._model, self._config = model, config
        self._layout = Layout.of(model.input_dim, config.blocks)
        self._spec = ParamSpec.from_model(model)
        encoder = build_encoder(model, np.zeros(self._spec.dim, np.float32))

        def embed(flat: Tensor, rows: Tensor) -> Tensor:
            parameters, start = {}, 0
            for name, shape in self._spec.shapes:
                end = start + int(np.prod(shape))
                parameters[name] = flat[start:end].view(shape)
                start = end
            return standardise(functional_call(encoder, parameters, (rows,)))

        def loss(flat: Tensor, views: Tensor, reference: Tensor) -> Tensor:
            u, v, *rest = embed(flat, views.flatten(0, 1)).view(*views.shape[:2], -1)
            negatives = rest[0] if rest else None
            value = info_nce(u, v, temperature=config.temperature, synthetic=negatives)
            return value + config.align_weight * alignment(u, reference)

        self._embed = vmap(embed)
        self._gradient: Any = vmap(grad(loss), in_dims=(0, 0, None))

    def run(
        self,
        params: NDArray[np.float32],
        reference: NDArray[np.float32],
        seeds: Sequence[int],
    ) -> SiteUpdates:
        """Train every site from `params`, with one seed each."""
        start, goal = torch.from_numpy(params), torch.from_numpy(reference)
        deltas, centroids, weights = [], [], []
        for low in range(0, len(self._rows), _TOGETHER):
            part = slice(low, low + _TOGETHER)
            theta = self._fit(start, goal, self._rows[part], seeds[part])
            with torch.no_grad():
                z = self._embed(theta, self._held[part])
            distance = (z - goal).square().mean(dim=(1, 2)).numpy().astype(np.float64)
            deltas.append((theta - start).numpy())
            centroids.append(z.mean(dim=1).numpy())
            weights.append(1.0 / (1.0 + distance))
        return SiteUpdates(
            np.concatenate(deltas), np.concatenate(centroids), np.concatenate(weights)
        )

    def _fit(self, start: Tensor, goal: Tensor, rows: Tensor, seeds: Sequence[int]) -> Tensor:
        """Adam, as torch has it, on stacked parameters (sites, dim)."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        theta = start.expand(len(rows), -1).clone()
        first, second = torch.zeros_like(theta), torch.zeros_like(theta)
        one, two = _BETAS
        for step in range(1, self._config.steps + 1):
            views = torch.stack(
                [self._views(own, draw) for own, draw in zip(rows, generators, strict=True)]
            )
            gradient = self._gradient(theta, views, goal)
            first.lerp_(gradient, 1 - one)
            second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
            root = second.sqrt().div_((1 - two**step) ** 0.5).add_(_ADAM_EPSILON)
            theta.addcdiv_(first, root, value=-self._config.learning_rate / (1 - one**step))
        return theta

    def _views(self, rows: Tensor, draw: torch.Generator) -> Tensor:
        """Draw a step of one site, in the order of `fl_core.training`: shape (2 or 3, B, d)."""
        config = self._config
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=draw)]
        views = [make_view(batch, self._layout, config, draw) for _ in range(2)]
        if config.synthetic_negatives:
            views.append(corrupt(batch, self._layout.members, draw))
        return torch.stack(views)
