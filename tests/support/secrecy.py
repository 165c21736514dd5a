"""What the coordinator sees: statistics over all that it receives in some thirty rounds.

`CHECKS` are claims about this evidence, each with a false-alarm rate of at most `statistics.RATE`
(1e-6) whatever the machine's randomness gives, since ML-KEM draws its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg import ring
from secagg.encoding import ring_bits_for
from secagg.primitives.shamir import SHARE_SIZE
from secagg.round_setup import RoundSetup
from secagg.types import NodeId, RingVector
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
    """Return a round of one chunk a node."""
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
