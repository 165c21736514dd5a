"""Losses on standardised embeddings: contrast between views, and alignment to the reference.

`info_nce` compares the rows of a batch with each other; `record_info_nce` leaves each alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "alignment",
    "info_nce",
    "model_contrast",
    "proximity",
    "reader_loss",
    "record_info_nce",
]


def info_nce(
    anchors: Tensor, positives: Tensor, *, temperature: float, synthetic: Tensor | None = None
) -> Tensor:
    """InfoNCE with the positive once, and every other row of the batch, in the denominator.

    L = -mean_i log( exp(s(u_i, v_i) / tau) / sum_k exp(s(u_i, n_k) / tau) ), where s is the cosine
    and n_k runs over all v_j of the batch (v_i among them) and over the synthetic negatives.

    Args:
        anchors: u, shape (B, k).
        positives: v, shape (B, k); row i is the other view of row i.
        temperature: tau > 0.
        synthetic: Embeddings of corrupted rows, shape (M, k); negatives of every anchor.

    Returns:
        Scalar.

    Source: van den Oord et al. 2018, eq. 4; seed 001 section 3 prints the positive in every term
    of the denominator, a slip (specs/90-learning.md L-04).
    """
    u = functional.normalize(anchors, dim=1)
    others = positives if synthetic is None else torch.cat((positives, synthetic))
    logits = (
        u @ functional.normalize(others, dim=1).T / temperature
    )  # (B, k) @ (k, B+M) -> (B, B+M)
    return functional.cross_entropy(logits, torch.arange(len(u)))


def record_info_nce(
    anchor: Tensor, positive: Tensor, negatives: Tensor, *, temperature: float
) -> Tensor:
    """InfoNCE of one record, whose negatives are no other record's.

    L = -log( exp(s(u, v) / tau) / (exp(s(u, v) / tau) + sum_k exp(s(u, n_k) / tau)) ).

    Args:
        anchor: u, shape (k,).
        positive: v, shape (k,); another view of the same record.
        negatives: n, shape (M, k), M >= 1: corrupted variants of the record, and public rows.
        temperature: tau > 0.

    Returns:
        Scalar.

    Source: as `info_nce`; specs/53-record-level.md section 2.
    """
    u = functional.normalize(anchor, dim=0)
    others = torch.cat((positive[None], negatives))
    logits = functional.normalize(others, dim=1) @ u / temperature  # (1+M, k) @ (k,) -> (1+M,)
    return torch.logsumexp(logits, dim=0) - logits[0]


def alignment(z: Tensor, reference: Tensor) -> Tensor:
    """Mean squared distance of standardised embeddings to the reference, per coordinate.

    Args:
        z: z~, shape (B, k).
        reference: g, shape (k,).

    Returns:
        Scalar in [0, 4] for |g|^2 <= k.

    Source: seed 001 section 3 (L_align), divided by k (specs/90-learning.md L-06).
    """
    return (z - reference).square().mean()


def model_contrast(z: Tensor, shared: Tensor, previous: Tensor, *, temperature: float) -> Tensor:
    """MOON: rows shall look to the model in training as to the shared one, not as to its last.

    L = -mean_i log( exp(s(z_i, g_i) / tau) / (exp(s(z_i, g_i) / tau) + exp(s(z_i, p_i) / tau)) ).

    Args:
        z: Embeddings by the model in training, shape (B, k).
        shared: g, by the round's parameters, shape (B, k).
        previous: p, by this node's parameters after its training of the round before, shape (B, k).
        temperature: tau > 0.

    Returns:
        Scalar.

    Source: Li, He and Song 2021, section 3.3.
    """
    near = functional.cosine_similarity(z, shared, dim=1) / temperature  # (B,)
    far = functional.cosine_similarity(z, previous, dim=1) / temperature
    return functional.softplus(far - near).mean()


def proximity(parameters: Iterable[Tensor], anchors: Iterable[Tensor]) -> Tensor:
    """FedProx: half the squared distance of all parameters from where the round began.

    Returns:
        Scalar.

    Source: Li et al. 2020, section 3.2, with mu = 1.
    """
    pairs = zip(parameters, anchors, strict=True)
    return torch.stack([(here - there).square().sum() for here, there in pairs]).sum() / 2


def reader_loss(z: Tensor, reader: nn.Linear, site: int) -> Tensor:
    """Cross-entropy of a reader's guess of the site; its gradient reaches the embeddings reversed.

    So one step makes the reader better and the embeddings harder to read.

    Args:
        z: Standardised embeddings of one site, shape (B, k).
        reader: k to sites.
        site: Number of the site, below the reader's outputs.

    Returns:
        Scalar.

    Source: Ganin and Lempitsky 2015 (gradient reversal); seed 000, mechanism 2.
    """
    reversed_ = 2 * z.detach() - z  # the value of z, and minus its gradient
    sites = torch.full((len(z),), site, dtype=torch.int64)
    return functional.cross_entropy(reader(reversed_), sites)
