"""Label maps of any tool through ``autoseg reconstruct``."""

import json
import shutil

import fast_simplification
import numpy as np
import pytest
import SimpleITK
import trimesh

from autoseg.cli import main
from autoseg.imaging import nifti
from autoseg.imaging.files import read_label_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.pipeline.evaluation import evaluate


def ball(shape=(14, 30, 30), spacing=(3.0, 1.0, 1.0), value=2):
    """A ball of 9 mm around the middle, and a block that the border cuts, value 5."""
    middle = [(n - 1) / 2 for n in shape]
    steps = [(i - m) * s for i, m, s in zip(np.ogrid[: shape[0], : shape[1], : shape[2]], middle, spacing, strict=True)]
    data = np.where(sum(step**2 for step in steps) < 81, value, 0).astype(np.uint8)
    data[:2, :5, :5] = 5
    return LabelVolume(data, Geometry.from_spacing(shape, spacing))


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    for name, ending in (("a", ".nii.gz"), ("b", ".nrrd"), ("c", ".nii.gz")):
        write_label_volume(ball(), folder / f"{name}{ending}")
    return folder


def run(maps, *options):
    return main(["reconstruct", "-i", str(maps), "-o", str(maps.parent / "out"), "--quiet", *options])


def record_of(maps, case):
    return json.loads((maps.parent / "out" / f"{case}.json").read_text())


def test_every_map_gets_surfaces_measurements_and_cubic_voxels(maps, capsys):
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "left lung": 2}}))
    assert run(maps, "--isotropic", "--surfaces", "stl,vtp,glb") == 0
    assert "3 label maps reconstructed, 0 were done already, 0 failed; 6 structures" in capsys.readouterr().out
    out = maps.parent / "out"
    for case, ending in (("a", ".nii.gz"), ("b", ".nrrd")):
        record = record_of(maps, case)
        lung, other = record["measurements"]
        assert (lung["structure"], other["structure"]) == ("left lung", "label 5")
        assert lung["longest_diameter_mm"] == pytest.approx(18, abs=1)
        assert lung["volume_ml"] == pytest.approx(lung["mesh_volume_mm3"] / 1000, rel=0.01)
        assert (lung["touches_border"], other["touches_border"]) == (False, True)
        assert lung["watertight"]
        assert other["watertight"]
        cubic = read_label_volume(out / f"{case}_iso{ending}")
        assert cubic.geometry.spacing_mm == pytest.approx((1, 1, 1))
        assert set(np.unique(cubic.data)) == {0, 2, 5}
        header = SimpleITK.ReadImage(str(out / f"{case}_iso{ending}"))
        assert header.GetMetaData("descrip" if ending == ".nii.gz" else "description").startswith("derived: ")
        about = record["isotropic"]
        assert (about["derived"], about["interpolated"]) == (True, f"{case}_iso{ending}")
        assert about["spacing_mm"] == pytest.approx((1, 1, 1))
        names = {path.name for path in (out / f"{case}_surfaces").iterdir()}
        stems = ("left_lung", "label_5")
        assert names == {f"{s}.{e}" for s in stems for e in ("stl", "vtp")} | {"scene.glb", "surfaces.json"}
    assert len((out / "measurements.csv").read_text().splitlines()) == 7


def test_ras_is_said_and_lies_on_the_other_side(maps):
    assert run(maps, "--coordinates", "ras", "--surfaces", "stl") == 0
    path = maps.parent / "out" / "a_surfaces" / "label_2.stl"
    np.testing.assert_allclose(trimesh.load(path).bounds.mean(axis=0), (14.5, 14.5, 19.5), atol=0.2)
    assert b"SPACE=RAS" in path.read_bytes()[:80]
    assert json.loads((path.parent / "surfaces.json").read_text())["coordinates"] == "RAS"


def test_a_broken_map_is_named_and_the_others_are_done(maps, capsys):
    (maps / "b.nrrd").write_bytes((maps / "b.nrrd").read_bytes()[:300])
    assert run(maps) == 1
    text = capsys.readouterr().out
    assert "2 label maps reconstructed, 0 were done already, 1 failed; 4 structures" in text
    assert "failed: b: " in text
    assert not (maps.parent / "out" / "b.json").exists()
    assert (maps.parent / "out" / "c_surfaces" / "scene.glb").is_file()


