"""The table of detection quality: what contenders see, and what is said of their figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from fl_core.baselines import train_alone
from fl_core.config import ModelConfig, TrainConfig
from fl_core.contender_baselines import baselines
from fl_core.contender_encoders import (
    ABLATIONS,
    SERIES_ABLATIONS,
    Recipe,
    encoder_contender,
    encoders,
    head_score,
)
from fl_core.contenders import Contender, Fitted, Rows
from fl_core.contest import (
    COLUMNS,
    Result,
    Spread,
    columns_of,
    compare,
    honest_rate,
    markdown,
    summary,
    thin_out,
)
from fl_core.data.dataset import DeviceData
from fl_core.errors import DataError
from fl_core.evaluation import round_seed
from fl_core.federated import train_federated
from fl_core.metrics import quality
from fl_core.parameters import initial_parameters
from fl_core.scoring import ROUNDING
from tests.learning.conftest import make_rows

N_DEVICES = 3


def device(index: int) -> DeviceData:
    rows = make_rows(index)
    return DeviceData(
        rows.device,
        rows.feature_names,
        rows.train,
        rows.validation,
        rows.test_benign,
        rows.test_attack,
        np.full(len(rows.test_attack), "attack"),
    )


@pytest.fixture(scope="module")
def devices() -> list[DeviceData]:
    return [replace(device(index), device=f"device-{index}") for index in range(N_DEVICES)]


def pairs(devices: list[DeviceData]) -> Rows:
    return [(each.train, each.validation) for each in devices]


class Spy:
    """A contender that remembers what it was given."""

    def __init__(self) -> None:
        self.fits: list[Rows] = []
        self.strangers: list[NDArray[np.float64]] = []
        self.scored: list[NDArray[np.float64]] = []

    def contender(self) -> Contender:
        def score(values: ArrayLike) -> NDArray[np.float64]:
            self.scored.append(np.asarray(values))
            return np.asarray(values).sum(axis=1)

        def unseen(some: ArrayLike):
            self.strangers.append(np.asarray(some))
            return score

        def fit(rows: Rows, seed: int) -> Fitted:
            self.fits.append(rows)
            return Fitted(lambda index: score, None, unseen, 1000.0)

        return Contender("spy", fit)


@pytest.mark.req("L-70")
def test_chance_draws_anew_for_every_device_and_purpose(devices: list[DeviceData]) -> None:
    chance = next(each for each in baselines() if each.name == "random scores")
    rows: Rows = [(each.train, each.validation) for each in devices]

    def draws() -> list[float]:
        fitted = chance.fit(rows, 7)
        assert fitted.calibration is not None
        found = [fitted.unseen(devices[0].validation)(devices[0].test_benign)]
        for index, each in enumerate(devices):
            found += [fitted.calibration(index), fitted.known(index)(each.validation)]
            found.append(fitted.known(index)(each.test_benign))
        return [float(value) for part in found for value in part]

    assert len(set(draws())) == len(draws())
    assert draws() == draws()


@pytest.mark.req("L-71")
def test_contenders_are_given_benign_rows_and_thresholds_come_from_validation_rows(
    devices: list[DeviceData],
) -> None:
    spy = Spy()
    (result,) = compare([spy.contender()], lambda seed: devices, seeds=[0], left_out=False)
    (rows,) = spy.fits
    for each, (train, validation) in zip(devices, rows, strict=True):
        assert train is each.train
        assert validation is each.validation
    assert spy.scored[0] is devices[0].validation  # the threshold's rows, before any test row
    for each in devices:
        raised = each.validation.sum(axis=1) * (1.0 + ROUNDING)
        assert np.isclose(raised, result.devices[each.device].threshold, rtol=1e-12).any()
    assert result.left_out == {}
    assert math.isnan(result.mean("left_out"))


@pytest.mark.req("L-72")
def test_a_device_left_out_is_never_trained_on_and_gives_only_its_validation_rows(
    devices: list[DeviceData],
) -> None:
    spy = Spy()
    list(compare([spy.contender()], lambda seed: devices, seeds=[0]))
    _, *without = spy.fits
    for index, rows in enumerate(without):
        assert len(rows) == N_DEVICES - 1
        assert all(train is not devices[index].train for train, _ in rows)
        assert spy.strangers[index] is devices[index].validation


@pytest.mark.req("L-72")
@pytest.mark.parametrize(("count", "least"), [(1, 1), (3, 3)])
def test_nothing_is_trained_on_fewer_devices_than_it_takes(
    devices: list[DeviceData], count: int, least: int
) -> None:
    spy = Spy()
    contender = replace(spy.contender(), least=least)
    (result,) = compare([contender], lambda seed: devices[:count], seeds=[0])
    assert [len(rows) for rows in spy.fits] == [count]
    assert result.left_out == result.unknown == {}
    assert "| – | – |" in markdown([result])


@pytest.mark.req("L-72")
def test_of_a_device_with_no_row_known_the_nearest_of_the_others_decides(
    devices: list[DeviceData],
) -> None:
    """The first other head finds the attacks; the second knows them and does not know the rest."""
    device = devices[0]
    attacks = {row.tobytes() for row in device.test_attack}

    def fit(rows: Rows, seed: int) -> Fitted:
        def known(index: int):
            blind = index == 1 and len(rows) < N_DEVICES
            loud, quiet = (0.1, 1.0) if blind else (1.0, 0.5)
            return lambda some: np.array(
                [loud if row.tobytes() in attacks else quiet for row in np.asarray(some)]
            )

        return Fitted(known, None, lambda some: known(0), None)

    (result,) = compare([Contender("two", fit)], lambda seed: devices, seeds=[0])
    assert result.left_out["device-0"] == 0.0
    assert result.unknown["device-0"] == 1.0
    assert result.mean("unknown") == np.mean(list(result.unknown.values()))


@pytest.mark.req("L-73")
@pytest.mark.parametrize(
    ("alarms", "rows", "honest"),
    [
        (1, 100, True),
        (5, 100, False),
        (0, 100, True),
        (0, 400, False),
        (0, 1000, True),
        (19, 1000, True),
        (20, 1000, False),
    ],
)
def test_a_rate_is_honest_within_the_binomial_interval_or_under_twice_for_many_rows(
    alarms: int, rows: int, honest: bool
) -> None:
    benign = np.concatenate([np.ones(alarms), np.zeros(rows - alarms)])
    assert honest_rate(quality(benign, np.ones(3), 0.5), 0.01) is honest


@pytest.mark.req("L-70")
def test_every_method_of_the_table_learns_something_and_chance_nothing(
    devices: list[DeviceData],
) -> None:
    methods = [each for each in baselines() if "autoencoder" not in each.name]
    methods += [each for each in encoders(rounds=1) if each.name in ("random encoder", "ours")]
    found = summary(list(compare(methods, lambda seed: devices, seeds=[0], left_out=False)))
    for name, columns in found.items():
        if name == "random scores":
            assert abs(columns["auc"].mean - 0.5) < 0.1
        else:
            assert columns["auc"].mean > 0.6, name
    assert list(found) == [each.name for each in methods]


@pytest.mark.req("L-70")
def test_rows_of_the_table_have_distinct_names_and_ablations_change_the_settings() -> None:
    names = [each.name for each in (*baselines(), *encoders(rounds=1, ablations=True))]
    assert len(set(names)) == len(names)
    for part in ("window normalisation", "alignment", "dynamic weights", "contrast"):  # seed 001
        assert f"ours, no {part}" in ABLATIONS
        assert f"ours, no {part}" in SERIES_ABLATIONS
    for other in (*ABLATIONS.values(), *SERIES_ABLATIONS.values()):
        assert replace(TrainConfig(), **other) != TrainConfig()


def test_the_open_loop_takes_all_steps_in_one_round(devices: list[DeviceData]) -> None:
    recipe = Recipe(config=TrainConfig(steps=3, batch_size=32))
    found = {each.name: each for each in encoders(rounds=4, ablations=True, recipe=recipe)}
    rows = pairs(devices)
    model = recipe.model(rows[0][0].shape[1])
    once = train_federated(
        rows, model=model, config=replace(recipe.config, steps=12), rounds=1, seed=2
    )
    score = found["ours, open loop"].fit(rows, 2).known(0)
    some = devices[0].test_benign
    assert np.array_equal(score(some), head_score(once, model, rows[0][0])(some))


@pytest.mark.req("L-70")
def test_who_adapts_goes_on_from_the_shared_encoder_with_rows_of_its_own(
    devices: list[DeviceData],
) -> None:
    recipe = Recipe(config=TrainConfig(steps=3, batch_size=32))
    found = {each.name: each for each in encoders(rounds=2, ablations=True, recipe=recipe)}
    rows, some = pairs(devices), devices[0].test_benign
    fitted, shared = found["ours, adapted"].fit(rows, 2), found["ours"].fit(rows, 2)
    model = recipe.model(rows[0][0].shape[1])
    theta = train_federated(rows, model=model, config=recipe.config, rounds=2, seed=2)
    for index, (own, held) in enumerate(rows):
        mine = train_alone(
            theta,
            own,
            held,
            model=model,
            config=recipe.config,
            seeds=[round_seed(2, number, "ours, adapted", "alone") for number in range(2)],
        )
        score = fitted.known(index)(some)
        assert np.array_equal(score, head_score(mine, model, own)(some))
        assert not np.array_equal(score, shared.known(index)(some))
    assert fitted.traffic == shared.traffic


def test_an_encoder_has_a_head_for_each_device_and_for_a_stranger(
    devices: list[DeviceData],
) -> None:
    def train(rows: Rows, model: ModelConfig, seed: int) -> tuple[NDArray[np.float32], float]:
        return initial_parameters(model, seed), 7.0

    fitted = encoder_contender("x", ModelConfig, train).fit(pairs(devices), 3)
    model = ModelConfig(devices[0].train.shape[1])
    by_hand = head_score(initial_parameters(model, 3), model, devices[1].train)
    rows = devices[1].test_benign
    assert np.array_equal(fitted.known(1)(rows), by_hand(rows))
    assert np.array_equal(fitted.unseen(devices[1].train)(rows), by_hand(rows))
    assert fitted.calibration is not None
    assert len(fitted.calibration(1)) == len(devices[1].train)
    assert fitted.traffic == 7.0


def test_a_device_without_attacks_is_refused_before_anything_is_trained(
    devices: list[DeviceData],
) -> None:
    bare = replace(devices[0], test_attack=devices[0].test_attack[:0], attack_names=np.array([]))
    spy = Spy()
    with pytest.raises(DataError, match="no attack rows"):
        list(compare([spy.contender()], lambda seed: [bare], seeds=[0]))
    assert not spy.fits


def test_the_table_says_mean_and_range_over_seeds(devices: list[DeviceData]) -> None:
    first = next(compare([Spy().contender()], lambda seed: devices, seeds=[0]))
    other = replace(first, seed=1, left_out={"device-0": 0.25})
    text = markdown([replace(first, left_out={"device-0": 0.75}), replace(other, unknown={})])
    assert "| spy |" in text
    assert "0.5000 (0.2500–0.7500) | – | – | 0.001 |" in text  # MB a round last
    assert text.splitlines()[0].count("|") == len(COLUMNS) + 3
    assert str(Spread(math.nan, math.nan, math.nan)) == "–"


def test_one_row_in_ten_is_kept_of_training_and_validation_and_all_of_testing() -> None:
    whole = device(0)
    thin = thin_out(whole, 10)
    assert len(thin.train) == -(-len(whole.train) // 10)
    assert len(thin.validation) == -(-len(whole.validation) // 10)
    assert thin.test_attack is whole.test_attack


def test_each_kind_of_attack_is_measured_for_itself_on_request(devices: list[DeviceData]) -> None:
    def fit(rows: Rows, seed: int) -> Fitted:
        return Fitted(
            lambda index: lambda values: np.asarray(values)[:, 0], None, lambda some: lambda v: v
        )

    def marked(each: DeviceData) -> DeviceData:
        top = each.test_benign[:, 0].max() + 1.0
        attack = np.repeat(each.test_benign[:1], 4, axis=0)
        attack[:, 0] = [top, top, -top, -top]
        names = np.array(["loud", "loud", "still", "still"])
        return replace(each, test_attack=attack, attack_names=names)

    (result,) = compare(
        [Contender("first column", fit)],
        lambda seed: [marked(each) for each in devices],
        seeds=[0],
        left_out=False,
        by_kind=True,
    )
    assert result.kinds["loud"] == 1.0
    assert result.kinds["still"] < 0.5
    columns = columns_of([result])
    assert list(columns.values())[len(COLUMNS) :] == ["AUC, loud", "AUC, still"]
    assert result.mean("kind:loud") == 1.0
    assert "AUC, still" in markdown([result], columns)


def test_accuracy_counts_both_kinds(devices: list[DeviceData]) -> None:
    found = quality([0.0, 0.0, 0.0, 1.0], [1.0, 0.0], 0.5)
    result = Result("x", 0, {"d": found}, {}, None)
    assert result.mean("accuracy") == pytest.approx(4 / 6)
