"""What a node puts into a noised sum, what is no update at all, and what a round costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from fl_core.training import LocalUpdate
from nodes.cli import secagg
from nodes.session.events import Abstained, RoundDone, TrainRequested
from nodes.session.inputs import mean_of, nothing_to_give, to_give
from nodes.session.ledger import MemoryLedger
from nodes.session.offer import build_offer, noised_encoding_of, setup_of
from nodes.session.privacy import (
    CLIENT,
    NONE,
    PrivacySettings,
    components_of,
    cost_of,
    exposure,
    multiplier_of,
    private_encoding,
    terms_of_round,
)
from nodes.session.receipts import Receipts
from nodes.store import load_receipts, save_receipt
from secagg import ring
from secagg.dp.accountant import epsilon_of
from secagg.dp.events import SumNoise, Unprotected
from secagg.dp.receipts import make_receipt
from secagg.errors import AuthenticationError, ConfigError, LocalProtocolError
from secagg.round_setup import RoundSetup
from secagg.steps import SumReady
from secagg.wire.messages import RoundOffer
from tests.support.fleet import TestSigner
from tests.support.private import (
    DELTA,
    EPSILON,
    MULTIPLIER,
    NAMES,
    RUN,
    N,
    full_weight,
    make_settings,
    noise_of,
    private_offer,
    private_plan,
    private_run,
)
from tests.support.randomness import InsecureLabelledRng
from tests.support.run import DIM, EMBEDDING, Run, make_plan, make_state

GOOD: Final = LocalUpdate(
    np.full(DIM, 0.01, dtype=np.float32), np.full(EMBEDDING, 0.1, np.float32), 0.5, 1.0, 2.0, 100
)


def setup_for(offer: RoundOffer) -> RoundSetup:
    return setup_of(offer, RUN, lambda node: TestSigner(node).public)


def bad_updates() -> dict[str, Any]:
    """Everything that training should not give, by what is wrong with it."""
    arrays: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
        "integers": lambda a: a.astype(np.int32),
        "objects": lambda a: a.astype(object),
        "booleans": lambda a: a.astype(bool),
        "complex": lambda a: a.astype(np.complex64),
        "long floats": lambda a: a.astype(np.longdouble),
        "text": lambda a: a.astype("U8"),
        "a list": lambda a: a.tolist(),
        "nothing": lambda _: None,
        "a column": lambda a: a[:, None],
        "one short": lambda a: a[:-1],
        "one more": lambda a: np.append(a, a[:1]),
        "empty": lambda a: a[:0],
        "NaN": lambda a: np.where(np.arange(len(a)) == 1, np.nan, a),
        "an infinity": lambda a: np.where(np.arange(len(a)) == 1, -np.inf, a),
    }
    found: dict[str, Any] = {
        f"{field} of {name}": replace(GOOD, **{field: change(getattr(GOOD, field))})
        for field in ("delta", "centroid")
        for name, change in arrays.items()
    }
    numbers = {
        "weight": (float("nan"), float("inf"), -0.1, 1.0001, None, "1", 1j),
        "distance": (float("nan"), float("inf"), None, [1.0]),
        "loss": (float("nan"), None, "low"),
        "samples": (-1, None, float("nan"), 1 << 60),
    }
    for field, values in numbers.items():
        for value in values:
            found[f"{field} {value!r}"] = replace(GOOD, **{field: value})
    found["None"] = None
    found["a dictionary"] = {"delta": GOOD.delta}
    found["half an update"] = SimpleNamespace(delta=GOOD.delta, weight=1.0)
    return found


BAD: Final = bad_updates()


@pytest.mark.req("S-21", "D-02", "E-02")
@pytest.mark.parametrize("noised", [True, False], ids=["noised", "plain"])
@pytest.mark.parametrize("kind", sorted(BAD))
def test_what_is_no_update_is_refused_before_randomness_is_drawn(kind: str, noised: bool) -> None:
    offer = private_offer() if noised else build_offer(make_plan(), make_state(), NAMES, 1)

    def rng(count: int) -> bytes:
        raise AssertionError(f"{count} bytes drawn")

    with pytest.raises(LocalProtocolError) as caught:
        to_give(BAD[kind], offer, setup_for(offer), rng)
    assert "0.01" not in str(caught.value), "no value in the message"


@pytest.mark.req("S-21")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("weight", [0, 0.0, 1, np.float32(0.5), np.float64(1.0), np.int64(1)])
def test_floats_of_any_length_and_weights_of_nothing_to_one_are_taken(
    dtype: type, weight: Any
) -> None:
    offer = private_offer()
    update = replace(
        GOOD, delta=GOOD.delta.astype(dtype), centroid=GOOD.centroid.astype(dtype), weight=weight
    )
    given = to_give(update, offer, setup_for(offer), InsecureLabelledRng(1, "x"))
    assert given.vector.dtype == np.uint32


@pytest.mark.req("S-21", "E-01")
@pytest.mark.parametrize("scheme", ["masking", "ckks"])
@pytest.mark.parametrize("kind", ["delta of objects", "weight -0.1", "None", "centroid of NaN"])
def test_a_node_whose_training_gives_no_update_is_in_the_sum_and_says_so_to_itself_alone(
    scheme: str, kind: str
) -> None:
    def trainer(node: str, request: TrainRequested) -> LocalUpdate:
        if node != "node-3":
            return full_weight(node, request)
        bad: LocalUpdate = BAD[kind]
        return bad

    run = private_run(plan=private_plan(rounds=1, scheme=scheme), trainer=trainer)
    run.boot()
    run.play()
    (done,) = run.of(RoundDone)
    assert done.contributors == tuple(run.names)  # type: ignore[union-attr]
    (abstained,) = run.of(Abstained, "node-3")
    assert "an update" in abstained.reason  # type: ignore[union-attr]
    assert len(run.ledgers["node-3"].history()) == 1, "its zeros cost what anything costs"


# --- noise ---------------------------------------------------------------------------------------


def draws(give: Callable[[RoundOffer, RoundSetup, Any], Any], levels: bool) -> np.ndarray[Any, Any]:
    """The whole of one node's noised integers, for a vector of 4000 coordinates."""
    plan = private_plan(dropout=0.3 if levels else 0.1)
    state = make_state(params=np.zeros(4000, dtype=np.float32))
    offer = build_offer(plan, state, NAMES, 1)
    assert bool(noise_of(offer).drop_levels) == levels
    given = give(offer, setup_for(offer), InsecureLabelledRng(5, "noise"))
    encoding = noised_encoding_of(offer, noise_of(offer))
    found = ring.to_signed(given.vector, offer.ring_bits).astype(np.float64)
    assert len(given.excess) == max(0, len(noise_of(offer).drop_levels) - 1)
    return found / np.sqrt(encoding.share_variance)


