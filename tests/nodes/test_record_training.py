"""The unit record in a federation: settings filled in, public rows checked, budgets kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_core.config import TrainConfig
from fl_core.data.extractor import FEATURE_NAMES
from fl_core.data.sources import load_device
from fl_core.errors import ModelError
from fl_core.public_bank import PublicBank
from nodes.config import CoordinatorConfig, CoordinatorSection, PrivacySection, RunSection
from nodes.learner import Learner
from nodes.record_training import record_training
from nodes.rehearsal import build_simulation
from nodes.session.privacy import PrivacySettings, record_event
from secagg.dp.accountant import epsilon_of
from secagg.errors import ConfigError

RECORD = PrivacySettings(unit="record", epsilon=4.0)


def made(given: dict[str, Any], settings: PrivacySettings = RECORD, **changes: Any) -> TrainConfig:
    return record_training(given, settings, **{"rounds": 10, "width": 115, "drop": (), **changes})


def config_of(unit: str, train: dict[str, Any]) -> CoordinatorConfig:
    return CoordinatorConfig(
        coordinator=CoordinatorSection(keys="", state=""),
        run=RunSection(rounds=2),
        privacy=PrivacySection(unit=unit),
        model={"input_dim": 115},
        train=train,
    )


def test_the_noise_is_the_least_that_fits_the_budget() -> None:
    train = made({"steps": 7})
    assert (train.private, train.objective) == ("dp-sgd", "per-record")
    rounds = RECORD.planned_rounds(10)
    assert rounds == 11
    assert 3.99 < epsilon_of({record_event(train): rounds}, RECORD.delta) <= 4.0
    less = replace(train, noise_multiplier=0.98 * train.noise_multiplier)
    assert epsilon_of({record_event(less): rounds}, RECORD.delta) > 4.0


def test_noise_that_the_operator_set_stays() -> None:
    assert made({"noise_multiplier": 2.5}).noise_multiplier == 2.5


def test_a_file_that_spells_out_every_default_means_the_same() -> None:
    """`secagg config init` writes all settings; those of no privacy are not a choice against it."""
    assert made(TrainConfig().to_dict()) == made({})


def test_public_rows_follow_the_columns_that_nodes_leave_out() -> None:
    names = [name for name in FEATURE_NAMES if not name.startswith("HH_jit_")]
    train = made({}, width=len(names), drop=("HH_jit_*",))
    assert train.bank_digest == PublicBank.builtin(names).digest != made({}).bank_digest
    with pytest.raises(ConfigError, match="have 115 columns") as refused:
        made({}, width=len(names))
    assert "privacy.drop" in refused.value.hint


def test_what_stays_at_a_node_trains_as_without_privacy() -> None:
    assert made({}).unprotected().to_dict() == {
        **made({}).to_dict(),
        **{
            name: getattr(TrainConfig(), name)
            for name in (
                "objective", "private", "optimiser", "noise_multiplier", "learning_rate", "steps",
                "temperature", "gain_std",
            )
        },
    }  # fmt: skip
    plain = TrainConfig(steps=7)
    assert plain.unprotected() is plain


def test_a_budget_that_no_noise_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match="noise multiplier") as refused:
        made({"sampling_rate": 1.0, "steps": 1000}, replace(RECORD, epsilon=0.05))
    assert "sampling_rate" in refused.value.hint


def test_unit_and_training_have_to_agree() -> None:
    private = made({}).to_dict()
    with pytest.raises(ConfigError, match=r"private is 'dp-sgd', and privacy\.unit is 'none'"):
        config_of("none", private).plan()
    with pytest.raises(ConfigError, match=r"private is 'dp-sgd', and privacy\.unit is 'client'"):
        config_of("client", private).plan()
    assert b'"private":"dp-sgd"' in config_of("record", {}).plan().training


def test_unsound_clipping_is_refused_before_anybody_starts() -> None:
    with pytest.raises(ConfigError, match="per-record clipping bounds nothing"):
        config_of("record", {"private": "dp-sgd", "objective": "in-batch"}).plan()


@pytest.mark.req("Q-04")
def test_a_node_with_other_public_rows_refuses_the_offer() -> None:
    data = load_device("builtin", "Danmini_Doorbell")
    training = config_of("record", {}).plan().training
    reference = np.zeros(64, dtype=np.float32)
    Learner(data, "node", max_fpr=0.01).accept(training, reference)
    other = PublicBank.from_rows(FEATURE_NAMES, data.test_benign[:50])
    with pytest.raises(ModelError, match="digest"):
        Learner(data, "node", max_fpr=0.01, public=other).accept(training, reference)


@pytest.mark.req("Q-01")
def test_a_simulated_run_spends_by_the_row_and_tells_nothing_else() -> None:
    simulation = build_simulation(
        4, 2, dropout=0.0, privacy={"unit": "record", "epsilon": 8.0}, steps=2
    )
    results = list(simulation.run())
    assert [row.outcome for row in results] == ["done", "done"]
    assert [row.exact for row in results] == [True, True]
    spent = [row.epsilon for row in results]
    assert 0 < spent[0] < spent[1] <= 8.0
    for node in simulation.nodes.values():
        units = [entry.unit for entry in node.ledger.history().entries]
        assert units == ["record", "record"]
    assert simulation.coordinator.run.reference.tolist() == [0.0] * 64, "no centroid travels"
