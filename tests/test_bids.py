"""Predictions as a BIDS derivative, checked with nibabel and by the rules of the specification; names by bids-validator too."""

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from autoseg.cli import main
from autoseg.data.dataset import Case
from autoseg.data.layouts.bids import find
from autoseg.data.sources import find_inputs
from autoseg.errors import AutosegError
from autoseg.imaging.files import read_label_volume
from autoseg.options import PredictOptions, Runtime
from autoseg.outputs.bids import BidsRecord, Made, bids_names
from autoseg.pipeline import predict
from autoseg.workspace import write_json

GOLDEN = Path(__file__).parent / "golden" / "v0.1"
MODEL = GOLDEN / "workspace" / "models" / "Golden_small"
SCAN = GOLDEN / "Dataset011_Golden" / "imagesTs" / "phantom_005_0000.nii.gz"
RUNTIME = Runtime(device="cpu", workers=1)
# "Segmentations" of "Imaging data types" (BIDS, Derivatives): <source_entities>_dseg.nii.gz, _dseg.tsv, _probseg.nii.gz
LABEL = "[A-Za-z0-9+]+"
FILE = re.compile(rf"(sub-{LABEL})/(?:(ses-{LABEL})/)?anat/\1(?:_[a-z]+-{LABEL})*_(dseg|probseg)\.(nii\.gz|json|tsv)")


def scans(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SCAN, folder / name)
    return folder


