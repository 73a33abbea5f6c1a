"""Data sets of different structures become one, whose cases are annotated for those of their own set."""

import json

import numpy as np
import pytest

from autoseg import pipeline
from autoseg.cli import main
from autoseg.data.check import check_dataset
from autoseg.data.dataset import read_dataset
from autoseg.errors import DatasetError
from autoseg.imaging.files import read_geometry, read_label_volume, write_label_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from autoseg.options import ConvertOptions, Runtime
from tests.helpers.datasets import Folder


def label(*blocks):
    """A label map: (value, first slice, last slice) blocks."""
    data = np.zeros((6, 8, 10), np.uint8)
    for value, first, last in blocks:
        data[first:last, 2:5, 2:6] = value
    return data


def make(folder, name, labels, cases, **more):
    made = Folder(folder / name)
    made.json |= {"labels": {"background": 0} | labels, **more}
    for seed, (case, data) in enumerate(cases.items()):
        made.add(case, seed=seed + len(name), label=data)
    made.read()
    return made.path


def join(target, first, *others, **more):
    return pipeline.convert("join", first, target, ConvertOptions(also=tuple(map(str, others)), **more), Runtime(workers=1))


@pytest.fixture
def organs(tmp_path):
    """Two sets that number their structures differently and share the name of a case."""
    livers = make(tmp_path, "Dataset001_Livers", {"liver": 1}, {"p1": label((1, 1, 3)), "p2": label((1, 1, 4))})
    others = make(tmp_path, "Dataset002_Others", {"spleen": 1, "liver": 5}, {"p1": label((1, 1, 3), (5, 3, 5))})
    return livers, others


def test_a_renumbered_map_whose_header_is_off_a_little_lies_on_the_grid_of_the_image(organs, tmp_path):
    path = organs[1] / "labelsTr" / "p1.nii.gz"
    volume = read_label_volume(path)
    affine = volume.geometry.affine * 1.001
    affine[0, 3] += 0.3
    write_label_volume(LabelVolume(volume.data, Geometry.from_affine(volume.geometry.shape, affine)), path)
    assert join(tmp_path / "Dataset010_Joined", *organs).failures == ()
    (case,) = [case for case in read_dataset(tmp_path / "Dataset010_Joined").training if case.id == "Others_p1"]
    assert read_geometry(case.label).is_same_grid(read_geometry(case.images[0]))


def test_sets_are_joined_with_one_table_and_each_case_knows_what_was_annotated(organs, tmp_path):
    target = tmp_path / "Dataset010_Joined"
    done = join(target, *organs)
    assert (done.made.training, done.failures) == (3, ())
    spec = read_dataset(target)
    assert spec.labels.groups == {"liver": (1,), "spleen": (2,)}
    cases = {case.id: case for case in spec.training}
    assert {case: one.unlabelled for case, one in cases.items()} == {"Livers_p1": (1,), "p2": (1,), "Others_p1": ()}
    assert cases["Livers_p1"].patient == cases["Others_p1"].patient, "patients of one name are taken for one"
    assert cases["p2"].label.resolve() == organs[0] / "labelsTr" / "p2.nii.gz", (
        "a map that needs no other values stays in its place"
    )
    renumbered = read_label_volume(cases["Others_p1"].label).data
    np.testing.assert_array_equal(renumbered, label((2, 1, 3), (1, 3, 5)))
    codes = {finding.code for finding in check_dataset(spec) if finding.severity != "note"}
    assert codes <= {"sides-unnamed", "structure-of-one-patient"}
    again = join(target, *organs)
    assert (again.made.written, again.made.kept) == (0, 1)


def test_copies_hold_the_declaration_too(organs, tmp_path):
    join(tmp_path / "Dataset010_Joined", *organs, copy=True)
    found = json.loads((tmp_path / "Dataset010_Joined" / "dataset.json").read_text())
    assert found["annotated"] == {"Livers_p1": ["liver"], "p2": ["liver"]}
    assert [case.unlabelled for case in read_dataset(tmp_path / "Dataset010_Joined").training] == [(1,), (), (1,)]


