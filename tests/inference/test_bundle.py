import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from autoseg.archive import read_member
from autoseg.errors import FileError, ModelError
from autoseg.inference.bundle import export_model, load_bundle, load_networks, refuse_other_model, save_bundle
from autoseg.locks import model_lock
from autoseg.networks import build_network
from autoseg.pipeline.importing import import_model
from autoseg.workspace import Workspace
from tests.helpers.models import LABELS, make_plan, write_model

MEMBER, LISTED = b"PK\3\4", b"PK\1\2"  # how headers of a zip begin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "model", make_plan(), seeds=(0, 1))
    return tmp_path / "model"


def state_of(plan, seed):
    torch.manual_seed(seed)
    return build_network(plan.network).state_dict()


def edit(model, change):
    content = json.loads((model / "model.json").read_text())
    del content["seal"]  # edited on purpose
    change(content)
    (model / "model.json").write_text(json.dumps(content))


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_model_comes_back_as_it_was_saved(model):
    bundle = load_bundle(model)
    assert bundle.plan == make_plan()
    assert bundle.labels == LABELS
    assert (bundle.channels, bundle.file_ending, bundle.info) == (("MRI",), ".nii.gz", {"note": "phantom"})
    assert list(bundle.folds) == ["0", "1"]
    expected = state_of(bundle.plan, 1)
    found = bundle.folds["1"]()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert sorted(path.name for path in model.iterdir()) == ["fold_0.safetensors", "fold_1.safetensors", "model.json"]


def test_adding_a_fold_keeps_the_others_and_merges_info(model):
    before = load_bundle(model)
    weights = {"2": state_of(before.plan, 2)}
    after = save_bundle(
        model, plan=before.plan, labels=before.labels, channels=("MRI",), weights=weights, info={"scores": {"2": 0.5}}
    )
    save_bundle(model, plan=before.plan, labels=before.labels, channels=("MRI",), weights={}, info={"scores": {"1": 0.4}})
    assert list(after.folds) == ["0", "1", "2"]
    assert after.digest != before.digest
    assert after.digest_with(["0", "1"]) == before.digest
    assert load_bundle(model).info == {"note": "phantom", "scores": {"2": 0.5, "1": 0.4}}
    load_networks(after)


@pytest.mark.parametrize(("name", "value"), [("plan", None), ("labels", None), ("file_ending", ".nrrd"), ("channels", ("CT",))])
def test_a_fold_of_another_model_is_refused_and_nothing_written(model, name, value):
    bundle = load_bundle(model)
    same = {"plan": bundle.plan, "labels": bundle.labels, "channels": bundle.channels, "file_ending": bundle.file_ending}
    if name == "plan":
        value = dataclasses.replace(bundle.plan, batch_size=9)
    if name == "labels":
        value = dataclasses.replace(bundle.labels, structures=("cube",))
    with pytest.raises(ModelError, match=f"another {name}"):
        save_bundle(model, **{**same, name: value}, weights={"5": state_of(bundle.plan, 5)})
    assert list(load_bundle(model).folds) == ["0", "1"]
    assert not (model / "fold_5.safetensors").exists()


@pytest.mark.parametrize("fold", ["../0", "", "a/b", "0.1"])
def test_a_fold_name_is_a_plain_word(tmp_path, fold):
    with pytest.raises(ModelError, match="fold cannot be called"):
        save_bundle(tmp_path / "m", plan=make_plan(), labels=LABELS, channels=("MRI",), weights={fold: {}})


def test_plan_labels_and_channels_must_fit_each_other(tmp_path):
    plan = make_plan()
    with pytest.raises(ModelError, match="takes 1 channels"):
        save_bundle(tmp_path / "m", plan=plan, labels=LABELS, channels=("T1", "T2"), weights={})
    wide = dataclasses.replace(plan, network=dataclasses.replace(plan.network, out_channels=5))
    with pytest.raises(ModelError, match="has 5 outputs, but the labels need 2"):
        save_bundle(tmp_path / "m", plan=wide, labels=LABELS, channels=("MRI",), weights={})


def test_tampered_weights_are_refused_with_file_expected_and_found(model):
    path = model / "fold_1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bundle = load_bundle(model)
    bundle.folds["0"]()
    with pytest.raises(ModelError, match=r"(?s)fold_1\.safetensors.*expected digest [0-9a-f]{32}.*found digest"):
        bundle.folds["1"]()
    with pytest.raises(ModelError, match="fold_1"):
        export_model(model, model.parent / "model.zip")
    assert not (model.parent / "model.zip").exists()


def test_cut_and_missing_weights_are_refused_at_once(model):
    path = model / "fold_1.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="expected .* bytes, found"):
        load_bundle(model)
    path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        load_bundle(model)


