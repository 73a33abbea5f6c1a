"""Numbers that no plan, recipe or setting can mean are refused in a sentence before any work."""

import contextlib
import json
from dataclasses import replace

import pytest

from autoseg.cli import main
from autoseg.errors import AutosegError, TrainingError
from autoseg.phantoms import write_phantoms
from autoseg.training.recipe import RECIPES, changed
from autoseg.workspace import read_json
from planners import NetworkSpec, Plan
from planners.records import RecordError, from_json, to_json

DEEP = "[" * 100_000
DIGITS = "1" * 5000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("learning_rate", "weight_decay", "clip_norm", "foreground")
        for value in ("NaN", "Infinity", "1e999")
    ]
    + [
        ("momentum", "NaN"),
        ("augmentation_free_epochs", "Infinity"),
        ("cpu_width", "1000"),
        ("cpu_width", "1e-9"),
        ("validations", "1" * 30),
    ]
    + [("batch_size", "1" * 400), ("patience", "1" * 20), ("learning_rate", "1" * 400)],
    ids=lambda text: text[:20],
)
def test_a_setting_that_means_nothing_is_refused(name, value):
    with pytest.raises(TrainingError, match=name):
        changed(RECIPES["autoseg"], {name: json.loads(value)})


@pytest.mark.parametrize("text", ["NaN", DEEP, DIGITS], ids=["nan", "deep", "digits"])
def test_the_command_line_refuses_it_before_any_work(tmp_path, text, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=5, test=0, in_plane_mm=10)
    call = ["train", str(raw), "0", "--workspace", str(tmp_path / "w"), "--device", "cpu", "--set", f"learning_rate={text}"]
    with contextlib.suppress(SystemExit):  # of the parser
        assert main(call) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("text", [DEEP, DIGITS, '{"a": ' + DIGITS + "}", "\udc80"], ids=["deep", "digits", "a key", "no text"])
def test_json_without_end_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text, errors="surrogateescape")
    with pytest.raises(AutosegError, match=r"x\.json: not readable as JSON"):
        read_json(tmp_path / "x.json")


def spec(**changes):
    values = {"name": "unet", "in_channels": 1, "out_channels": 2, "features": (8, 16), "strides": ((1, 1, 1), (2, 2, 2))}
    values |= {"kernels": ((3, 3, 3),) * 2, "encoder_blocks": (2, 2), "decoder_blocks": (2,)}
    return from_json(NetworkSpec, to_json(NetworkSpec(**values)) | changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", [8, 1_000_000]),
        ("features", [0, 16]),
        ("strides", [[1, 1, 1], [0, 2, 2]]),
        ("strides", [[1, 1, 1], [2, 2, -2]]),
        ("kernels", [[3, 3, 3], [3, 0, 3]]),
        ("encoder_blocks", [2, 10**9]),
        ("decoder_blocks", [-1]),
        ("out_channels", 0),
        ("input_mean", [float("nan")]),
    ],
)
def test_a_network_that_nobody_can_mean_is_refused(name, value):
    assert spec().features == (8, 16)
    with pytest.raises(RecordError):
        spec(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mirror_axes", [0, 3]),
        ("mirror_axes", [-1]),
        ("mirror_axes", [1, 1]),
        ("spacing_mm", [1, float("nan"), 1]),
        ("batch_size", 0),
    ]
    + [("spacing_mm", [1, 10**400, 1]), ("patch_size", [16, 0, 16])],
)
def test_a_plan_that_nobody_can_mean_is_refused(plan, name, value):
    assert from_json(Plan, to_json(plan)) == plan
    with pytest.raises(RecordError, match=name):
        from_json(Plan, to_json(plan) | {name: value})


def test_a_network_with_other_outputs_than_the_labels_need_is_refused_before_the_training(tmp_path, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=5, test=0, in_plane_mm=10)
    where = ["--workspace", str(tmp_path / "w"), "--quiet"]
    assert main(["plan_and_preprocess", str(raw), *where]) == 0
    path = tmp_path / "w" / "plans" / "A" / "fullres_3d.json"
    edited = json.loads(path.read_text())
    assert edited["network"]["out_channels"] == 5
    edited["network"]["out_channels"] = 2
    path.write_text(json.dumps(edited))
    assert main(["train", "A", "0", "--iterations", "1", "--device", "cpu", *where]) == 2
    assert "the network has 2 outputs, but the labels need 5" in capsys.readouterr().err


@pytest.fixture
def plan():
    from planners import Budget, ChannelStats, Fingerprint, get_planner

    channel = ChannelStats("MRI", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0)
    about = {"shapes": ((20, 24, 22),) * 2, "spacings_mm": ((1.0, 1.0, 1.0),) * 2, "structures": ("blob",), "n_labels": 2}
    fingerprint = Fingerprint(dataset="made_up", cases=("a", "b"), channels=(channel,), **about)
    return replace(get_planner("fullres_3d").plan(fingerprint, Budget()), name="small")
