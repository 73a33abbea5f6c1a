import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from PIL import Image

from autoseg.data.check import check_dataset
from autoseg.data.findings import Finding, findings_table
from autoseg.data.labelmaps import find_label_maps
from autoseg.data.measure import measure_fingerprint
from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import Volume


def found(folder):
    return sorted((finding.severity, finding.case, finding.code) for finding in check_dataset(folder.read()))


def test_nothing_is_said_where_all_is_well(make_folder):
    assert check_dataset(make_folder(6).read()) == ()


def test_several_defects_are_found_in_one_run_and_errors_come_first(make_folder):
    folder = make_folder(6)
    folder.label_path("case_2").unlink()
    folder.image_path("case_4").write_bytes(b"nonsense")
    folder.json["labels"]["third"] = 3
    folder.json["numTraining"] = 7
    assert [(finding.severity, finding.case, finding.code) for finding in check_dataset(folder.read())] == [
        ("error", "case_2", "missing-label"),
        ("error", "case_4", "unreadable-file"),
        ("warning", "", "case-count"),
        ("warning", "", "label-never-present"),
    ]


def test_a_spacing_stands_out_beyond_a_factor_of_two_and_a_half(make_folder):
    folder = make_folder(5)
    folder.add("near", spacing_mm=(4, 1, 1)).add("far", spacing_mm=(2, 1, 0.3))
    assert found(folder) == [("warning", "far", "spacing-outlier")]


def test_two_kinds_of_spacing_are_not_reported_case_by_case(make_folder):
    folder = make_folder()
    for i in range(4):
        folder.add(f"thin_{i}", spacing_mm=(1, 1, 1)).add(f"thick_{i}", spacing_mm=(6, 1, 1))
    assert found(folder) == []


def test_palettes_that_show_a_value_in_another_colour_are_errors(make_folder):
    folder, mask = make_folder(ending=".png"), np.repeat(np.arange(3, dtype=np.uint8), 8).reshape(4, 6)
    for number in range(4):
        Image.fromarray(mask * 9 + np.uint8(number)).save(folder.image_path(f"case_{number}"))
        label = Image.fromarray(mask)
        label.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, number] if number else [0, 0, 0, 0, 255, 0, 255, 0, 0])
        label.save(folder.label_path(f"case_{number}"))
    (finding,) = (one for one in check_dataset(folder.read()) if one.severity == "error")
    assert (finding.case, finding.code) == ("case_0", "palette-differs")
    assert "label 1: expected the colour (255, 0, 0) in its palette as in most cases, found (0, 255, 0)" in finding.message


def test_another_scale_and_another_offset_of_intensities_stand_out(make_folder):
    folder = make_folder(6)
    for case, change in (("case_2", lambda data: data * 1000), ("case_5", lambda data: data + 1024)):
        volume = read_volume(folder.image_path(case))
        write_volume(Volume(change(volume.data), volume.geometry), folder.image_path(case))
    assert found(folder) == [("warning", "case_2", "intensity-scale"), ("warning", "case_5", "intensity-level")]


def test_fewer_than_five_cases_have_no_outliers(make_folder):
    folder = make_folder(3).add("far", spacing_mm=(20, 1, 1))
    assert found(folder) == []


def test_an_orientation_unlike_the_others_is_a_warning(make_folder):
    folder = make_folder(3).add("turned", geometry=Geometry.from_spacing((6, 8, 10), (2, 1, 1)).flipped([1, 2]))
    (finding,) = check_dataset(folder.read())
    assert (finding.severity, finding.case, finding.code) == ("warning", "turned", "orientation-differs")
    assert "SAR" in finding.message
    assert "SPL" in finding.message


def test_the_same_case_twice_is_a_warning_and_with_another_label_an_error(make_folder):
    folder = make_folder(2)
    for copy in ("case_3", "case_4"):
        shutil.copy(folder.image_path("case_1"), folder.image_path(copy))
    shutil.copy(folder.label_path("case_1"), folder.label_path("case_3"))
    shutil.copy(folder.label_path("case_1"), folder.label_path("case_4"))
    assert found(folder) == [("warning", "case_3", "duplicate-case"), ("warning", "case_4", "duplicate-case")]
    label = np.zeros((6, 8, 10), np.uint8)
    label[3:5] = 1
    folder.add("case_4", label=label)
    shutil.copy(folder.image_path("case_1"), folder.image_path("case_4"))
    assert found(folder) == [("error", "case_4", "duplicate-image"), ("warning", "case_3", "duplicate-case")]