@pytest.mark.req("D-10", "E-01", "X-03")
@pytest.mark.parametrize("levels", [False, True], ids=["whole", "in parts"])
def test_a_node_that_abstains_sends_its_whole_share_of_noise(levels: bool) -> None:
    """The sample variance of 4000 draws has a standard deviation of 0.022."""
    abstains = draws(nothing_to_give, levels)
    assert abs(abstains.var() - 1) < 0.12
    assert abs(abstains.mean()) < 0.08


@pytest.mark.req("D-10", "E-01")
def test_one_that_gives_something_looks_the_same() -> None:
    update = replace(GOOD, delta=np.full(4000, 1e-4, dtype=np.float32))
    gives = draws(lambda *parts: to_give(update, *parts), True)
    assert abs(gives.var() - 1) < 0.2, "its own length is in it: at most (M / std)^2 / 4000"
    again = draws(nothing_to_give, True)
    assert not np.array_equal(gives, again)


@pytest.mark.req("S-20", "S-13")
@pytest.mark.parametrize(("weight", "reads"), [(1.0, True), (0.0, False), (0.2, False)])
def test_a_mean_is_read_where_its_weights_are_clear_of_the_noise(
    weight: float, reads: bool
) -> None:
    offer = private_offer()
    setup = setup_for(offer)
    total = np.zeros(setup.dim, dtype=np.uint32)
    for index in range(N):
        update = replace(GOOD, weight=weight)
        total += to_give(update, offer, setup, InsecureLabelledRng(index, "x")).vector
    result = SumReady(ring.reduce(total, setup.ring_bits), NAMES, (1,) * N)
    mean = mean_of(result, offer, setup)
    assert (mean is not None) == reads
    if mean is not None:
        assert mean.loss is None
        assert mean.samples is None
        assert abs(mean.weight - 1) < 0.5


# --- what a round costs --------------------------------------------------------------------------


def terms(settings: PrivacySettings, multiplier: float, n: int = N) -> Any:
    return terms_of_round(
        settings, clip=1.0, multiplier=multiplier, n=n, quorum=n - 2, honest=n - 4
    )


