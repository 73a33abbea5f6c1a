"""Folders are often called after patients and users: no output that is handed on names one."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli import main
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.volume import LabelVolume
from autoseg.phantoms import write_phantoms
from tests.helpers import dicom
from tests.helpers.models import ball_volume, make_plan, write_model

SECRET = "Janina Geheimname 4711"
TELLTALE = (b"janina", b"geheimname")
ROOTS = (str(Path(__file__).parents[1]), sysconfig.get_paths()["purelib"])


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of a file, of what is packed in it, and of its own name."""
    raw = path.read_bytes()
    yield path.name, raw + b"\n" + path.name.encode()
    if raw[:2] == b"\x1f\x8b":
        yield path.name, gzip.decompress(raw)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield f"{path.name}/{name}", archive.read(name) + name.encode()


def leaks(folder: Path) -> list[str]:
    """Files in a folder that name it, its user, or where programs lie."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for name, raw in contents(path):
            small = raw.lower()
            if any(word in small or word.decode().encode("utf-16-le") in small for word in TELLTALE):
                found.append(name)
            if any(root.encode() in raw for root in ROOTS):
                found.append(f"{name}: {[root for root in ROOTS if root.encode() in raw]}")
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tell-tale name: scans, of which one cannot be read, references, and a model."""
    home = tmp_path_factory.mktemp("home") / SECRET
    (home / "scans").mkdir(parents=True)
    (home / "truth").mkdir()
    for number, case in enumerate("abc"):
        volume, mask = ball_volume(radius=4.0 + number)
        write_volume(volume, home / "scans" / f"{case}_0000.nii.gz")
        write_label_volume(LabelVolume(mask.astype(np.uint8) * 7, volume.geometry), home / "truth" / f"{case}.nii.gz")
    (home / "scans" / "c_0000.nii.gz").write_bytes(b"\x1f\x8b damaged")
    write_model(home / "models" / "tiny", make_plan(), seeds=(0, 1))
    return home


def call(home: Path, *words: str | Path) -> int:
    return main([*map(str, words), "--workspace", str(home / "workspace"), "--quiet"])


def test_predictions_and_their_scores_name_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = home.parent / "out"
    words = ["predict", "-i", home / "scans", "-o", out, "-m", home / "models" / "tiny", "--device", "cpu"]
    more = ["--surfaces", "stl,ply,obj,vtp,glb", "--probabilities", "--isotropic", "--fold-agreement"]
    assert call(home, *words, *more, "--reference", home / "truth") == 1
    record = json.loads((out / "run.json").read_text())
    assert record["model"]["name"] == "tiny"
    assert "c_0000.nii.gz" in record["failures"]["c"]
    assert json.loads((out / "summary.json").read_text())["metric_per_case"][0]["reference_file"] == "a.nii.gz"
    assert leaks(out) == []
    monkeypatch.chdir(home)  # paths as they are given, relative to the folder
    assert call(home, "predict", "-i", "scans", "-o", "../relative", "-m", "models/tiny", "--device", "cpu") == 1
    assert leaks(home.parent / "relative") == []


def test_an_evaluation_and_its_page_name_no_folder(home: Path) -> None:
    guesses, out = home / "guesses", home.parent / "scores"
    shutil.copytree(home / "truth", guesses)
    (guesses / "b.nii.gz").unlink()
    assert call(home, "evaluate", "--reference", home / "truth", "--predicted", guesses, "-o", out) == 1
    assert leaks(out) == []
    where = ["--images", home / "scans", "--reference", home / "truth", "--predicted", guesses]
    for more in ([], where):  # nobody knows any more where the masks are; they are named
        assert call(home, "report", out, *more) == 0
        page = (out / "report.html").read_text()
        assert ("no mask was found; autoseg report --reference DIR and --predicted DIR name the folders" in page) == (not more)
        assert leaks(out) == []


def test_reconstructions_and_their_page_name_no_folder(home: Path) -> None:
    out = home.parent / "surfaces"
    assert call(home, "reconstruct", "-i", home / "truth", "-o", out, "--isotropic") == 0
    assert json.loads((out / "a.json").read_text())["source"] == "a.nii.gz"
    for more in ([], ["--predicted", home / "truth"]):
        assert call(home, "report", out, *more) == 0
        page = (out / "report.html").read_text()
        assert ("a.nii.gz: the label map is not shown; autoseg report --predicted DIR names its folder" in page) == (not more)
        assert leaks(out) == []