def test_copies_are_recognised_by_their_voxels_not_by_their_bytes(make_folder):
    folder = make_folder(2)
    volume = read_volume(folder.image_path("case_1"))
    affine = volume.geometry.affine
    affine[0, 3] += 50  # another header, other bytes
    folder.add("case_3", image=volume.data[0], geometry=Geometry.from_affine(volume.geometry.shape, affine))
    assert found(folder) == [("warning", "case_3", "duplicate-case")]


def test_two_channels_with_the_same_voxels_are_a_warning(make_folder):
    folder = make_folder(1, n_channels=2)
    shutil.copy(folder.image_path("case_1", 0), folder.image_path("case_1", 1))
    assert found(folder) == [("warning", "case_1", "duplicate-channel")]


def test_a_training_image_among_the_test_images_is_a_warning(make_folder):
    folder = make_folder(2)
    (folder.path / "imagesTs").mkdir()
    shutil.copy(folder.image_path("case_1"), folder.path / "imagesTs" / "new_0000.nii.gz")
    assert found(folder) == [("warning", "new", "test-in-training")]


def test_files_that_belong_to_no_case_are_named(make_folder):
    folder = make_folder(2)
    (folder.path / "imagesTr" / "notes.txt").touch()
    (folder.path / "imagesTr" / "case_9.nii.gz").touch()
    (folder.path / "labelsTr" / ".DS_Store").touch()
    assert found(folder) == [("warning", "", "stray-file"), ("warning", "", "stray-file")]


def test_a_channel_beyond_those_declared_is_an_error(make_folder):
    folder = make_folder(2)
    shutil.copy(folder.image_path("case_2"), folder.image_path("case_2", 1))
    assert found(folder) == [("error", "case_2", "channel-count")]


def test_patients_guessed_from_names_are_a_note_once(make_folder):
    folder = make_folder()
    for case in ("p1_frame01", "p1_frame12", "p2_frame01", "p2_frame12"):
        folder.add(case)
    (finding,) = check_dataset(folder.read())
    assert (finding.severity, finding.case, finding.code) == ("note", "", "patients-guessed")
    assert "4 cases belong to 2 patients" in finding.message
    folder.json["patients"] = {case.id: case.patient for case in folder.read().training}
    folder.json["patients"] = {case: f"named {patient}" for case, patient in folder.json["patients"].items()}
    assert check_dataset(folder.read()) == ()


def test_a_label_that_no_case_has_is_a_warning_that_names_it(make_folder):
    folder = make_folder(2)
    folder.json["labels"] |= {"tail": 3, "ignore": 7}
    messages = [finding.message for finding in check_dataset(folder.read())]
    assert [message.split(":")[0] for message in messages] == ["label 3 (tail)", "label 7 (ignore)"]


def row(case, severity="warning", code="odd"):
    return Finding(severity, case, code, f"message about {case}", "Do something.")


def test_a_table_has_the_worst_first_and_one_paragraph_for_many_cases_of_a_kind():
    findings = [row("x", "note", "said"), *(row(f"c{i}") for i in range(9)), row("b", "error", "bad")]
    lines = findings_table(findings).splitlines()
    assert [line.split()[:2] for line in lines if not line.startswith(" ")][:3] == [
        ["error", "bad"],
        ["warning", "odd"],
        ["note", "said"],
    ]
    assert len(lines) == 3 * 2 + 1 + 1
    assert lines[-1] == "1 error, 9 warnings, 1 note"


def test_names_that_would_leave_too_few_patients_are_a_note(make_folder):
    folder = make_folder()
    for number in range(6):
        folder.add(f"study2_scan_{number}")
    (finding,) = check_dataset(folder.read())
    assert (finding.severity, finding.code) == ("note", "patients-guessed")
    assert "each of 6 cases counts as a patient of its own" in finding.message


def test_files_that_a_list_leaves_out_are_no_findings(make_folder):
    folder = make_folder(3)
    shutil.copy(folder.image_path("case_2"), folder.image_path("case_2", 1))
    folder.json["dataset"] = {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"} for case in ("case_1", "case_2")
    }
    assert check_dataset(folder.read()) == ()


