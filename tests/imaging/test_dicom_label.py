"""DICOM segmentations are label maps wherever label maps are read: right, or refused with the reason."""

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation

from autoseg.cli import main
from autoseg.data.dataset import read_dataset
from autoseg.errors import FileError
from autoseg.imaging.crop import laid_on
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.dicom_seg import write_seg
from autoseg.imaging.files import (
    read_geometry,
    read_label_volume,
    read_segmentation,
    read_volume,
    segment_names,
    write_label_volume,
    write_volume,
)
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume
from tests.helpers import dicom as draw

REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom" / "series" / "dcmqi_CT3_and_SEG"
NAMES = {"Left Kidney": 1, "tumour": 2, "absent": 3}
WAYS = {"model": "kidneys 0123", "version": "1.2"}
TURNS = [np.array(s) * np.eye(3)[:, o] for o in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]
TURNS = [turn for turn in TURNS if np.linalg.det(turn) > 0][::3]
TURNS += [Rotation.from_euler("xyz", angles, degrees=True).as_matrix() for angles in ((15, -40, 110), (-170, 20, 65))]


def shapes():
    """Values 1 and 2 without any symmetry; slices 0, 3 and 6 are empty."""
    values = np.zeros((7, 9, 10), np.uint8)
    values[1:3, 2:7, 1:8] = 1
    values[4:6, 6:9, 8] = 2
    values[5, 2, 3:5] = 1
    return values


def segmented(folder, values=None, **options):
    """(series in a folder, LabelVolume on it)."""
    values = shapes() if values is None else values
    (series,) = find_series(draw.write_series(folder, draw.random_values(values.shape), **options)).series
    return series, LabelVolume(values, read_geometry(series))


def write(path, series, labels, structures=None):
    write_seg(path, series, labels, structures or {name: (value,) for name, value in NAMES.items()}, **WAYS)
    return path


@pytest.mark.parametrize("rotation", TURNS, ids=str)
@pytest.mark.parametrize("order", [range(7), range(6, -1, -1)], ids=["forth", "back"])
def test_what_we_write_comes_back_and_is_laid_on_its_scan(tmp_path, rotation, order):
    series, labels = segmented(tmp_path / "in", rotation=rotation, order=order)
    path = write(tmp_path / "a.dcm", series, labels)
    found = read_label_volume(path)
    assert segment_names(path) == NAMES
    assert found.geometry.shape == (5, 9, 10)  # from the first structure to the last, the empty slice between them included
    part = labels.geometry.cropped((1, 0, 0), (5, 9, 10))
    assert found.geometry.matches(part, 1e-3)
    np.testing.assert_array_equal(found.data, labels.data[1:6])
    onto = read_label_volume(path, onto=labels.geometry)
    assert onto.geometry == labels.geometry
    np.testing.assert_array_equal(onto.data, labels.data)


@pytest.mark.parametrize("kind", ["LABELMAP", "FRACTIONAL", "BINARY"])
def test_every_kind_of_segmentation_is_read(tmp_path, kind):
    series, labels = segmented(tmp_path / "in", rotation=TURNS[-1])
    pixels = labels.data
    options = {"omit_empty_frames": False}
    if kind == "FRACTIONAL":
        chances = np.stack([np.where(labels.data == value, 0.5, 0.49) for value in NAMES.values()], axis=-1)
        pixels = chances.astype(np.float32)
        options |= {"max_fractional_value": 200}
    found = read_label_volume(draw.write_segmentation(tmp_path / "a", series, pixels, kind, NAMES, **options))
    assert found.geometry.matches(labels.geometry, 1e-3)
    np.testing.assert_array_equal(found.data, labels.data)


def test_fractions_that_do_not_say_what_is_whole_are_of_their_bits(tmp_path):
    series, labels = segmented(tmp_path / "in")
    chances = np.stack([np.where(labels.data == value, 0.6, 0.4) for value in NAMES.values()], axis=-1).astype(np.float32)
    options = {"omit_empty_frames": False, "max_fractional_value": 255}
    path = draw.write_segmentation(tmp_path / "a", series, chances, "FRACTIONAL", NAMES, **options)
    ds = pydicom.dcmread(path)
    del ds.MaximumFractionalValue
    ds.save_as(path)
    np.testing.assert_array_equal(read_label_volume(path).data, labels.data)


