"""A study whose folds workers train gives the report of one that trains them one after the other."""

import json
import shutil

import pytest

from autoseg.cli import main
from autoseg.phantoms import write_phantoms

pytest.importorskip("distributed", reason="the extra cluster is not installed")

SHORT = ["--iterations", "2", "--set", "validations=1", "--set", "cpu_width=1", "--device", "cpu", "--quiet"]


@pytest.mark.slow
def test_a_study_on_workers_gives_the_report_of_the_local_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the processes, as in each worker
    raw = write_phantoms(tmp_path / "Dataset007_Abdomen", training=10, test=1, in_plane_mm=10)
    assert main(["plan_and_preprocess", str(raw), "--workspace", str(tmp_path / "local"), "--quiet"]) == 0
    plan = tmp_path / "local" / "plans" / "Abdomen" / "fullres_3d.json"
    edited = json.loads(plan.read_text())
    edited["network"]["features"] = [8] * len(edited["network"]["features"])
    plan.write_text(json.dumps(edited))
    shutil.copytree(tmp_path / "local", tmp_path / "workers")
    found = {}
    for place, more in (("local", []), ("workers", ["--engine", "dask"])):
        words = ["study", "Abdomen", "--folds", "0-1", "--networks", "unet", *SHORT, *more]
        assert main([*words, "--workspace", str(tmp_path / place)]) == 0
        folder = tmp_path / place / "studies" / "Abdomen" / "study"
        found[place] = {name: (folder / name).read_text() for name in ("metrics.json", "metrics.csv", "study.md")}
    assert found["workers"] == found["local"]
    assert not list((tmp_path / "workers").glob(".writing-*"))
