"""What a person sees: the same story as lines and as a live display, without secrets."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from nodes.progress import RunView, _Display, human_bytes, line_of, show_progress, weights_line
from nodes.report import print_quality
from nodes.session import events
from nodes.telemetry import event_name, record_of

STORY: list[dict[str, object]] = [
    {
        "event": "coordinator.listening",
        "endpoint": "tcp://127.0.0.1:1",
        "nodes": ["a", "b", "c", "d"],
        "rounds_done": 0,
        "rounds_total": 2,
        "scheme": "masking",
        "resumed": False,
    },
    *({"event": "joined", "peer": name, "rounds_done": 0} for name in "abcd"),
    {
        "event": "round.started",
        "round_id": 1,
        "rounds_done": 0,
        "rounds_total": 2,
        "cohort": ["a", "b", "c", "d"],
        "quorum": 3,
    },
    {
        "event": "phase.changed",
        "round_id": 1,
        "phase": "shares",
        "waiting_for": ["a", "b", "c"],
        "bytes_sent": 1000,
        "bytes_received": 2_500_000,
    },
    {"event": "left", "node": "d", "reason": "silent"},
    {
        "event": "round.done",
        "round_id": 1,
        "rounds_done": 1,
        "rounds_total": 2,
        "contributors": ["a", "b", "c"],
        "loss": 1.25,
        "weight": 0.5,
        "clipped": 0,
        "bytes_sent": 1000,
        "bytes_received": 2_500_000,
    },
    {"event": "round.lost", "round_id": 2, "reason": "too_few_keys", "alive": 1, "needed": 3},
    {"event": "run.over", "complete": True, "reason": "all rounds done"},
]


@pytest.mark.parametrize(
    ("clipped", "epsilon", "said"), [(2, None, True), (0, None, False), (2, 1.5, False)]
)
def test_updates_that_were_cut_are_said_unless_noise_means_to_cut_them(
    clipped: int, epsilon: float | None, said: bool
) -> None:
    stream = io.StringIO()
    done = STORY[-3] | {"clipped": clipped, "epsilon": epsilon}
    assert done["event"] == "round.done"
    with show_progress(stream) as (show, view):
        for record in (*STORY[:-3], done):
            show(record)
    text = "2 of 3 updates were longer than update_bound and were cut to it"
    assert (text in stream.getvalue()) is said
    assert (view.note == text) is said


def test_plain_lines_tell_the_run() -> None:
    stream = io.StringIO()
    with show_progress(stream) as (show, view):
        for record in STORY:
            show(record)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "coordinator on tcp://127.0.0.1:1, scheme masking"
    assert "d joined (4 of 4)" in lines
    assert "round 1/2: 4 nodes train, 3 needed" in lines
    assert "d left: silent" in lines
    done = "round 1/2 done: 3 nodes, loss 1.2500, weight 0.500, 2.5 MB in, 1.0 kB out so far"
    assert done in lines
    assert "round 2 aborted: too_few_keys (1 nodes, 3 needed); nothing was released" in lines
    assert lines[-1] == "run complete"
    assert view.over is True


def test_the_live_display_shows_rounds_phase_nodes_bytes_and_loss() -> None:
    stream = io.StringIO()
    view = RunView()
    for record in STORY[:-2]:
        view.take(record)
    Console(file=stream, width=120, force_terminal=False).print(_Display(view))
    text = stream.getvalue()
    for part in (
        "round 1/2",
        "phase shares",
        "loss 1.2500",
        "2.5 MB in",
        "a  in the sum",
        "silent",
    ):
        assert part in text, text


def test_a_terminal_gets_the_live_display() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with show_progress(stream) as (show, _):
        for record in STORY:
            show(record)
    assert "\x1b[" in stream.getvalue()
    assert "d left: silent" in stream.getvalue()


def test_every_session_event_has_a_record_without_vectors() -> None:
    vector = np.full(3, 12345.0, dtype=np.float32)
    samples = {
        events.FinalModel: events.FinalModel(b"secret-settings", vector, vector, 3),
        events.RosterOffered: events.RosterOffered(b"secret-document"),
        events.RoundDone: events.RoundDone(1, 1, 2, ("a",), 0.5, 0.5, 0, (1,)),
    }
    for kind, event in samples.items():
        record = record_of(event)
        assert record is not None
        assert record["event"] == event_name(event)
        text = str(record)
        assert "12345" not in text
        assert "secret" not in text
        hidden = {f.name for f in dataclasses.fields(kind) if not f.repr}
        assert not hidden & record.keys()
    state = events.ParticipantState({b"r" * 16: 1})
    assert record_of(events.Remember(state)) is None


def test_text_of_a_peer_cannot_forge_lines_or_break_the_display() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    evil = events.NodeRefused("a", "x", "no [/bye]\nround 8/8 done\x1b[2J")
    record = record_of(evil)
    assert record is not None
    assert record["explanation"] == "no [/bye]?round 8/8 done?[2J"
    stream = Terminal()
    with show_progress(stream) as (show, _):
        show(STORY[0])
        show(record)
    assert "no [/bye]?round" in stream.getvalue()


def test_records_without_a_line_are_silent() -> None:
    assert line_of({"event": "something.else"}, RunView()) is None


def test_the_phases_and_weights_of_ckks_are_told() -> None:
    listening = {**STORY[0], "scheme": "ckks", "weights": "coordinator"}
    waiting = (("keys", "abcd"), ("input", "abc"), ("signatures", "abcd"), ("opening", "bcd"))
    view, stream = RunView(), io.StringIO()
    for record in (listening, *STORY[1:6]):
        view.take(record)
    seen = []
    for phase, nodes in waiting:
        view.take({"event": "phase.changed", "round_id": 1, "phase": phase, "waiting_for": nodes})
        seen.append((view.phase, view.nodes["a"], view.nodes["d"]))
    assert seen == [
        ("training", "training", "training"),
        ("input", "input", "out of this round"),  # its weight is 0
        ("signatures", "signatures", "signatures"),  # yet it is of the committee
        ("opening", "signatures", "opening"),  # only members open, the others are done
    ]
    done = {**STORY[-3], "weights": [4, 3, 3]}
    with show_progress(stream) as (show, _):
        for record in (listening, done):
            show(record)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("scheme ckks; nodes disclose their distance, and it weighs them")
    assert "3 nodes, loss 1.2500, weights 3 to 4, 2.5 MB in" in lines[1]


def test_weights_are_told_by_group_and_large_groups_by_number() -> None:
    assert weights_line({"b": 3, "a": 3, "c": 2}) == "3 for a, b; 2 for c"
    assert weights_line({f"n{i}": 3 for i in range(13)}) == "3 for 13 nodes"


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5e9, "5.0 GB")]
)
def test_human_bytes(count: float, text: str) -> None:
    assert human_bytes(count) == text


def test_the_quality_table_has_a_block_a_device_and_the_mean() -> None:
    row = {"auc": 0.9, "f1": 0.8, "recall": 0.7, "fpr": 0.01, "fpr_at_tpr_999": 0.2}
    methods = {"federated": row, "local": row, "random": row}
    stream = io.StringIO()
    print_quality({"cam": methods}, methods, stream)
    text = stream.getvalue()
    assert text.count("random encoder") == 2
    assert "FPR at TPR .999" in text
    assert "mean of devices" in text
    empty = io.StringIO()
    print_quality({"cam": {}}, {}, empty)
    assert "no device has attack rows" in empty.getvalue()
    mixed = io.StringIO()
    print_quality({"cam": methods, "tap": {}}, methods, mixed)
    (line,) = [each for each in mixed.getvalue().splitlines() if "tap" in each]
    assert " ".join(line.split()) == "tap no attack rows to test on – – – – –"
    assert mixed.getvalue().count("random encoder") == 2
