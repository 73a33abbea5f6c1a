"""Which files of a folder are the scans: right, or refused with both kinds named; nothing is left out without a word."""

import json

import numpy as np
import pytest

from autoseg.data.sources import find_inputs, image_files
from autoseg.errors import AutosegError
from autoseg.imaging.files import read_file, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume
from tests.helpers import dicom as draw

CT = ("CT",)


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def ids(found):
    return [case.id for case in found.cases]


def names(found):
    return [[path.name for path in case.images] for case in found.cases]


@pytest.fixture
def patients(tmp_path):
    """A tree of two patients' DICOM series."""
    for number in (1, 2):
        draw.write_series(tmp_path / f"p{number}", draw.random_values(seed=number), SeriesInstanceUID=f"1.9.{number}")
    return tmp_path


# -- kinds side by side ---------------------------------------------------------------------------------------------------


def test_pictures_beside_series_are_left_out_and_said(patients):
    touched(patients, "preview.png", "p1/view.jpg")
    found = find_inputs(patients, channels=CT)
    assert ids(found) == ["p1_s7", "p2_s7"]
    assert found.left_out == ("preview.png: pictures beside DICOM series",)
    assert ids(find_inputs(touched(patients / "p1", "preview.png"), channels=CT)) == ["p1_s7"]


def test_a_stray_volume_beside_series_is_refused_and_both_kinds_are_named(patients):
    touched(patients, "lung.nii.gz", "MORE.NRRD")
    with pytest.raises(AutosegError, match=r"found NRRD or MetaImage \(MORE.NRRD\), NIfTI \(lung.nii.gz\) and DICOM series"):
        find_inputs(patients, channels=CT)
    with pytest.raises(AutosegError, match=r"found NIfTI \(mask.nii.gz\) and DICOM series. Give the file or folder"):
        find_inputs(touched(patients / "p1", "mask.nii.gz"), channels=CT)


def test_a_volume_in_a_patients_folder_is_said(patients):
    found = find_inputs(touched(patients, "p1/mask.nii.gz"), channels=CT)
    assert ids(found) == ["p1_s7", "p2_s7"]
    assert found.left_out == ("mask.nii.gz: in subfolders, where only DICOM series are looked for",)


def test_pictures_are_scans_where_the_model_knows_pictures(patients, tmp_path):
    with pytest.raises(AutosegError, match=r"found pictures \(a.png\) and DICOM series"):
        find_inputs(touched(patients, "a.png"), channels=CT, file_ending=".png")
    alone = touched(tmp_path / "alone", "a.png", "b.jpg")
    found = find_inputs(alone, channels=CT, file_ending=".nii.gz")
    assert (ids(found), found.left_out) == (["a", "b"], ())


def test_label_maps_beside_their_scans_are_no_scans_and_that_is_said(tmp_path):
    found = find_inputs(touched(tmp_path / "slicer", "P1.nrrd", "P1.seg.nrrd", "P2.nrrd"), channels=CT)
    assert (ids(found), found.left_out) == (["P1", "P2"], ("P1.seg.nrrd: segmentations of 3D Slicer, no scans",))
    names = ["P1.nii.gz", "P1_seg.nii.gz", "P2_0000.nii.gz", "P2-label.nii.gz", "alone_mask.nii.gz"]
    found = find_inputs(touched(tmp_path / "named", *names[:2], "alone_mask.nii.gz"), channels=CT)
    assert (ids(found), found.left_out) == (["P1", "alone_mask"], ("P1_seg.nii.gz: called as labels of the scans beside them",))
    found = find_inputs(touched(tmp_path / "numbered", *names[2:4]), channels=CT)
    assert (ids(found), found.left_out) == (["P2"], ("P2-label.nii.gz: called as labels of the scans beside them",))
    with pytest.raises(AutosegError, match="no scans in it.*\n  left out: P1.seg.nrrd: segmentations of 3D Slicer"):
        find_inputs(touched(tmp_path / "only", "P1.seg.nrrd"), channels=CT)


