"""Cases that come as DICOM are called after their folders, unless these give away the patient."""

import re
import shutil

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from autoseg.errors import FileError, GeometryError
from autoseg.imaging.dicom_find import find_series
from autoseg.imaging.files import read_file
from tests.helpers import dicom as draw

ALIAS = r"patient-[0-9a-f]{8}"


def write(folder, **header):
    """A series of somebody with many names and numbers."""
    other = Dataset()
    other.PatientID = "77 88"
    about = {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Müller-Doe^Jane Li",
        "OtherPatientNames": ["Old^Name", "Søndergård^Jane"],
        "PatientBirthDate": "19610305",
        "PatientID": "AB-4711",
        "OtherPatientIDsSequence": Sequence([other]),
        "AccessionNumber": "100017",
    }
    return draw.write_series(folder, draw.random_values(), **{**about, **header})


def name_of(source):
    return find_series(source).series[0].name


@pytest.mark.parametrize(
    "folder",
    [
        "Doe^Jane",
        "doe_jane_1961",
        "CT-janedoe",
        "MÜLLER",
        "Mueller 2",
        "Mu\u0308ller",
        "muller",
        "soendergaard",
        "Sondergard",
        "old.name",
        "ab 4711 ct",
        "x_AB4711",
        "77-88",
        "s 100.017",
        "1961-03-05",
        "05.03.1961",
        "scan030561",
    ],
)
def test_a_folder_that_gives_away_the_patient_is_replaced(tmp_path, folder):
    assert re.fullmatch(f"{ALIAS}_s7", name_of(write(tmp_path / folder)))


@pytest.mark.parametrize(
    "folder", ["thorax", "scan_14711", "ab_471_12", "anatomical", "1.2.840.2196103051.7", "LIDC-IDRI-0001"]
)
def test_other_folders_keep_their_names(tmp_path, folder):
    found = find_series(write(tmp_path / folder, PatientName="Doe^Tom")).series[0]
    assert (found.name, found.origin, found.notes) == (f"{folder}_s7", None, ())
    assert str(found).endswith(f"in {folder}")
    assert str(tmp_path) not in str(found)


def test_names_of_syllables_are_found_and_short_numbers_are_not(tmp_path):
    short = {"PatientName": "Li^Na", "PatientID": "17"}
    assert re.fullmatch(f"{ALIAS}_s7", name_of(write(tmp_path / "na_li", **short)))
    assert name_of(write(tmp_path / "li_17", **short)) == "li_17_s7"


def test_who_is_declared_de_identified_keeps_the_folders_name(tmp_path):
    pseudonym = {"PatientName": "LIDC-IDRI-0001", "PatientID": "LIDC-IDRI-0001"}
    folder = write(tmp_path / "LIDC-IDRI-0001", **pseudonym, PatientIdentityRemoved="YES")
    assert name_of(folder) == "LIDC-IDRI-0001_s7"
    write(folder, **pseudonym, PatientIdentityRemoved="NO")
    assert re.fullmatch(f"{ALIAS}_s7", name_of(folder))


def test_an_alias_is_that_of_the_study_wherever_it_lies(tmp_path):
    for number, study in ((1, "1.1"), (2, "1.1"), (3, "1.2")):
        folder = tmp_path / f"in/doe {study}/{number}"
        write(folder, StudyInstanceUID=study, SeriesInstanceUID=f"1.9.{number}", SeriesNumber=number)
    of = {str(series)[7]: series.name for series in find_series(tmp_path / "in").series}
    first = re.match(ALIAS, of["1"])[0]
    assert of == {"1": f"{first}_1_s1", "2": f"{first}_2_s2", "3": of["3"]}
    assert not of["3"].startswith(first)
    shutil.move(tmp_path / "in/doe 1.1", tmp_path / "more/JANE")
    assert [series.name for series in find_series(tmp_path / "more").series] == [of["1"], of["2"]]
    write(tmp_path / "doe", StudyInstanceUID="1.1", SeriesNumber=1, PatientName="Doe", PatientID="1")
    assert name_of(tmp_path / "doe") == f"{first}_s1"


def test_without_identifiers_the_alias_follows_from_what_the_files_hold(tmp_path):
    blank = {"StudyInstanceUID": "", "SeriesInstanceUID": ""}
    first = name_of(write(tmp_path / "doe", SOPInstanceUID="1.5", **blank))
    assert re.fullmatch(f"{ALIAS}_s7", first)
    assert re.search(f"series 7 .no UID. in {first[:16]}$", str(find_series(tmp_path).series[0]))
    assert name_of(shutil.copytree(tmp_path / "doe", tmp_path / "jane")) == first
    assert name_of(write(tmp_path / "doe", SOPInstanceUID="1.6", **blank)) != first


def test_files_of_one_study_have_their_numbers(tmp_path):
    for number in (1, 2):
        ds = draw.multiframe_dataset(draw.random_values())
        ds.SeriesNumber, ds.SeriesInstanceUID = number, f"1.9.{number}"
        draw.save(ds, tmp_path / f"jane_{number}.dcm")
    names = [name_of(tmp_path / f"jane_{number}.dcm") for number in (1, 2)]
    assert names == [f"{names[0][:16]}_s1", f"{names[0][:16]}_s2"]


def test_messages_that_may_be_kept_do_not_name_the_patient(tmp_path):
    folder = write(tmp_path / "Doe^Jane" / "ct")
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"jane_{path.name}")
    (series,) = find_series(folder).series
    assert (series.name, series.origin) == ("ct_s7", None)
    (folder / "jane_002.dcm").unlink()
    with pytest.raises(GeometryError, match="between file 2 and file 3") as error:
        read_file(folder)
    assert not re.search("doe|jane", str(error.value), re.IGNORECASE)
    write(tmp_path / "Doe^Jane" / "mr", SeriesInstanceUID="1.9")
    with pytest.raises(FileError, match=r"in ct\n.* in mr\n"):  # to choose one, its folder must be told
        read_file(tmp_path / "Doe^Jane")
    (folder / "jane_000.dcm").rename(tmp_path / "Doe^Jane" / "000.dcm")
    with pytest.raises(FileError, match=re.escape(f"({tmp_path / 'Doe^Jane'})")):
        read_file(tmp_path)