def test_a_tilted_gantry_a_single_slice_and_nothing_at_all_come_back(tmp_path):
    for name, values, options in (
        ("tilted", shapes(), {"shear_mm": 0.5}),
        ("single", shapes()[1:2], {}),
        ("nothing", 0 * shapes(), {}),
    ):
        series, labels = segmented(tmp_path / name, values, **options)
        found = read_label_volume(write(tmp_path / f"{name}.dcm", series, labels), onto=labels.geometry)
        assert found.geometry == labels.geometry, name
        np.testing.assert_array_equal(found.data, labels.data)


def test_two_far_slices_are_as_thick_as_the_object_says(tmp_path):
    values = shapes()
    values[[2, 5]] = 0
    series, labels = segmented(tmp_path / "in", values)
    found = read_label_volume(write(tmp_path / "a.dcm", series, labels))
    assert found.geometry.matches(labels.geometry.cropped((1, 0, 0), (4, 9, 10)), 1e-3)
    np.testing.assert_array_equal(found.data, values[1:5])


def test_objects_in_the_folder_of_a_case_give_their_segments_and_each_once(tmp_path, capsys):
    scans, maps, out = tmp_path / "scans", tmp_path / "maps", tmp_path / "out"
    series, labels = segmented(tmp_path / "in")
    for case in "ab":
        write_volume(read_volume(series), scans / f"{case}.nii.gz")
        (maps / case).mkdir(parents=True)
    write(maps / "a" / "study.dcm", series, labels, {"whole": (1, 2)})
    write(maps / "b" / "export 7.dcm", series, labels, {"whole": (1,), "core": (2,)})
    call = ["convert", "folders", str(scans), str(out), "--labels", str(maps), "--channels", "CT", "--quiet"]
    assert main(call) == 0
    assert read_dataset(out).labels.groups == {"core": (1,), "whole": (2,)}
    shutil.copy(maps / "a" / "study.dcm", maps / "a" / "reader 2.dcm")
    assert main([*call[:3], str(tmp_path / "other"), *call[4:]]) == 2
    assert "expected one file called whole, found reader 2.dcm and study.dcm" in capsys.readouterr().err


def test_segments_that_overlap_become_regions(tmp_path):
    scans, maps, out = tmp_path / "scans", tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    series, labels = segmented(tmp_path / "in", rotation=TURNS[3])
    write_volume(read_volume(series), scans / "a.nii.gz")
    write_volume(read_volume(series), scans / "b.nii.gz")
    write(maps / "a.dcm", series, labels, {"whole": (1, 2), "core": (2,)})
    write(maps / "b.dcm", series, labels, {"core": (1,)})
    assert main(["convert", "folders", str(scans), str(out), "--labels", str(maps), "--channels", "CT", "--quiet"]) == 0
    dataset = read_dataset(out)
    assert dataset.labels.structures == ("core", "whole")
    truth = {"a": (labels.data == 2, labels.data > 0), "b": (labels.data == 1, np.zeros_like(labels.data, bool))}
    for case in dataset.training:
        data = read_label_volume(case.label, onto=labels.geometry).data
        for number in range(2):
            np.testing.assert_array_equal(dataset.labels.mask(data, number), truth[case.id][number])


def test_of_segments_that_overlap_the_chosen_ones_alone_are_held_and_become_labels(tmp_path):
    series, labels = segmented(tmp_path / "in")
    path = tmp_path / "maps" / "a.dcm"
    path.parent.mkdir()
    write(path, series, labels, {"whole": (1, 2), "core": (2,), "rim": (1,)})
    chosen = read_segmentation(path, ["rim", "core"])
    assert len(chosen.layers.data) == 2
    for name, value in {"rim": 1, "core": 2}.items():
        np.testing.assert_array_equal(chosen.mask(name, labels.geometry).data[0] == 1, labels.data == value)
    write_volume(read_volume(series), tmp_path / "scans" / "a.nii.gz")
    call = ["convert", "folders", str(tmp_path / "scans"), str(tmp_path / "out"), "--labels", str(path.parent), "--quiet"]
    assert main([*call, "--channels", "CT", "--structures", "rim,core"]) == 0
    (case,) = read_dataset(tmp_path / "out").training
    assert read_dataset(tmp_path / "out").labels.groups == {"rim": (1,), "core": (2,)}
    np.testing.assert_array_equal(read_label_volume(case.label, onto=labels.geometry).data, labels.data)


