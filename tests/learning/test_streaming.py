from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_core.detector import Detector
from fl_core.errors import DataError, ModelError
from fl_core.parameters import initial_parameters
from fl_core.row_stream import RowBatch
from fl_core.scoring import EmbeddingStatistics, HeadStatistics
from fl_core.streaming import DriftWatch, ScoredRow, Tally, score_batches


@pytest.fixture(scope="module")
def detector(devices, model):
    params = initial_parameters(model, 0)
    return Detector.merge(
        [
            Detector.fit_head(
                params, model, d.train, d.validation, device=d.device, feature_names=d.feature_names
            )
            for d in devices
        ]
    )


def batch(values, devices):
    return RowBatch(range(1, len(values) + 1), values, [None] * len(values), devices)


@pytest.mark.req("L-16")
def test_each_row_goes_to_the_head_of_its_device_in_order(devices, detector):
    values = devices[0].test_attack[:6]
    names = ["dev2", "dev0", "dev0", "dev1", "dev2", "dev0"]
    (verdicts,) = score_batches(detector, [batch(values, names)])
    assert [v.device for v in verdicts] == names
    assert [v.row for v in verdicts] == [1, 2, 3, 4, 5, 6]
    for row, verdict in zip(values, verdicts, strict=True):
        alone = detector.score(row[None], verdict.device)[0]
        assert verdict.score == pytest.approx(alone, rel=1e-5)
        assert verdict.threshold == detector.threshold(verdict.device)
        assert verdict.alert == (verdict.score > verdict.threshold)


@pytest.mark.req("L-16")
def test_a_named_device_judges_every_row(devices, detector):
    rows = batch(devices[0].test_benign[:3], ["dev2", None, "unheard of"])
    (verdicts,) = score_batches(detector, [rows], device="dev1")
    assert [v.device for v in verdicts] == ["dev1"] * 3


@pytest.mark.req("L-16")
def test_no_device_where_there_are_several_heads_is_an_error(devices, detector):
    rows = batch(devices[0].test_benign[:1], [None])
    with pytest.raises(ModelError, match="none is chosen"):
        list(score_batches(detector, [rows]))

    def never():
        raise AssertionError("the input was read")
        yield

    with pytest.raises(ModelError, match="no head for 'dev9'"):
        list(score_batches(detector, never(), device="dev9"))


@pytest.mark.req("L-16")
def test_an_unknown_device_is_named_or_skipped(devices, detector):
    rows = batch(devices[0].test_benign[:3], ["dev0", "dev9", "dev1"])
    with pytest.raises(DataError, match="row 2: the model has no head for device 'dev9'"):
        list(score_batches(detector, [rows]))
    skipped: list[DataError] = []
    (verdicts,) = score_batches(detector, [rows], bad=skipped.append)
    assert [v.row for v in verdicts] == [1, 3]
    assert len(skipped) == 1


@pytest.mark.req("L-20")
def test_rows_before_one_without_a_head_are_scored_first(devices, detector):
    rows = batch(devices[0].test_benign[:3], ["dev0", "dev1", "dev9"])
    found = score_batches(detector, [rows])
    assert [v.row for v in next(found)] == [1, 2]
    with pytest.raises(DataError, match="row 3: the model has no head"):
        next(found)


@pytest.mark.req("L-16", "L-21")
def test_a_row_that_names_no_device_among_others_is_named_or_skipped(devices, detector):
    rows = batch(devices[0].test_benign[:3], ["dev0", "", "dev1"])
    skipped: list[DataError] = []
    (verdicts,) = score_batches(detector, [rows], bad=skipped.append)
    assert [v.row for v in verdicts] == [1, 3]
    assert "row 2: it names no device" in str(skipped[0])
    with pytest.raises(DataError, match="row 2: it names no device"):
        list(score_batches(detector, [rows]))
    without = batch(devices[0].test_benign[:1], [None])  # no such column: no row will ever name one
    with pytest.raises(ModelError, match="none is chosen"):
        list(score_batches(detector, [without], bad=skipped.append))


@pytest.mark.req("L-18")
@pytest.mark.parametrize("size", [1e200, 1e305])
def test_a_head_that_gives_no_number_is_an_error_and_no_quiet_row(devices, detector, size):
    head = detector.head("dev0")
    (part,) = head.statistics.parts
    huge = EmbeddingStatistics(part.spread, part.mean + size, part.whitening * size)
    odd = replace(head, statistics=HeadStatistics((huge,)))
    hostile = replace(detector, heads={**detector.heads, "dev0": odd})
    for rows in (devices[0].test_benign[:1], devices[0].test_benign[:5]):
        with pytest.raises(ModelError, match="no finite score for a row of 'dev0'"):
            list(score_batches(hostile, [batch(rows, ["dev0"] * len(rows))]))


def test_the_tally_counts(devices, detector):
    tally = Tally()
    values = np.concatenate([devices[0].test_benign[:50], devices[0].test_attack[:50]])
    for verdicts in score_batches(detector, [batch(values, ["dev0"] * 100)]):
        tally.count(verdicts)
    assert tally.rows == 100
    alerts = int(np.sum(detector.score(values, "dev0") > detector.threshold("dev0")))
    assert tally.alerts == alerts
    assert tally.summary(2.0) == f"100 rows, {alerts} alerts, 50 rows/s in 2.0 s"
    tally.skipped = 3
    assert tally.summary(2.0).endswith(", 3 rows skipped")
    tally.drifts = 2
    assert tally.summary(2.0).endswith(", 3 rows skipped, drift reported 2 times")


@pytest.mark.req("L-66", "L-67")
def test_every_device_of_a_stream_is_watched_by_itself(devices, detector):
    old = replace(detector.head("dev1"), reference=None)
    mixed = replace(detector, heads={**detector.heads, "dev1": old})
    said: list[str] = []
    watch = DriftWatch(mixed, said.append)
    scores = {name: detector.head(name).reference.levels for name in ("dev0", "dev2")}
    found = []
    for start in range(0, 4000, 20):
        burst = [
            ScoredRow(3 * i, float(i), name, float(score), detector.threshold(name))
            for i in range(start, start + 20)
            for name, score in (
                ("dev0", scores["dev0"][(i * 37) % 100]),
                ("dev1", 1.0),
                ("dev2", 0.5 * scores["dev2"][(i * 37) % 100]),
            )
        ]
        found += watch.observe(burst)
    assert [(report["event"], report["device"], report["kind"]) for report in found] == [
        ("drift", "dev2", "scores")
    ]
    report = found[0]
    assert set(report) == {
        "event", "device", "kind", "seen", "value", "limit", "row", "time",
    }  # fmt: skip
    assert report["row"] == 3 * report["time"]
    assert said == ["dev1: drift is not watched: the model has no reference scores: " + OLD]
    whole = DriftWatch(detector, said.append)
    (same,) = whole.observe(
        [
            ScoredRow(3 * i, float(i), "dev2", 0.5 * float(scores["dev2"][(i * 37) % 100]), 9.0)
            for i in range(4000)
        ]
    )
    assert same["row"] == 3 * (same["seen"] - 1) < 3 * 3999, "the row it was seen at"


OLD = "an older version wrote it"
