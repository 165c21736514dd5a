"""What the coordinator sees: statistics over all that it receives in honest rounds.

`CHECKS` are claims about the evidence of some thirty rounds, each with a false-alarm rate of at
most `statistics.RATE` (1e-6) whatever the machine's randomness gives, since ML-KEM draws its own.
`PLANTS` are weaknesses, most of which leave the sum exact; each says which checks must catch it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.masking import masks, pairs, recovery
from secagg.primitives.kdf import derive
from secagg.primitives.prg import accumulate
from secagg.primitives.shamir import SHARE_SIZE
from secagg.tags import PAIR_MASK
from secagg.types import NodeId, RingVector, RoundSetup
from secagg.wire.messages import (
    Coin,
    Encapsulations,
    KeyAdvert,
    MaskedChunk,
    SealedShares,
    UnmaskAnswer,
)
from tests.support.coordinator_view import View
from tests.support.fleet import make_setup
from tests.support.schedules import Round, late, plain_sum, stage_of
from tests.support.statistics import Battery

N, DIM, ROUNDS = 6, 8192, 6
BITS = ring_bits_for(N, 16)
INPUT_STAGE = stage_of(MaskedChunk(0, 0, b"", b""))


def setup_at(round_id: int, n: int = N, **changes: Any) -> RoundSetup:
    return make_setup(n, dim=DIM, chunk_values=DIM, round_id=round_id, **changes)


def chosen_inputs() -> tuple[dict[NodeId, RingVector], dict[NodeId, RingVector]]:
    """Two inputs that differ as much as inputs can: zeros, and a drift with a strong pattern."""
    cohort, rng = setup_at(0).cohort, np.random.default_rng(3)
    drift = rng.normal(0.0, 3000.0, DIM) + 15_000.0 * np.sign(np.sin(np.arange(DIM) / 50.0))
    pattern = (drift.astype(np.int64) % (1 << BITS)).astype(np.uint32)
    zeros = np.zeros(DIM, dtype=np.uint32)
    return dict.fromkeys(cohort, zeros), dict.fromkeys(cohort, pattern)


@dataclass
class Evidence:
    """All that the checks look at."""

    zero: list[View] = field(default_factory=list)
    """Rounds of the same input, zeros."""
    pattern: list[View] = field(default_factory=list)
    """Rounds of the same input, the pattern."""
    dropped: list[View] = field(default_factory=list)
    """Rounds of zeros in which one node dies and the upload of another one comes too late."""
    sparse: list[View] = field(default_factory=list)
    """Rounds of zeros on a sparse graph."""

    @property
    def all(self) -> list[View]:
        return [*self.zero, *self.pattern, *self.dropped, *self.sparse]


def gather(*, seed: int | None = None) -> Evidence:
    """Play the rounds, with fresh secrets for every one, or with a generator stuck at `seed`."""
    evidence, ids = Evidence(), itertools.count(1)

    def view(setup: RoundSetup, inputs: dict[NodeId, RingVector], **faults: Any) -> View:
        drawn = setup.round_id if seed is None else seed
        return View(Round(setup, inputs=inputs, seed=drawn, **faults).play())

    zeros, pattern = chosen_inputs()
    for inputs, views in ((zeros, evidence.zero), (pattern, evidence.pattern)):
        views += [view(setup_at(next(ids)), inputs) for _ in range(ROUNDS)]
    for _ in range(2):
        setup = setup_at(next(ids))
        slow = late(MaskedChunk, setup.cohort[4:5], 2 * setup.phase_timeout)
        dies = {setup.cohort[1]: INPUT_STAGE}
        evidence.dropped.append(view(setup, zeros, network=slow, dies=dies))
    setup = setup_at(next(ids), 9, neighbours=6, threshold=3, quorum=6, colluders=0)
    nothing = dict.fromkeys(setup.cohort, np.zeros(DIM, dtype=np.uint32))
    evidence.sparse.append(view(setup, nothing))
    return evidence


@functools.cache
def honest() -> Evidence:
    return gather()


# --- the claims ----------------------------------------------------------------------------------


def uploads(evidence: Evidence) -> Battery:
    """Every upload is uniform, as coordinates and as bytes of the wire."""
    battery = Battery()
    for view in evidence.all:
        for node, vector in view.uploads.items():
            label = f"round {view.setup.round_id}, {node}"
            battery.uniform(label, vector, view.setup.ring_bits)
        for node, message in view.received(MaskedChunk):
            battery.uniform_bytes(f"round {view.setup.round_id}, {node}, bytes", message.data)
    return battery


def sums_before_unmasking(evidence: Evidence) -> Battery:
    """So is the sum of any uploads, of all of them too, before self-mask seeds are revealed."""
    battery = Battery()
    for view in (evidence.zero[0], evidence.dropped[0]):
        for nodes in parts_of(tuple(view.uploads), proper=False):
            total = np.zeros(DIM, dtype=np.uint32)
            for node in nodes:
                total += view.uploads[node]
            battery.uniform(f"{nodes}", ring.reduce(total, BITS), BITS)
    return battery


def sums_after_unmasking(evidence: Evidence) -> Battery:
    """The sum of some, not all survivors stays uniform when all that is revealed is taken off."""
    battery = Battery()
    for view in (evidence.zero[0], evidence.pattern[0], *evidence.dropped):
        for nodes in parts_of(view.survivors, proper=True):
            battery.uniform(f"{view.setup.round_id} {nodes}", view.residual(nodes), BITS)
    (view,) = evidence.sparse
    circle = view.played.coordinator._seen.graph.circle  # type: ignore[attr-defined]
    for start, size in itertools.product(range(len(circle)), range(1, len(circle) - 1)):
        arc = [circle[(start + step) % len(circle)] for step in range(size)]
        battery.uniform(f"arc {start} {size}", view.residual(arc), view.setup.ring_bits)
    return battery


def late_uploads(evidence: Evidence) -> Battery:
    """An upload that came too late is uniform though all of its pair masks are revealed."""
    battery = Battery()
    for view in evidence.dropped:
        (node,) = set(view.uploads) - set(view.survivors)
        battery.uniform(f"round {view.setup.round_id}", view.late_upload(node), BITS)
    return battery


def two_rounds(evidence: Evidence) -> Battery:
    """What the coordinator sees of a node in two rounds of the same input is unrelated."""
    battery = Battery()
    for views in (evidence.zero, evidence.pattern):
        for one, two in itertools.pairwise(views):
            for node in one.uploads:
                label = f"{one.setup.round_id} {two.setup.round_id} {node}"
                battery.unrelated(label, one.uploads[node], two.uploads[node], BITS)
                seen = one.residual([node]), two.residual([node])
                battery.unrelated(f"{label}, unmasked", *seen, BITS)
    return battery


def two_nodes(evidence: Evidence) -> Battery:
    """What the coordinator sees of two nodes in a round is unrelated."""
    battery = Battery()
    for view in (*evidence.zero[:2], evidence.pattern[0], *evidence.dropped):
        for one, two in itertools.combinations(view.survivors, 2):
            label = f"{view.setup.round_id} {one} {two}"
            battery.unrelated(label, view.uploads[one], view.uploads[two], BITS)
            seen = view.residual([one]), view.residual([two])
            battery.unrelated(f"{label}, unmasked", *seen, BITS)
    return battery


def single_masks(evidence: Evidence) -> Battery:
    """To a coalition that leaves two nodes out, their mask is uniform and like no other mask.

    So is each self-mask to a coalition of all other nodes, until it is revealed.
    """
    battery, rows = Battery(), list[RingVector]()
    for view in evidence.zero:
        for node in view.survivors:
            found = [view.between(node, peer) for peer in view.survivors if peer > node]
            for vector in (view.self_masked(node), *found):
                battery.uniform(f"{view.setup.round_id} {node} {len(rows)}", vector, BITS)
                rows.append(vector)
    battery.no_coincidences("masks", np.array(rows), BITS)
    return battery


def plain_update(evidence: Evidence) -> Battery:
    """No upload is correlated with its plain input, unmasked as far as it may be or not."""
    battery = Battery()
    for view in (*evidence.zero, *evidence.pattern):
        for node in view.survivors:
            plain = view.played.inputs[node]
            label = f"{view.setup.round_id} {node}"
            battery.independent(label, view.uploads[node], plain, BITS)
            battery.independent(f"{label}, unmasked", view.residual([node]), plain, BITS)
    return battery


def which_input(evidence: Evidence) -> Battery:
    """Nobody can tell which of two chosen inputs a node masked, even with rounds to learn from."""
    battery, half = Battery(), ROUNDS // 2
    for name, see in (("uploads", see_upload), ("unmasked", see_unmasked)):
        right = tries = 0
        for node in setup_at(0).cohort:
            seen = [[see(v, node) for v in views] for views in (evidence.zero, evidence.pattern)]
            templates = [sum(phases(vector) for vector in views[:half]) for views in seen]
            for truth, views in enumerate(seen):
                for vector in views[half:]:
                    score = [float((phases(vector).conj() @ t).real) for t in templates]
                    right += score[truth] > score[1 - truth]
                    tries += 1
        battery.guesses(name, right, tries)
        for shift in (0, BITS - 8):
            bytes_ = [
                np.array([see(v, v.survivors[0]) >> shift & 255 for v in views])
                for views in (evidence.zero, evidence.pattern)
            ]
            battery.alike(f"{name} >> {shift}", *bytes_)
    return battery


def see_upload(view: View, node: NodeId) -> RingVector:
    return view.uploads[node]


def see_unmasked(view: View, node: NodeId) -> RingVector:
    return view.residual([node])


def phases(vector: RingVector) -> NDArray[np.complex128]:
    """Map residues to the unit circle, where means make sense."""
    circle: NDArray[np.complex128] = np.exp(2j * np.pi * vector / (1 << BITS))
    return circle


def all_else(evidence: Evidence) -> Battery:
    """Keys, commitments, capsules, boxes, backups and shares never come twice in any rounds.

    What is sealed or shared has uniform bytes, and no two boxes have a keystream in common: in
    each the top bytes of both shares, which all but surely are zero, show the keystream itself.
    """
    battery = Battery()
    boxes, backups, shares, rest = (list[bytes]() for _ in range(4))
    for view in evidence.all:
        for _, advert in view.received(KeyAdvert):
            rest += [advert.agreement_key, advert.kem_key, advert.round_commitment]
            rest += [advert.self_commitment, advert.coin_commitment, advert.signature]
        rest += [message.coin for _, message in view.received(Coin)]
        for _, keys in view.received(Encapsulations):
            rest += [part for _, *parts in keys.capsules for part in parts]
        for _, sealed in view.received(SealedShares):
            boxes += [box for _, box in sealed.boxes]
            backups.append(sealed.backup)
        for _, answer in view.received(UnmaskAnswer):
            shares += [share for _, share in (*answer.self_shares, *answer.key_shares)]
    battery.distinct("everything", [*boxes, *backups, *shares, *rest])
    battery.distinct("starts of boxes", [box[:32] for box in boxes])
    battery.distinct("starts of backups", [backup[:32] for backup in backups])
    for name, items in (("boxes", boxes), ("backups", backups)):
        battery.uniform_bytes(name, b"".join(items))
    battery.uniform_bytes("shares", b"".join(share[:32] for share in shares))
    tops = [(box[SHARE_SIZE - 1], box[2 * SHARE_SIZE - 1]) for box in boxes]
    equal = sum(one == two for one, two in itertools.combinations(tops, 2))
    battery.rare("keystreams of boxes", equal, of=math.comb(len(tops), 2), chance=2.0**-16)
    return battery


def exact_sum(evidence: Evidence) -> Battery:
    """The control: with everybody's upload the same steps give the plain sum, bit for bit."""
    battery = Battery()
    for view in evidence.all:
        plain = plain_sum(view.played, view.survivors)
        found = view.residual(view.survivors), view.played.total
        equal = all(each is not None and np.array_equal(each, plain) for each in found)
        battery.p_values[f"round {view.setup.round_id}"] = float(equal)
    return battery