def test_records_with_paths_of_an_older_version_are_read_and_nothing_is_done_twice(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(home, "reconstruct", "-i", home / "truth", "-o", tmp_path) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    record["source"] = str(home / "truth" / "a.nii.gz")
    (tmp_path / "a.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert call(home, "reconstruct", "-i", home / "truth", "-o", tmp_path) == 0
    assert "0 label maps reconstructed, 3 were done already" in capsys.readouterr().out
    assert call(home, "report", tmp_path) == 0
    page = (tmp_path / "report.html").read_text()
    assert "a.nii.gz: the label map is not shown" not in page
    assert "b.nii.gz: the label map is not shown" in page
    assert leaks(tmp_path) == ["a.json"]  # a record that is done stays as it is


@pytest.mark.parametrize("mode", ["--copy", "--link"])
def test_a_converted_data_set_names_no_folder_of_its_source(home: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = home.parent / f"Dataset009_Converted{mode}"
    whole, labels = home / "whole", home / "labels"
    for source, target in ((home / "scans", whole), (home / "truth", labels)):
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("c*"))
    words = ["convert", "folders", whole, out, "--labels", labels, "--channels", "MRI", mode]
    assert call(home, *words) == 0
    assert leaks(out) == []
    journal = (out / "conversion.jsonl").read_text().splitlines()
    older = {"layout": "folders", "source": str(whole), "mode": mode[2:]}
    older["options"] = {"labels": str(labels), "channels": "['MRI']"}  # type: ignore[assignment]
    (out / "conversion.jsonl").write_text("\n".join([json.dumps(older), *journal[1:]]) + "\n")
    capsys.readouterr()
    assert call(home, *words) == 0
    assert "0 files written" in capsys.readouterr().out
    assert (out / "conversion.jsonl").read_text().splitlines() == journal


def test_dicom_in_a_folder_named_after_the_patient_gives_no_folder_away(home: Path) -> None:
    volume, _ = ball_volume((12, 14, 16), radius=4.0)
    values, out = np.rint(volume.data[0] * 1000).astype(np.int16), home.parent / "from_dicom"
    for number in (1, 2):
        dicom.write_series(home / "series" / str(number), values, SeriesInstanceUID=f"1.{number}", SeriesNumber=number)
    broken = next((home / "series" / "2").iterdir())
    broken.write_bytes(broken.read_bytes()[:-300])
    assert call(home, "predict", "-i", home / "series", "-o", out, "-m", home / "models" / "tiny", "--device", "cpu") in (0, 1)
    assert json.loads((out / "run.json").read_text())["cases"]
    assert leaks(out) == []


def test_models_name_no_folder(home: Path) -> None:
    out = home.parent / "exported"
    assert call(home, "model", "export", home / "models" / "tiny", out / "tiny.zip") == 0
    assert leaks(out) == []
    assert call(home, "model", "import", out / "tiny.zip", "--name", "again") == 0
    assert leaks(home / "workspace" / "models") == []


@pytest.mark.slow
def test_a_training_run_names_no_folder_but_where_the_data_set_is(tmp_path: Path) -> None:
    home = tmp_path / SECRET
    raw = write_phantoms(home / "Dataset001_A", training=5, test=1, in_plane_mm=10)
    tiny = ["cpu_width=0.1", "validations=1", "validation_patches=1", "batch_size=1", "bf16=false"]
    settings = [word for setting in tiny for word in ("--set", setting)]
    work = home.parent / "workspace"
    words = ["train", str(raw), "0", "--iterations", "2", "--device", "cpu", *settings, "--workspace", str(work), "--quiet"]
    assert main(words) == 0
    model = next((work / "models").iterdir())
    assert main([*words, "--from", str(shutil.copytree(model, home / "start")), "--name", "more"]) == 0
    assert main(["report", str(next((work / "runs" / "A").iterdir()) / "fold_0"), "--workspace", str(work)]) == 0
    assert leaks(work) == ["dataset.json"]  # of fingerprints/A: a data set may be called by its name
    assert os.fspath(raw) in (work / "fingerprints" / "A" / "dataset.json").read_text()