def named(*stems, folder="x"):
    return [Case(stem, stem, (Path(folder) / f"{stem}.nii.gz",), None) for stem in stems]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A BIDS data set of two subjects, one with two sessions, predicted with probabilities."""
    folder = tmp_path_factory.mktemp("bids")
    raw = scans(
        folder / "raw",
        [
            "sub-01/anat/sub-01_acq-fast_T1w.nii.gz",
            "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
            "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz",
        ],
    )
    done = predict(raw, folder / "out", MODEL, PredictOptions(layout="bids", probabilities=True), RUNTIME)
    assert done.failures == ()
    assert done.done == 3
    return folder


def derivative(place):
    return place / "out" / "derivatives" / "autoseg"


def files_of(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_every_file_has_a_name_of_the_specification_and_entities_are_kept(place):
    found = files_of(derivative(place))
    assert {"dataset_description.json", "README.md"} <= set(found)
    rest = [name for name in found if "/" in name]
    assert all(FILE.fullmatch(name) for name in rest), rest
    assert len(rest) == 3 * 5
    assert {"sub-01/anat/sub-01_acq-fast_dseg.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_dseg.tsv"} <= set(rest)


def test_the_description_says_what_a_derivative_has_to(place):
    about = json.loads((derivative(place) / "dataset_description.json").read_text())
    assert about["Name"]
    assert re.fullmatch(r"1\.\d+\.\d+", about["BIDSVersion"])
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "autoseg"  # REQUIRED of derivatives
    assert "Golden_small" in about["GeneratedBy"][0]["Description"]


def test_label_maps_are_those_of_the_predictions_on_the_grid_of_the_scan(place):
    path = derivative(place) / "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz"
    written, scan = nibabel.load(path), nibabel.load(SCAN)
    assert np.allclose(written.affine, scan.affine)
    assert written.shape == scan.shape
    assert np.issubdtype(written.get_data_dtype(), np.integer)
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(nibabel.load(place / "out" / "sub-02_ses-a.nii.gz").dataobj))
    assert np.asarray(written.dataobj).any()


def test_the_table_names_every_value_of_the_map(place):
    with (derivative(place) / "sub-01/anat/sub-01_acq-fast_dseg.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["name"] for row in rows] == ["liver", "kidney_right", "kidney_left", "aorta"]
    assert [int(row["index"]) for row in rows] == [1, 2, 3, 4]
    assert all(re.fullmatch("#[0-9a-f]{6}", row["color"]) for row in rows)
    values = np.unique(nibabel.load(derivative(place) / "sub-01/anat/sub-01_acq-fast_dseg.nii.gz").dataobj)
    assert set(values.tolist()) - {0} <= {int(row["index"]) for row in rows}


def test_probabilities_are_frames_with_their_names(place):
    path = derivative(place) / "sub-01/anat/sub-01_acq-fast_probseg.nii.gz"
    frames = np.asarray(nibabel.load(path).dataobj)
    about = json.loads(path.with_name("sub-01_acq-fast_probseg.json").read_text())
    assert about["LabelMap"] == ["background", "liver", "kidney_right", "kidney_left", "aorta"]
    assert frames.shape == (*nibabel.load(SCAN).shape, 5)
    assert frames.min() >= 0
    assert np.allclose(frames.sum(axis=-1), 1, atol=5e-3)  # half precision
    labels = np.asarray(nibabel.load(path.with_name("sub-01_acq-fast_dseg.nii.gz")).dataobj)
    assert (frames.argmax(axis=-1) == labels).mean() > 0.99


def test_bids_validator_knows_the_names(place):
    validator = pytest.importorskip("bids_validator").BIDSValidator()
    assert validator.is_top_level("/dataset_description.json")
    for name in files_of(place / "raw"):
        assert validator.is_bids(f"/{name}"), name


def test_our_own_reader_takes_it_as_labels(place, tmp_path):
    raw = shutil.copytree(place / "raw", tmp_path / "raw")
    shutil.copytree(derivative(place), raw / "derivatives" / "autoseg")
    found = find(raw)
    assert [case.id for case in found.cases] == ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]
    assert all(case.label and case.label.name.endswith("_dseg.nii.gz") for case in found.cases)


def test_a_second_call_writes_nothing_again(place):
    times = {name: (derivative(place) / name).stat().st_mtime_ns for name in files_of(derivative(place)) if "/" in name}
    options = PredictOptions(layout="bids", probabilities=True)
    assert predict(place / "raw", place / "out", MODEL, options, RUNTIME).skipped == 3
    assert {name: (derivative(place) / name).stat().st_mtime_ns for name in times} == times


def test_what_somebody_wrote_there_stays(place, tmp_path):
    out = shutil.copytree(place / "out", tmp_path / "out")
    table = out / "derivatives/autoseg/sub-01/anat/sub-01_acq-fast_dseg.tsv"
    table.write_text("mine")
    options = PredictOptions(layout="bids", probabilities=True)
    failed = predict(place / "raw", out, MODEL, options, RUNTIME).failures
    assert len(failed) == 1
    assert "sub-01: not written as BIDS" in failed[0]
    assert "sub-01_acq-fast_dseg.tsv" in failed[0]
    assert table.read_text() == "mine"
    (out / "derivatives/autoseg/dataset_description.json").write_text('{"Name": "mine"}')
    with pytest.raises(AutosegError, match="dataset_description.json"):
        predict(place / "raw", out, MODEL, options, RUNTIME)


def test_what_was_being_written_when_a_call_was_killed_is_written_again(place, tmp_path):
    out = shutil.copytree(place / "out", tmp_path / "out")
    record = json.loads((out / "bids.json").read_text())
    name = "sub-01/anat/sub-01_acq-fast_dseg.nii.gz"
    known = {file: Made(**made) for file, made in record["files"].items()} | {name: Made()}
    write_json(out / "bids.json", BidsRecord(files=known), seal=True)
    (out / "derivatives" / "autoseg" / name).write_bytes(b"half")
    options = PredictOptions(layout="bids", probabilities=True)
    assert predict(place / "raw", out, MODEL, options, RUNTIME).failures == ()
    assert (out / "derivatives" / "autoseg" / name).read_bytes() == (derivative(place) / name).read_bytes()


def test_shards_fill_one_derivative(place, tmp_path):
    for index in (0, 1):
        options = PredictOptions(layout="bids", shard=(index, 2))
        assert predict(place / "raw", tmp_path / "out", MODEL, options, RUNTIME).failures == ()
    found = {name for name in files_of(tmp_path / "out" / "derivatives" / "autoseg") if name.endswith("_dseg.nii.gz")}
    assert len(found) == 3


def test_names_without_entities_become_subjects_and_that_is_said(caplog):
    names = bids_names(named("case_01", "Müller, A.", "肝"))
    assert names["case_01"].stem == "sub-case01"
    assert names["Müller, A."].stem == "sub-MullerA"
    assert re.fullmatch("sub-[0-9a-f]{8}", names["肝"].stem)
    assert "case_01 as sub-case01" in caplog.text
    assert names["case_01"].path("_dseg.nii.gz") == Path("sub-case01/anat/sub-case01_dseg.nii.gz")


@pytest.mark.parametrize(
    ("stem", "kept"),
    [
        ("sub-01_T1w", "sub-01"),
        ("sub-01_ses-2_run-1_T1w_0000", "sub-01_ses-2_run-1"),
        ("sub-01", "sub-01"),
        ("sub-01_ses-2", "sub-01_ses-2"),
        ("sub-a.b_T1w", "sub-abT1w"),
        ("ses-1_sub-01_T1w", "sub-ses1sub01T1w"),
        ("sub-01_sub-02_T1w", "sub-01sub02T1w"),
    ],
)
def test_entities_are_kept_where_they_are_bids(stem, kept):
    case = Case(stem.removesuffix("_0000"), "p", (Path(f"{stem}.nii.gz"),), None)
    assert bids_names([case])[case.id].stem == kept


def test_channels_of_a_case_share_its_entities():
    images = (Path("sub-01_acq-a_T1w.nii.gz"), Path("sub-01_acq-b_FLAIR.nii.gz"))
    assert bids_names([Case("sub-01", "sub-01", images, None)])["sub-01"].stem == "sub-01"


@pytest.mark.parametrize("stems", [("a_b", "ab"), ("sub-01_T1w", "sub-01_T2w"), ("AB", "ab"), ("sub-x", "x")])
def test_two_cases_never_have_one_name(stems):
    with pytest.raises(AutosegError, match="would both be sub-"):
        bids_names(named(*stems))


def test_a_collision_is_refused_before_anything_is_written(tmp_path, capsys):
    source = scans(tmp_path / "in", ["a_b.nii.gz", "ab.nii.gz"])
    call = ["predict", "-i", str(source), "-o", str(tmp_path / "out"), "-m", str(MODEL), "--layout", "bids", "--device", "cpu"]
    assert main(call) == 2
    assert "a_b and ab would both be sub-ab" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_sessions_of_a_bids_folder_are_cases(tmp_path):
    names = ["sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"]
    raw = scans(tmp_path, names)
    found = find_inputs(raw, channels=["FLAIR", "t1w"])
    assert [[image.name for image in case.images] for case in found.cases] == [["sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"]]
    assert len(found.left_out) == 1
    assert "sub-02" in found.left_out[0]
    with pytest.raises(AutosegError, match="the model needs CT"):
        find_inputs(raw, channels=["CT"])


def test_a_single_kind_of_scan_serves_a_model_of_one_channel(tmp_path):
    raw = scans(tmp_path, ["sub-01/anat/sub-01_T1w.nii.gz"])
    assert [case.id for case in find_inputs(raw, channels=["MR"]).cases] == ["sub-01"]


def test_other_file_types_become_nifti(tmp_path):
    import SimpleITK as sitk

    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.ReadImage(str(SCAN)), str(tmp_path / "in" / "case.nrrd"))
    predict(tmp_path / "in", tmp_path / "out", MODEL, PredictOptions(layout="bids"), RUNTIME)
    written = tmp_path / "out" / "derivatives/autoseg/sub-case/anat/sub-case_dseg.nii.gz"
    assert np.array_equal(read_label_volume(written).data, read_label_volume(tmp_path / "out" / "case.nrrd").data)