@pytest.mark.parametrize(
    ("scans", "labels"),
    [
        (("BraTS_001_t1.nii.gz", "BraTS_001_flair.nii.gz"), ("BraTS_001_seg.nii.gz",)),
        (("volume-0.nii", "volume-1.nii"), ("segmentation-0.nii", "segmentation-1.nii")),
        (("imaging.nii.gz",), ("segmentation.nii.gz",)),
        (("P1.nii.gz", "img_P2.nii.gz"), ("label_P1.nii.gz", "mask-P2.nii.gz", "P1_pred.nii.gz")),
    ],
)
def test_label_maps_are_known_by_their_word_at_either_end(tmp_path, scans, labels):
    found = find_inputs(touched(tmp_path, *scans, *labels), channels=CT)
    assert sorted(case.images[0].name for case in found.cases) == sorted(scans)
    assert found.left_out == (f"{', '.join(sorted(labels))}: called as labels of the scans beside them",)


def a_scan(shape=(6, 20, 20)):
    return np.random.default_rng(0).integers(0, 1200, (1, *shape)).astype(np.int16)


def a_map(shape=(6, 20, 20)):
    values = np.zeros((1, *shape), np.uint8)
    values[:, 2:4, 5:12, 5:12], values[:, 2:4, 12:14, 5:12] = 1, 2
    return values


