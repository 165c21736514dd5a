"""What privacy costs in detection: false alarms on real traffic under noise of several strengths.

::

    python -m bench.dp utility --plots bench/plots --out bench/results

Client level: a thousand sites with fifteen rows each go through the real clipping, rotation and
rounding, and their sum through a ring. The noise of all sites is one draw: a sum of discrete
Gaussians as wide as these is one, up to a factor of 1 ± 10^-9 at most that accounting counts in.
Masks are left out; they cancel. Record level: nine devices run the product's own private training.

All settings but ε are one for the whole table, and were chosen on training rows alone (benign rows
held back, against corrupted rows and against other devices' rows); no attack was looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bench.common import BenchError, describe_machine
from bench.dp_records import RecordSetting, train_records
from bench.dp_sites import DATA, Deal, Device, SiteTrainer, deal, load
from bench.dp_tables import TRAINED, Result, draw_figure, table
from fl_core.baselines import knn_score, pca_score
from fl_core.config import ModelConfig, TrainConfig
from fl_core.detector import Detector
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.metrics import fpr_at_tpr
from fl_core.parameters import ParamSpec, initial_parameters
from fl_core.server_opt import within_ball
from nodes.session.offer import SURE
from secagg import ring
from secagg.dp.accountant import multiplier_for
from secagg.dp.adaptive import next_clip, within_fraction
from secagg.dp.encoding import WITHIN, PrivateEncoding, default_segments
from secagg.dp.sampler import sampler_for
from secagg.dp.terms import DISCRETE_GAUSSIAN, NoiseTerms
from secagg.errors import SecAggError

__all__ = ["ClientSetting", "Trained", "alarms", "main", "train_clients"]

DELTA: Final = 1e-5
EPSILONS: Final = (1.0, 2.0, 4.0, 8.0, math.inf)
HIDDEN, EMBEDDING = (64,), 64
Score: TypeAlias = Callable[[ArrayLike], NDArray[np.float64]]


@dataclass(frozen=True)
class ClientSetting:
    """How a thousand sites learn together."""

    sites: int = 1000
    dropout: float = 0.1
    """Part that the noise makes up for; all answer, so theirs is in the sum as well."""
    collusion: float = 0.05
    """Part whose noise is not counted on."""
    rounds: int = 8
    clip: float = 0.5
    """Of the first round; then it follows the median."""
    scale: int = 1 << 12
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=5,
            batch_size=12,
            learning_rate=3e-3,
            temperature=0.2,
            gain_std=0.1,
            synthetic_negatives=True,
        )
    )

    @property
    def honest(self) -> int:
        """Shares that are counted on."""
        return self.sites - round(self.dropout * self.sites) - round(self.collusion * self.sites)


@dataclass(frozen=True, eq=False)
class Trained:
    """An encoder and the noise that is in it."""

    params: NDArray[np.float32]
    multiplier: float = 0.0
    """z: noise over sensitivity, of a round (client) or of a step (record)."""
    noise_std: float = 0.0
    """Of a parameter at the end, if nothing had been learned from it on the way."""
    lost: int = 0
    """Rounds in which the weights drowned."""


def train_clients(
    dealt: Deal, model: ModelConfig, setting: ClientSetting, *, epsilon: float, seed: int
) -> Trained:
    """Train over all rounds with client-level noise for (ε, `DELTA`); inf is the same without."""
    theta = initial_parameters(model, seed)
    reference = np.zeros(model.embedding_dim, np.float32)
    trainer = SiteTrainer(dealt.sites, model, setting.train)
    encoding = _encoding(setting, model, setting.clip, 1.0)
    z = 0.0 if math.isinf(epsilon) else _multiplier(encoding, setting, epsilon)
    squares, lost = 0.0, 0
    for number in range(setting.rounds):
        if z:
            encoding = replace(encoding, terms=replace(encoding.terms, noise_multiplier=z))
        seeds = [round_seed(seed, number, str(i), "site") for i in range(setting.sites)]
        sums = _summed(trainer, encoding, theta, reference, seeds, noised=z > 0)
        weight = float(sums["weight"][0])
        if weight > SURE * (z > 0) * encoding.std("weight", setting.sites):
            theta = (theta + sums["update"] / weight).astype(np.float32)
            reference = within_ball(sums["centroid"] / weight).astype(np.float32)
            squares += (encoding.std("update", setting.sites) / weight) ** 2 * (z > 0)
        else:
            lost += 1
        clip = next_clip(
            encoding.terms.clip, within_fraction(float(sums[WITHIN][0]), setting.sites)
        )
        encoding = _encoding(setting, model, clip, z or 1.0)
    return Trained(theta, z, math.sqrt(squares), lost)


def _encoding(
    setting: ClientSetting, model: ModelConfig, clip: float, multiplier: float
) -> PrivateEncoding:
    segments = default_segments(
        clip, update_dim=ParamSpec.from_model(model).dim, centroid_dim=model.embedding_dim
    )
    terms = NoiseTerms(
        DISCRETE_GAUSSIAN, clip, setting.scale, multiplier, setting.honest, rotation=True
    )
    return PrivateEncoding(segments, terms, within=True)


def _multiplier(encoding: PrivateEncoding, setting: ClientSetting, epsilon: float) -> float:
    def events(z: float) -> dict[object, int]:
        noised = replace(encoding, terms=replace(encoding.terms, noise_multiplier=z))
        return {noised.event(setting.honest): setting.rounds}

    return multiplier_for(events, epsilon=epsilon, delta=DELTA)  # type: ignore[arg-type]


def _summed(
    trainer: SiteTrainer,
    encoding: PrivateEncoding,
    theta: NDArray[np.float32],
    reference: NDArray[np.float32],
    seeds: Sequence[int],
    *,
    noised: bool,
) -> dict[str, NDArray[np.float64]]:
    """Train all sites, encode each, add up in the ring with the noise of all, and decode."""
    found = trainer.run(theta, reference, seeds)
    signs = os.urandom(32)
    total = np.zeros(encoding.dim, np.int64)
    for delta, centroid, w in zip(found.deltas, found.centroids, found.weights, strict=True):
        values = {"update": w * delta, "centroid": w * centroid, "weight": np.array([w])}
        total += encoding.encode(values, os.urandom, signs_seed=signs)
    if noised:
        variance = len(seeds) * encoding.share_variance
        total += sampler_for(DISCRETE_GAUSSIAN, variance).draw(encoding.dim, os.urandom)
    bits = encoding.ring_bits(len(seeds))
    return encoding.decode(ring.to_signed(ring.from_signed(total, bits), bits), signs_seed=signs)


# --- how well it detects ---------------------------------------------------------------------


def alarms(scores: Sequence[Score], devices: Sequence[Device]) -> tuple[float, ...]:
    """Return every device's false-positive rate at a TPR of 0.999, by the scores of its head."""
    return tuple(
        fpr_at_tpr(score(each.test_benign), score(each.test_attack))
        for score, each in zip(scores, devices, strict=True)
    )


