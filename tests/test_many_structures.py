"""Work grows with the number of structures, cases and lesions, not with its square: operations are counted, or memory is."""

from __future__ import annotations

import pathlib
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.data import labelmaps, partial, splits
from autoseg.data.labels import LabelSchema
from autoseg.data.layouts import found, join, reading
from autoseg.data.layouts.folders import _Images
from autoseg.engines import LocalEngine
from autoseg.evaluation import folder as scoring
from autoseg.evaluation.groups import Groups
from autoseg.evaluation.lesions import LesionRule, match_lesions
from autoseg.evaluation.overlap import Counts
from autoseg.evaluation.probabilities import read_heads
from autoseg.evaluation.report import CaseMetrics, Report, ScoredFiles, summarise
from autoseg.imaging import itk
from autoseg.imaging.files import read_label_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import file_names
from autoseg.imaging.seg_nrrd import write_seg_nrrd
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.names import scrubbed
from autoseg.options import ConvertOptions
from autoseg.page import pictures
from autoseg.page.scene import Scene
from autoseg.pipeline import convert
from autoseg.reconstruct import borders, confidence, shared
from autoseg.reconstruct.components import FillHoles, KeepLargest, apply_rules
from autoseg.studies import cleaning
from autoseg.training.augment.coarse import Corruption, Move, corrupt
from planners.mirror import find_pairs

MANY = 27  # blocks of a volume of 27 x 27 x 27 voxels, each of 9 x 9 x 9


def blocks() -> LabelVolume:
    """MANY structures in cubes, with a plane of background between some."""
    index = np.indices((27, 27, 27)) // 9
    data = (1 + index[0] * 9 + index[1] * 3 + index[2]).astype(np.int32)
    data[:, 13] = 0
    return LabelVolume(data, Geometry.from_spacing(data.shape, (1.0, 1.0, 1.0)))


def schema(count: int) -> LabelSchema:
    values = tuple(range(1, count + 1))
    return LabelSchema(tuple(f"part {value}" for value in values), tuple((value,) for value in values), False, values)


def count_sizes(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """The sizes of the arrays that a function gets first, from now on."""
    sizes: list[int] = []
    function = getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        first = arguments[0] if arguments else next(iter(options.values()))
        sizes.append(int(np.size(first)))
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, counting)
    return sizes


def growth(work: Callable[[Any], object], few: Any, many: Any) -> float:
    """How much more processor time ``work`` takes for ``many`` than for ``few``; the best of three each."""

    def seconds(what: Any) -> float:
        begun = time.process_time()
        work(what)
        return time.process_time() - begun

    return min(seconds(many) for _ in range(3)) / max(1e-4, min(seconds(few) for _ in range(3)))


# -- label maps: no structure is looked for in the whole volume ----------------------------------------------------------


def test_rules_look_at_the_boxes_of_their_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = blocks().data
    seen = count_sizes(monkeypatch, np, "isin")
    apply_rules(labels, [rule((value,)) for value in range(1, MANY + 1) for rule in (KeepLargest, FillHoles)], 1.0)
    assert sum(seen) < 6 * labels.size


def test_certainty_is_looked_up_in_the_boxes_of_the_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.zeros((MANY + 1, 27, 27, 27), np.float32)
    np.put_along_axis(logits, blocks().data[None], 5.0, 0)
    seen = count_sizes(monkeypatch, confidence.ndimage, "find_objects")
    assert None not in confidence.entropies(logits)[0]
    assert sum(seen) < 6 * logits[0].size


def test_each_shared_surface_is_made_of_triangles_beside_its_structure() -> None:
    net = shared._in_patient(shared.surface_net(blocks().data), blocks().geometry)
    near = shared._beside(net, MANY + 1)
    assert sum(map(len, near)) == 2 * len(net.faces)
    assert max(map(len, near[1:])) < len(net.faces) / 5


def test_pairs_of_neighbours_are_found_from_the_faces_between_them() -> None:
    def work(count: int) -> None:
        touching = {(i, i + 1): 9 for i in range(1, count)}
        assert len(borders._faces_between(touching, {i: (i + 1,) for i in range(count)})) == count - 1

    assert growth(work, 1000, 4000) < 9


def test_contours_are_drawn_in_the_boxes_of_the_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    volume, drawn = blocks(), []

    def contours(z: np.ndarray) -> Any:
        drawn.append(z.size)
        return generator(z=z)

    generator = pictures.contour_generator
    monkeypatch.setattr(pictures, "contour_generator", contours)
    scene = Scene(None, None, volume.data, volume.geometry)
    pictures.draw_planes(scene, schema(MANY), "case")
    assert len(drawn) >= 24
    assert sum(drawn) < 3 * 3 * 27 * 27


