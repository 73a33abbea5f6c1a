"""What other programs made stays, unless a fresh start is asked for; a folder that cannot be written is found before the work.

Nothing stops root from writing, so where the tests run as root a child process without that privilege does the work.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from autoseg import pipeline
from autoseg.cli import main
from autoseg.errors import FileError
from autoseg.evaluation.report_files import FILES
from autoseg.options import CompareOptions, PredictOptions
from autoseg.phantoms import write_phantoms
from autoseg.pipeline import export_model
from autoseg.places import FINDINGS, MODEL, PAGE, refuse_foreign
from autoseg.workspace import Workspace
from tests.helpers.evaluations import make_evaluation

ROOT = Path(__file__).parents[1]
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_evaluation(tmp_path_factory.mktemp("places"))


def evaluate(place, out, *more):
    folders = ["--reference", str(place / "labelsTr"), "--predicted", str(place / "predicted")]
    return main(["evaluate", *folders, "-o", str(out), "--workers", "1", "--quiet", *more])


@pytest.mark.parametrize("name", [*FILES, PAGE])
def test_evaluate_keeps_a_file_that_it_did_not_write(place, tmp_path, name, capsys):
    (tmp_path / name).write_text("a year of work")
    assert evaluate(place, tmp_path) == 2
    assert f"{name}: exists and was not made by this program" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "a year of work"}


def test_evaluate_writes_over_its_own_files_and_with_fresh_over_any(place, tmp_path):
    for name in (*FILES, PAGE):
        (tmp_path / name).write_text("somebody else's")
    assert evaluate(place, tmp_path, "--fresh") == 1  # a case without a prediction
    assert all("somebody else's" not in path.read_text() for path in tmp_path.iterdir())
    assert evaluate(place, tmp_path) == 1


def test_report_keeps_a_page_that_it_did_not_write(place, tmp_path):
    shutil.copytree(place / "evaluation", tmp_path / "e")
    assert main(["report", str(tmp_path / "e"), "--quiet"]) == 0
    assert main(["report", str(tmp_path / "e"), "--quiet"]) == 0
    (tmp_path / "e" / PAGE).write_text("<!doctype html><p>theirs")
    assert main(["report", str(tmp_path / "e"), "--quiet"]) == 2
    assert (tmp_path / "e" / PAGE).read_text() == "<!doctype html><p>theirs"
    assert main(["report", str(tmp_path / "e"), "--quiet", "--fresh"]) == 0


def test_verify_keeps_a_file_that_it_did_not_write(tmp_path, capsys):
    data = write_phantoms(tmp_path / "data", training=3, test=0, in_plane_mm=8)
    command = ["verify", str(data), "--json", str(tmp_path / "f.json"), "--workspace", str(tmp_path / "w"), "--quiet"]
    (tmp_path / "f.json").write_text('{"mine": 1}')
    assert main(command) == 2
    assert "f.json: exists and was not made by this program" in capsys.readouterr().err
    assert (tmp_path / "f.json").read_text() == '{"mine": 1}'
    assert main([*command, "--fresh"]) == 0
    assert main(command) == 0


def test_convert_refuses_a_file_that_it_did_not_write_before_it_converts(tmp_path, capsys):
    data = write_phantoms(tmp_path / "data", training=3, test=0, in_plane_mm=8)
    (tmp_path / "f.json").write_text('{"mine": 1}')
    folders = [str(data / "imagesTr"), str(tmp_path / "new"), "--labels", str(data / "labelsTr")]
    assert main(["convert", "folders", *folders, "--json", str(tmp_path / "f.json"), "--quiet"]) == 2
    assert capsys.readouterr().err.endswith(
        "f.json: exists and was not made by this program. Move it away, or choose another place\n"
    )
    assert (tmp_path / "f.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "new").exists()


def test_compare_refuses_a_file_that_it_did_not_write_before_it_trains(tmp_path, capsys):
    (tmp_path / "f.json").write_text('{"mine": 1}')
    assert main(["compare", str(tmp_path), "0", "--json", str(tmp_path / "f.json"), "--quiet", "--iterations", "1"]) == 2
    assert "f.json: exists and was not made by this program" in capsys.readouterr().err
    assert (tmp_path / "f.json").read_text() == '{"mine": 1}'


def test_an_exported_model_is_written_over_models_alone(tmp_path, monkeypatch):
    def write(folder, path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.json", "{}")
        return path

    monkeypatch.setattr("autoseg.pipeline.exporting.write_zip", write)
    (tmp_path / "model").mkdir()
    export_model(tmp_path / "model", tmp_path / "m.zip", Workspace(tmp_path))
    export_model(tmp_path / "model", tmp_path / "m.zip", Workspace(tmp_path))
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("thesis.tex", "")
    before = (tmp_path / "m.zip").read_bytes()
    with pytest.raises(FileError, match=r"m\.zip: exists and was not made by this program"):
        export_model(tmp_path / "model", tmp_path / "m.zip", Workspace(tmp_path))
    assert (tmp_path / "m.zip").read_bytes() == before
    export_model(tmp_path / "model", tmp_path / "m.zip", Workspace(tmp_path), fresh=True)


def test_folders_and_dead_links_in_the_way_are_not_ours(tmp_path):
    (tmp_path / PAGE).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, kind in ((tmp_path / PAGE, ""), (tmp_path / "link", MODEL), (tmp_path / "link", FINDINGS)):
        with pytest.raises(FileError, match="exists and was not made by this program"):
            refuse_foreign(path, kind)
    refuse_foreign(tmp_path / "metrics.csv")


def test_a_file_in_place_of_the_folder_is_said(place, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert evaluate(place, tmp_path / "out") == 2
    assert "out: expected a folder to write to, found a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["a.nii.gz", "B.DCM", "a.stl", "scores.csv"])
def test_a_folder_for_results_is_not_called_like_a_file(place, tmp_path, name):
    data, out = place / "labelsTr", tmp_path / name
    calls = [
        lambda: pipeline.predict(data, out, tmp_path / "model"),
        lambda: pipeline.watch(data, out, tmp_path / "model", PredictOptions(watch=1.0)),
        lambda: pipeline.reconstruct(data, out),
        lambda: pipeline.evaluate(data, data, out),
        lambda: pipeline.compare(data, "0", Workspace(tmp_path), CompareOptions(target=str(out))),
        lambda: pipeline.convert("folders", data, out),
    ]
    for call in calls:
        with pytest.raises(FileError, match=rf"{name}: expected a folder .* Name a folder, such as {name.split('.')[0]};"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_called_like_a_file_is_used_where_it_exists(place, tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    assert evaluate(place, tmp_path / "a.nii.gz") == 1  # a case without a prediction
    assert evaluate(place, tmp_path / "study.v2") == 1
    assert (tmp_path / "study.v2" / "metrics.csv").is_file()


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_folder_that_may_only_be_read_is_found_before_the_first_case_is_scored(place, tmp_path):
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root runs the tests, and there is no setpriv to give up its privilege")
    (tmp_path / "out").mkdir(mode=0o555)
    words = ["evaluate", "--reference", place / "labelsTr", "--predicted", place / "predicted", "-o", tmp_path / "out"]
    command = [*(WITHOUT_PRIVILEGE if os.geteuid() == 0 else []), sys.executable, "-m", "autoseg", *map(str, words)]
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, check=False, capture_output=True, text=True)
    (tmp_path / "out").chmod(0o755)
    assert done.returncode == 2
    assert "out: cannot be written: Permission denied" in done.stderr
    assert "evaluate:" not in done.stderr  # no progress of a case