def test_segments_that_overlap_and_damage_are_refused_with_a_remedy(tmp_path, capsys):
    series, labels = segmented(tmp_path / "in")
    maps = tmp_path / "maps"
    maps.mkdir()
    write(maps / "good.dcm", series, labels)
    write(maps / "overlap.dcm", series, labels, {"whole": (1, 2), "core": (2,)})
    raw = (maps / "good.dcm").read_bytes()
    (maps / "cut.dcm").write_bytes(raw[:-20])
    nowhere = pydicom.dcmread(maps / "good.dcm")
    for frame in nowhere.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    nowhere.save_as(maps / "nowhere.dcm")
    assert main(["reconstruct", "-i", str(maps), "-o", str(tmp_path / "out"), "--surfaces", "none", "--quiet"]) == 1
    text = capsys.readouterr().out
    assert "1 label map reconstructed" in text
    for name, said, remedy in (
        ("overlap", "found whole and core in one", "Export each segment"),
        ("cut", "cannot be decoded", "Copy or export"),
        ("nowhere", "found some without", "Export it as NIfTI"),
    ):
        (line,) = [line for line in text.splitlines() if line.startswith(f"failed: {name}: ")]
        assert f"{name}.dcm: expected" in line or f"{name}.dcm: the frames" in line
        assert said in line
        assert remedy in line
    record = json.loads((tmp_path / "out" / "good.json").read_text())
    assert record["labels"] == {name: [value] for name, value in NAMES.items()}
    assert [one["voxels"] for one in record["measurements"]] == [(labels.data == value).sum() for value in (1, 2, 3)]


@pytest.mark.thorough
def test_segmentations_are_references_and_labels_of_a_data_set(tmp_path, capsys):
    scans, maps, truth = tmp_path / "scans", tmp_path / "maps", tmp_path / "truth"
    for folder in (scans, maps, truth):
        folder.mkdir()
    for case in "ab":
        series, labels = segmented(tmp_path / case, SeriesInstanceUID=f"1.2.{ord(case)}", rotation=TURNS[3])
        volume = read_volume(series)
        write_volume(volume, scans / f"{case}.nii.gz")
        write(maps / f"{case}_seg.dcm", series, labels)
        shutil.copy(maps / f"{case}_seg.dcm", truth / f"{case}.dcm")
        write_label_volume(labels, tmp_path / "predicted" / f"{case}.nii.gz")
    call = ["convert", "folders", str(scans), str(tmp_path / "Dataset001_Seg"), "--labels", str(maps), "--channels", "CT"]
    for mode in ([], ["--copy"]):
        assert main([*call, *mode, "--quiet"]) == 0
        described = json.loads((tmp_path / "Dataset001_Seg" / "dataset.json").read_text())
        assert described["labels"] == {"background": 0, "Left Kidney": 1, "tumour": 2}
        workspace = ["--workspace", str(tmp_path / f"w{len(mode)}"), "--quiet"]
        assert main(["verify", str(tmp_path / "Dataset001_Seg"), *workspace]) == 0
        assert "0 errors" in capsys.readouterr().out
        shutil.rmtree(tmp_path / "Dataset001_Seg")
    score = ["evaluate", "--reference", str(truth), "--predicted", str(tmp_path / "predicted"), "-o", str(tmp_path / "scores")]
    assert main([*score, "--quiet"]) == 0
    rows = list(csv.DictReader((tmp_path / "scores" / "metrics.csv").read_text().splitlines()))
    assert {(row["structure"], row["dice"]) for row in rows} >= {("Left Kidney", "1.0"), ("tumour", "1.0")}