@pytest.mark.req("X-09", "B-01")
def test_a_round_costs_its_dearest_case() -> None:
    offer = private_offer()
    assert cost_of(msgspec.structs.replace(offer, dp=None)).event == Unprotected()
    assert cost_of(msgspec.structs.replace(offer, dp=None)).unit == NONE
    plan = private_plan(dropout=0.3)
    offer = build_offer(plan, make_state(), NAMES, 1)
    cost = cost_of(offer)
    assert cost.unit == CLIENT
    assert isinstance(cost.event, SumNoise)
    encoding = noised_encoding_of(offer, noise_of(offer))
    cases = components_of(encoding, N, offer.colluders).cases
    assert len(cases) == len(noise_of(offer).drop_levels) > 1
    plain = encoding.event(noise_of(offer).honest)
    singles = [
        epsilon_of(
            [
                replace(
                    plain,
                    share_variance=case.share_variance,
                    shares=case.shares,
                    parts=case.parts if len(case.parts) > 1 else (),
                )
            ],
            DELTA,
        )
        for case in cases
    ]
    assert epsilon_of([cost.event], DELTA) >= max(singles) * (1 - 1e-9)
    for case in cases:
        assert case.shares * case.share_variance >= plain.shares * plain.share_variance


@pytest.mark.req("S-18")
def test_the_noise_is_the_least_with_which_all_planned_rounds_fit() -> None:
    settings = make_settings(noise_multiplier=0.0, epsilon=12.0, spare=0.5)
    assert settings.planned_rounds(4) == 6
    found = multiplier_of(
        settings,
        rounds=4,
        terms=lambda z: terms(settings, z),
        sizes=(DIM, EMBEDDING),
        cohort=(N, 2),
        exposed=0.0,
        spent=[],
    )

    def epsilon(multiplier: float, rounds: int) -> float:
        made = private_encoding(
            terms(settings, multiplier), model_dim=DIM, embedding_dim=EMBEDDING
        ).event(N - 4)
        return epsilon_of({made: rounds}, DELTA)

    assert epsilon(found, 6) <= 12.0 * (1 + 1e-6)
    assert epsilon(found * 0.98, 6) > 12.0
    assert epsilon(found, 7) > 12.0


@pytest.mark.req("S-18", "B-08")
def test_what_was_spent_before_is_counted_also_if_it_was_the_very_same_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings(noise_multiplier=0.0)
    planned: list[dict[Any, int]] = []
    monkeypatch.setattr(
        "nodes.session.privacy.multiplier_for",
        lambda target, **_: planned.append(dict(target(0.5))) or 0.5,
    )
    arguments = {"terms": lambda z: terms(settings, z), "sizes": (DIM, EMBEDDING), "cohort": (N, 2)}
    multiplier_of(settings, rounds=2, spent=[], exposed=0.0, **arguments)
    (same,) = planned[0]
    multiplier_of(settings, rounds=2, spent=[same, same, same], exposed=0.0, **arguments)
    assert planned == [{same: 2}, {same: 5}]


def test_a_multiplier_that_is_set_is_taken_and_one_that_the_run_fixed_stays() -> None:
    plan = private_plan()
    assert noise_of(build_offer(plan, make_state(), NAMES, 1)).noise_multiplier == MULTIPLIER
    state = make_state(noise_multiplier=0.2, clip=2.5)
    offer = build_offer(plan, state, NAMES, 1)
    assert noise_of(offer).noise_multiplier == 0.2
    assert noise_of(offer).clip == 2.5
    assert cost_of(offer).event != cost_of(private_offer()).event


@pytest.mark.req("P-07")
@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "row"},
        {"mechanism": "laplace"},
        {"epsilon": float("nan")},
        {"epsilon": 0.0},
        {"delta": 0.5},
        {"noise_multiplier": -1.0},
        {"clip": 0.0},
        {"scale_bits": 24},
        {"excess_levels": 16},
        {"quantile": 0.99},
        {"spare": float("inf")},
    ],
)
def test_settings_out_of_range_are_refused_by_name(changes: dict[str, object]) -> None:
    (name,) = changes
    with pytest.raises(ConfigError, match=rf"privacy\.{name} is"):
        make_settings(**changes)


# --- receipts ------------------------------------------------------------------------------------


def receipt(rounds: int, name: str = "node-1") -> bytes:
    ledger = MemoryLedger()
    for round_id in range(rounds):
        ledger.spend(RUN, round_id, NONE, Unprotected(), now=1.0)
    return make_receipt(TestSigner(name), ledger.history()).to_bytes()


KEY: Final = TestSigner("node-1").public


@pytest.mark.req("B-07")
def test_the_longest_receipt_is_kept_and_an_older_one_never_replaces_it() -> None:
    receipts = Receipts({})
    assert receipts.of("node-1") == b""
    for rounds, kept in ((2, 2), (1, 2), (2, 2), (5, 5), (3, 5)):
        step = receipts.take("node-1", receipt(rounds), KEY)
        assert receipts.of("node-1") == receipt(kept)
        assert bool(step.events) == (rounds == kept and (rounds, kept) != (2, 2)) or rounds == 2
    with pytest.raises(AuthenticationError):
        receipts.take("node-1", receipt(9, "node-2"), KEY)
    with pytest.raises(AuthenticationError):
        receipts.take("node-1", receipt(9)[:-1] + b"\0", KEY)
    assert receipts.of("node-1") == receipt(5)