CHECKS: dict[str, Callable[[Evidence], Battery]] = {
    claim.__name__: claim
    for claim in (
        uploads,
        sums_before_unmasking,
        sums_after_unmasking,
        late_uploads,
        two_rounds,
        two_nodes,
        single_masks,
        plain_update,
        which_input,
        all_else,
        exact_sum,
    )
}


def parts_of(nodes: tuple[NodeId, ...], *, proper: bool) -> Iterator[tuple[NodeId, ...]]:
    """Yield the subsets that are not empty; `proper`: and not all."""
    for size in range(1, len(nodes) + (not proper)):
        yield from itertools.combinations(nodes, size)


@pytest.mark.req("T-01")
@pytest.mark.req("M-23")
@pytest.mark.req("M-05")
@pytest.mark.parametrize("name", CHECKS)
def test_of_an_honest_round_the_coordinator_sees_nothing_but_the_sum(name: str) -> None:
    assert not CHECKS[name](honest()).alarms()


@pytest.mark.req("M-07")
@pytest.mark.req("M-17")
@pytest.mark.parametrize("name", [name for name in CHECKS if name != "all_else"])
def test_nor_where_the_generators_of_all_nodes_repeat_themselves(name: str) -> None:
    """Masks are bound to the round, so even then no two are alike."""
    assert not CHECKS[name](repetitive()).alarms()