def test_an_image_without_its_channel_number_is_named(make_folder):
    folder = make_folder(2)
    shutil.copy(folder.image_path("case_2"), folder.path / "imagesTr" / "scan_1001.nii.gz")
    assert found(folder) == [("warning", "", "stray-file")]


def test_own_folds_that_cannot_be_used_are_an_error(make_folder):
    folder = make_folder(3)
    (folder.path / "splits_final.json").write_text('[{"train": ["case_1"], "val": ["case_9"]}]')
    (finding,) = check_dataset(folder.read())
    assert (finding.code, finding.severity) == ("own-folds", "error")
    assert "found case_9" in finding.message


def test_folds_are_stratified_where_chance_leaves_out_a_structure_and_that_is_told(make_folder):
    folder = make_folder(10)
    for number in range(1, 6):
        folder.add(f"case_{number}", label=np.pad(np.ones((2, 2, 2), np.uint8), ((1, 3), (2, 4), (2, 6))))
    codes = [finding.code for finding in check_dataset(folder.read())]
    assert codes == ["stratified-folds"]


def test_a_structure_that_one_patient_alone_has_is_told(make_folder):
    folder = make_folder(10)
    for number in range(2, 11):
        folder.add(f"case_{number}", label=np.pad(np.ones((2, 2, 2), np.uint8), ((1, 3), (2, 4), (2, 6))))
    (finding,) = (finding for finding in check_dataset(folder.read()) if finding.code == "structure-of-one-patient")
    assert finding.severity == "warning"
    lone = folder.read().labels.structures[-1]
    assert finding.message == (
        f"in the labels of one patient alone: {lone}; the fold that validates this patient cannot learn it"
    )


def test_each_message_of_one_kind_is_told_once():
    about = ("note", "reader-note", "Correct the header if this is not meant.")
    metres = "Lengths in the header are in metres; they are converted to mm."
    lost = "The sform of the header is not an invertible matrix and is ignored."
    found = [Finding(about[0], case, about[1], text, about[2]) for case in ("anna", "bert", "carl") for text in (metres, lost)]
    table = findings_table(found)
    assert table.count(metres) == table.count(lost) == 1
    assert table.count("the same in bert, carl") == 2


def test_messages_that_differ_in_numbers_and_files_alone_are_one_paragraph():
    found = [
        Finding(
            "error",
            case,
            "undeclared-label",
            f"{case}.nii.gz: expected values among [0, 1], found {n:.3g} in {n:.3g} voxels",
            "Name.",
        )
        for n, case in zip((7, 88, 4.5e7), ("anna", "bert", "carl"), strict=True)
    ]
    table = findings_table([*found, replace(found[0], case="dora", message=found[0].message.replace("anna", "dora"))])
    assert table.count("undeclared-label") == 1
    assert "the same in dora.nii.gz\n" in table  # and not in those whose values are others
    assert "with other numbers in bert.nii.gz, carl.nii.gz\n" in table


def test_a_value_that_regions_are_painted_with_is_not_to_be_taken_out(make_folder):
    folder = make_folder(2)  # its files hold 1 and 2
    folder.json["labels"] = {"background": 0, "organ": [1, 2, 3], "vein": [2, 3]}
    folder.json["regions_class_order"] = [1, 3]
    assert "label-never-present" not in {finding.code for finding in check_dataset(folder.read())}
    folder.json["labels"]["gland"] = [4, 5]
    folder.json["regions_class_order"] = [1, 3, 4]
    found = [finding.message for finding in check_dataset(folder.read()) if finding.code == "label-never-present"]
    assert found == ["region gland: expected one of its values [4, 5] in some case, found in none of 2"]


def test_a_value_that_may_be_in_labels_that_cannot_be_read_is_not_to_be_taken_out(make_folder):
    folder = make_folder(3)  # its files hold 1 and 2
    folder.json["labels"]["gland"] = 3

    def said():
        found = [finding for finding in check_dataset(folder.read()) if finding.code == "label-never-present"]
        return [(finding.message, finding.remedy) for finding in found]

    message = "label 3 (gland): expected in some case, found in none of "
    assert said() == [(f"{message}3", "Take it out of labels if it is not used.")]
    path = folder.label_path("case_2")
    path.write_bytes(path.read_bytes()[:-20])
    assert said() == [(f"{message}2, and the labels of 1 more could not be read", "Repair those labels first.")]