def test_empty_flat_and_tiny_maps_are_handled_and_said(maps, capsys):
    for path in maps.iterdir():
        path.unlink()
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "it": 1}}))
    for name, shape in (("empty", (5, 6, 7)), ("flat", (1, 20, 20)), ("dot", (3, 3, 3))):
        data = np.zeros(shape, np.uint8)
        if name == "flat":
            data[0, 4:12, 5:15] = 1
        if name == "dot":
            data[1, 1, 1] = 1
        write_label_volume(LabelVolume(data, Geometry.from_spacing(shape, (2.0, 1.0, 1.0))), maps / f"{name}.nii.gz")
    assert run(maps, "--isotropic", "1") == 0
    (empty,), (flat,), (dot,) = (record_of(maps, name)["measurements"] for name in ("empty", "flat", "dot"))
    assert (empty["voxels"], empty["surface_area_mm2"], empty["note"]) == (0, None, "no voxels")
    assert not list((maps.parent / "out" / "empty_surfaces").glob("*.stl"))
    assert flat["mesh_volume_mm3"] == pytest.approx(160, rel=0.01)
    assert "one slice" in flat["note"]
    assert flat["watertight"]
    assert dot["mesh_volume_mm3"] == pytest.approx(2, rel=0.3)


def test_cubic_volumes_beside_label_maps_are_no_label_maps(maps):
    geometry = Geometry.from_spacing((3, 3, 3), (1.0, 1.0, 1.0))
    for suffix in ("_iso", "_iso_cubic"):
        data = np.full((3, 3, 3), 0.5, np.float32)
        nifti.write(maps / f"a{suffix}.nii.gz", data, geometry, description="derived: scan on cubic voxels by splines")
    assert run(maps) == 0
    assert not list((maps.parent / "out").glob("a_iso*"))


def test_names_come_from_a_file_or_from_the_prediction_beside(maps, tmp_path):
    (maps / "a.json").write_text(json.dumps({"made_by": "autoseg predict", "labels": {"spleen": 2, "both": [2, 5]}}))
    assert run(maps) == 0
    assert [one["structure"] for one in record_of(maps, "a")["measurements"]] == ["spleen", "both"]
    assert [one["structure"] for one in record_of(maps, "c")["measurements"]] == ["label 2", "label 5"]
    (tmp_path / "names.json").write_text(json.dumps({"labels": {"background": 0, "gut": 2, "ignore": 5}}))
    assert run(maps, "--labels", str(tmp_path / "names.json")) == 0
    assert [one["structure"] for one in record_of(maps, "a")["measurements"]] == ["gut"]
    left = {path.name for path in (maps.parent / "out" / "a_surfaces").iterdir()}
    assert left == {"gut.stl", "scene.glb", "surfaces.json"}  # nothing of the earlier names


def test_files_of_others_stay(maps, capsys):
    out = maps.parent / "out"
    (out / "c_surfaces").mkdir(parents=True)
    (out / "a.json").write_text("{}")
    assert run(maps) == 1
    assert capsys.readouterr().out.count("was not made by this program") == 2
    assert (out / "a.json").read_text() == "{}"
    assert run(maps, "--fresh") == 0
    assert main(["reconstruct", "-i", str(maps), "-o", str(maps)]) == 2
    assert "Results need a folder of their own" in capsys.readouterr().err


def times_in(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "measurements.csv"}