@functools.cache
def repetitive() -> Evidence:
    return gather(seed=1)


# --- planted failures ----------------------------------------------------------------------------

NOTHING = b""
"""A seed that stands for no mask."""
Patch = pytest.MonkeyPatch


def replace_masks(patch: Patch, name: str, planted: Callable[..., masks.Mask]) -> None:
    """Replace a function of `masks` for nodes and for the coordinator."""
    patch.setattr(masks, name, planted)
    patch.setattr(recovery, name, planted)
    patch.setattr(
        masks,
        "accumulate",
        lambda total, seed, **sign: accumulate(total, seed, **sign) if seed else None,
    )


def replace_keystream(patch: Patch, change: Callable[[RingVector], RingVector]) -> None:
    """Replace the keystream of all masks by what `change` makes of it."""

    def planted(total: RingVector, seed: bytes, *, negative: bool = False) -> None:
        mask = np.zeros_like(total)
        accumulate(mask, seed)
        mask = change(mask)
        total += -mask if negative else mask

    patch.setattr(masks, "accumulate", planted)


def replace_seeds(
    patch: Patch, choose: Callable[[frozenset[NodeId], tuple[bytes, ...], bytes], bytes]
) -> None:
    """Replace the mask seed of each pair by what `choose` makes of pair, binding and seed."""
    honest = pairs._combine

    def planted(
        private: Any, peer: Any, encapsulated: bytes, pair: Any, binding: Any
    ) -> pairs.PairSecret:
        secret = honest(private, peer, encapsulated, pair, binding)
        seed = choose(frozenset(pair), binding, secret.mask_seed)
        return pairs.PairSecret(seed, secret._root)

    patch.setattr(pairs, "_combine", planted)


