"""Every pattern of dropouts in small cohorts, and random ones in larger ones.

A pattern says for each node before which of its messages it dies, or that it lives. What must come
out of a pattern is computed here from counting alone, so a round that aborts without need fails a
test as much as a sum that is not exact. Patterns whose deaths come after the round has failed play
out alike and are played once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from secagg.masking.graph import Graph
from secagg.round_setup import RoundSetup
from secagg.steps import InputRejected
from secagg.types import AbortReason, NodeId
from secagg.wire.messages import (
    UPLOAD_SLOTS,
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    SealedShares,
    SurvivorSignature,
    UnmaskAnswer,
)
from tests.support.fleet import make_setup
from tests.support.schedules import ALIVE, STAGES, Round, check, late, plain_sum

REASONS = {
    KeyAdvert: AbortReason.TOO_FEW_KEYS,
    Coin: AbortReason.TOO_FEW_KEYS,
    Encapsulations: AbortReason.TOO_FEW_AGREEMENTS,
    SealedShares: AbortReason.TOO_FEW_SHARES,
    MaskedChunk: AbortReason.TOO_FEW_INPUTS,
    SurvivorSignature: AbortReason.TOO_FEW_SIGNATURES,
    UnmaskAnswer: AbortReason.TOO_FEW_UNMASK_ANSWERS,
}
WITHOUT_COINS = tuple(i for i, (kind, _) in enumerate(STAGES) if kind is not Coin)
LATE = (SurvivorSignature, UnmaskAnswer)
AFTER_INPUT = STAGES.index((SurvivorSignature, 0))

DEATHS = ("silent", "announced", "early")
"""The coordinator has to find out; it is told when the next message is due; or before that."""
Pattern = Mapping[NodeId, int]


def small(n: int) -> RoundSetup:
    """A round of two chunks an upload, so that a node can die between them."""
    return make_setup(n, dim=11, chunk_values=8)


def failing_stage(setup: RoundSetup, dies: Pattern) -> int:
    """Return the stage at which too few are left on the complete graph; ALIVE if there is none."""
    for stage in WITHOUT_COINS:
        needed = setup.cosigners if STAGES[stage][0] in LATE else setup.quorum
        if sum(when > stage for when in dies.values()) < needed:
            return stage
    return ALIVE


def patterns(setup: RoundSetup) -> Iterator[dict[NodeId, int]]:
    """Yield each pattern on the complete graph; of those that play out alike, one."""
    played: set[tuple[int, ...]] = set()
    for when in itertools.product((*WITHOUT_COINS, ALIVE), repeat=len(setup.cohort)):
        dies = dict(zip(setup.cohort, when, strict=True))
        fails = failing_stage(setup, dies)
        if STAGES[min(fails, ALIVE - 1)] == (MaskedChunk, 0):
            fails = STAGES.index((MaskedChunk, 1))  # both belong to one phase
        met = tuple(stage if stage <= fails else ALIVE for stage in when)
        if met not in played:
            played.add(met)
            yield dict(zip(setup.cohort, met, strict=True))


def play(setup: RoundSetup, dies: Pattern, deaths: str, seed: int) -> Round:
    announced, early = deaths != "silent", deaths == "early"
    return Round(setup, dies=dies, announced=announced, early=early, seed=seed).play()


def plays_as_expected(setup: RoundSetup, dies: Pattern, *, deaths: str, seed: int = 1) -> Round:
    """Play a pattern on the complete graph; compare with what counting says."""
    played = Round(
        setup, dies=dies, early=deaths == "early", announced=deaths != "silent", seed=seed
    ).play()
    check(played)
    assert not played.errors
    assert not played.blamed
    took_no_longer_than_it_must(played)
    stage = failing_stage(setup, dies)
    if stage < ALIVE:
        assert played.reason is REASONS[STAGES[stage][0]], dies
    else:
        named = tuple(sorted(node for node, when in dies.items() if when >= AFTER_INPUT))
        assert played.contributors == named, dies
        nobody_gave_up(played)
    return played


def took_no_longer_than_it_must(played: Round) -> None:
    """Nobody is waited for that is known to be gone; others cost one deadline a phase and turn."""
    setup, uploads = played.setup, -(-len(played.setup.cohort) // UPLOAD_SLOTS)
    assert played.ended_at is not None
    if played.announced and not played.refused:
        assert played.ended_at == 0.0
    phases = len(STAGES) - 3 + uploads  # all but the first, and the chunks
    assert played.ended_at <= setup.input_timeout + phases * setup.phase_timeout


def nobody_gave_up(played: Round) -> None:
    """Nobody who took part to the end ran into its own deadline while others died."""
    rejected = [node for node, event in played.events if isinstance(event, InputRejected)]
    assert not set(rejected) & (set(played.contributors) - played.dead)


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.req("M-15")
@pytest.mark.parametrize("deaths", DEATHS)
@pytest.mark.parametrize("n", [3, 4])
def test_every_pattern_of_three_and_four_nodes(n: int, deaths: str) -> None:
    setup, ends = small(n), Counter[AbortReason | None]()
    for dies in patterns(setup):
        ends[plays_as_expected(setup, dies, deaths=deaths).reason] += 1
    assert set(ends) == {None, *REASONS.values()}


@pytest.mark.slow
@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deaths", DEATHS)
def test_every_pattern_of_five_nodes(deaths: str) -> None:
    setup = small(5)
    for dies in patterns(setup):
        plays_as_expected(setup, dies, deaths=deaths)


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.parametrize("n", [5, 6, 9])
def test_random_patterns_of_more_nodes(n: int) -> None:
    """Half of the patterns are drawn so that few die, or else hardly a round would get far."""
    setup, rng = small(n), np.random.default_rng(n)
    ends = Counter[AbortReason | None]()
    for seed in range(80):
        stages = rng.choice(WITHOUT_COINS, n)
        lives = rng.random(n) > (0.5 if seed % 2 else 1 / n)
        dies = {
            node: ALIVE if alive else int(stage)
            for node, stage, alive in zip(setup.cohort, stages, lives, strict=True)
        }
        deaths = DEATHS[rng.integers(3)]
        played = plays_as_expected(setup, dies, deaths=deaths, seed=seed)
        ends[played.reason] += 1
    assert ends[None] > 20
    assert len(ends) > 4


# --- sparse graphs and their coins ---------------------------------------------------------------


def sparse(n: int, neighbours: int, threshold: int, quorum: int) -> RoundSetup:
    return make_setup(
        n,
        dim=11,
        chunk_values=8,
        neighbours=neighbours,
        threshold=threshold,
        quorum=quorum,
        colluders=0,
    )


class Expected:
    """How a round ends on whatever graph, from the pattern and the graph that was drawn."""

    def __init__(self, played: Round, dies: Pattern) -> None:
        self.setup, self.dies, self.played = played.setup, dies, played
        self.graph: Graph = played.coordinator._seen.graph  # type: ignore[attr-defined]
        self.survivors: tuple[NodeId, ...] = ()
        self.reason = self._reason()

    def _past(self, stage: tuple[type, int], among: set[NodeId]) -> set[NodeId]:
        index = STAGES.index(stage)
        return {node for node in among if self.dies[node] > index}

    def _has_lonely(self, among: set[NodeId]) -> bool:
        """Tell whether somebody and its neighbours `among` are fewer than the threshold."""
        return any(
            len(self.graph.neighbours(node) & among) + 1 < self.setup.threshold for node in among
        )

    def _reason(self) -> AbortReason | None:
        quorum, cosigners = self.setup.quorum, self.setup.cosigners
        alive = self._past((KeyAdvert, 0), set(self.setup.cohort))
        if len(alive) < quorum:
            return AbortReason.TOO_FEW_KEYS
        circle = set(self.graph.circle)
        if 2 * -(-self.setup.neighbours // 2) < len(alive) - 1:
            if not circle:  # whom the coordinator knows to be gone it does not ask for coins
                assert self.played.reason in (
                    AbortReason.TOO_FEW_KEYS,
                    AbortReason.COINS_MISSING,
                )
                assert self._past((Coin, 4), alive) < alive
                return self.played.reason
            assert self._past((Coin, 4), alive) <= circle <= self._past((Coin, 1), alive)
            alive = circle
        assert circle == alive
        for stage, reason in (
            ((Encapsulations, 0), AbortReason.TOO_FEW_AGREEMENTS),
            ((SealedShares, 0), AbortReason.TOO_FEW_SHARES),
        ):
            alive = self._past(stage, alive)
            if len(alive) < quorum:
                return reason
            if self._has_lonely(alive):
                return AbortReason.GRAPH_TOO_THIN
        sharers, alive = alive, self._past((MaskedChunk, 1), alive)
        self.survivors = tuple(sorted(alive))
        if len(alive) < quorum:
            return AbortReason.TOO_FEW_INPUTS
        if not self._is_whole(alive):
            return AbortReason.GRAPH_TOO_THIN
        alive = self._past((SurvivorSignature, 0), alive)
        if len(alive) < cosigners:
            return AbortReason.TOO_FEW_SIGNATURES
        alive = self._past((UnmaskAnswer, 0), alive)
        if len(alive) < cosigners:
            return AbortReason.TOO_FEW_UNMASK_ANSWERS
        for owner in sharers:
            holders = self.graph.neighbours(owner) | {owner}
            if len(holders & alive) < self.setup.threshold:
                return AbortReason.BAD_SHARES
        return None

    def _is_whole(self, alive: set[NodeId]) -> bool:
        """Count each window by itself."""
        circle, half = self.graph.circle, self.graph.half
        windows = ([circle[(i + j) % len(circle)] for j in range(half)] for i in range(len(circle)))
        least = self.setup.threshold // 2 + 1
        return not half or all(len(alive & set(window)) >= least for window in windows)


def plays_on_a_graph(setup: RoundSetup, dies: Pattern, *, deaths: str, seed: int) -> Round:
    played = Round(
        setup, dies=dies, early=deaths == "early", announced=deaths != "silent", seed=seed
    ).play()
    check(played)
    expected = Expected(played, dies)
    assert not played.blamed
    assert not played.errors
    assert not played.refused
    took_no_longer_than_it_must(played)
    assert played.reason is expected.reason, dies
    if expected.reason is None:
        assert played.contributors == expected.survivors
        nobody_gave_up(played)
    return played


@pytest.mark.req("M-01")
@pytest.mark.req("M-06")
@pytest.mark.parametrize("deaths", DEATHS)
def test_every_place_where_one_node_of_a_sparse_graph_can_die(deaths: str) -> None:
    setup, ends = sparse(9, 6, 3, 6), Counter[AbortReason | None]()
    for seed, (node, stage) in enumerate(itertools.product(setup.cohort[:3], range(ALIVE))):
        dies = {**dict.fromkeys(setup.cohort, ALIVE), node: stage}
        ends[plays_on_a_graph(setup, dies, deaths=deaths, seed=seed).reason] += 1
    assert ends == {None: 3 * ALIVE}


SPARSE = [
    (9, 6, 3, 6),
    (12, 6, 3, 8),
    (12, 8, 5, 7),
    (20, 10, 5, 12),
]
"""Cohort, degree, threshold and quorum; far thinner than a node's policy would allow."""


