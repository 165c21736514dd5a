from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from fl_core.config import ModelConfig
from fl_core.detector import Detector
from fl_core.encoders import build_encoder, embed
from fl_core.errors import DataError, ModelError
from fl_core.normalise import Normaliser
from fl_core.parameters import initial_parameters
from fl_core.scoring import ROUNDING, EmbeddingStatistics, HeadStatistics


def fit(rows, model, seed=0, **options):
    return Detector.fit_head(
        initial_parameters(model, seed),
        model,
        rows.train,
        rows.validation,
        device=rows.device,
        feature_names=rows.feature_names,
        **options,
    )


@pytest.fixture(scope="module")
def merged(devices, model):
    return Detector.merge([fit(rows, model) for rows in devices])


@pytest.fixture
def path(merged, tmp_path):
    file = tmp_path / "model.safetensors"
    merged.with_provenance({"run": "r1", "rounds": 3}).save(file)
    return file


@pytest.mark.req("L-13")
@pytest.mark.parametrize("max_fpr", [0.01, 0.05, 0.2])
def test_the_threshold_holds_on_fresh_rows(devices, model, max_fpr):
    rows = devices[0]
    detector = fit(rows, model, max_fpr=max_fpr)
    # 300 fresh rows: max_fpr plus four standard errors.
    limit = max_fpr + 4 * np.sqrt(max_fpr / 300)
    assert np.mean(detector.score(rows.test_benign) > detector.threshold()) <= limit


@pytest.mark.req("L-10", "L-13")
@pytest.mark.parametrize("kind", ["mlp", "cnn", "gnn"])
def test_rows_that_are_all_alike_are_no_alerts_however_many_arrive_at_once(kind):
    model = ModelConfig(115, kind=kind)
    rows = np.tile(np.random.default_rng(0).lognormal(3.0, 2.0, size=115), (400, 1))
    detector = Detector.fit_head(
        initial_parameters(model, 0),
        model,
        rows[:300],
        rows[300:],
        device="a",
        feature_names=[f"f{i}" for i in range(115)],
    )
    for count in (1, 2, 3, 4, 400):
        assert (detector.score(rows[:count]) <= detector.threshold()).all(), count
    odd = rows[:1] * np.where(np.arange(115) == 7, 1.5, 1.0)
    assert (detector.score(odd) > detector.threshold()).all()


