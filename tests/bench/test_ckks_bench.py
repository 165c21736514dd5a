"""The bench of ckks runs and is exact, and verdicts follow from figures; no time is judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import ckks
from bench.ckks import Bar, Result, bars, by_dropouts, side_by_side, verdicts
from bench.ckks_round import VANISHING, OurRound, make_ckks_setup, measure
from bench.cohort import make_setup
from bench.common import BenchError
from bench.peers import shared_ckks
from bench.peers.shared_ckks import SharedKeyCase, SharedKeyRound
from secagg.ckks.parameters import choose
from secagg.masking.parameters import choose as choose_graph

OURS = OurRound(
    client_s=0.1,
    duty_s=0.01,
    upload=3_200_000,
    cipher=3_100_000,
    shares=50_000,
    received=60_000,
    duty_received=50_000,
    duty_sent=4000,
    add_s=0.02,
    open_s=0.05,
    server_s=0.1,
    error=0,
)
PEER = SharedKeyRound(
    versions={},
    encrypt_s=0.3,
    serialise_s=0.2,
    upload_bytes=58_000_000,
    load_s=1.5,
    add_s=0.1,
    scale_s=0.1,
    pack_s=0.1,
    download_bytes=32_000_000,
    open_s=0.1,
    max_error=0.07,
    max_rounded_error=0,
    peak_bytes=1 << 30,
)


def result(dim: int = 1_000_000, *, ours: OurRound = OURS, late: OurRound = OURS) -> Result:
    rounds = {"nobody": ours, "before the upload": ours, "before the answer": late}
    return Result(10, dim, choose(10), rounds, ours, {"nvflare": PEER, "shared key": PEER})


def verdict(what: str, *results: Result) -> str:
    [bar] = [bar for bar in bars(list(results)) if what in bar.what]
    return bar.verdict


def test_a_case_is_measured_without_peers() -> None:
    found = ckks.run(5, 300, None)
    assert list(found.ours) == list(VANISHING)
    assert found.weighted.error == 0
    assert found.weighted.client_s > 0
    assert {ours.error for ours in found.ours.values()} == {0}
    assert found.peers == {}
    ours = found.ours["nobody"]
    assert ours.upload > ours.cipher + ours.shares > ours.shares > 4 * 1136
    assert ours.cipher * 8 > found.parameters.ring.modulus_bits * found.parameters.ring.degree
    assert ours.received > ours.duty_received > 4 * found.parameters.share_bytes
    assert ours.server_s > ours.add_s + ours.open_s
    before = found.ours["before the upload"]
    assert found.parameters.dropouts == 1
    assert before.duty_received < ours.duty_received
    for line in (*side_by_side(found), *by_dropouts(found), *verdicts([found])):
        assert line.startswith("| ")
    assert {bar.verdict for bar in bars([found]) if "NVFlare" in bar.what} == {"not measured"}


def test_medians_are_taken_over_rounds() -> None:
    found = measure(make_ckks_setup(3, 8, choose(3)), rounds=2)
    assert found.error == 0
    assert found.client_s > 0 < found.open_s


def test_rounds_of_another_scheme_are_refused() -> None:
    with pytest.raises(BenchError, match="no rounds of ckks"):
        measure(make_setup(3, 8, choose_graph(3), value_bits=16))


def test_the_shared_key_sums_what_it_is_given() -> None:
    found = shared_ckks.measure(SharedKeyCase(3, 100))
    assert found.max_rounded_error == 0
    assert 0 < found.max_error < 0.01
    assert found.upload_bytes > 50_000
    assert found.server_s > 0 < found.client_s


@pytest.mark.parametrize(("nodes", "dim", "bits"), [(1, 8, 16), (2, 0, 16), (2, 8, 25)])
def test_a_case_that_no_peer_can_run_is_refused(nodes: int, dim: int, bits: int) -> None:
    with pytest.raises(BenchError, match=f"nodes is {nodes}, dim {dim}"):
        SharedKeyCase(nodes, dim, value_bits=bits)


def test_what_meets_every_bar() -> None:
    assert {bar.verdict for bar in bars([result(), result(100_000, ours=small())])} == {"met"}


def small() -> OurRound:
    """Return `OURS` at a tenth of the values."""
    return replace(OURS, upload=410_000, cipher=310_000)


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("ciphertext, bytes a value, bit-packed", {"cipher": 6_900_000}),
        ("shares of a secret", {"shares": 200_001}),
        ("upload of shared key", {"upload": 58_000_000 / 6.9}),
        ("client over NVFlare's", {"duty_s": 0.24}),
        ("coordinator over NVFlare's", {"server_s": 0.31}),
        ("committee CPU", {"duty_s": 0.02}),
        ("committee bytes", {"duty_sent": 4001}),
        ("error on integers", {"error": 1}),
    ],
)
def test_a_figure_beyond_its_bar_is_missed(what: str, changed: dict[str, float]) -> None:
    other = result(100_000, ours=small())
    assert verdict(what, result(), other) == "met"
    assert verdict(what, result(ours=replace(OURS, **changed)), other) == "MISSED"


def test_an_opening_that_grows_with_dropouts_is_missed() -> None:
    assert verdict("opening, most", result(late=replace(OURS, open_s=0.07))) == "MISSED"


def test_a_bar_says_which_way_it_lies() -> None:
    assert Bar("more", 7.0, 7, least=True).verdict == "met"
    assert Bar("more", 6.9, 7, least=True).verdict == "MISSED"
    assert Bar("less", 6.9, 7).verdict == "met"
    assert Bar("nothing", None, 7).verdict == "not measured"


def test_a_peer_that_failed_has_a_row_that_says_why() -> None:
    failed = Result(
        10, 8, choose(10), {"nobody": OURS}, OURS, {"nvflare": "it took longer than 900 s"}
    )
    assert "| nvflare | it took longer than 900 s |" in list(side_by_side(failed))[2]
    assert verdict("client over NVFlare's", failed) == "not measured"
