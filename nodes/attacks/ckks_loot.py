"""From what a puppet coordinator of `ckks` wrote down to what its attacker can compute with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.attacks.ckks_knowledge import Answer, Holdings
from nodes.attacks.ckks_tape import View
from secagg.ckks.ring import ring_of
from secagg.ckks.sealing import dealer_of, open_box
from secagg.ckks.views import elements_seed, terms_of
from secagg.errors import AuthenticationError
from secagg.primitives import packed
from secagg.types import NodeId

if TYPE_CHECKING:
    from nodes.attacks.ckks_puppet import CkksPuppet

__all__ = ["holdings_of"]


def holdings_of(puppet: CkksPuppet) -> Holdings:
    """Return all that the attacker has of this round, and of the one before if it kept it."""
    terms = terms_of(puppet.setup)
    found = Holdings(
        terms,
        ring_of(terms.ring.degree, terms.ring.modulus_bits),
        puppet.setup.dim,
        puppet.setup.ring_bits,
        elements_seed(puppet.setup_at(puppet.victim)),
        round_id=puppet.setup.round_id,
    )
    for each in (puppet, puppet.earlier):
        if each is not None:
            _add(found, each)
    found.known = {node: puppet.inputs[node] for node in puppet.accomplices}
    found.allowed = [
        {puppet.secret_of(node): weight for node, weight in view.items()}
        for view in puppet.tape.asked
        if _may_be_opened(puppet, view)
    ]
    return found


def _may_be_opened(puppet: CkksPuppet, view: View) -> bool:
    """Tell whether the rules allow one sum over these nodes with these weights."""
    squares = sum(weight**2 for weight in view.values())
    promised = max(3, puppet.setup.colluders + 2)
    honest = sum(1 for node, weight in view.items() if weight and node not in puppet.accomplices)
    even = sum(view.values()) ** 2 >= promised * squares
    return len(view) >= puppet.setup.quorum and honest >= 2 and even


def _add(found: Holdings, puppet: CkksPuppet) -> None:
    """Add the ciphertexts of a round, the answers, and the shares that the attacker can read."""
    tape = puppet.tape
    for node, cipher in tape.ciphers.items():
        found.ciphers[puppet.secret_of(node)] = cipher
    for member, weights, share in tape.answers:
        at = puppet.members(member).index(member)
        found.answers.append(Answer(at, weights, share))
    for node in puppet.accomplices:
        for holder, share in enumerate(getattr(puppet.roles[node], "dealt", ())):
            found.shares[holder, puppet.secret_of(node)] = share
    for owner, boxes in tape.boxes.items():
        receivers = [key.node_id for key in tape.shown[owner] if key.node_id != owner]
        for receiver, box in zip(receivers, boxes, strict=False):
            opened = _opened(puppet, owner, receiver, box)
            if opened is not None:
                at = puppet.members(owner).index(receiver)
                found.shares[at, puppet.secret_of(owner)] = opened


def _opened(puppet: CkksPuppet, owner: NodeId, receiver: NodeId, box: bytes) -> packed.Share | None:
    """Open a box that was sealed to keys which the attacker holds."""
    terms, setup = terms_of(puppet.setup), puppet.setup_at(owner)
    for keys in puppet.keys_held.get(receiver, ()):
        try:
            data = open_box(setup, keys, dealer_of(puppet.tape.keys[owner]), receiver, box)
        except AuthenticationError:
            continue
        return packed.decode(data, terms.committee.modulus, terms.share_length)
    return None
