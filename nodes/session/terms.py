"""The terms of a round of `ckks`, on the wire and as the scheme reads them.

Source: specs/36-ckks.md section 2.
"""

from __future__ import annotations

from secagg.ckks.committees import CommitteeParameters
from secagg.ckks.headroom import RingParameters
from secagg.ckks.parameters import CkksParameters
from secagg.wire.messages import CkksTerms, RoundOffer

__all__ = ["terms_of_offer", "terms_on_wire"]


def terms_on_wire(made: CkksParameters, *, coordinator_weighs: bool) -> CkksTerms:
    """Return what an offer says of the terms, beside its cohort, quorum and colluders."""
    ring, committee = made.ring, made.committee
    return CkksTerms(
        coordinator_weighs=coordinator_weighs,
        max_weight=made.max_weight,
        degree=ring.degree,
        modulus_bits=ring.modulus_bits,
        values_per_coefficient=ring.values_per_coefficient,
        field_bits=ring.field_bits,
        noise_bits=ring.noise_bits,
        secret_terms=ring.secret_terms,
        error_terms=ring.error_terms,
        committee_size=committee.size,
        committee_threshold=committee.threshold,
        committee_pack=committee.pack,
        committee_silent=committee.silent,
        committee_modulus=committee.modulus,
    )


def terms_of_offer(offer: RoundOffer, terms: CkksTerms) -> CkksParameters:
    """Return the terms of an offered round; nothing is judged."""
    n = len(offer.cohort)
    return CkksParameters(
        nodes=n,
        value_bits=offer.value_bits,
        max_weight=terms.max_weight,
        ring=RingParameters(
            degree=terms.degree,
            modulus_bits=terms.modulus_bits,
            values_per_coefficient=terms.values_per_coefficient,
            field_bits=terms.field_bits,
            noise_bits=terms.noise_bits,
            secret_terms=terms.secret_terms,
            error_terms=terms.error_terms,
        ),
        committee=CommitteeParameters(
            size=terms.committee_size,
            threshold=terms.committee_threshold,
            pack=terms.committee_pack,
            silent=terms.committee_silent,
            modulus=terms.committee_modulus,
        ),
        quorum=offer.quorum,
        cosigners=(n + offer.colluders) // 2 + 1,
        colluders=offer.colluders,
        dropouts=n - offer.quorum,
    )