def test_what_is_done_is_skipped_and_what_has_changed_is_made_again(maps, capsys):
    out = maps.parent / "out"
    assert run(maps, "--isotropic") == 0
    before = times_in(out)
    assert run(maps, "--isotropic") == 0
    assert "0 label maps reconstructed, 3 were done already, 0 failed; 6 structures" in capsys.readouterr().out
    assert times_in(out) == before
    assert len((out / "measurements.csv").read_text().splitlines()) == 7
    write_label_volume(ball(value=7), maps / "b.nrrd")
    (out / "c_surfaces" / "scene.glb").unlink()
    assert run(maps, "--isotropic") == 0
    assert "2 label maps reconstructed, 1 were done already" in capsys.readouterr().out
    assert {path.stem for path in (out / "b_surfaces").glob("*.stl")} == {"label_5", "label_7"}
    assert (out / "c_surfaces" / "scene.glb").is_file()
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lung": 2}}))
    assert run(maps) == 0
    assert "3 label maps reconstructed, 0 were done" in capsys.readouterr().out
    assert not list(out.glob("*_iso*"))  # not asked for any more
    assert "isotropic" not in record_of(maps, "a")


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_voxels_beside_a_header_count_as_its_map(maps, capsys, ending):
    for value in (2, 3):
        image = SimpleITK.GetImageFromArray(ball(value=value).data)
        SimpleITK.WriteImage(image, str(maps / f"apart{ending}"))
        assert run(maps / f"apart{ending}") == 0
        assert "1 label map reconstructed" in capsys.readouterr().out
        record = json.loads((maps / "out" / "apart.json").read_text())
        assert [one["structure"] for one in record["measurements"]] == [f"label {value}", "label 5"]


def test_what_was_interrupted_is_made_again(maps, capsys):
    assert run(maps) == 0
    marker = maps.parent / "out" / "a.json"
    record = json.loads(marker.read_text())
    marker.write_text(json.dumps(record | {"state": "writing", "outputs": dict.fromkeys(record["outputs"])}))
    (maps.parent / "out" / "a_surfaces" / "label_2.stl").write_bytes(b"half")
    assert run(maps) == 0
    assert "1 label map reconstructed, 2 were done already" in capsys.readouterr().out
    assert record_of(maps, "a") == record


def test_what_somebody_has_changed_or_put_there_stays(maps, capsys):
    out = maps.parent / "out"
    assert run(maps) == 0
    mine = [out / "a_surfaces" / "label_2.stl", out / "c_surfaces" / "label_2.ply"]
    for path in mine:
        path.write_bytes(b"mine")
    assert run(maps, "--surfaces", "stl,ply") == 1
    said = capsys.readouterr().out
    assert "1 label map reconstructed" in said
    assert "label_2.stl: was edited after autoseg wrote it" in said
    assert "label_2.ply: exists and was not made by this program" in said
    assert [path.read_bytes() for path in mine] == [b"mine"] * 2
    assert run(maps, "--surfaces", "stl,ply", "--fresh") == 0
    assert all(len(path.read_bytes()) > 1000 for path in mine)
    (out / "measurements.csv").write_text("my notes")
    assert run(maps) == 2
    assert (out / "measurements.csv").read_text() == "my notes"


def test_triangles_that_could_not_be_taken_away_are_said(maps, monkeypatch, caplog):
    simplify = fast_simplification.simplify
    monkeypatch.setattr("fast_simplification.simplify", lambda *a, **k: (lambda p, f: (p, f[1:]))(*simplify(*a, **k)))
    assert run(maps / "a.nii.gz", "--decimate", "0.5") == 0
    out = maps / "out"
    about = json.loads((out / "a_surfaces" / "surfaces.json").read_text())
    note = about["structures"][0]["note"]
    assert note.startswith("0% of the triangles removed, not 50%")
    assert note in json.loads((out / "a.json").read_text())["measurements"][0]["note"]
    assert f"a_surfaces, label 2: {note}" in caplog.text


def test_a_single_file_will_do_and_surfaces_can_be_left_out(maps):
    assert run(maps / "b.nrrd", "--surfaces", "none") == 0
    assert sorted(path.name for path in (maps / "out").iterdir()) == ["b.json", "measurements.csv"]
    assert json.loads((maps / "out" / "b.json").read_text())["measurements"][0]["surface_area_mm2"] is None


def test_no_case_is_called_the_worst_where_nothing_was_scored(maps, monkeypatch):
    monkeypatch.setattr("autoseg.page.page.MOST_PICTURED", 2)
    assert run(maps, "--surfaces", "stl") == 0
    assert main(["report", str(maps.parent / "out"), "--quiet"]) == 0
    assert "Pictures show the 2 first of 3 cases." in (maps.parent / "out" / "report.html").read_text()