def no_masks(patch: Patch) -> None:
    patch.setattr(masks, "accumulate", lambda total, seed, **sign: None)


def only_self_masks(patch: Patch) -> None:
    replace_masks(patch, "pair_mask", lambda seed, **pair: (NOTHING, False))


def only_pair_masks(patch: Patch) -> None:
    replace_masks(patch, "self_mask", lambda seed, context, **sign: (NOTHING, False))


def both_sides_add(patch: Patch) -> None:
    replace_masks(patch, "pair_mask", lambda seed, **pair: (seed, False))


def self_masks_not_bound_to_the_round(patch: Patch) -> None:
    def planted(seed: bytes, context: Any, *, negative: bool = False) -> masks.Mask:
        return seed, negative

    replace_masks(patch, "self_mask", planted)


def pairs_not_bound_to_the_round(patch: Patch) -> None:
    kept: dict[frozenset[NodeId], bytes] = {}
    replace_seeds(patch, lambda pair, binding, seed: kept.setdefault(pair, seed))


def one_pair_not_bound_to_the_round(patch: Patch) -> None:
    kept: dict[frozenset[NodeId], bytes] = {}
    stuck = frozenset(setup_at(0).cohort[:2])

    def choose(pair: frozenset[NodeId], binding: tuple[bytes, ...], seed: bytes) -> bytes:
        return kept.setdefault(pair, seed) if pair == stuck else seed

    replace_seeds(patch, choose)


def one_seed_for_two_pairs(patch: Patch) -> None:
    kept: dict[tuple[bytes, ...], bytes] = {}
    cohort = setup_at(0).cohort
    twins = {frozenset(cohort[:2]), frozenset(cohort[2:4])}

    def choose(pair: frozenset[NodeId], binding: tuple[bytes, ...], seed: bytes) -> bytes:
        return kept.setdefault(binding[:-1], seed) if pair in twins else seed

    replace_seeds(patch, choose)


def one_seed_for_all_pairs(patch: Patch) -> None:
    kept: dict[tuple[bytes, ...], bytes] = {}
    replace_seeds(patch, lambda pair, binding, seed: kept.setdefault(binding[:-1], seed))


def sixteen_seeds(patch: Patch) -> None:
    replace_seeds(patch, lambda pair, binding, seed: derive(bytes([seed[0] & 15]), PAIR_MASK))


def top_bit_cleared(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32((1 << BITS - 1) - 1))


def masks_of_twelve_bits(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32(0xFFF))


