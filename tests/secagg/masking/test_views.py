"""Signatures under what nodes were shown: each is for one list, of one kind, in one round."""

from __future__ import annotations

import pytest

from secagg.errors import AuthenticationError
from secagg.masking import views
from secagg.tags import SHARERS, SURVIVORS
from tests.secagg.masking.test_adverts import framed
from tests.support.fleet import TestSigner, make_setup


@pytest.mark.req("M-11")
@pytest.mark.req("M-24")
def test_the_digests_by_hand() -> None:
    nodes = ("a", "b", "c")
    sharers = framed(SHARERS, b"g" * 32, b"a", b"b", b"c")
    assert views.sharers_digest(b"g" * 32, nodes) == sharers
    assert views.view_digest(sharers, nodes[:2]) == framed(SURVIVORS, sharers, b"a", b"b")
    assert views.sharers_digest(b"g" * 32, ("ab", "c")) != views.sharers_digest(
        b"g" * 32, ("a", "bc")
    )


@pytest.mark.req("M-11")
def test_a_co_signature_is_for_one_survivor_set_of_one_round() -> None:
    setup, signer = make_setup(5), TestSigner("node-0001")
    sharers = views.sharers_digest(b"g" * 32, setup.cohort)
    view = views.view_digest(sharers, setup.cohort)
    signature = views.sign_survivors(setup, signer, view)
    views.verify_survivors(setup, "node-0001", signature, view)
    wrong = [
        (setup, "node-0001", views.view_digest(sharers, setup.cohort[1:])),
        (setup, "node-0001", views.view_digest(bytes(32), setup.cohort)),
        (setup, "node-0001", sharers),
        (setup, "node-0002", view),
        (setup, "stranger", view),
        (make_setup(5, round_id=8), "node-0001", view),
        (make_setup(5, offer_hash=bytes(32)), "node-0001", view),
    ]
    for other, node, shown in wrong:
        with pytest.raises(AuthenticationError):
            views.verify_survivors(other, node, signature, shown)
    with pytest.raises(AuthenticationError):
        views.verify_sharers(setup, "node-0001", signature, view)


@pytest.mark.req("M-24")
def test_a_sharers_signature_is_for_one_list_in_one_graph_of_one_round() -> None:
    setup, signer = make_setup(5), TestSigner("node-0001")
    sharers = views.sharers_digest(b"g" * 32, setup.cohort)
    signature = views.sign_sharers(setup, signer, sharers)
    views.verify_sharers(setup, "node-0001", signature, sharers)
    wrong = [
        (setup, "node-0001", views.sharers_digest(b"g" * 32, setup.cohort[1:])),
        (setup, "node-0001", views.sharers_digest(b"h" * 32, setup.cohort)),
        (setup, "node-0002", sharers),
        (setup, "stranger", sharers),
        (make_setup(5, round_id=8), "node-0001", sharers),
        (make_setup(5, run_id=b"s" * 16), "node-0001", sharers),
        (make_setup(5, offer_hash=bytes(32)), "node-0001", sharers),
    ]
    for other, node, shown in wrong:
        with pytest.raises(AuthenticationError) as caught:
            views.verify_sharers(other, node, signature, shown)
        assert caught.value.peer == node
    with pytest.raises(AuthenticationError):
        views.verify_survivors(setup, "node-0001", signature, sharers)
