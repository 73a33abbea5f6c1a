"""Nothing outside the workspace and the output folder is written or removed, by no verb, whatever the names in its input."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from autoseg.cli import main
from autoseg.imaging.raw import digest_of
from autoseg.phantoms import write_phantoms
from tests.helpers import dicom as draw

MODEL = "Abdomen_fullres_3d_unet"
TRAIN = "--network unet --iterations 2 --device cpu --set validations=1"

# verb -> (its call, what below MADE it may change); one after the other
HONEST = {
    "verify": ("verify RAW", "workspace"),
    "plan_and_preprocess": ("plan_and_preprocess 7", "workspace"),
    "train": (f"train 7 0 {TRAIN}", "workspace"),
    "train --fresh": (f"train 7 0 {TRAIN} --fresh", "workspace"),
    "predict": (
        "predict -i RAW/imagesTs -o MADE/predicted --device cpu --surfaces stl,glb --isotropic --reference RAW/labelsTs",
        "predicted",
    ),
    "reconstruct": ("reconstruct -i RAW/labelsTs -o MADE/rebuilt --surfaces stl", "rebuilt"),
    "evaluate": ("evaluate --reference RAW/labelsTs --predicted MADE/predicted -o MADE/scored", "scored"),
    "report": ("report MADE/scored", "scored"),
    "model export": (f"model export {MODEL} MADE/model.zip", "model.zip"),
    "model import": ("model import MADE/model.zip --name again", "workspace"),
    "model info": ("model info again", "nothing"),
    "convert": ("convert folders RAW/imagesTr MADE/converted --labels RAW/labelsTr --channels MR --copy", "converted"),
    "compare": ("compare 7 0 --networks fcn --iterations 2 --device cpu --set validations=1", "workspace"),
}


def state(*folders, but=None):
    """{path: digest of the file, target of the link, or nothing for a folder} of all that lies there, ``but`` one folder."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        if but is None or (path != but and but not in path.parents):
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else path.is_symlink()
    return found


def changed(before, after):
    return {path for path in before.keys() | after.keys() if before.get(path, "none") != after.get(path, "none")}


def call(words, raw, made):
    words = words.split() if isinstance(words, str) else words
    words = [str(word).replace("RAW", str(raw)).replace("MADE", str(made)) for word in words]
    return main([*words, "--workspace", str(made / "workspace"), "--quiet"])


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """(root, {verb: (status, what it changed elsewhere)}): the whole road in RAW and MADE, called from a third folder."""
    root = tmp_path_factory.mktemp("road")
    raw, made, away = root / "Dataset007_Abdomen", root / "made", root / "away"
    write_phantoms(raw, training=6, test=2, in_plane_mm=8)
    for folder in (made, away):
        folder.mkdir()
    (away / "precious.txt").write_text("ours")
    found, here = {}, Path.cwd()
    os.chdir(away)
    try:
        for verb, (words, own) in HONEST.items():
            before = state(root)
            status = call(words, raw, made)
            touched = changed(before, state(root))
            own = made / own
            found[verb] = status, {path for path in touched if path != own and own not in path.parents}
            if verb == "plan_and_preprocess":
                narrow(made / "workspace" / "plans" / "Abdomen" / "fullres_3d.json")
    finally:
        os.chdir(here)
    return root, found


def narrow(path):
    plan = json.loads(path.read_text())
    plan["network"]["features"] = [min(16, f) for f in plan["network"]["features"]]
    plan["network"]["attention"] = [entry | {"heads": 1} for entry in plan["network"]["attention"]]
    path.write_text(json.dumps(plan))


@pytest.mark.parametrize("verb", HONEST)
def test_a_verb_changes_its_own_folder_alone(road, verb):
    assert road[1][verb] == (0, set())