def random_pattern(setup: RoundSetup, rng: np.random.Generator) -> dict[NodeId, int]:
    """Few die, or many, or in one stage only, or one in each toss of the coins."""
    n, mode = len(setup.cohort), rng.integers(4)
    stages = rng.integers(0, ALIVE, n)
    if mode == 0:
        stages[:] = rng.integers(0, ALIVE)
    lives = rng.random(n) > (0.3 if mode == 1 else 0.1)
    dies = np.where(lives, ALIVE, stages)
    if mode == 3:
        tossers = rng.permutation(n)[: rng.integers(1, 5)]
        dies[tossers] = np.arange(1, len(tossers) + 1)
    return {node: int(stage) for node, stage in zip(setup.cohort, dies, strict=True)}


@pytest.mark.req("M-01")
@pytest.mark.req("M-06")
@pytest.mark.req("M-14")
@pytest.mark.req("M-25")
def test_random_patterns_on_sparse_graphs() -> None:
    ends, rng = Counter[AbortReason | None](), np.random.default_rng(5)
    for seed in range(120):
        setup = sparse(*SPARSE[seed % len(SPARSE)])
        dies = random_pattern(setup, rng)
        ends[plays_on_a_graph(setup, dies, deaths=DEATHS[seed % 3], seed=seed).reason] += 1
    assert ends[None] > 20
    assert ends[AbortReason.GRAPH_TOO_THIN]
    assert ends[AbortReason.COINS_MISSING]
    assert len(ends) > 5


