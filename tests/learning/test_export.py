"""The exported program: it agrees with the detector, stands alone, and replaces nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from fl_core import export
from fl_core.config import ModelConfig
from fl_core.detector import Detector
from fl_core.errors import ModelError
from fl_core.export import FACTS_NAME, MAX_DIFFERENCE, save_program
from fl_core.parameters import initial_parameters
from nodes.cli import main

ALONE = """
import builtins, json, sys
import numpy as np

real = builtins.__import__

def guarded(name, *arguments, **options):
    if name.split(".")[0] in ("fl_core", "nodes", "secagg", "keys"):
        raise ImportError(f"{name} is not on this machine")
    return real(name, *arguments, **options)

builtins.__import__ = guarded
try:
    import fl_core
except ImportError:
    pass
else:
    raise SystemExit("the guard does not guard")

import torch

facts = {"detector.json": ""}
program = torch.export.load(sys.argv[1], extra_files=facts).module()
score, alert = program(torch.from_numpy(np.load(sys.argv[2])))
assert not {"fl_core", "nodes", "secagg", "keys"} & set(sys.modules)
np.savez(sys.argv[3], score=score.numpy(), alert=alert.numpy())
print(facts["detector.json"])
"""


@pytest.fixture(scope="module")
def detector(devices, model) -> Detector:
    params = initial_parameters(model, 0)
    return Detector.merge(
        [
            Detector.fit_head(
                params, model, d.train, d.validation, device=d.device, feature_names=d.feature_names
            )
            for d in devices[:2]
        ]
    )


@pytest.fixture(scope="module")
def written(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "dev1.pt2"
    return path, save_program(detector, path, device="dev1")


@pytest.fixture
def program(written):
    return torch.export.load(written[0]).module()


@pytest.mark.req("L-60")
@pytest.mark.parametrize("count", [0, 1, 2, 7, 600])
def test_scores_and_alerts_are_the_detectors_for_any_number_of_rows(
    detector, program, devices, count
):
    rows = np.concatenate([devices[1].test_benign, devices[1].test_attack])[:count]
    score, alert = program(torch.from_numpy(rows))
    expected = detector.score(rows, "dev1")
    assert score.dtype == torch.float64
    assert np.allclose(score.numpy(), expected, rtol=MAX_DIFFERENCE, atol=0)
    assert np.array_equal(alert.numpy(), expected > detector.threshold("dev1"))


@pytest.mark.req("L-60")
def test_the_default_model_agrees_too(devices, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.expm1(rng.gamma(2.0, 2.0, size=(400, 115)))
    model = ModelConfig(input_dim=115)
    names = [f"f{i}" for i in range(115)]
    detector = Detector.fit_head(
        initial_parameters(model, 1), model, rows[:300], rows[300:], device="d", feature_names=names
    )
    seen = save_program(detector, tmp_path / "d.pt2")
    assert seen.difference <= MAX_DIFFERENCE
    assert seen.size < 1_000_000


@pytest.mark.req("L-60")
@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(12, kind="cnn", hidden=(8,), embedding_dim=4),
        ModelConfig(12, kind="gnn", hidden=(8,), embedding_dim=4),
        ModelConfig(12, kind="gat", hidden=(8,), embedding_dim=4),
        ModelConfig(12, hidden=(8,), embedding_dim=4, sites=3),
        ModelConfig(12, kind="timefreq", window=4, hidden=(8,), embedding_dim=21),
    ],
    ids=lambda model: f"{model.kind}-{model.sites}",
)
def test_every_kind_of_encoder_can_be_exported(model, tmp_path):
    rows = np.random.default_rng(0).normal(size=(120, model.input_dim))
    names = [f"f{index}" for index in range(model.input_dim)]
    params = initial_parameters(model, 0)
    detector = Detector.fit_head(
        params, model, rows[:80], rows[80:], device="a", feature_names=names
    )
    assert save_program(detector, tmp_path / "a.pt2").difference <= MAX_DIFFERENCE
    program = torch.export.load(tmp_path / "a.pt2").module()
    scores, alerts = program(torch.zeros((0, model.input_dim), dtype=torch.float64))
    assert scores.shape == alerts.shape == (0,)


@pytest.mark.req("L-61")
def test_it_runs_where_our_packages_cannot_be_imported(detector, written, devices, tmp_path):
    rows = np.concatenate([devices[1].test_benign[:50], devices[1].test_attack[:50]])
    np.save(tmp_path / "rows.npy", rows)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, str(written[0]), "rows.npy", "out.npz"],
        cwd=tmp_path, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    with np.load(tmp_path / "out.npz") as out:
        expected = detector.score(rows, "dev1")
        assert np.allclose(out["score"], expected, rtol=MAX_DIFFERENCE, atol=0)
        assert np.array_equal(out["alert"], expected > detector.threshold("dev1"))
    facts = json.loads(done.stdout)
    assert facts["format"] == "secagg-program"
    assert facts["version"] == 1
    assert facts["device"] == "dev1"
    assert facts["threshold"] == detector.threshold("dev1")
    assert facts["max_fpr"] == 0.01
    assert tuple(facts["feature_names"]) == detector.feature_names


@pytest.mark.req("L-62")
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_broken_row_has_no_score_is_an_alert_and_spoils_no_other(program, devices, odd):
    rows = devices[1].test_benign[:3].copy()
    whole, _ = program(torch.from_numpy(rows))
    rows[1, 4] = odd
    score, alert = program(torch.from_numpy(rows))
    assert torch.isnan(score[1])
    assert alert[1]
    assert torch.equal(score[[0, 2]], whole[[0, 2]])


@pytest.mark.req("L-62")
def test_rows_of_another_width_are_refused(program):
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        program(torch.zeros((2, 19), dtype=torch.float64))


@pytest.mark.req("L-63")
def test_a_file_that_exists_is_left_alone(detector, tmp_path):
    path = tmp_path / "there.pt2"
    path.write_bytes(b"mine")
    with pytest.raises(ModelError, match="exists") as caught:
        save_program(detector, path, device="dev0")
    assert caught.value.hint
    assert path.read_bytes() == b"mine"


@pytest.mark.req("L-60", "L-63")
def test_a_program_that_differs_is_not_written(detector, tmp_path, monkeypatch):
    right = export.standardise
    monkeypatch.setattr(export, "standardise", lambda z: 1.001 * right(z))
    with pytest.raises(ModelError, match="differs from the detector"):
        save_program(detector, tmp_path / "wrong.pt2", device="dev0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.req("L-63")
@pytest.mark.parametrize(
    ("name", "device", "text"),
    [
        ("p.pt2", "dev9", "no head for 'dev9'"),
        ("p.pt2", None, "none is chosen"),
        ("p.onnx", "dev0", r"ends in \.pt2"),
        ("missing/p.pt2", "dev0", "cannot write"),
    ],
)
def test_what_cannot_be_exported_is_said(detector, tmp_path, name, device, text):
    with pytest.raises(ModelError, match=text) as caught:
        save_program(detector, tmp_path / name, device=device)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_facts_come_back_from_the_file(written):
    texts = {FACTS_NAME: ""}
    torch.export.load(written[0], extra_files=texts)
    assert json.loads(texts[FACTS_NAME])["torch"] == str(torch.__version__)


@pytest.mark.req("L-60", "L-63")
def test_the_command_says_the_difference_that_it_saw(detector, tmp_path, monkeypatch, capsys):
    detector.save(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["secagg", "export", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr().err

    arguments = ["model.safetensors", "--device", "dev0", "--out", "dev0.pt2"]
    code, err = call(*arguments)
    assert code == 0, err
    assert err.startswith("wrote dev0.pt2: dev0, ")
    assert "its scores differ from the model's by " in err
    assert (tmp_path / "dev0.pt2").is_file()
    code, err = call(*arguments)
    assert code == 3
    assert err.startswith("error: dev0.pt2 exists\nhint: ")
    code, err = call("model.safetensors", "--device", "x", "--out", "x.pt2")
    assert code == 3
    assert "hint: devices: dev0, dev1" in err
    code, err = call("no.safetensors", "--out", "x.pt2")
    assert code == 3
    assert "error: no.safetensors: cannot read" in err