class Scene:
    """A workspace to work with, folders that nothing may change, and a name that leads to one of them.

    ``bad(base)`` is the name that leads from the folder ``base`` to ``target``, a folder of somebody.
    """

    def __init__(self, root, folder, absolute):
        self.root, self.folder, self.absolute = root, folder, absolute
        self.raw, self.made, self.inputs = root / "Dataset007_Abdomen", folder / "made", folder / "inputs"
        self.target, self.workspace = folder / "others" / "target", folder / "made" / "workspace"
        for new in (self.inputs, self.target):
            new.mkdir(parents=True)
        (self.target / "precious.txt").write_text("ours")
        (self.target / "case.json").write_text("{}")
        shutil.copytree(root / "made" / "workspace", self.workspace)

    def bad(self, *base):
        """The name of ``target`` as seen from a folder below MADE."""
        return str(self.target) if self.absolute else os.path.relpath(self.target, self.made.joinpath(*base))

    def prepared(self):
        return self.bad("workspace", "prepared", "Hostile", "fullres_3d")

    def dataset(self, name="Dataset008_Hostile", **changes):
        """A data-set folder whose dataset.json lists the phantoms; ``changes`` to it."""
        cases = [f"phantom_{number:03d}" for number in range(6)]
        listing = {case: self.entry(case) for case in cases}
        about = json.loads((self.raw / "dataset.json").read_text()) | {"dataset": listing} | changes
        (self.inputs / name).mkdir()
        (self.inputs / name / "dataset.json").write_text(json.dumps(about))
        return self.inputs / name

    def entry(self, case="phantom_000"):
        return {
            "images": [str(self.raw / "imagesTr" / f"{case}_0000.nii.gz")],
            "label": str(self.raw / "labelsTr" / f"{case}.nii.gz"),
        }

    def edit(self, path, change):
        """Change a JSON file of the workspace."""
        record = json.loads((self.workspace / path).read_text())
        change(record)
        record.pop("seal", None)  # as its message tells whoever edits on purpose
        (self.workspace / path).write_text(json.dumps(record))


@pytest.fixture(params=["absolute", "upwards"])
def scene(request, road, tmp_path):
    return Scene(road[0], tmp_path, request.param == "absolute")


def bad_case(scene, key):
    good = {f"phantom_{number:03d}": scene.entry(f"phantom_{number:03d}") for number in range(1, 6)}
    listing = {scene.prepared(): scene.entry(), **(good if key == "dataset" else {})}
    return scene.dataset(**{key: listing})


def bad_ending(scene):
    name = os.path.relpath(scene.target, scene.made)  # CASE + ending is appended to the folder of the predictions
    return scene.dataset(file_ending=f".x/../../{name}/evil.nii.gz", test={"phantom_000": scene.entry()})


def bad_table(scene):
    rows = [["case", "image", "label"]]
    for number in range(3):
        entry = scene.entry(f"phantom_{number:03d}")
        rows.append([scene.bad("converted", "imagesTr") if number == 0 else f"c{number}", entry["images"][0], entry["label"]])
    path = scene.inputs / "cases.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    return path


def begun_conversion(scene):
    """A folder that claims to have made a file of somebody; returns the table it is from."""
    rows = [["case", "image", "label"]]
    for number in range(3):
        entry = scene.entry(f"phantom_{number:03d}")
        rows.append([f"c{number}", entry["images"][0], entry["label"]])
    table = scene.inputs / "cases.csv"
    table.write_text("\n".join(",".join(row) for row in rows))
    assert call(["convert", "folders", table, "MADE/converted", "--copy"], scene.raw, scene.made) == 0
    file = f"{scene.bad('converted')}/precious.txt"
    with (scene.made / "converted" / "conversion.jsonl").open("a") as record:
        record.write(json.dumps({"file": file, "key": "", "digest": "", "how": "copied"}) + "\n")
    return table


def edited_model(change):
    def spoil(scene):
        scene.edit(f"models/{MODEL}/model.json", lambda record: change(scene, record))
        return scene.workspace / "models" / MODEL

    return spoil


def bad_fold(scene, record):
    record["weights"][0]["fold"] = scene.bad("workspace", "models", "again")


def bad_plan_of_model(scene, record):
    record["plan"]["name"] = scene.bad("workspace", "prepared", "Abdomen")


def bad_ending_of_model(scene, record):
    record["file_ending"] = f".x/../../{scene.bad()}/evil.nii.gz"


def bad_plan(scene):
    bad = scene.bad("workspace", "prepared", "Abdomen")
    scene.edit("plans/Abdomen/fullres_3d.json", lambda record: record.update(name=bad))


def bad_own_splits(scene):
    folder, bad = scene.dataset(), scene.prepared()
    (folder / "splits.json").write_text(json.dumps([{"train": ["phantom_000"], "val": [bad]}]))
    return folder


def bad_stored_splits(scene):
    bad = scene.bad("workspace", "prepared", "Abdomen", "fullres_3d")
    scene.edit("fingerprints/Abdomen/splits.json", lambda record: record["folds"][0].update(val=[bad]))


def folder_of_dots(scene):
    return scene.dataset("Dataset008_..")


def of_run(scene):
    return scene.bad("workspace", "runs", "Abdomen")


def of_plan(scene):
    return scene.bad("workspace", "plans", "Abdomen")