def test_segments_that_are_numbered_otherwise_from_case_to_case_are_known_by_their_names(tmp_path, capsys):
    scans, maps, out = tmp_path / "scans", tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    truth = {}
    for case, names in (("a", ("liver", "spleen")), ("b", ("spleen", "liver"))):
        series, labels = segmented(tmp_path / case, SeriesInstanceUID=f"1.2.{ord(case)}")
        write_volume(read_volume(series), scans / f"{case}.nii.gz")
        write(maps / f"{case}.dcm", series, labels, {names[0]: (1,), names[1]: (2,)})
        truth[case] = {name: labels.data == number for number, name in enumerate(names, 1)}
    call = ["convert", "folders", str(scans), str(out), "--labels", str(maps), "--quiet"]
    (tmp_path / "names.csv").write_text("1,liver\n2,spleen\n")
    assert main([*call, "--names", str(tmp_path / "names.csv")]) == 2
    assert "expected segment 1 to be liver as in other maps, found spleen" in capsys.readouterr().err
    assert main(call) == 0
    dataset = read_dataset(out)
    for case in dataset.training:
        for number, name in enumerate(dataset.labels.structures):
            mask = dataset.labels.mask(read_label_volume(case.label, onto=read_geometry(case.images[0])).data, number)
            np.testing.assert_array_equal(mask, truth[case.id][name])
    assert main(["evaluate", "--reference", str(maps), "--predicted", str(maps), "-o", str(tmp_path / "x"), "--quiet"]) == 2
    assert "Number the segments alike" in capsys.readouterr().err


def test_a_name_that_has_another_number_in_another_map_is_refused_where_maps_are_compared(tmp_path, capsys):
    folders = [tmp_path / "truth", tmp_path / "predicted"]
    series, labels = segmented(tmp_path / "a")
    for folder, names in zip(folders, (("liver", "spleen"), ("spleen", "liver")), strict=True):
        folder.mkdir()
        write(folder / "a.dcm", series, labels, {names[0]: (1,), names[1]: (2,)})
    score = ["evaluate", "--reference", str(folders[0]), "--predicted", str(folders[1]), "-o", str(tmp_path / "x"), "--quiet"]
    assert main(score) == 2
    assert "expected segment spleen to be number 2 as in other maps, found 1" in capsys.readouterr().err


def test_labels_are_laid_on_a_grid_of_the_same_voxels_only():
    grid = Geometry.from_affine((6, 7, 8), [[0, 0, 1.0, 3], [0, -2.0, 0, 5], [4.0, 0, 0, -7]])
    values = np.random.default_rng(0).integers(0, 4, grid.shape).astype(np.uint8)
    values[[0, -1]] = values[:, 0] = 0
    order, flips = grid.canonical()
    turned = np.flip(values.transpose(order), flips)
    np.testing.assert_array_equal(laid_on(turned, grid.oriented(order, flips), grid), values)
    np.testing.assert_array_equal(laid_on(values[1:-1], grid.cropped((1, 0, 0), (4, 7, 8)), grid), values)
    rows = grid.affine
    for change in ((0, 3, 0.3), (0, 2, 0.5), (0, 0, 0.4), (2, 3, 12.0)):  # shifted, of half the size, sheared, outside
        other = rows.copy()
        other[change[:2]] += change[2]
        assert laid_on(values, Geometry.from_affine(grid.shape, other), grid) is None


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no scans in {REAL}")
def test_a_published_segmentation_equals_the_same_in_another_file():
    (path,), (same,) = REAL.rglob("liver.dcm"), REAL.rglob("liver_seg.nrrd")
    expected = read_label_volume(same)
    found = read_label_volume(path, onto=expected.geometry)
    assert found.geometry == expected.geometry
    np.testing.assert_array_equal(found.data, expected.data)
    (path,) = REAL.rglob("partial_overlaps.dcm")
    with pytest.raises(FileError, match=r"partial_overlaps\.dcm: .*found GREEN and ORANGE in one"):
        read_label_volume(path)