@pytest.mark.req("B-07", "B-11")
@pytest.mark.parametrize(
    "stored", [b"", b"garbage", receipt(9)[:-1] + b"\0", receipt(9, "node-2"), b"\xff" * 256]
)
def test_a_stored_receipt_that_does_not_hold_keeps_nobody_out(stored: bytes) -> None:
    """Damaged on the disk, or of a key that was rotated since; the node is not blamed for it."""
    receipts = Receipts({"node-1": stored})
    step = receipts.take("node-1", receipt(1), KEY)
    assert len(step.events) == 1
    assert receipts.of("node-1") == receipt(1)


@pytest.mark.req("B-07")
def test_receipts_come_back_from_the_disk_and_what_is_none_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "receipts"
    assert load_receipts(folder) == {}
    save_receipt(folder, "node-1", receipt(1))
    save_receipt(folder, "node-1", receipt(2))
    (folder / "folder").mkdir()
    (folder / ".node-2").write_bytes(b"cut off")
    (folder / "node-3").write_bytes(bytes(1 << 20))
    found = load_receipts(folder)
    assert found["node-1"] == receipt(2)
    assert set(found) == {"node-1", "node-3"}
    assert len(found["node-3"]) <= 256, "or no welcome could carry it"


# --- the simulator -------------------------------------------------------------------------------


@pytest.mark.req("T-08")
def test_the_simulator_plays_noised_rounds_and_reports_what_they_cost() -> None:
    arguments = ["simulate", "--nodes", "16", "--rounds", "2", "--no-train", "--unit", "client"]
    arguments += ["--epsilon", "30", "--delta", "0.1", "--tolerance", "0.1", "--json"]
    result = CliRunner().invoke(secagg, [*arguments, "--collusion", "0"])
    assert result.exit_code == 0, result.output
    summary = msgspec.json.decode(result.stdout)
    assert summary["privacy"]["unit"] == "client"
    assert [row["outcome"] for row in summary["rounds"]] == ["done", "done"]
    spent = [row["epsilon"] for row in summary["rounds"]]
    assert 0 < spent[0] < spent[1] <= 30
    assert all(row["exact"] and row["loss"] is None for row in summary["rounds"])


def test_the_simulator_says_why_a_budget_is_too_small() -> None:
    arguments = ["simulate", "--nodes", "12", "--rounds", "2", "--no-train", "--unit", "client"]
    result = CliRunner().invoke(secagg, [*arguments, "--epsilon", "1"])
    assert result.exit_code != 0
    assert "too strong to read a mean" in str(result.exception)


def test_the_run_of_these_tests_has_the_budget_that_it_says() -> None:
    run: Run = private_run()
    cost = cost_of(private_offer())
    two, three = (epsilon_of({cost.event: rounds}, DELTA) for rounds in (2, 3))
    assert two <= EPSILON < three
    assert len(run.names) == N


def test_levels_are_left_out_of_large_models_unless_they_were_asked_for() -> None:
    def levels(count: int, dim: int) -> int:
        settings = make_settings(excess_levels=count)
        made = terms_of_round(
            settings, clip=1.0, multiplier=1.0, n=30, quorum=20, honest=15, dim=dim
        )
        return len(made.drop_levels)

    assert (levels(-1, 1 << 18), levels(-1, (1 << 18) + 1)) == (5, 0)
    assert (levels(2, 1 << 20), levels(0, 100)) == (3, 0)


@pytest.mark.req("X-10", "S-19")
def test_parts_that_are_hardly_noise_are_refused() -> None:
    """A draw of variance parameter 1/16 has next to no variance: what is left would matter."""
    settings = make_settings(scale_bits=4)
    coarse = msgspec.structs.replace(
        terms(settings, 0.3), honest=N - 4, drop_levels=(0, 1, 2), scale=8
    )
    encoding = private_encoding(coarse, model_dim=DIM, embedding_dim=EMBEDDING)
    with pytest.raises(ConfigError, match="noise in parts of"):
        components_of(encoding, N, 2)


@pytest.mark.req("Z-08")
def test_a_drawn_graph_or_committee_costs_what_it_may_expose() -> None:
    assert exposure(9, 10, None) == exposure(9, 10, 10) == 0.0
    assert exposure(8, 10, None) == exposure(9, 10, 9) == 2.0**-40
    plan = private_plan()
    offer = build_offer(plan, make_state(), NAMES, 1)
    whole = cost_of(offer).event
    sparse = cost_of(msgspec.structs.replace(offer, neighbours=len(NAMES) - 2)).event
    assert isinstance(whole, SumNoise)
    assert isinstance(sparse, SumNoise)
    assert sparse.truncation == pytest.approx(whole.truncation + 2.0**-40)