def test_the_background_is_not_to_be_taken_out(make_folder):
    folder = make_folder(2)
    for case in ("case_1", "case_2"):
        label = read_label_volume(folder.label_path(case))
        write_label_volume(replace(label, data=np.maximum(label.data, 1)), folder.label_path(case))
    (remedy,) = [finding.remedy for finding in check_dataset(folder.read()) if finding.code == "label-never-present"]
    assert remedy.startswith("Nothing, if structures fill all images")


def test_a_channel_that_is_constant_in_all_cases_gives_findings_and_no_warnings(make_folder):
    folder = make_folder(3, n_channels=2)
    for number in range(1, 4):
        path = folder.image_path(f"case_{number}", 1)
        volume = read_volume(path)
        write_volume(Volume(np.zeros_like(volume.data), volume.geometry), path)
    found = check_dataset(folder.read())  # warnings are errors
    assert [finding.code for finding in found].count("constant-image") == 3
    measure_fingerprint(folder.read())


def sided(folder, n_cases, *, names=("one", "other"), moved=0, grown=0, swapped=()):
    """Cases with two blocks left and right of the middle, in scans of several orientations."""
    folder.json["labels"] = {"background": 0, names[0]: 1, names[1]: 2}
    for number in range(n_cases):
        label = np.zeros((6, 8, 20), np.uint8)
        label[2:4, 2 : 5 + grown, 2:6] = 1
        label[2 + moved : 4 + moved, 2:5, 14:18] = 2
        if number in swapped:
            label = label[:, :, ::-1]
        grid = Geometry.from_spacing(label.shape, (2.0, 1.0, 1.0))
        flips = [(), (2,), (0, 1)][number % 3]  # stored otherwise: the patient is the same
        image = np.random.default_rng(number).normal(100, 20, label.shape)
        folder.add(f"case_{number}", geometry=grid.flipped(flips), image=np.flip(image, flips), label=np.flip(label, flips))
    return [finding.message for finding in check_dataset(folder.read()) if finding.code == "sides-unnamed"]


def test_structures_on_opposite_sides_in_all_cases_are_told_where_their_names_do_not(make_folder):
    assert sided(make_folder(), 5) == [
        "of similar size and on opposite sides in all cases: one / other; their names do not say so"
    ]


@pytest.mark.parametrize(
    ("n_cases", "how"),
    [
        (5, {"names": ("kidney left", "kidney right")}),  # the names say it
        (3, {}),  # too few
        (5, {"swapped": (1,)}),  # on either side
        (5, {"grown": 3}),  # one is twice as large
        (5, {"moved": 2, "names": ("low", "high"), "grown": 2}),
    ],
)
def test_other_structures_are_not_taken_for_sides(make_folder, n_cases, how):
    assert sided(make_folder(), n_cases, **how) == []


def test_files_for_tests_that_belong_to_no_case_and_channels_that_they_lack_are_told(make_folder):
    folder = make_folder(2, n_channels=2)
    tests = folder.path / "imagesTs"
    tests.mkdir()
    for name, source in (("whole_0000", 0), ("whole_0001", 1), ("half_0000", 0), ("other", 0), ("more_0002", 0)):
        shutil.copy(folder.image_path("case_1", source), tests / f"{name}.nii.gz")
    (folder.path / "labelsTs").mkdir()
    shutil.copy(folder.label_path("case_1"), folder.path / "labelsTs" / "nobody.nii.gz")
    told = [(f.case, f.code, f.message) for f in check_dataset(folder.read()) if f.code in ("missing-channel", "stray-file")]
    assert told == [
        ("half", "missing-channel", "expected half_0001.nii.gz, found no such file: this test case cannot be predicted"),
        ("", "stray-file", "imagesTs/more_0002.nii.gz belongs to no case"),
        ("", "stray-file", "imagesTs/other.nii.gz belongs to no case"),
        ("", "stray-file", "labelsTs/nobody.nii.gz belongs to no case"),
    ]