@pytest.mark.req("M-01")
@pytest.mark.req("M-14")
@pytest.mark.parametrize("n", [24, 40])
@pytest.mark.parametrize("degree", ["complete", "sparse"])
def test_random_patterns_of_up_to_forty_nodes(n: int, degree: str) -> None:
    rng, quorum = np.random.default_rng(n), -(-2 * n // 3)
    setup = sparse(n, 16, 7, quorum) if degree == "sparse" else small(n)
    for seed in range(3):
        chosen = rng.permutation(n)[: n // 4 + seed * n // 8]
        dies = dict.fromkeys(setup.cohort, ALIVE)
        dies |= {setup.cohort[i]: int(rng.integers(0, ALIVE)) for i in chosen}
        plays_on_a_graph(setup, dies, deaths=DEATHS[seed % 3], seed=seed)


@pytest.mark.slow
@pytest.mark.req("M-01")
@pytest.mark.req("M-25")
@pytest.mark.timeout(1800)
def test_many_random_patterns_on_sparse_graphs() -> None:
    rng = np.random.default_rng(6)
    for seed in range(1500):
        setup = sparse(*SPARSE[seed % len(SPARSE)])
        dies = random_pattern(setup, rng)
        plays_on_a_graph(setup, dies, deaths=DEATHS[seed % 3], seed=seed)


@pytest.mark.req("M-15")
@pytest.mark.req("M-22")
@pytest.mark.parametrize("n", [12, 40])
def test_slow_uploads_all_count_whenever_their_turn_is(n: int) -> None:
    """Turns that begin later end later, and who uploads first bears to wait for the last.

    The slowest uploads that a coordinator takes, eight at a time, and one node that is silent.
    """
    setup = small(n)
    upload_time = 0.9 * setup.phase_timeout
    slow = late(MaskedChunk, setup.cohort, upload_time)
    silent = setup.cohort[2]
    played = Round(setup, network=slow, dies={silent: STAGES.index((MaskedChunk, 0))}).play()
    check(played)
    assert played.contributors == tuple(node for node in setup.cohort if node != silent)
    nobody_gave_up(played)
    assert played.ended_at is not None
    assert played.ended_at <= -(-n // UPLOAD_SLOTS) * setup.phase_timeout


@pytest.mark.req("M-22")
def test_turns_pass_over_nodes_that_have_left_while_they_waited() -> None:
    """Of 24 nodes the 8 that are next in line leave; nobody behind them waits for a deadline."""
    setup = small(24)
    played = Round(setup).start()
    while played.coordinator.phase != "input":  # type: ignore[attr-defined]
        played.arrive(min(played.flying))
    lost = [*played.coordinator._uploads._turns._queue][:UPLOAD_SLOTS]  # type: ignore[attr-defined]
    for node in lost:
        played.dead.add(node)
        played.deadlines.pop(node)
        played.gone(node)
    check(played.play())
    assert played.contributors == tuple(node for node in setup.cohort if node not in lost)
    assert played.ended_at == 0.0


# --- what the check itself would notice ----------------------------------------------------------


def test_the_check_notices_a_sum_that_is_not_exact() -> None:
    played = Round(small(3)).play()
    assert played.total is not None
    assert np.array_equal(played.total, plain_sum(played, played.contributors))
    played.total[0] ^= 1
    with pytest.raises(AssertionError, match="not exact"):
        check(played)


def test_the_check_notices_a_node_both_of_whose_secrets_came_out() -> None:
    played = Round(small(3)).play()
    holder, answer = next((s, m) for s, m in played.sent if isinstance(m, UnmaskAnswer))
    both = UnmaskAnswer(answer.round_id, answer.self_shares, answer.self_shares)
    played.sent[played.sent.index((holder, answer))] = (holder, both)
    with pytest.raises(AssertionError, match="both secrets"):
        check(played)


def test_the_check_notices_a_node_that_waits_for_ever() -> None:
    played = Round(small(3)).play()
    played.over.discard(played.setup.cohort[0])
    with pytest.raises(AssertionError):
        check(played)