def test_a_missing_fold_lists_the_folds(model):
    with pytest.raises(ModelError, match="no fold '4'. The model has: 0, 1"):
        load_networks(load_bundle(model), [4])
    with pytest.raises(ModelError, match="no fold to predict with"):
        load_networks(load_bundle(model), [])
    assert list(load_networks(load_bundle(model), [1, 0])) == ["1", "0"]


def test_an_unknown_network_is_named(model):
    edit(model, lambda content: content["plan"]["network"].update(name="hydra_net"))
    bundle = load_bundle(model)
    with pytest.raises(ModelError, match="'hydra_net' cannot be built"):
        load_networks(bundle)


def test_weights_of_another_network_are_refused(model):
    edit(model, lambda content: content["plan"]["network"].update(features=[4, 16]))
    with pytest.raises(ModelError, match="weights that fit its plan"):
        load_networks(load_bundle(model))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(format="autoseg model 9"),
        lambda content: content["plan"].update(batch_size="two"),
        lambda content: content.pop("labels"),
        lambda content: content["weights"][0].update(fold="../../0"),
        lambda content: content.update(info=[]),
    ],
)
def test_a_wrong_model_json_says_where(model, change):
    edit(model, change)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_bundle(model)


def test_links_to_nowhere_and_folders_beside_a_model_are_none_of_it(model):
    (model / "gone.json").symlink_to(model / "nowhere")
    (model / "loop.safetensors").symlink_to("loop.safetensors")
    (model / "notes.json").mkdir()
    assert list(load_bundle(model).folds) == ["0", "1"]


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.json").write_text("{")
    for name, message in [
        ("empty", "this is not a model"),
        ("text.zip", "a whole zip"),
        ("gone", "no such model"),
        ("broken", "not readable as JSON"),
    ]:
        with pytest.raises(ModelError, match=message):
            load_bundle(tmp_path / name)


def test_an_exported_model_loads_from_its_zip_and_is_the_same(model, tmp_path):
    first = export_model(model, tmp_path / "a.zip")
    second = export_model(model, tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    bundle = load_bundle(first)
    assert bundle.digest == load_bundle(model).digest
    found, expected = bundle.folds["1"](), load_bundle(model).folds["1"]()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_folder_zipped_by_hand_loads_too(model, tmp_path):
    members = {f"my model/{path.name}": path.read_bytes() for path in model.iterdir()}
    members["__MACOSX/model.json"] = b"junk"
    load_networks(load_bundle(zipped(tmp_path / "hand.zip", members)))


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_a_zip_that_points_outside_is_refused(model, tmp_path, name):
    members = {path.name: path.read_bytes() for path in model.iterdir()}
    path = zipped(tmp_path / "evil.zip", members)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(ModelError, match="points outside"):
        load_bundle(path)


def test_a_zip_bomb_is_refused_before_it_is_read(model, tmp_path):
    members = {path.name: path.read_bytes() for path in model.iterdir()}
    members["fold_0.safetensors"] = bytes(20_000_000)
    with pytest.raises(ModelError, match="claims 20000000 bytes"):
        load_bundle(zipped(tmp_path / "bomb.zip", members))


def test_a_damaged_zip_is_refused(model, tmp_path):
    path = export_model(model, tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ModelError, match="fold_"):
        load_networks(load_bundle(path))


@pytest.mark.thorough
def test_a_damaged_zip_is_told_in_few_words(model, tmp_path):
    """zipfile 3.11 quotes the name that stands before the member, which damage can make as long as all that follows."""
    path = export_model(model, tmp_path / "model.zip")
    raw = bytearray(path.read_bytes())
    raw[26:28] = b"\xff\x0f"  # the length of the name in the first header
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"model\.json: expected a whole member of the archive") as told:
        load_bundle(path)
    assert len(str(told.value)) < 700


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({(MEMBER, 7): 0x08, (MEMBER, 30): 0xBC}, "invalid start byte"),  # it says that its name is UTF-8, which it is not
        ({(LISTED, 10): zipfile.ZIP_LZMA}, "."),  # packed otherwise than the list says
    ],
    ids=["name", "packing"],
)
def test_whatever_zipfile_raises_of_a_damaged_member_is_our_error(tmp_path, changes, reason):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"{}" * 40)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    for (header, at), value in changes.items():
        raw[raw.index(header) + at] = value
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(ModelError, match=rf"a\.zip: a\.json: expected a whole member of the archive, found: .*{reason}"):
        read_member(tmp_path / "a.zip", "a.json", "a.zip")