def test_a_test_image_that_cannot_be_read_ends_no_check(make_folder):
    folder = make_folder(2)
    (folder.path / "imagesTs").mkdir()
    (folder.path / "imagesTs" / "new_0000.nii.gz").symlink_to("/proc/self/mem")  # a file whose reading fails
    (told,) = (finding for finding in check_dataset(folder.read()) if finding.case == "new")
    assert (told.severity, told.code) == ("warning", "unreadable-file")
    assert "new_0000.nii.gz" in told.message


@pytest.mark.parametrize("ending", [".nii.gz", ".mhd"])
def test_a_test_image_that_is_trained_on_is_told_for_every_type_of_file(make_folder, ending):
    folder = make_folder(2, ending=ending)
    (folder.path / "imagesTs").mkdir()
    image = folder.image_path("case_1")
    write_volume(read_volume(image), folder.path / "imagesTs" / f"case_1_0000{ending}")
    write_volume(read_volume(image), image)
    assert "test-in-training" in {finding.code for finding in check_dataset(folder.read()) if finding.case == "case_1"}


def test_a_test_case_called_as_a_training_case_is_not_taken_for_its_patient(make_folder):
    folder = make_folder(2)
    volume = read_volume(folder.image_path("case_1"))
    for part in ("imagesTs", "labelsTs"):
        (folder.path / part).mkdir()
    write_volume(Volume(volume.data + 1, volume.geometry), folder.path / "imagesTs" / "case_1_0000.nii.gz")
    shutil.copy(folder.label_path("case_2"), folder.path / "labelsTs" / "case_1.nii.gz")
    assert found(folder) == [("warning", "case_1", "test-name-in-training")]
    maps = find_label_maps(folder.path)
    assert maps.maps["case_1"] == folder.label_path("case_1")
    assert maps.left_out == ("case_1: the label of a test case called as a training case",)


def test_cases_that_the_own_folds_leave_out_or_validate_twice_are_told(make_folder):
    folder = make_folder(4)
    fold = {"train": ["case_1", "case_2"], "val": ["case_3"]}
    (folder.path / "splits_final.json").write_text(json.dumps([fold, fold]))
    told = [finding.message for finding in check_dataset(folder.read())]
    assert told == [
        "splits_final.json: expected each case in some fold, found case_4 in none",
        "splits_final.json: case_3 validated by several folds",
    ]


def test_an_offset_that_single_precision_does_not_hold_beside_the_contrast_is_told(make_folder):
    folder = make_folder(2)
    volume = read_volume(folder.image_path("case_1"))
    affine = volume.geometry.affine[:, [2, 1, 0, 3]]
    for offset, scale in ((1e8, 1e-2), (1e4, 1)):
        data = volume.data[0].T.astype(np.float64) * scale + offset
        nibabel.save(nibabel.Nifti1Image(data, affine), folder.image_path("case_1"))
        told = [(f.case, f.message) for f in check_dataset(folder.read()) if f.code == "precision"]
        assert [case for case, _ in told] == (["case_1"] if offset == 1e8 else [])
        assert all("of which it has 1 value" in message for _, message in told)


def test_one_label_file_for_two_patients_is_an_error_and_one_patient_may_share_it(make_folder):
    folder = make_folder(2)
    listing = {
        f"case_{n}": {"images": [f"imagesTr/case_{n}_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz", "patient": f"P{n}"}
        for n in (1, 2)
    }
    folder.json["dataset"] = listing
    (finding,) = (finding for finding in check_dataset(folder.read()) if finding.code == "label-twice")
    assert (finding.case, finding.severity) == ("case_2", "error")
    assert "case_1.nii.gz, which is also that of case_1" in finding.message
    listing["case_2"]["patient"] = "P1"
    assert "label-twice" not in {finding.code for finding in check_dataset(folder.read())}


def test_a_scan_of_another_ending_is_to_be_converted(make_folder):
    folder = make_folder(1)
    folder.image_path("case_1").rename(folder.path / "imagesTr" / "case_1_0000.nrrd")
    folder.add("case_2")
    (finding,) = (finding for finding in check_dataset(folder.read()) if finding.code == "stray-file")
    assert finding.message == "imagesTr/case_1_0000.nrrd belongs to no case: it does not end in .nii.gz"
    assert finding.remedy == "Convert it to .nii.gz, or move it away."
