"""Canary nodes in a simulated run: who they are, what they give, and what the releases show of it.

Canaries are participants like any other: same session, same clip, same noise, same secure sum. Only
their training is played: by the toss of a coin they give a vector in a random direction, much
longer than the clip, or zeros. The auditor sees the mean of each round, as everybody does who gets
the next model, and who contributed. Source: specs/57-privacy-audit.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_core.config import ModelConfig
from fl_core.evaluation import round_seed
from fl_core.parameters import ParamSpec
from fl_core.server_opt import ServerOptConfig
from fl_core.training import LocalUpdate
from nodes.config import CoordinatorConfig, CoordinatorSection, PrivacySection, RunSection
from nodes.coordinator_daemon import fresh_run, server_step
from nodes.rehearsal import random_updates
from nodes.session.coordinator import ServerStep
from nodes.session.events import RoundDone, SessionEvent, TrainRequested
from nodes.session.privacy import CLIENT
from nodes.session.training_settings import parse_training
from nodes.simulator import Network, RoundResult, Simulation, Trainer
from secagg.dp.audit import LEAST_FREEDOM, AuditRound, scores_of
from secagg.errors import ConfigError, RunIncompleteError
from secagg.schemes import scheme_named
from secagg.types import NodeId

__all__ = ["LENGTH", "AuditedRun", "Canaries", "Release", "model_of"]

LENGTH: Final = 8.0
"""Clips that a canary's vector is long before it is clipped. What is left of its weight of 1 is
then 1/8, so that the sum of weights hardly feels who gave what, and 0.9997 of the clip is update. A
clip that is missing shows as noise 8 times too weak; a much longer vector would wrap the ring."""
_INPUTS: Final = 16
_EMBEDDING: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """What the coordinator made known of a round."""

    round_id: int
    mean: NDArray[np.float64] = field(repr=False)
    """Shape (model_dim,): the noised mean update, which moves the model."""
    contributors: tuple[NodeId, ...]
    weight: float
    """Noised mean weight."""


class Canaries:
    """The canaries of a run: their directions and coins, and the scores of what was released.

    Args:
        nodes: Who is a canary.
        clip: C of the run.
        seed: Of directions and coins; nothing else in the run may depend on it.
    """

    def __init__(self, nodes: tuple[NodeId, ...], *, clip: float, seed: int) -> None:
        self._place = {node: place for place, node in enumerate(nodes)}
        self._clip, self._seed = clip, seed
        self._drawn: dict[int, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}

    def among(self, others: Trainer) -> Trainer:
        """Return a trainer that plays the canaries, and asks `others` for everybody else."""

        def train(node: NodeId, request: TrainRequested) -> LocalUpdate:
            if node not in self._place:
                return others(node, request)
            return self._given(self._place[node], request)

        return train

    def judged(self, release: Release) -> AuditRound:
        """Score a round's release; canaries that did not contribute have none (V-04).

        Raises:
            ConfigError: no canary contributed, or the model is too small for so many.
        """
        frame, gave = self._draws(release.round_id, len(release.mean))
        there = sorted(self._place[node] for node in release.contributors if node in self._place)
        if not there:
            raise ConfigError("no canary contributed", hint="use more canaries or less dropout")
        scores = scores_of(release.mean, frame)
        return AuditRound(scores[there], gave[there], len(release.mean) - frame.shape[1])

    def _given(self, place: int, request: TrainRequested) -> LocalUpdate:
        frame, gave = self._draws(request.offer.round_id, request.offer.model_dim)
        length = LENGTH * self._clip * bool(gave[place])
        embedding = parse_training(request.offer.training).model.embedding_dim
        return LocalUpdate(
            delta=(length * frame[:, place]).astype(np.float32),  # V-03
            centroid=np.zeros(embedding, dtype=np.float32),
            weight=1.0 if length else 0.0,  # V-02: tails are zeros, as of a node that abstains
            distance=1.0,
            loss=0.0,
            samples=0,
        )

    def _draws(self, round_id: int, dim: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return directions (dim, canaries) and coins (canaries,) of a round, its own (V-01)."""
        if round_id not in self._drawn:
            rng = np.random.default_rng(round_seed(self._seed, round_id, "canaries", "audit"))
            gave = rng.random(len(self._place)) < 0.5  # V-02
            frame, triangle = np.linalg.qr(rng.standard_normal((dim, len(self._place))))
            frame *= np.sign(np.diag(triangle))  # makes it uniform among all frames
            self._drawn = {round_id: (frame, gave)}
        return self._drawn[round_id]