@pytest.mark.req("L-13")
@pytest.mark.parametrize("states", [2, 3, 10])
def test_states_that_recur_get_one_verdict_however_many_arrive_at_once(states):
    model = ModelConfig(115)
    rng = np.random.default_rng(states)
    rows = np.tile(rng.lognormal(3.0, 1.0, size=(states, 115)), (400 // states, 1))
    detector = Detector.fit_head(
        initial_parameters(model, 0),
        model,
        rows[: 30 * states],
        rows[30 * states :],
        device="a",
        feature_names=[f"f{i}" for i in range(115)],
    )
    whole = detector.score(rows) > detector.threshold()
    for count in (1, 2, 3, 5):
        parts = [detector.score(rows[i : i + count]) for i in range(0, 60, count)]
        assert np.array_equal(np.concatenate(parts) > detector.threshold(), whole[:60])
    assert not whole.any()


@pytest.mark.req("L-13")
def test_the_threshold_is_a_score_by_a_head_that_had_not_seen_the_row(devices, model):
    rows = devices[0]
    detector = fit(rows, model, max_fpr=0.1)
    encoder = build_encoder(model, detector.params)

    def score(own, values):
        normaliser = Normaliser.fit(own)
        statistics = EmbeddingStatistics.fit(embed(encoder, normaliser.apply(own)))
        return statistics.distance(embed(encoder, normaliser.apply(values)))

    folds = np.array_split(np.arange(len(rows.train)), 5)
    crossed = [score(np.delete(rows.train, fold, axis=0), rows.train[fold]) for fold in folds]
    ordered = np.sort(np.concatenate((score(rows.train, rows.validation), *crossed)))
    rank = int(np.ceil((len(ordered) + 1) * 0.9 - 1e-9))
    assert detector.threshold() == pytest.approx(ordered[rank - 1] * (1 + ROUNDING), rel=1e-9)


def test_attacks_score_higher_than_benign_rows(devices, model):
    rows = devices[0]
    detector = fit(rows, model)
    assert np.median(detector.score(rows.test_attack)) > 1.5 * np.median(
        detector.score(rows.test_benign)
    )


def test_merged_heads_score_as_they_did_alone(devices, model, merged):
    assert merged.devices == ("dev0", "dev1", "dev2")
    for rows in devices:
        alone = fit(rows, model)
        assert np.array_equal(
            merged.score(rows.test_benign, rows.device), alone.score(rows.test_benign)
        )
        assert merged.threshold(rows.device) == alone.threshold()


def test_scores_do_not_depend_on_the_other_rows(devices, merged):
    rows = devices[1].test_benign
    whole = merged.score(rows, "dev1")
    single = [merged.score(rows[i : i + 1], "dev1")[0] for i in range(20)]
    assert np.allclose(whole[:20], single, rtol=1e-4)


def test_no_rows_give_no_scores(merged):
    assert merged.score(np.empty((0, 20)), "dev0").shape == (0,)


@pytest.mark.req("L-15")
def test_only_equal_encoders_merge(devices, model):
    with pytest.raises(ModelError, match="encoder of dev1 differs"):
        Detector.merge([fit(devices[0], model), fit(devices[1], model, seed=1)])
    with pytest.raises(ModelError, match="two heads are named 'dev0'"):
        Detector.merge([fit(devices[0], model), fit(devices[0], model)])
    with pytest.raises(ModelError, match="no detector to merge"):
        Detector.merge([])


@pytest.mark.req("L-16")
def test_a_head_must_be_chosen_where_there_are_several(devices, model, merged):
    with pytest.raises(ModelError, match="3 heads and none is chosen") as caught:
        merged.threshold()
    assert "dev0, dev1, dev2" in caught.value.hint
    with pytest.raises(ModelError, match="no head for 'dev9'") as caught:
        merged.score(devices[0].train, "dev9")
    assert "dev0, dev1, dev2" in caught.value.hint
    assert fit(devices[0], model).head().device == "dev0"


@pytest.mark.parametrize(
    ("rows", "text"),
    [(np.zeros((2, 19)), "19 columns"), (np.full((1, 20), np.nan), "row 0 column 0")],
)
def test_rows_that_do_not_fit_are_refused(merged, rows, text):
    with pytest.raises(DataError, match=text):
        merged.score(rows, "dev0")


def test_a_head_needs_rows_of_the_models_width(devices, model):
    narrow = ModelConfig(input_dim=19, hidden=(32,), embedding_dim=8)
    with pytest.raises(DataError, match="20 columns, the model takes 19"):
        fit(devices[0], narrow)
    with pytest.raises(DataError, match="too few"):
        Detector.fit_head(
            initial_parameters(model, 0),
            model,
            devices[0].train[:1],
            devices[0].validation,
            device="d",
            feature_names=devices[0].feature_names,
        )


# ---------------------------------------------------------------------------------- on disk


@pytest.mark.req("L-17")
def test_a_saved_detector_comes_back_bit_for_bit(devices, merged, path):
    loaded = Detector.load(path)
    assert loaded.devices == merged.devices
    assert loaded.provenance == {"run": "r1", "rounds": 3}
    assert loaded.feature_names == merged.feature_names
    for rows in devices:
        assert loaded.threshold(rows.device) == merged.threshold(rows.device)
        assert np.array_equal(
            loaded.score(rows.test_attack, rows.device), merged.score(rows.test_attack, rows.device)
        )
    assert loaded.head("dev0").n_validation == 120
    assert loaded.head("dev0").n_calibration == 120 + len(devices[0].train)


@pytest.mark.req("L-17")
def test_reference_scores_come_back_bit_for_bit(merged, path):
    loaded = Detector.load(path).head("dev0").reference
    reference = merged.head("dev0").reference
    assert np.array_equal(loaded.levels, reference.levels)
    assert np.array_equal(loaded.shares, reference.shares)
    assert (loaded.count, loaded.correlation) == (reference.count, reference.correlation)


@pytest.mark.req("L-17")
def test_a_file_of_the_first_version_is_read_without_reference_scores(devices, merged, path):
    heads = [
        {name: getattr(head, name) for name in
         ("device", "threshold", "max_fpr", "n_train", "n_validation")}
        for head in merged.heads.values()
    ]  # fmt: skip
    drop = [f"head.{i}.reference" for i in range(len(heads))]
    rewrite(path, facts={"version": 1, "heads": heads}, drop=drop)
    old = Detector.load(path)
    assert all(head.reference is None for head in old.heads.values())
    rows = devices[0].test_attack
    assert np.array_equal(old.score(rows, "dev0"), merged.score(rows, "dev0"))
    old.save(path)
    assert Detector.load(path).head("dev0").reference is None


@pytest.mark.req("L-17")
def test_before_the_third_version_a_threshold_stood_on_validation_rows_alone(merged, path):
    heads = [sound_fields(head) for head in merged.heads.values()]
    for fields in heads:
        del fields["n_calibration"]
        del fields["parts"]
    rewrite(path, facts={"version": 2, "heads": heads})
    old = Detector.load(path).head("dev0")
    assert old.n_calibration == old.n_validation
    assert old.reference is not None


@pytest.mark.req("L-17")
def test_before_the_fourth_version_an_embedding_had_one_part(path):
    model = ModelConfig(12, kind="timefreq", window=4, hidden=(8,), embedding_dim=21)
    rows = np.random.default_rng(0).normal(size=(160, 12))
    params, names = initial_parameters(model, 0), [f"f{i}" for i in range(12)]
    now = Detector.fit_head(params, model, rows[:90], rows[90:], device="a", feature_names=names)
    head = now.head()
    assert head.statistics.widths == (12, 9)
    z = embed(build_encoder(model, params), head.normaliser.apply(rows[:90]))
    whole = replace(head, statistics=HeadStatistics.fit(z, (21,)))
    before = replace(now, heads={"a": whole})
    before.save(path)
    fields = sound_fields(head)
    del fields["parts"]
    rewrite(path, facts={"version": 3, "heads": [fields]})
    old = Detector.load(path)
    assert np.array_equal(old.score(rows), before.score(rows))
    assert not np.array_equal(old.score(rows), now.score(rows))
    old.save(path)  # as the newest version
    assert np.array_equal(Detector.load(path).score(rows), before.score(rows))


@pytest.mark.req("L-17")
def test_saving_leaves_one_file_and_replaces_the_old_one(merged, path):
    before = path.read_bytes()
    merged.save(path)
    assert path.read_bytes() != before  # no provenance any more
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.req("L-17")
def test_a_failed_save_keeps_the_old_file(merged, path):
    before = path.read_bytes()
    with pytest.raises(ModelError, match="not JSON"):
        merged.with_provenance({"when": object()}).save(path)
    assert path.read_bytes() == before
    with pytest.raises(ModelError, match="cannot write"):
        merged.save(path.parent / "missing" / "model.safetensors")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def rewrite(path, *, facts=None, arrays=None, drop=()):
    """Write the file again with some facts or arrays changed."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    text = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["detector"])
    tensors = from_safetensors(raw) | (arrays or {})
    for name in drop:
        del tensors[name]
    changed = json.dumps(text | (facts or {}))
    path.write_bytes(to_safetensors(tensors, metadata={"detector": changed}))


def sound_fields(head):
    """What a file says of a head."""
    return {
        "device": head.device,
        "threshold": head.threshold,
        "max_fpr": head.max_fpr,
        "n_train": head.n_train,
        "n_validation": head.n_validation,
        "n_calibration": head.n_calibration,
        "parts": list(head.statistics.widths),
        "reference": {
            "levels": len(head.reference.levels),
            "count": head.reference.count,
            "correlation": head.reference.correlation,
        },
    }


@pytest.mark.req("L-18")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"facts": {"version": 5}}, "detector version 5"),
        ({"facts": {"version": True}}, "detector version True"),
        ({"facts": {"version": 1}}, "missing, unknown or mistyped"),
        ({"facts": {"version": 2}}, "missing, unknown or mistyped"),
        ({"facts": {"version": 3}}, "missing, unknown or mistyped"),
        ({"drop": ["head.1.reference"]}, "'head.1.reference' is missing"),
        ({"arrays": {"head.1.reference": np.ones((2, 120))}}, "do not ascend"),
        ({"facts": {"format": "other"}}, "not that of a detector"),
        ({"facts": {"extra": 1}}, "missing, unknown or mistyped"),
        ({"facts": {"heads": [{"device": "x"}]}}, "missing, unknown or mistyped"),
        ({"facts": {"heads": []}}, "is missing or not expected"),
        ({"facts": {"feature_names": [1, 2]}}, "missing, unknown or mistyped"),
        ({"facts": {"feature_names": ["a"] * 20}}, "1 different feature names for 20"),
        ({"facts": {"model": {"input_dim": -1}}}, "input_dim is -1"),
        ({"facts": {"model": {"input_dim": 20, "x": 1}}}, "no setting 'x'"),
        ({"facts": {"model": {"input_dim": 21}}}, r"parts of \[8\] coordinates"),
        ({"facts": {"model": {"input_dim": 21, "embedding_dim": 8}}}, "array 'params' is F32"),
        ({"facts": {"provenance": []}}, "missing, unknown or mistyped"),
        ({"drop": ["head.1.mean"]}, "'head.1.mean' is missing"),
        ({"arrays": {"odd": np.zeros(1)}}, "'odd' is missing or not expected"),
        ({"arrays": {"params": np.zeros(3, np.float32)}}, "array 'params' is F32"),
        ({"arrays": {"head.0.mean": np.zeros(16, np.float32)}}, "array 'head.0.mean' is F32"),
        ({"arrays": {"head.0.mean": np.full(16, np.nan)}}, "NaN or an infinity"),
        ({"arrays": {"head.0.scale": np.zeros(20)}}, "scale below"),
        ({"arrays": {"head.0.whitening": np.full((16, 16), np.inf)}}, "NaN or an infinity"),
        ({"arrays": {"head.0.spread": np.zeros(1)}}, "have the spread"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_file_that_is_not_sound_is_refused(path, change, text):
    rewrite(path, **change)
    with pytest.raises(ModelError, match=text):
        Detector.load(path)


@pytest.mark.req("L-18")
@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": float("nan")},
        {"parts": []},
        {"parts": [8, 0]},
        {"parts": [9, -1]},
        {"parts": [4.0, 4.0]},
        {"parts": [True] * 8},
        {"parts": [4, 4]},
        {"parts": 8},
        {"max_fpr": 0.0},
        {"n_train": 0},
        {"n_validation": -1},
        {"n_calibration": 119},
        {"n_calibration": 1 << 40},
        {"device": ""},
        {"device": "dev1"},
        {"threshold": "1"},
        {"n_train": True},
        {"reference": {}},
        {"reference": 1},
        {"n_validation": 10**400, "n_calibration": 10**400},
        {"n_train": 10**400},
        {"reference": {"levels": 119, "count": 119, "correlation": 0.5}},
        {"reference": {"levels": 119, "count": 119, "correlation": float("nan")}},
        {"reference": {"levels": 119, "count": 121, "correlation": 1.0}},
        {"reference": {"levels": 117, "count": 119, "correlation": 1.0}},
        {"reference": {"levels": 1 << 60, "count": 119, "correlation": 1.0}},
        {"reference": None},
    ],
    ids=str,
)
def test_a_head_that_is_not_sound_is_refused(path, merged, fields):
    sound = [sound_fields(head) for head in merged.heads.values()]
    sound[0] |= fields
    rewrite(path, facts={"heads": sound})
    with pytest.raises(ModelError):
        Detector.load(path)


@pytest.mark.req("L-18")
def test_bytes_that_are_no_detector_are_refused(path, tmp_path):
    sound = path.read_bytes()
    other = tmp_path / "other.safetensors"
    cases = {
        b"": "not a safetensors file",
        b"PK\x03\x04 a zip": "not a safetensors file",
        sound[:100]: "not a safetensors file",
        sound[:-9]: "not a safetensors file",
        struct.pack("<Q", 1 << 60) + b"{": "not a safetensors file",
        to_safetensors({"w": np.zeros(3)}): "not a detector",
        to_safetensors({"w": np.zeros(3)}, metadata={"detector": "{"}): "not JSON",
        to_safetensors({"w": np.zeros(3)}, metadata={"detector": "[" * 9999}): "not JSON",
        to_safetensors({"w": np.zeros(3)}, metadata={"detector": "[]"}): "not that of a detector",
    }
    for raw, text in cases.items():
        other.write_bytes(raw)
        with pytest.raises(ModelError, match=text):
            Detector.load(other)


@pytest.mark.req("L-18")
def test_flipped_bytes_never_escape_as_another_error(path):
    """Any byte changed: the file loads, or is refused with a ModelError."""
    sound = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in [*range(64), *rng.integers(len(sound), size=150).tolist()]:
        broken = bytearray(sound)
        broken[at] ^= 0x41
        path.write_bytes(broken)
        try:
            Detector.load(path)
        except ModelError:
            continue


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(ModelError, match=r"cannot read|not a safetensors"):
        Detector.load(tmp_path / name)