def heads(
    params: NDArray[np.float32], model: ModelConfig, dealt: Deal, devices: Sequence[Device]
) -> list[Score]:
    """Fit every device's head on its own rows: the rows of all its sites together."""
    return [
        Detector.fit_head(
            params, model, train, held, device=each.device, feature_names=each.feature_names
        ).score
        for train, held, each in zip(dealt.train, dealt.validation, devices, strict=True)
    ]


def baselines(
    level: str, model: ModelConfig, dealt: Deal, devices: Sequence[Device], jitter: bool, seed: int
) -> Iterator[Result]:
    """Yield what needs no training and no ε."""
    scores: dict[str, list[Score]] = {
        "random encoder": heads(initial_parameters(model, seed), model, dealt, devices),
        "5 nearest neighbours": [knn_score(rows) for rows in dealt.train],
        "PCA": [pca_score(rows) for rows in dealt.train],
    }
    for method, each in scores.items():
        yield Result(level, method, None, jitter, seed, alarms(each, devices))


def curve(
    level: str, devices: Sequence[Device], options: argparse.Namespace, jitter: bool, seed: int
) -> Iterator[Result]:
    """Yield the results of one level, choice of columns and seed."""
    width = len(devices[0].feature_names)
    model = ModelConfig(input_dim=width, hidden=HIDDEN, embedding_dim=EMBEDDING)
    setting = ClientSetting(rounds=options.rounds or ClientSetting.rounds, sites=options.sites)
    records = RecordSetting(rounds=options.rounds or RecordSetting.rounds)
    dealt = deal(devices, sites=options.sites, seed=seed)
    initial = initial_parameters(model, seed)
    yield from baselines(level, model, dealt, devices, jitter, seed)
    if level == "record":
        pairs = list(zip(dealt.train, dealt.validation, strict=True))
        params = train_federated(
            pairs, model=model, config=TrainConfig(), rounds=records.rounds, seed=seed
        )
        found = alarms(heads(params, model, dealt, devices), devices)
        yield Result(level, "nine devices, no privacy", None, jitter, seed, found)
    for epsilon in options.epsilons:
        if level == "client":
            made = train_clients(dealt, model, setting, epsilon=epsilon, seed=seed)
        else:
            names = devices[0].feature_names
            params, z, std = train_records(
                dealt.train, names, model, records, epsilon=epsilon, delta=DELTA, seed=seed
            )
            made = Trained(params, z, std)
        if made.lost:
            print(f"ε = {epsilon:g}: {made.lost} rounds were lost", file=sys.stderr)
        found = alarms(heads(made.params, model, dealt, devices), devices)
        yield Result(level, TRAINED, epsilon, jitter, seed, found, made.multiplier)
        if made.noise_std:
            noise = np.random.default_rng((seed, int(1000 * epsilon))).normal(size=len(initial))
            noised = (initial + made.noise_std * noise).astype(np.float32)
            found = alarms(heads(noised, model, dealt, devices), devices)
            yield Result(level, "its noise alone", epsilon, jitter, seed, found)