def constant_low_bits(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: mask & np.uint32(0xFFFFFFF0))


def one_bit_leans(patch: Patch) -> None:
    """The lowest bit of a mask is set in 9 of 16 coordinates."""
    replace_keystream(patch, lambda mask: mask | (mask >> 29 == 7).astype(np.uint32))


def keystream_starts_again(patch: Patch) -> None:
    replace_keystream(patch, lambda mask: np.resize(mask[:2048], len(mask)))


def one_key_for_both_boxes(patch: Patch) -> None:
    honest = pairs.PairSecret.seal_key

    def planted(self: pairs.PairSecret, *, sender: NodeId, receiver: NodeId) -> bytes:
        one, other = sorted((sender, receiver))
        return honest(self, sender=one, receiver=other)

    patch.setattr(pairs.PairSecret, "seal_key", planted)


def generators_stuck(patch: Patch) -> None:
    """Nothing is patched: the rounds are played with generators that repeat themselves."""


STUCK = (generators_stuck, self_masks_not_bound_to_the_round)
"""Plants that show only where nodes draw the same secrets in every round."""
EVERYWHERE = {
    "uploads",
    "sums_before_unmasking",
    "sums_after_unmasking",
    "late_uploads",
    "two_rounds",
    "two_nodes",
    "single_masks",
    "which_input",
}
UNMASKED = {"sums_after_unmasking", "two_rounds", "two_nodes", "single_masks", "which_input"}
PLANTS: dict[Callable[[Patch], None], set[str]] = {
    no_masks: EVERYWHERE | {"plain_update"},
    only_self_masks: UNMASKED | {"plain_update"},
    only_pair_masks: {"late_uploads", "sums_before_unmasking", "single_masks"},
    both_sides_add: {"exact_sum"},
    generators_stuck: {"all_else"},
    self_masks_not_bound_to_the_round: {"single_masks"},
    pairs_not_bound_to_the_round: {"two_rounds", "which_input", "single_masks"},
    one_pair_not_bound_to_the_round: {"single_masks"},
    one_seed_for_two_pairs: {"single_masks"},
    one_seed_for_all_pairs: {"sums_after_unmasking", "two_nodes", "single_masks"},
    sixteen_seeds: {"single_masks"},
    top_bit_cleared: {"uploads", "late_uploads", "sums_after_unmasking", "single_masks"},
    masks_of_twelve_bits: EVERYWHERE | {"plain_update"},
    constant_low_bits: EVERYWHERE,
    one_bit_leans: {"late_uploads", "single_masks"},
    keystream_starts_again: EVERYWHERE,
    one_key_for_both_boxes: {"all_else"},
}
"""What must catch each; the other checks may."""


def planted(plant: Callable[[Patch], None], patch: Patch) -> Evidence:
    """Return the evidence of rounds with a weakness."""
    plant(patch)
    return gather(seed=1 if plant in STUCK else None)


@pytest.mark.req("T-01")
@pytest.mark.req("M-07")
@pytest.mark.req("M-08")
@pytest.mark.req("M-17")
@pytest.mark.req("M-23")
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_failure_is_caught(
    plant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = planted(plant, monkeypatch)
    missed = {name for name in PLANTS[plant] if not CHECKS[name](evidence).alarms()}
    assert not missed


def test_every_check_catches_something() -> None:
    assert set().union(*PLANTS.values()) == set(CHECKS)


# --- the seeds themselves ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.req("M-07")
@pytest.mark.timeout(600)
def test_pair_seeds_are_of_no_space_as_small_as_28_bits() -> None:
    """Vectors show a few thousand seeds at most. Of 2^17 seeds of 28 bits, some 32 pairs are equal.

    Open implementations have drawn their seeds from 28 bits; that no pair is equal has then a
    probability below 1e-13.
    """
    count, setup = 1 << 17, setup_at(0)
    one, other = setup.cohort[:2]
    mine, theirs = (pairs.NodeKeys(node, bytes([7]) * 32) for node in (one, other))
    agreement_key, kem_key = theirs.public
    hashes = (bytes(32),) * 3
    peer = KeyAdvert(0, other, 1, agreement_key, kem_key, *hashes, bytes(64))
    binding = (*setup.context, bytes(32))
    seeds = [mine.initiate(peer, binding)[0].mask_seed for _ in range(count)]
    assert len(set(seeds)) == count
    small = {int.from_bytes(seed[:4], "little") >> 4 for seed in seeds}
    assert len(small) < count  # the same search over 28 bits of each