class _Overheard(Simulation):
    """A simulation that keeps what its coordinator releases."""

    def __init__(self, *arguments: Any, server_step: ServerStep, **options: Any) -> None:
        self.releases: list[Release] = []
        self._mean = np.zeros(0)

        def step(
            params: NDArray[np.float32],
            mean: NDArray[np.float64],
            optimiser: dict[str, NDArray[np.float64]],
        ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float64]]]:
            self._mean = mean
            return server_step(params, mean, optimiser)

        super().__init__(*arguments, server_step=step, **options)

    def _on_coordinator_event(self, event: SessionEvent) -> None:
        if isinstance(event, RoundDone):
            release = Release(event.round_id, self._mean, event.contributors, event.weight)
            self.releases.append(release)
        super()._on_coordinator_event(event)


class AuditedRun:
    """A run of the daemons' sessions with canaries among the nodes.

    Args:
        nodes: Participants, canaries included.
        canaries: How many of them are canaries.
        rounds: Rounds with a result.
        scheme: How updates are summed.
        privacy: The table [privacy] of the coordinator, but for its unit.
        dim: Parameters of the model, about.
        dropout: Probability of a node to crash in a round.
        tolerance: Fraction that a round is built to lose.
        collusion: Fraction of the nodes that may collude.
        seed: Of delays, crashes and updates, and of directions and coins.

    Raises:
        ConfigError: the numbers are at odds, or the scheme lacks a library.
    """

    def __init__(
        self,
        nodes: int,
        canaries: int,
        rounds: int,
        *,
        scheme: str = "masking",
        privacy: Mapping[str, Any],
        dim: int = 4000,
        dropout: float = 0.0,
        tolerance: float = 0.1,
        collusion: float = 0.02,
        seed: int = 0,
    ) -> None:
        if not 1 <= canaries < nodes:
            raise ConfigError(
                f"{canaries} canaries among {nodes} nodes", hint="use fewer canaries than nodes"
            )
        scheme_named(scheme).check()
        model = model_of(dim)
        self.dim = ParamSpec.from_model(model).dim
        """Parameters of the model."""
        if self.dim < canaries + LEAST_FREEDOM:
            raise ConfigError(
                f"{canaries} canaries in a model of {self.dim} parameters",
                hint=f"use {LEAST_FREEDOM} parameters more than canaries, or more",
            )
        config = CoordinatorConfig(
            coordinator=CoordinatorSection(keys="", state=""),
            run=RunSection(
                rounds=rounds, scheme=scheme, give_up=600.0, dropout=tolerance, collusion=collusion
            ),
            privacy=PrivacySection(**{"spare": 0.0, **privacy, "unit": CLIENT}),
            model=model.to_dict(),
        )
        self.rounds = rounds
        names = tuple(f"node-{place:05d}" for place in range(canaries))
        self._canaries = Canaries(names, clip=config.privacy.clip, seed=seed)
        self._simulation = _Overheard(
            config.plan(),
            fresh_run(config, os.urandom),
            n_nodes=nodes,
            trainer=self._canaries.among(random_updates(seed)),
            server_step=server_step(ServerOptConfig()),
            network=Network(dropout=dropout),
            seed=seed,
        )
        self.judged: list[AuditRound] = []
        """The canaries of the rounds so far."""
        self.epsilon = 0.0
        """What the coordinator's ledger has spent so far."""

    def play(self, watch: Callable[[RoundResult], None] = lambda _: None) -> None:
        """Play to the end.

        Args:
            watch: Gets each round as it closes.

        Raises:
            ConfigError: as `Canaries.judged`.
            RunIncompleteError: not one round had a result.
        """
        for result in self._simulation.run():
            for release in self._new_releases():
                self.judged.append(self._canaries.judged(release))
            self.epsilon = max(self.epsilon, result.epsilon or 0.0)
            watch(result)
        if not self.judged:
            over = self._simulation.over
            reason = over.reason if over else "nothing left to happen"
            raise RunIncompleteError(reason, done=0, wanted=self.rounds)

    def _new_releases(self) -> Iterator[Release]:
        while self._simulation.releases:
            yield self._simulation.releases.pop(0)


def model_of(dim: int) -> ModelConfig:
    """Return a model of about that many parameters, with one hidden layer."""
    width = max(1, round((dim - _EMBEDDING * (1 + _INPUTS)) / (_INPUTS + 1 + _EMBEDDING)))
    return ModelConfig(input_dim=_INPUTS, hidden=(width,), embedding_dim=_EMBEDDING)