# --- command ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.dp utility", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the N-BaIoT rows")
    parser.add_argument("--levels", nargs="+", default=["client", "record"])
    parser.add_argument("--epsilons", type=float, nargs="+", default=list(EPSILONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=0, help="instead of the settings' own")
    parser.add_argument("--sites", type=int, default=ClientSetting.sites)
    parser.add_argument("--quick", action="store_true", help="one seed, ε 1 and 8, two rounds")
    parser.add_argument("--plots", type=Path, help="write one SVG a level into this folder")
    parser.add_argument("--out", type=Path, help="write dp_utility_LEVEL.json into this folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print, draw and write."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.seeds, options.rounds, options.epsilons = [0], 2, [1.0, 8.0]
    torch.set_num_threads(1)
    try:
        for level in options.levels:
            results = list(_measured(level, options))
            print(table(results, DELTA), end="\n\n", flush=True)
            if options.plots:
                draw_figure(results, DELTA, options.plots / f"dp_{level}.svg")
            if options.out:
                options.out.mkdir(parents=True, exist_ok=True)
                facts = {"machine": asdict(describe_machine()), "delta": DELTA, "level": level}
                facts["results"] = [asdict(each) for each in results]
                text = json.dumps(facts, indent=1) + "\n"
                (options.out / f"dp_utility_{level}.json").write_text(text)
    except SecAggError as error:
        sys.exit(f"{error}: {error.hint}")


def _measured(level: str, options: argparse.Namespace) -> Iterator[Result]:
    """Yield all results of a level, and say on the way what has come out."""
    if level not in ("client", "record"):
        raise BenchError(f"level {level!r}", hint="use client or record")
    for jitter in (True, False):
        devices = load(options.data, jitter=jitter)
        for seed in options.seeds:
            before = time.process_time()
            for each in curve(level, devices, options, jitter, seed):
                spent, before = time.process_time() - before, time.process_time()
                columns = "all columns" if jitter else "no HH_jit"
                at = (
                    ""
                    if each.epsilon is None
                    else f" ε = {each.epsilon:g} z = {each.multiplier:.3f}"
                )
                print(
                    f"{level}, {columns}, seed {seed}: {each.method}{at}: "
                    f"{each.mean:.4f} ({spent:.0f} s)",
                    file=sys.stderr,
                    flush=True,
                )
                yield each