def test_lesions_are_looked_for_in_the_boxes_of_their_structures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = blocks()
    for side in ("reference", "predicted"):
        write_label_volume(volume, tmp_path / side / "case.nii")
    labels, seen = schema(MANY), count_sizes(monkeypatch, scoring, "lesion_values")
    step = scoring._Score(
        {"case": tmp_path / "reference" / "case.nii"},
        {"case": tmp_path / "predicted" / "case.nii"},
        (),
        labels,
        None,
        {},
        None,
        LesionRule(labels.structures),
        {},
    )
    rows = step.run("case").rows
    assert [row["lesion_f1"] for row in rows] == [1.0] * MANY
    assert sum(seen) <= volume.data.size


def test_a_thousand_lesions_need_no_table_of_all_pairs() -> None:
    reference = np.zeros((19, 19, 19), bool)
    reference[::2, ::2, ::2] = True  # lesions of a voxel
    predicted = reference.copy()
    predicted[:, :, 18] = False
    tracemalloc.start()
    found = match_lesions(reference, predicted, 0.001, LesionRule(("lesion",)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(found.found), found.missed, found.false) == (900, 100, 0)
    assert peak < 3e6  # a table of numbers of eight bytes would take 7 MB


def test_probabilities_of_many_structures_are_read_one_by_one(tmp_path: Path) -> None:
    heads = np.random.default_rng(0).random((200, 16, 16, 16)).astype(np.float16)
    for name, stored in (("rows", heads), ("columns", np.asfortranarray(heads))):
        np.savez_compressed(tmp_path / f"{name}.npz", probabilities=stored)
        assert all(map(np.array_equal, read_heads(tmp_path / f"{name}.npz", heads.shape), heads))
    tracemalloc.start()
    last = deque(read_heads(tmp_path / "rows.npz", heads.shape), maxlen=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(last[0], heads[-1])
    assert peak < heads.nbytes / 4


def test_labels_of_a_coarse_stage_are_corrupted_in_one_copy() -> None:
    class Counted(np.ndarray[Any, Any]):
        copies = 0

        def copy(self, *arguments: Any, **options: Any) -> Any:
            Counted.copies += 1
            return super().copy(*arguments, **options)

    channels = (blocks().data == np.arange(1, MANY + 1)[:, None, None, None]).view(Counted)
    found = corrupt(channels, Corruption(tuple(Move(channel, "dilate", 1) for channel in range(MANY))))
    assert Counted.copies == 1
    assert found.sum(axis=0).max() == 1
    assert found.sum() > channels.sum()


@pytest.mark.thorough
def test_dicom_masks_and_outlines_take_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg.imaging import dicom_rtstruct, dicom_seg
    from autoseg.imaging.dicom_find import find_series
    from autoseg.imaging.files import read_geometry
    from tests.helpers import dicom

    data = blocks().data[::9]
    (series,) = find_series(dicom.write_series(tmp_path / "series", np.zeros(data.shape, np.int16))).series
    labels, groups = LabelVolume(data, read_geometry(series)), schema(MANY).groups
    outlined, looked = count_sizes(monkeypatch, dicom_rtstruct, "outlines"), count_sizes(monkeypatch, np, "isin")
    dicom_rtstruct.write_rtstruct(tmp_path / "rt.dcm", series, labels, groups, model="m", version="1")
    assert len(outlined) == MANY
    assert max(sum(outlined), sum(looked)) <= data.size
    looked.clear()
    masks = dicom_seg._masks(series, labels, tuple(groups.values()), 1)
    assert np.array_equal(masks, data)
    assert not looked


# -- files: each is read once --------------------------------------------------------------------------------------------


@pytest.fixture
def layered(tmp_path: Path) -> tuple[Path, Path]:
    """(scans, labels): a case whose 3D Slicer segmentation has MANY segments, and one around them all."""
    volume = blocks()
    groups = {**schema(MANY).groups, "all": tuple(range(1, MANY + 1))}
    (tmp_path / "labels").mkdir()
    write_seg_nrrd(tmp_path / "labels" / "case.seg.nrrd", volume, groups)
    write_volume(Volume(volume.data[None].astype(np.float32), volume.geometry), tmp_path / "scans" / "case.nii.gz")
    return tmp_path / "scans", tmp_path / "labels"


def test_a_segmentation_in_layers_is_read_once_for_all_its_segments(
    tmp_path: Path, layered: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, labels = layered
    read, reads = itk._read, []

    def counting(path: Path) -> Any:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(itk, "_read", counting)
    made = convert("folders", scans, tmp_path / "made", ConvertOptions(labels=str(labels)))
    assert made.made.training == 1
    assert len(reads) <= 3
    values = np.unique(read_label_volume(tmp_path / "made" / "labelsTr" / "case.nii.gz").data)
    assert len(values) == 1 + MANY


def test_files_of_many_cases_are_compared_with_few_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        (tmp_path / f"case_{number}.nii.gz").touch()
    (tmp_path / "view.png").touch()
    compared, equal = [0], pathlib.PurePath.__eq__

    def counting(one: pathlib.PurePath, other: object) -> bool:
        compared[0] += 1
        return equal(one, other)

    monkeypatch.setattr(pathlib.PurePath, "__eq__", counting)
    assert len(labelmaps.find_label_maps(tmp_path).maps) == 200
    assert compared[0] < 20 * 200


def test_the_channels_of_a_case_are_not_looked_for_in_all_files() -> None:
    def work(count: int) -> None:
        files = _Images({f"case{n}_{c:04d}": Path(f"case{n}_{c:04d}.nii.gz") for n in range(count) for c in range(2)})
        assert all(len(files.channels_of(f"case{n}")) == 2 for n in range(count))

    assert growth(work, 500, 2000) < 9


# -- a study ---------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_rules_are_tested_once_each_and_counted_where_they_change_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, rng = {}, np.random.default_rng(0)
    for case in ("a", "b", "c"):
        volume = blocks()
        guess = volume.data.copy()
        guess[rng.random(guess.shape) < 0.4] = 0  # pieces and holes
        for side, data in (("reference", volume.data), ("predicted", guess)):
            write_label_volume(LabelVolume(data, volume.geometry), tmp_path / side / f"{case}.nii")
        files[case] = ScoredFiles(*(str(tmp_path / side / f"{case}.nii") for side in ("reference", "predicted")))
    tested = count_sizes(monkeypatch, cleaning, "paired_difference")
    looked = count_sizes(monkeypatch, np, "isin")
    decided = cleaning.decide_rules(files, schema(MANY), LocalEngine(1))
    assert len(decided.decisions) > MANY  # of 81 rules
    assert len(tested) <= 3 * MANY
    assert sum(looked) < 3 * 40 * 27**3


# -- names and numbers -------------------------------------------------------------------------------------------------------


def teeth(count: int) -> list[str]:
    return [f"tooth {10 * quadrant + 1} {'x' * n}y" for n in range(count) for quadrant in (1, 2, 3, 4)]


def stratify(count: int) -> None:
    present = [frozenset({"all", f"part {n % 7}"}) for n in range(count)]
    splits._stratify(list(range(count)), [count // 5] * 5, present)


def annotated(count: int) -> None:
    labels, half = schema(count), tuple(range(0, count, 2))
    names = [labels.structures[number] for number in half]
    partial.read_unlabelled({"annotated": {"a": names}}, ["a"], labels)
    partial.check_unlabelled("a", half, labels, range(count + 1))
    assert partial.count_annotated([half] * 3, labels)[:2] == (0, 3)


def noted(count: int) -> None:
    labels = schema(count)
    rows = [CaseMetrics("a", name, {}, {}, 1.0, Counts(1, 0, 1, 0)) for name in labels.structures[::2]]
    rows += [CaseMetrics("a", name, {}, {}, 1.0, Counts(0, 0, 1, 0)) for name in labels.structures[1::2]]
    assert scoring.completed_notes([], rows, labels)
    assert scoring._about_unlabelled({"a": tuple(range(count))}, labels)


def joined(count: int) -> None:
    labels = schema(count)
    assert len(join._meanings(labels)) == count + 1
    reading.label_values([labels.structures[n : n + 2] for n in range(count)], labels.structures)
    found.unique_names(range(1, count), {n: f"part {n // 2}" for n in range(count)})


@pytest.mark.parametrize(
    ("work", "few"),
    [
        (lambda n: file_names([f"part {i // 2}" for i in range(n)]), 500),
        (lambda n: find_pairs(teeth(n)), 4),
        (stratify, 500),
        (annotated, 500),
        (noted, 500),
        (joined, 300),
    ],
    ids=["file names", "teeth", "folds", "annotated", "notes", "joined"],
)
def test_four_times_as_many_take_about_four_times_as_long(work: Callable[[int], object], few: int) -> None:
    assert growth(work, few, 4 * few) < 9


def test_a_sentence_is_searched_for_the_folders_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoseg import names

    folders = [f"/data/patient {number}/scans" for number in range(200)]
    searched: list[Sequence[Any]] = []
    replace = names.re.sub
    monkeypatch.setattr(names.re, "sub", lambda *arguments: searched.append(arguments) or replace(*arguments))
    assert scrubbed("/data/patient 7/scans/a.nii: cut short", folders) == "a.nii: cut short"
    assert len(searched) < 5


def test_each_row_is_put_into_its_group_once() -> None:
    class Counted(dict[str, str]):
        asked = 0

        def get(self, *key: Any) -> Any:
            self.asked += 1
            return super().get(*key)

    labels = schema(1)
    rows = [CaseMetrics(f"case {n}", "part 1", {"dice": n / 100}, {}, 1.0, Counts(1, 1, 1, 1)) for n in range(60)]
    of = Counted({row.case: f"scanner {n // 2}" for n, row in enumerate(rows)})
    plain = summarise(rows, labels)
    report = Report(labels, plain.summaries, plain.foreground_mean, plain.rows, groups=Groups("scanner", of))
    assert len(report.by_group) == 30
    assert of.asked <= 3 * len(rows)