def of_model(scene):
    return scene.bad("workspace", "models") + "/model"


def listed(key):
    return lambda scene: bad_case(scene, key)


PREDICT = f"predict -m {MODEL} -o MADE/out --device cpu --surfaces stl -i"
READERS = {  # of a data set
    "verify": "verify BAD",
    "plan": "plan_and_preprocess BAD",
    "plan fresh": "plan_and_preprocess BAD --fresh",
    "train": f"train BAD 0 {TRAIN}",
    "compare": "compare BAD 0 --networks fcn --iterations 2 --device cpu",
    "predict": f"{PREDICT} BAD",
    "reconstruct": "reconstruct -o MADE/out --surfaces stl -i BAD",
    "evaluate": "evaluate --reference BAD --predicted RAW/labelsTr -o MADE/out",
}
MODELS = {"predict": "predict -o MADE/out --device cpu -i RAW/imagesTs -m BAD", "import": "model import BAD --name new"}

# what makes the input BAD, and the calls that are refused because of it
HOSTILE = {
    **{f"dataset, {verb}": (listed("dataset"), words) for verb, words in READERS.items()},
    **{f"test, {verb}": (listed("test"), words) for verb, words in READERS.items()},
    **{f"folder, {verb}": (folder_of_dots, READERS[verb]) for verb in ("verify", "plan", "train", "compare")},
    "file ending, predict": (bad_ending, READERS["predict"]),
    "file ending, plan": (bad_ending, READERS["plan"]),
    "own splits": (bad_own_splits, READERS["train"]),
    "stored splits": (bad_stored_splits, f"train 7 0 {TRAIN} --fresh"),
    "plan, prepare": (bad_plan, "plan_and_preprocess 7"),
    "plan, train": (bad_plan, f"train 7 0 {TRAIN}"),
    "plan, compare": (bad_plan, "compare 7 0 --networks fcn --iterations 2 --device cpu"),
    "table, copy": (bad_table, "convert folders BAD MADE/converted --copy"),
    "table, link": (bad_table, "convert folders BAD MADE/converted --link"),
    "table": (bad_table, "convert folders BAD MADE/converted"),
    "begun conversion": (begun_conversion, "convert folders BAD MADE/converted --copy"),
    **{f"fold, {verb}": (edited_model(bad_fold), words) for verb, words in MODELS.items()},
    **{f"plan of a model, {verb}": (edited_model(bad_plan_of_model), words) for verb, words in MODELS.items()},
    **{f"ending of a model, {verb}": (edited_model(bad_ending_of_model), words) for verb, words in MODELS.items()},
    "--name of a run": (of_run, f"train 7 0 {TRAIN} --fresh --name BAD"),
    "--plan, train": (of_plan, f"train 7 0 {TRAIN} --plan BAD"),
    "--plan, compare": (of_plan, "compare 7 0 --networks fcn --iterations 2 --device cpu --plan BAD"),
    "--planner": (of_plan, "plan_and_preprocess 7 --planner BAD"),
    "--preset": (of_plan, "plan_and_preprocess 7 --preset BAD"),
    "--recipe": (of_run, f"train 7 0 {TRAIN} --recipe BAD"),
    "--network": (of_run, "train 7 0 --iterations 2 --device cpu --network BAD"),
    "--networks": (of_run, "compare 7 0 --iterations 2 --device cpu --networks BAD"),
    "fold": (of_run, f"train 7 BAD {TRAIN}"),
    "--from": (of_model, f"train 7 0 {TRAIN} --name new --from BAD"),
    "--name of a model": (of_model, "model import RAW/../made/model.zip --name BAD"),
    "-m": (of_model, "predict -i RAW/imagesTs -o MADE/out --device cpu -m BAD"),
    "export": (of_model, "model export BAD MADE/out"),
    "info": (of_model, "model info BAD"),
    "number of a data set": (of_run, "verify BAD/none"),
    "report": (of_run, "report BAD/none"),
}


@pytest.mark.parametrize("entry", HOSTILE)
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_elsewhere_changes(scene, entry, capsys):
    spoil, words = HOSTILE[entry]
    bad = spoil(scene)
    before, own = state(scene.root, scene.folder, but=scene.made), state(scene.made)
    status = call([word.replace("BAD", str(bad)) for word in words.split()], scene.raw, scene.made)
    said = capsys.readouterr().err
    assert changed(before, state(scene.root, scene.folder, but=scene.made)) == set()
    assert status == 2, said
    assert "Error: " in said
    assert "Traceback" not in said
    if entry not in ("stored splits",):  # which are met after the verification is stored
        assert changed(own, state(scene.made)) == set()