@pytest.mark.parametrize("formats", ["vtp", "glb", "obj,ply"])
def test_surfaces_beside_label_maps_are_scored(maps, formats, tmp_path):
    """The reference lies 2 mm aside; one case has no surfaces, one has voxels to ignore, one is empty."""
    references = tmp_path / "references"
    (references / "dataset.json").parent.mkdir()
    (references / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "ball": 2, "ignore": 9}}))
    aside = np.roll(ball().data, 2, axis=2)
    empty, ignored = np.zeros_like(aside), np.where(aside == 5, 9, aside)
    shutil.copy(maps / "a.nii.gz", maps / "d.nii.gz")
    (maps / "b.nrrd").unlink()
    write_label_volume(ball(), maps / "b.nii.gz")
    for case, data in (("a", aside), ("b", empty), ("c", aside), ("d", ignored)):
        write_label_volume(LabelVolume(data, ball().geometry), references / f"{case}.nii.gz")
    (maps / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "ball": 2}}))
    assert run(maps, "--surfaces", formats, "--coordinates", "ras") == 0
    (maps / "dataset.json").unlink()
    for case in "abd":
        shutil.copytree(maps.parent / "out" / f"{case}_surfaces", maps / f"{case}_surfaces")
    report = evaluate(references, maps, tmp_path / "scores")
    rows = {row.case: row for row in report.rows}
    assert report.failures == ()
    assert rows["a"]["surface_hd95_mm"] == pytest.approx(2, abs=0.15)
    assert rows["a"]["surface_assd_mm"] == pytest.approx(1, abs=0.15)  # half of the shift, in the mean over all directions
    assert rows["a"]["surface_nsd"] == pytest.approx(0.5, abs=0.1)
    assert {case: rows[case].reason("surface_nsd") for case in "bcd"} == {
        "b": "no surface of the reference",
        "c": "no surfaces were made",
        "d": "voxels to ignore have no surface",
    }
    assert {rows[case]["surface_assd_mm"] for case in "bcd"} == {None}
    for path in (maps / "a_surfaces").iterdir():
        if path.suffix != ".json":
            path.write_bytes(path.read_bytes()[:40])
    (row, *_) = evaluate(references, maps, tmp_path / "again").rows
    assert (row.case, row["dice"]) == ("a", rows["a"]["dice"])  # the voxels are scored all the same
    assert row["surface_assd_mm"] is None
    assert "cannot be read" in row.reason("surface_nsd")


def test_gaps_between_neighbours_are_said_and_shared_surfaces_have_none(tmp_path, capsys):
    data = ball().data.copy()
    data[data == 2] = np.where(np.indices(data.shape)[2] < 15, 2, 3)[data == 2]
    write_label_volume(LabelVolume(data, ball().geometry), tmp_path / "maps" / "a.nii.gz")
    assert run(tmp_path / "maps", "--surfaces", "stl") == 0
    (border,) = json.loads((tmp_path / "out" / "a.json").read_text())["borders"]
    assert (border["first"], border["second"]) == ("label 2", "label 3")
    assert 0 < border["gap_mean_mm"] <= border["gap_p95_mm"] <= border["gap_max_mm"] < 3
    widest = f"1 border of neighbours: surfaces at most {border['gap_max_mm']:.2f} mm apart (label 2 and label 3, a)"
    assert widest in capsys.readouterr().out
    assert main(["report", str(tmp_path / "out"), "--quiet"]) == 0
    assert "label 2 – label 3" in (tmp_path / "out" / "report.html").read_text()
    capsys.readouterr()
    assert run(tmp_path / "maps", "--surfaces", "stl", "--surfaces-shared") == 0
    said = capsys.readouterr().out
    assert "1 label map reconstructed" in said  # other surfaces than before
    assert "surfaces at most 0.00 mm apart; gaps of 0.0 mm3, overlaps of 0.0 mm3" in said
    assert (tmp_path / "out" / "borders.csv").read_text().splitlines()[
        1
    ] == f"a,label 2,label 3,{border['faces']},0.0,0.0,0.0,0.0,0.0"
    for name in ("label_2", "label_3"):
        assert trimesh.load(tmp_path / "out" / "a_surfaces" / f"{name}.stl").is_watertight
    assert run(tmp_path / "maps", "--surfaces-shared", "--decimate", "0.5") == 2
    assert "Leave --decimate out, or --surfaces-shared" in capsys.readouterr().err
    assert run(tmp_path / "maps", "--surfaces", "none") == 0
    assert not (tmp_path / "out" / "borders.csv").exists()