def test_where_structures_of_a_set_overlap_all_become_regions(tmp_path):
    tumours = make(
        tmp_path,
        "Dataset003_Tumours",
        {"whole": [1, 2], "core": [2]},
        {"t1": label((1, 1, 3), (2, 3, 5))},
        regions_class_order=[1, 2],
    )
    vessels = make(tmp_path, "Dataset004_Vessels", {"vessel": 1}, {"v1": label((1, 1, 3))})
    join(tmp_path / "Dataset010_Joined", tumours, vessels)
    spec = read_dataset(tmp_path / "Dataset010_Joined")
    assert spec.labels.has_regions
    assert {case.id: tuple(spec.labels.structures[n] for n in case.unlabelled) for case in spec.training} == {
        "t1": ("vessel",),
        "v1": ("core", "whole"),
    }
    for case, expected in (("t1", {"whole": 24 + 24, "core": 24}), ("v1", {"vessel": 24})):
        (path,) = [one.label for one in spec.training if one.id == case]
        data = read_label_volume(path).data
        found = {name: int(np.isin(data, group).sum()) for name, group in spec.labels.groups.items()}
        assert {name: count for name, count in found.items() if count} == expected


def test_the_value_of_ignored_voxels_is_carried_over(tmp_path):
    first = make(tmp_path, "Dataset001_A", {"a": 1, "ignore": 2}, {"x": label((1, 1, 3), (2, 3, 4))})
    second = make(tmp_path, "Dataset002_B", {"b": 1}, {"y": label((1, 1, 3))})
    join(tmp_path / "Dataset010_J", first, second)
    spec = read_dataset(tmp_path / "Dataset010_J")
    data = read_label_volume(next(case.label for case in spec.training if case.id == "x")).data
    assert (data == spec.labels.ignore).sum() == 12


def test_what_cannot_be_joined_is_refused(organs, tmp_path):
    target = tmp_path / "Dataset010_Joined"
    with pytest.raises(DatasetError, match="--also"):
        join(target, organs[0])
    with pytest.raises(DatasetError, match="is named twice"):
        join(target, organs[0], organs[0])
    with pytest.raises(DatasetError, match="which is never written to"):
        join(organs[1] / "inside", *organs)
    other = make(tmp_path, "Dataset005_Scans", {"c": 1}, {"z": label((1, 1, 3))}, channel_names={"0": "CT"})
    with pytest.raises(DatasetError, match="expected the channels T1.*--channels"):
        join(target, organs[0], other)
    assert not target.exists()
    assert join(target, organs[0], other, channels=("scan",)).made.training == 3


def test_names_that_differ_in_letters_alone_are_told(tmp_path):
    first = make(tmp_path, "Dataset001_A", {"left kidney": 1}, {"x": label((1, 1, 3))})
    second = make(tmp_path, "Dataset002_B", {"Left_Kidney": 1}, {"y": label((1, 1, 3))})
    done = join(tmp_path / "Dataset010_J", first, second)
    assert [finding.code for finding in done.findings if finding.severity == "warning"] == ["structure-names"]


def test_the_same_scan_may_be_there_twice_with_other_structures_if_it_is_one_patients(tmp_path):
    image = np.random.default_rng(0).normal(100, 20, (6, 8, 10))
    for name, structure in (("Dataset001_A", "a"), ("Dataset002_B", "b")):
        made = Folder(tmp_path / name)
        made.json["labels"] = {"background": 0, structure: 1}
        made.add("p1", image=image, label=label((1, 1, 3))).read()
    target = tmp_path / "Dataset010_J"
    join(target, tmp_path / "Dataset001_A", tmp_path / "Dataset002_B", copy=True)
    assert "duplicate-image" not in {finding.code for finding in check_dataset(read_dataset(target))}
    description = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps(description | {"patients": {"A_p1": "one", "B_p1": "two"}}))
    (error,) = [finding for finding in check_dataset(read_dataset(target)) if finding.code == "duplicate-image"]
    assert "another patient's" in error.message


def test_the_command_takes_the_other_folders_behind_also(organs, tmp_path):
    words = ["convert", "join", str(organs[0]), str(tmp_path / "Dataset010_Joined"), "--also", str(organs[1]), "--quiet"]
    assert main(words) == 0
    assert len(read_dataset(tmp_path / "Dataset010_Joined").training) == 3