def test_a_case_with_such_a_name_is_left_out_of_a_conversion_where_that_is_asked_for(scene, capsys):
    table = bad_table(scene)
    before = state(scene.root, scene.folder, but=scene.made)
    assert call(["convert", "folders", table, "MADE/converted", "--copy", "--skip-bad"], scene.raw, scene.made) == 1
    assert "case-name" in capsys.readouterr().out
    assert changed(before, state(scene.root, scene.folder, but=scene.made)) == set()
    assert sorted(path.name for path in (scene.made / "converted" / "labelsTr").iterdir()) == ["c1.nii.gz", "c2.nii.gz"]


def test_structures_are_called_as_they_like_and_their_surfaces_stay_in_their_folder(scene):
    names = [scene.bad("out", "phantom_006_surfaces") + "/liver", "..", "x" * 300, "a\0b"]
    path = edited_model(lambda scene, record: record["labels"].update(structures=names))(scene)
    before = state(scene.root, scene.folder, but=scene.made)
    own = state(scene.workspace)
    words = ["predict", "-i", scene.raw / "imagesTs", "-o", "MADE/out", "-m", path, "--device", "cpu", "--surfaces", "stl"]
    assert call(words, scene.raw, scene.made) == 0
    about = json.loads((scene.raw / "dataset.json").read_text())
    about["labels"] = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
    (scene.made / "names.json").write_text(json.dumps(about))
    words = ["reconstruct", "-i", scene.raw / "labelsTs", "-o", "MADE/rebuilt", "--surfaces", "stl"]
    assert call([*words, "--labels", scene.made / "names.json"], scene.raw, scene.made) == 0
    assert len(list((scene.made / "rebuilt").glob("*_surfaces/*.stl"))) == 8
    assert changed(before, state(scene.root, scene.folder, but=scene.made)) == set()
    assert changed(own, state(scene.workspace)) == set()


@pytest.mark.parametrize("verb", ["predict", "reconstruct"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_record_that_claims_a_file_elsewhere_is_a_failure_of_its_case(scene, verb, finished, capsys):
    source = scene.raw / ("imagesTs" if verb == "predict" else "labelsTs")
    words = [verb, "-i", source, "-o", "MADE/out", *(["-m", MODEL, "--device", "cpu"] if verb == "predict" else [])]
    assert call(words, scene.raw, scene.made) == 0
    record = json.loads((scene.made / "out" / "phantom_006.json").read_text())
    precious = scene.target / "precious.txt"
    record["outputs"][f"{scene.bad('out')}/precious.txt"] = digest_of(precious.read_bytes())
    record["identity"], record["state"] = {}, "done" if finished else "writing"
    (scene.made / "out" / "phantom_006.json").write_text(json.dumps(record))
    before = state(scene.root, scene.folder, but=scene.made)
    status = call(words, scene.raw, scene.made)
    assert changed(before, state(scene.root, scene.folder, but=scene.made)) == set()
    if finished or verb == "reconstruct":
        assert status == 1
        assert "does not lie in it" in "".join(capsys.readouterr())
    else:  # what does not begin as the case is called is no output of it
        assert status == 0


def test_a_dicom_series_is_called_so_that_it_stays_in_the_folder(scene):
    pytest.importorskip("pydicom")
    words = {"PatientName": "../../others/target", "PatientID": "/others/target", "SeriesDescription": "../.."}
    draw.write_series(scene.inputs / "..one" / "a b", draw.random_values((8, 16, 16)), **words, StudyID="../../others")
    before = state(scene.root, scene.folder, but=scene.made)
    call(["predict", "-m", MODEL, "-i", scene.inputs, "-o", "MADE/out", "--device", "cpu"], scene.raw, scene.made)
    assert changed(before, state(scene.root, scene.folder, but=scene.made)) == set()
    assert len(list((scene.made / "out").glob("*.nii.gz"))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="such a file cannot be made there")
def test_a_scan_with_an_odd_name_fails_alone(scene, capsys):
    for name in ("a\\b", "good"):
        shutil.copy(scene.raw / "imagesTs" / "phantom_006_0000.nii.gz", scene.inputs / f"{name}_0000.nii.gz")
    assert call([*PREDICT.split(), scene.inputs], scene.raw, scene.made) == 1
    assert "plain file name" in capsys.readouterr().out
    assert (scene.made / "out" / "good.nii.gz").is_file()
