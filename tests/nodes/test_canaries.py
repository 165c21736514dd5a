"""Canaries give what they should, through real sessions, and only releases are judged."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_core.config import ModelConfig, TrainConfig
from fl_core.parameters import ParamSpec
from fl_core.training import LocalUpdate
from nodes.canaries import LENGTH, AuditedRun, Canaries, Release, model_of
from nodes.config import training_bytes
from nodes.noise_faults import noise_scaled
from nodes.session import noised
from nodes.session.events import TrainRequested
from nodes.session.noised import noised_input
from nodes.session.privacy import private_encoding
from secagg.dp.audit import Audit, audit, separation_of
from secagg.dp.encoding import PrivateEncoding
from secagg.dp.rounding import round_bounded, sensitivity
from secagg.errors import ConfigError, RunIncompleteError
from secagg.types import NodeId
from secagg.wire.messages import DpTerms

MODEL = model_of(600)
DIM = ParamSpec.from_model(MODEL).dim
CANARIES = ("a", "b", "c", "d")
TRAINING = training_bytes(MODEL, TrainConfig(), 0, 1)
CLAIMED = 25.0
SMALL: dict[str, Any] = {"privacy": {"epsilon": CLAIMED}, "dim": 600}
"""Few nodes: the sum of their weights has to stand out from its noise."""
ROOT = Path(__file__).parents[2]


def asked(round_id: int) -> TrainRequested:
    offer = SimpleNamespace(round_id=round_id, model_dim=DIM, training=TRAINING)
    return cast(TrainRequested, SimpleNamespace(offer=offer))


def nobody(node: NodeId, request: TrainRequested) -> LocalUpdate:
    raise AssertionError(f"{node} is a canary")


def given(canaries: Canaries, round_id: int) -> NDArray[np.float64]:
    train = canaries.among(nobody)
    return np.array([train(node, asked(round_id)).delta for node in CANARIES], dtype=np.float64)


def judged(run: AuditedRun) -> Audit:
    run.play()
    return audit(run.judged)


# --- what they give -------------------------------------------------------------------------------


@pytest.mark.req("V-01", "V-02", "V-03")
def test_canaries_give_long_orthogonal_vectors_or_zeros_anew_each_round() -> None:
    canaries = Canaries(CANARIES, clip=0.5, seed=3)
    rounds = [given(canaries, round_id) for round_id in range(60)]
    taken = np.array([np.linalg.norm(vectors, axis=1) > 0 for vectors in rounds])
    assert 0.3 < taken.mean() < 0.7
    assert len({tuple(row) for row in taken}) > 8, "coins of all canaries and rounds"
    for vectors, row in zip(rounds, taken, strict=True):
        products = vectors @ vectors.T / (LENGTH * 0.5) ** 2
        assert products == pytest.approx(np.diag(row.astype(float)), abs=1e-6)
    across = [before @ after.T for before, after in itertools.pairwise(rounds)]
    assert np.abs(across).max() / 16 < 0.3, "fresh directions"
    assert (given(canaries, 0) == rounds[0]).all()


@pytest.mark.req("V-01")
def test_directions_are_uniform() -> None:
    """The mean over many rounds of c·cᵀ is the identity over d, and of c is zero."""
    canaries = Canaries(("a",), clip=1.0, seed=5)
    frames = [canaries._draws(round_id, 8)[0][:, 0] for round_id in range(4000)]
    outer = np.mean([np.outer(frame, frame) for frame in frames], axis=0)
    assert np.abs(outer - np.eye(8) / 8).max() < 0.015
    assert np.abs(np.mean(frames, axis=0)).max() < 0.03


@pytest.mark.req("V-02")
def test_tails_give_what_a_node_gives_that_abstains() -> None:
    canaries, encoding = Canaries(CANARIES, clip=1.0, seed=3), the_encoding()
    for round_id in range(8):
        for node in CANARIES:
            update = canaries.among(nobody)(node, asked(round_id))
            if not update.delta.any():
                weighted = noised._weighted(update, encoding)
                nothing = noised._weighted(None, encoding)
                assert all((weighted[name] == nothing[name]).all() for name in nothing)
                return
    raise AssertionError("no coin in 32 came down tails")


@pytest.mark.req("V-03")
def test_the_clip_makes_a_canary_as_long_as_any_node_can_be() -> None:
    canaries, encoding = Canaries(CANARIES, clip=1.0, seed=3), the_encoding()
    updates = [canaries.among(nobody)(node, asked(1)) for node in CANARIES]
    update = next(each for each in updates if each.weight)
    values = noised._weighted(update, encoding)
    sums = encoding.decode(
        encoding.encode(values, np.random.default_rng(1).bytes, signs_seed=b"s" * 32),
        signs_seed=b"s" * 32,
    )
    assert np.linalg.norm(sums["update"]) == pytest.approx(0.9997, abs=0.01)
    assert sums["update"] @ update.delta / LENGTH == pytest.approx(0.9997, abs=0.01)
    assert sums["weight"][0] == pytest.approx(1 / 8, abs=0.01)


def the_encoding() -> PrivateEncoding:
    terms = DpTerms(
        mechanism="skellam",
        clip=1.0,
        scale=2048,
        noise_multiplier=1.0,
        honest=10,
        rotation=True,
        within=False,
        drop_levels=(),
        correlated=None,
    )
    return private_encoding(terms, model_dim=DIM, embedding_dim=MODEL.embedding_dim)


# --- what is judged -------------------------------------------------------------------------------


@pytest.mark.req("V-04")
def test_only_canaries_that_contributed_are_judged() -> None:
    canaries = Canaries(CANARIES, clip=1.0, seed=3)
    vectors = given(canaries, 7)
    mean = vectors.sum(axis=0) + np.random.default_rng(1).standard_normal(DIM)
    everybody = canaries.judged(Release(7, mean, (*CANARIES, "e"), 1.0))
    assert everybody.gave.tolist() == (np.abs(vectors).sum(axis=1) > 0).tolist()
    assert everybody.freedom == DIM - 4
    some = canaries.judged(Release(7, mean, ("e", "d", "b"), 1.0))
    assert some.scores.tolist() == everybody.scores[[1, 3]].tolist()
    assert some.gave.tolist() == everybody.gave[[1, 3]].tolist()
    with pytest.raises(ConfigError, match="no canary contributed"):
        canaries.judged(Release(7, mean, ("e",), 1.0))


@pytest.mark.req("V-04", "V-05")
@pytest.mark.parametrize("scheme", ["masking", "ckks"])
def test_a_run_is_judged_by_what_it_released(scheme: str) -> None:
    run = AuditedRun(36, 10, 2, scheme=scheme, **SMALL)
    found = judged(run)
    assert (found.rounds, found.given + found.zeros) == (2, 20)
    assert run.epsilon == pytest.approx(CLAIMED, rel=1e-2)
    truth = separation_of(CLAIMED, 1e-5) / 2**0.5
    assert found.mean == pytest.approx(truth, abs=6 / found.given**0.5), "6 deviations"
    assert abs(found.null_mean) < 6 / found.zeros**0.5


@pytest.mark.req("V-04")
def test_crashes_take_canaries_out_of_single_rounds() -> None:
    run = AuditedRun(36, 12, 2, dropout=0.1, tolerance=0.3, seed=1, **SMALL)
    found = judged(run)
    assert found.given + found.zeros < 12 * found.rounds
    assert all(len(each.scores) <= 12 for each in run.judged)


# --- planted faults -------------------------------------------------------------------------------


@pytest.mark.req("V-08", "V-09")
@pytest.mark.parametrize("scheme", ["masking", "ckks"])
def test_noise_that_is_left_out_is_caught(scheme: str) -> None:
    with noise_scaled(0.0):
        run = AuditedRun(36, 10, 2, scheme=scheme, **SMALL)
        found = judged(run)
    assert found.right == found.given + found.zeros
    assert found.bound > 10 * run.epsilon


@pytest.mark.req("V-08", "V-09")
def test_a_sixteenth_of_the_noise_is_caught() -> None:
    with noise_scaled(1 / 16):
        run = AuditedRun(36, 10, 2, **SMALL)
        found = judged(run)
    assert found.bound > 1.5 * run.epsilon


@pytest.mark.req("V-03", "V-08")
def test_a_clip_that_is_missing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(self: PrivateEncoding, joint: NDArray[np.float64]) -> NDArray[np.float64]:
        joint *= self.terms.scale / self.terms.clip
        return joint

    def unbounded(vector: NDArray[np.float64], scale: int, rng: Any) -> NDArray[np.int64]:
        return round_bounded(vector, 16 * scale, rng)

    monkeypatch.setattr(PrivateEncoding, "_clip", unclipped)
    monkeypatch.setattr("secagg.dp.encoding.round_bounded", unbounded)
    monkeypatch.setattr("secagg.dp.headroom.greatest_magnitude", lambda terms, dim: 1 << 20)
    run = AuditedRun(36, 10, 2, **SMALL)
    found = judged(run)
    assert found.bound > 2 * run.epsilon


@pytest.mark.req("V-09")
def test_a_fault_is_gone_when_its_block_ends_even_by_an_error() -> None:
    before = planted()

    def broken(factor: float) -> None:
        with noise_scaled(factor):
            assert (planted() == before) == (factor == 1.0)
            raise KeyError

    for factor in (0.0, 0.5, 1.0):
        with pytest.raises(KeyError):
            broken(factor)
        assert planted() == before


def planted() -> list[object]:
    names = ("components_of", "draw_noise", "remove_excess")
    return [getattr(noised, name) for name in names]


@pytest.mark.req("V-09")
def test_faults_are_planted_by_the_audit_command_alone() -> None:
    importers = set()
    for package in ("secagg", "fl_core", "keys", "nodes"):
        for path in (ROOT / package).rglob("*.py"):
            for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(each, ast.ImportFrom) and each.module == "nodes.noise_faults":
                    importers.add(path.relative_to(ROOT).as_posix())
    assert importers == {"nodes/commands/privacy_audit.py"}
    assert noised_input.__module__ == "nodes.session.noised"


# --- settings -------------------------------------------------------------------------------------


def test_models_are_about_as_large_as_asked() -> None:
    for dim in (400, 4000, 40_000):
        made: ModelConfig = model_of(dim)
        assert ParamSpec.from_model(made).dim == pytest.approx(dim, abs=13)


def test_runs_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(ConfigError, match="30 canaries among 30 nodes"):
        AuditedRun(30, 30, 1, **SMALL)
    with pytest.raises(RunIncompleteError, match="too strong to read a mean"):
        AuditedRun(10, 5, 1, privacy={"epsilon": 0.1}, dim=600).play()
    with pytest.raises(ConfigError, match="20 canaries in a model of 211 parameters"):
        AuditedRun(36, 20, 1, privacy={"epsilon": 25.0}, dim=200)


def test_the_sensitivity_is_where_the_rounding_left_it() -> None:
    """What a canary loses to weight and rounding is far below what an audit can tell."""
    assert sensitivity(2048, DIM).l2 / 2048 < 1.001