def written(folder, **images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        stem, _, ending = name.partition("__")
        file = folder / f"{stem}.{ending.replace('_', '.') or 'nii.gz'}"
        write_volume(Volume(data, Geometry.from_spacing(data.shape[1:], (3.0, 1.0, 1.0))), file)
    return folder


@pytest.mark.parametrize("ending", ["nii_gz", "nii", "mha", "nrrd"])
def test_label_maps_are_known_by_their_content_where_no_name_tells(tmp_path, ending):
    folder = written(tmp_path, **{f"CT__{ending}": a_scan(), f"GTV__{ending}": a_map().astype(np.float32)})
    found = find_inputs(folder, channels=CT)
    name = f"GTV.{ending.replace('_', '.')}"
    why = f"{name}: label maps by their content, beside scans; if one is a scan, give it alone"
    assert (ids(found), found.left_out) == (["CT"], (why,))
    assert ids(find_inputs(folder / name, channels=CT)) == ["GTV"]


def test_what_is_like_a_label_map_is_a_scan_where_all_are_or_beside_another_channel(tmp_path):
    masks = written(tmp_path / "masks", P1=a_map(), P2=a_map())
    assert (ids(find_inputs(masks, channels=CT)), find_inputs(masks, channels=CT).left_out) == (["P1", "P2"], ())
    case = {"P1_0000": a_scan(), "P1_0001": a_map(), "P2_0000": a_scan(), "P2_0001": a_map()}
    found = find_inputs(written(tmp_path / "channels", **case), channels=("CT", "prostate"))
    assert (ids(found), found.left_out) == (["P1", "P2"], ())


def test_dim_noisy_and_empty_scans_are_no_label_maps(tmp_path):
    rng = np.random.default_rng(0)
    dim = rng.poisson(0.4, (1, 6, 20, 20)).astype(np.uint8)
    bone = np.where(a_map() > 0, 300 + 50 * rng.standard_normal(a_map().shape), 0).astype(np.int16)
    folder = written(tmp_path, CT=a_scan(), dim=dim, empty=np.zeros((1, 6, 20, 20), np.uint8), bone=bone)
    found = find_inputs(folder, channels=CT)
    assert (ids(found), found.left_out) == (["CT", "bone", "dim", "empty"], ())


def test_files_of_two_formats_are_refused_unless_they_are_the_same_scans(tmp_path):
    with pytest.raises(AutosegError, match=r"found NIfTI \(P1.nii.gz, P2.nii.gz\) and NRRD or MetaImage \(P3.mha\)"):
        find_inputs(touched(tmp_path / "two", "P1.nii.gz", "P2.nii.gz", "P3.mha"), channels=CT)
    same = touched(tmp_path / "same", "P1.nii.gz", "P2.nii.gz", "P1.nrrd", "P2.nrrd")
    for ending, other in ((".nii.gz", "nrrd"), (".nrrd", "nii.gz")):
        found = find_inputs(same, channels=CT, file_ending=ending)
        assert (names(found), found.ending) == ([[f"P1{ending}"], [f"P2{ending}"]], ending)
        assert f"P1.{other}, P2.{other}: the scans also lie there as" in found.left_out[0]


def test_packed_and_plain_files_of_one_format_are_cases_alike(tmp_path):
    found = find_inputs(touched(tmp_path, "a.nii", "b.nii.gz", "c.nii.gz", "c.nii"), channels=CT)
    assert (names(found), found.ending) == ([["a.nii"], ["b.nii.gz"], ["c.nii.gz"]], ".nii.gz")
    assert found.left_out == ("c.nii: of the same name as another file, c.nii.gz",)
    assert find_inputs(touched(tmp_path / "mha", "a.mha", "b.mha", "c.mhd"), channels=CT).ending == ".mha"


def test_a_data_set_with_a_stray_scan_is_refused_and_stands_for_its_test_cases_without(tmp_path):
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    touched(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    assert ids(find_inputs(tmp_path, channels=CT)) == ["b"]
    with pytest.raises(AutosegError, match=r"found NIfTI \(stray.nii.gz\) and a data set"):
        find_inputs(touched(tmp_path, "stray.nii.gz"), channels=CT)


def test_a_folder_of_scans_with_a_description_is_a_folder_of_scans(tmp_path):
    (touched(tmp_path, "a_0000.nii.gz") / "dataset.json").write_text("{}")
    assert ids(find_inputs(tmp_path, channels=CT)) == ["a"]


def test_nothing_is_refused_with_what_lies_there(tmp_path):
    touched(tmp_path, "deep/a.nii.gz", "notes.txt")
    with pytest.raises(AutosegError, match="no scans in it; expected CASE_0000.mha, .*\n  left out: a.nii.gz: in subfolders"):
        find_inputs(tmp_path, channels=CT, file_ending=".mha")
    with pytest.raises(AutosegError, match="there is no such file or folder"):
        find_inputs(tmp_path / "nothing", channels=CT)


# -- names of cases and channels ------------------------------------------------------------------------------------------


def test_numbers_are_channels_where_all_cases_have_them(tmp_path):
    two = touched(tmp_path / "two", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    assert names(find_inputs(two, channels=("T1", "T2"))) == [
        ["a_0000.nii.gz", "a_0001.nii.gz"],
        ["b_0000.nii.gz", "b_0001.nii.gz"],
    ]
    found = find_inputs(two, channels=("T1",))
    assert names(found) == [["a_0000.nii.gz"], ["b_0000.nii.gz"]]
    assert found.left_out == ("a_0001.nii.gz, b_0001.nii.gz: no channel of a case",)
    missing = find_inputs(
        touched(tmp_path / "missing", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz"), channels=("T1", "T2")
    )
    assert names(missing)[1] == ["b_0000.nii.gz", "b_0001.nii.gz"]  # fails as a case, and says what is missing


def test_scans_that_are_numbered_like_channels_are_refused(tmp_path):
    numbered = touched(tmp_path / "a", *(f"img_{n:04d}.nii.gz" for n in range(5)))
    with pytest.raises(AutosegError, match=r"expected the channels _0000 of each case, found img_0000.*and 1 more. If each is"):
        find_inputs(numbered, channels=CT)
    with pytest.raises(AutosegError, match="expected the channels _0000 to _0001 of each case"):
        find_inputs(numbered, channels=("T1", "T2"))
    with pytest.raises(AutosegError, match="rename them"):
        find_inputs(touched(tmp_path / "b", "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"), channels=CT)
    assert ids(find_inputs(numbered, channels=("a", "b", "c", "d", "e"))) == ["img"]


def test_a_number_that_is_no_channel_belongs_to_the_name(tmp_path):
    found = find_inputs(touched(tmp_path, "scan_1001.nii.gz", "scan_1002.nii.gz"), channels=CT)
    assert (ids(found), found.left_out) == (["scan_1001", "scan_1002"], ())
    both = touched(tmp_path / "both", "a_0000.nii.gz", "b.nii.gz")
    assert find_inputs(both, channels=CT).left_out == ("b.nii.gz: no channel of a case",)


def test_one_file_of_all_channels_for_each_case(tmp_path):
    for folder in ("plain", "numbered"):
        touched(tmp_path / folder, *(f"{case}{'_0000' * (folder == 'numbered')}.nii.gz" for case in "ab"))
        found = find_inputs(tmp_path / folder, channels=("T1", "T2"))
        assert [len(case.images) for case in found.cases] == [1, 1]
        assert ids(found) == ["a", "b"]


@pytest.mark.parametrize("name", ["P0.NII.GZ", "P0.Nii.gz", "P0_0000.NII", "P0.NRRD"])
def test_endings_in_capital_letters_are_endings(tmp_path, name):
    geometry = Geometry.from_spacing((3, 4, 5), (3.0, 2.0, 1.0))
    data = np.random.default_rng(0).random((1, 3, 4, 5)).astype(np.float32)
    write_volume(Volume(data, geometry), tmp_path / name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    for source in (tmp_path, tmp_path / name):
        found = find_inputs(source, channels=CT)
        ((path,),) = (case.images for case in found.cases)
        assert (found.cases[0].id.upper(), path.name) == ("P0", name)
        assert found.ending == "." + name.lower().split(".", 1)[1]
    np.testing.assert_array_equal(read_file(path).data, data)


# -- links and notes ------------------------------------------------------------------------------------------------------


def test_links_count_and_a_link_to_itself_is_a_case_that_fails(tmp_path):
    touched(tmp_path / "store", "a.nii.gz")
    cohort = tmp_path / "in"
    cohort.mkdir()
    (cohort / "a.nii.gz").symlink_to(tmp_path / "store" / "a.nii.gz")
    (cohort / "loop.nii.gz").symlink_to(cohort / "loop.nii.gz")
    (cohort / "again").symlink_to(cohort)
    found = find_inputs(cohort, channels=CT)
    assert (ids(found), found.left_out) == (["a", "loop"], ())
    assert [path.name for path in image_files(cohort)] == ["a.nii.gz", "loop.nii.gz"]
    with pytest.raises(AutosegError, match="loop.nii.gz: expected a readable file"):
        read_file(found.cases[1].images[0])


def test_links_to_patients_are_cases(tmp_path, patients):
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for number in (1, 2):
        (cohort / f"q{number}").symlink_to(patients / f"p{number}")
    (cohort / "q1" / "back").symlink_to(cohort)
    assert ids(find_inputs(cohort, channels=CT)) == ["q1_s7", "q2_s7"]


def test_notes_of_series_and_aliases_are_told(tmp_path):
    folder = draw.write_series(tmp_path / "in" / draw.patient, draw.random_values())
    stray = next(draw.slice_datasets(draw.random_values((1, 3, 3))))
    draw.save(stray, folder / "stray.dcm")
    found = find_inputs(tmp_path / "in", channels=CT)
    (case,) = ids(found)
    assert f"{case}: 1 single image of another size or orientation left out." in found.notes
    assert found.told == (f"{folder}: identifies the patient; its case is called {case}",)
    assert found.ending == ".nii.gz"
    assert not any(str(tmp_path) in sentence for sentence in (*found.notes, *found.left_out))
    with pytest.raises(AutosegError, match=r"needs 2 channels \(T1, T2\)"):
        find_inputs(tmp_path / "in", channels=("T1", "T2"))
    draw.save(draw.multiframe_dataset(draw.random_values()), tmp_path / "whole.dcm")
    assert ids(find_inputs(tmp_path / "whole.dcm", channels=CT)) == ["whole"]
