"""The measurements run and the rounds that they time are exact; no time and no size is judged."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench import coordinator_process, federation, masking, memory, raw, sockets
from bench.cohort import make_setup, play
from bench.common import BenchError
from fl_core.parameters import ParamSpec
from nodes.telemetry import Record
from secagg.masking.parameters import choose


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_round_in_memory_is_exact(dropout: float) -> None:
    cost = play(make_setup(5, 1000, choose(5), value_bits=16), dropout=dropout)
    assert cost.exact
    assert cost.survivors == round(5 * (1 - dropout))
    assert cost.masks == cost.survivors + round(5 * dropout) * cost.survivors


def test_a_case_is_measured_without_a_peer() -> None:
    case = masking.Case("tiny", 5, 1000, 0.2, masking.settings_for(5, 0.2))
    result = masking.run(case, None)
    assert result.exact
    assert result.peer is None
    assert result.upload > 1000 * 19 / 8


def test_the_coordinator_in_its_own_process_is_exact() -> None:
    peak = memory.measure(4, 1000)
    assert peak.exact
    assert 0 < peak.imports <= peak.peak
    phases = ["imports", "keys", "agreement", "shares", "input", "signatures", "unmask"]
    assert list(peak.after) == phases
    assert list(peak.after.values()) == sorted(peak.after.values())


def test_frames_go_through_a_pipe() -> None:
    pipe = io.BytesIO()
    frames = [(0, b""), (7, b"seven"), (coordinator_process.REPORT, b"{}")]
    for number, data in frames:
        coordinator_process.write_frame(pipe, number, data)
    assert list(coordinator_process.read_frames(io.BytesIO(pipe.getvalue()))) == frames
    with pytest.raises(BenchError, match="middle of a frame"):
        list(coordinator_process.read_frames(io.BytesIO(pipe.getvalue()[:-1])))


def test_the_raw_limit_is_the_best_of_three() -> None:
    limit = raw.raw_limit(1000, repetitions=1)
    ways = (limit.keystream_cached_s, limit.keystream_whole_s, limit.keystream_gcm_s)
    assert limit.keystream_s == min(ways)
    assert limit.keystream_rate == 4000 / min(ways)
    assert min(*ways, limit.add_s) > 0


@pytest.mark.parametrize("dim", [0, -1, 2**30 + 1])
def test_a_vector_out_of_range_has_no_limit(dim: int) -> None:
    with pytest.raises(BenchError, match="cannot be measured"):
        raw.raw_limit(dim)


@pytest.mark.parametrize("dim", [1000, 100_000, 1_000_000])
def test_the_model_has_about_the_parameters_asked_for(dim: int) -> None:
    assert abs(ParamSpec.from_model(federation.model_of(dim)).dim - dim) <= 0.01 * dim


def test_there_is_no_model_of_ten_parameters() -> None:
    with pytest.raises(BenchError):
        federation.model_of(10)


def _records(phases: list[str], *, rounds: int) -> Iterator[Record]:
    """A coordinator's records: phase number i of every round takes i + 1 seconds, the CPU half."""
    at = 100.0
    for number in range(rounds):
        yield {"event": "round.started", "at": at}
        for index, phase in enumerate(phases):
            name = "server.step" if phase == "server step" else "phase.changed"
            yield {"event": name, "phase": phase, "at": at}
            at += index + 1
        done = {"event": "round.done", "at": at, "cpu": at / 2, "nodes_cpu": at}
        yield {**done, "bytes_received": 1000 * number, "bytes_sent": 10 * number}
        at += 0.25
    yield {"event": "left", "reason": "said goodbye", "at": at}


@pytest.mark.parametrize("phases", [["keys", "input", "unmask", "server step"], ["input"]])
def test_the_phases_of_a_round_add_up(phases: list[str]) -> None:
    rounds = list(federation.rounds_of(_records(phases, rounds=3)))
    assert len(rounds) == 2  # the first is left out
    for each in rounds:
        expected = {phase: index + 1.0 for index, phase in enumerate(phases)}
        assert each.phases == {"offer": 0.25, **expected}
        assert each.wall_s == sum(each.phases.values())
        assert each.coordinator_cpu_s == each.wall_s / 2
        assert (each.received, each.sent) == (1000, 10)


@pytest.mark.parametrize(
    "record", [{"event": "round.lost", "at": 0.0}, {"event": "left", "reason": "silent", "at": 0.0}]
)
def test_a_disturbed_run_is_an_error(record: Record) -> None:
    with pytest.raises(BenchError, match="disturbed"):
        list(federation.rounds_of(iter([record])))


@pytest.mark.slow
def test_a_federation_of_daemons_is_measured() -> None:
    command = [sys.executable, "-m", "bench.sockets", "--nodes", "3", "--dims", "1000"]
    command += ["--rounds", "3", "--turns", "1", "--json"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=170)
    [found] = json.loads(answer.stdout)["dims"]
    assert abs(found["parameters"] - 1000) <= 10
    for scheme in sockets.SCHEMES:
        assert [each["received"] > 0 for each in found["rounds"][scheme]] == [True, True]