@pytest.mark.thorough
def test_a_model_needs_no_training_code_and_no_pickle(model):
    code = (
        "import sys; from autoseg.inference.predictor import Predictor; from autoseg.inference import cohort;"
        "from autoseg.options import InferenceOptions;"
        f"Predictor({str(model)!r}, InferenceOptions(precision='fp32'), device='cpu');"
        "slow = ('torch._dynamo', 'sympy');"  # which torch imports to fill layers on the meta device
        "unasked = ('autoseg.training', 'autoseg.pipeline', 'batchgenerators', *slow);"
        "print([name for name in sys.modules if name.startswith(unasked)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=".", check=True)
    assert done.stdout.strip() == "[]"


def test_folds_that_are_added_at_one_moment_are_all_kept(tmp_path):
    plan, folder = make_plan(), tmp_path / "model"
    same = {"plan": plan, "labels": LABELS, "channels": ("MRI",)}
    states = [state_of(plan, fold) for fold in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda fold: save_bundle(folder, **same, weights={fold: states[fold]}), range(6)))
    assert list(load_bundle(folder).folds) == list("012345")
    assert not list(folder.glob("*.lock"))


def test_a_killed_writer_leaves_no_lock_behind(model):
    same = {"plan": make_plan(), "labels": LABELS, "channels": ("MRI",)}
    holder = (
        "import os, signal; from pathlib import Path; from autoseg.locks import model_lock\n"
        f"with model_lock(Path({str(model)!r})):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", holder], check=False).returncode == -signal.SIGKILL
    begun = time.monotonic()
    assert save_bundle(model, **same, weights={}).folds
    assert time.monotonic() - begun < 30  # it waited for nobody


def test_a_lock_file_of_an_earlier_version_stops_nobody(model):
    (model / "model.json.lock").touch()
    same = {"plan": make_plan(), "labels": LABELS, "channels": ("MRI",)}
    assert save_bundle(model, **same, weights={}).folds


@pytest.mark.thorough
def test_a_model_that_another_writes_for_long_is_refused(model, monkeypatch):
    monkeypatch.setattr("autoseg.locks.MODEL_SECONDS", 0.1)
    same = {"plan": make_plan(), "labels": LABELS, "channels": ("MRI",)}
    refused = pytest.raises(ModelError, match="another process is writing this model")
    with ThreadPoolExecutor(1) as pool, model_lock(model), refused:
        pool.submit(save_bundle, model, **same, weights={}).result()


def test_another_model_is_refused_before_a_training(model, tmp_path):
    same = {"plan": make_plan(), "labels": LABELS, "channels": ("MRI",)}
    refuse_other_model(model, **same)
    refuse_other_model(tmp_path / "none yet", **same)
    with pytest.raises(ModelError, match="another channels"):
        refuse_other_model(model, **same | {"channels": ("CT",)})


def test_what_each_fold_learned_from_travels_with_the_model_and_is_no_part_of_its_identity(model, tmp_path):
    bundle = load_bundle(model)
    assert bundle.learned_from == {"0": (), "1": ()}
    same = {"plan": bundle.plan, "labels": bundle.labels, "channels": bundle.channels}
    weights = {fold: load() for fold, load in bundle.folds.items()}
    named = save_bundle(model, **same, weights={1: weights["1"]}, learned_from={1: ["aa", "bb"]})
    assert named.learned_from == {"0": (), "1": ("aa", "bb")}
    assert named.digest == bundle.digest
    assert save_bundle(model, **same, weights={}).learned_from == named.learned_from
    workspace = Workspace(tmp_path / "workspace")
    copy = import_model(export_model(model, tmp_path / "model.zip"), workspace)
    assert load_bundle(copy).learned_from == named.learned_from
    with pytest.raises(ModelError, match="what fold '2' learned from, but has no weights"):
        save_bundle(model, **same, weights={"1": weights["1"]}, learned_from={"2": ["cc"]})
    assert load_bundle(model).learned_from == named.learned_from


def test_an_import_that_cannot_be_written_names_its_place_and_leaves_nothing(model, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w")
    workspace.folder.mkdir()
    (workspace.folder / "models").touch()
    with pytest.raises(FileError, match="w/models: expected a folder to write to, found a file"):
        import_model(model, workspace, name="copy")
    (workspace.folder / "models").unlink()
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(FileError, match="w/models/copy: no room left on its disk") as told:
        import_model(model, workspace, name="copy")
    assert ".writing" not in str(told.value)
    assert not list((workspace.folder / "models").iterdir())


def no_room(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_import_that_was_killed_is_given_again(model, tmp_path):
    source, models = export_model(model, tmp_path / "model.zip"), tmp_path / "workspace" / "models"
    code = "import os, signal, sys\nfrom pathlib import Path\n"
    code += "from autoseg.pipeline import importing\nfrom autoseg.workspace import Workspace\n"
    code += "importing.tell_methods = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "importing.import_model(sys.argv[1], Workspace(Path(sys.argv[2])))"
    killed = subprocess.run([sys.executable, "-c", code, source, models.parent], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not Workspace(models.parent).models()
    copy = import_model(source, Workspace(models.parent))
    assert load_bundle(copy).digest == load_bundle(model).digest
    assert [path.name for path in models.iterdir()] == ["model"]
