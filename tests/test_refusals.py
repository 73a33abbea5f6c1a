"""Each refusal names the file and what to do, whichever command meets it; the other cases go on."""

import re
import struct
import zlib

import nibabel
import numpy as np
import pytest
from PIL import Image

from autoseg.cli import main
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume

GRID = Geometry.from_spacing((6, 7, 8), (2.0, 1.0, 1.0))
META = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = {}\nTransformMatrix = {}\nElementType = MET_UCHAR\n"
NRRD = (
    "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\nspace directions: {}\nencoding: raw\n\n"
)


def sound_label(path):
    data = np.zeros(GRID.shape, np.uint8)
    data[2:5, 2:5, 2:6] = 7
    if path.suffix in (".png", ".tif", ".jpg"):
        Image.fromarray(data[3]).save(path)
    else:
        write_label_volume(LabelVolume(data, GRID), path)


def sound_image(path):
    data = np.random.default_rng([*path.name.encode()]).normal(100, 20, (1, *GRID.shape)).astype(np.float32)
    if path.suffix in (".png", ".tif", ".jpg"):
        Image.fromarray(data[0, 0].astype(np.uint8)).save(path)
    else:
        write_volume(Volume(data, GRID), path)


def cut(path):
    sound_label(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flipped(path):
    sound_label(path)
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 0xFF
    path.write_bytes(raw)


def nifti(values=1, **fields):
    def write(path):
        array = np.full((8, 7, 6), values, np.uint8 if values == 1 else None)
        header = nibabel.Nifti1Image(array, np.diag([1, 1, 2, 1])).header
        for name, value in {"vox_offset": 352, **fields}.items():
            header[name] = value
        path.write_bytes(header.binaryblock + bytes(4) + array.tobytes("F"))

    return write


def text(*parts):
    return lambda path: path.write_text("".join(parts))


def voxels_beside(path):
    sound_label(path)
    for other in path.parent.glob(f"{path.stem}.*raw"):
        other.unlink()


def picture(mode, **options):
    return lambda path: Image.new(mode, (8, 7), (10, 20, 30, 40)[: len(mode)] if len(mode) > 1 else 1).save(path, **options)


def turned(path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (8, 7)).save(path, exif=exif)


def gigantic(path):
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(b"0")) + part(b"IEND", b""))


# of an image or a label alike: ending, how the file comes about, what is said to be expected or found, and the remedy
UNREADABLE = {
    "empty": (".nii.gz", text(""), "found an empty file", "Copy or export"),
    "text": (".nii.gz", text("no image " * 50), "expected a NIfTI header", "Copy or export"),
    "cut": (".nii.gz", cut, "ends too early", "Copy or export"),
    "flipped": (".nii.gz", flipped, "compressed bytes are damaged", "Copy or export"),
    "short": (".nii", cut, "is cut short", "Copy or export"),
    "no length": (".nii", nifti(dim=[3, 8, 0, 6, 1, 1, 1, 1]), "positive length", "Copy or export"),
    "two files": (".nii", nifti(magic=b"ni1"), "in one file", "Convert it to .nii.gz"),
    "no offset": (".nii", nifti(vox_offset=np.nan), "found vox_offset nan", "Copy or export"),
    "unknown type": (".nii", nifti(datatype=9999), "data code 9999", "Copy or export"),
    "bad intercept": (".nii", nifti(scl_slope=2, scl_inter=np.inf), "invalid intercept", "Copy or export"),
    "no directions": (".nii", nifti(sform_code=0, qform_code=0, pixdim=[1] + [np.nan] * 7), "span space", "Copy or export"),
    "complex": (".nii", nifti(np.complex64(1j)), "found complex64", "Convert the file"),
    "MetaImage of text": (".mha", text("no image"), "File cannot be read", "Copy or export"),
    "MetaImage cut": (".mha", cut, "File cannot be read", "Copy or export"),
    "MetaImage flipped": (".mha", flipped, "damaged", "Copy or export"),
    "MetaImage flat": (
        ".mha",
        text(META.format("1 0 1", "1 0 0 0 1 0 0 0 1"), "ElementDataFile = LOCAL\n", "x" * 8),
        "span space",
        "Copy",
    ),
    "MetaImage bent": (
        ".mha",
        text(META.format("1 1 1", "1 0 0 1 0 0 0 0 1"), "ElementDataFile = LOCAL\n", "x" * 8),
        "span space",
        "Copy",
    ),
    "MetaImage alone": (".mhd", voxels_beside, "voxels in one file beside it", "Copy both"),
    "NRRD bent": (
        ".nrrd",
        text(NRRD.format("(1,0,0) (1,0,0) (0,0,1)"), "x" * 8),
        "span space",
        "Copy or export",
    ),
    "PNG of text": (".png", text("no image"), "expected a PNG picture, found something else", "Copy or export"),
    "PNG cut": (".png", cut, "expected a PNG picture", "Copy or export"),
    "see-through": (".png", picture("RGBA"), "transparent", "Save it without"),
    "printed": (".tif", picture("CMYK"), "found CMYK", "Convert the picture"),
    "pages": (".tif", picture("L", save_all=True, append_images=[Image.new("L", (8, 7))]), "found 2", "Save each"),
    "turned": (".png", turned, "Exif orientation", "Save it turned"),
    "gigantic": (".png", gigantic, "moderate size", "Cut it"),
}


@pytest.fixture(params=UNREADABLE)
def study(request, tmp_path):
    """A data set of which image b and label c cannot be read, and what is to be said."""
    ending, spoil, said, remedy = UNREADABLE[request.param]
    folder = tmp_path / "Dataset001_Study"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(
        f'{{"channel_names": {{"0": "MR"}}, "labels": {{"background": 0, "thing": 7}}, "file_ending": "{ending}"}}'
    )
    for case in "abc":
        (spoil if case == "b" else sound_image)(folder / "imagesTr" / f"{case}_0000{ending}")
        (spoil if case == "c" else sound_label)(folder / "labelsTr" / f"{case}{ending}")
    return folder, ending, said, remedy


def test_verify_and_convert_name_each_file_with_its_own_remedy(study, tmp_path, capsys):
    folder, ending, said, remedy = study
    options = ["--workspace", str(tmp_path / "workspace"), "--quiet"]
    calls = {
        1: ["verify", str(folder)],
        2: ["convert", "folders", str(folder / "imagesTr"), str(tmp_path / "out"), "--labels", str(folder / "labelsTr")],
    }
    for status, call in calls.items():
        assert main([*call, *options]) == status
        table = "".join(capsys.readouterr())
        (paragraph,) = re.findall(r"^error +unreadable-file.*?\n +->[^\n]*", table, re.MULTILINE | re.DOTALL)
        assert f"b_0000{ending}" in paragraph
        assert f"c{ending}" in paragraph
        assert said in paragraph
        assert remedy in paragraph.rpartition("->")[2]
        assert paragraph.count(" export the file again") <= 1
        assert "Traceback" not in table
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("study", ["cut", "MetaImage bent", "see-through"], indirect=True)
def test_a_map_that_cannot_be_read_is_named_where_maps_are_worked_on_and_the_others_go_on(study, tmp_path, capsys):
    folder, ending, said, remedy = study
    for case in "ab":  # c alone is bad
        sound_label(folder / "labelsTr" / f"{case}{ending}")
    options = ["-o", str(tmp_path / "out"), "--quiet"]
    (folder / "dataset.json").unlink()  # what the values are called is found in those that can be read
    for call, good in (
        (["reconstruct", "-i", str(folder / "labelsTr"), "--surfaces", "none"], "2 label maps reconstructed"),
        (["evaluate", "--reference", str(folder / "labelsTr"), "--predicted", str(folder / "labelsTr")], "2 cases scored"),
    ):
        assert main([*call, *options]) == 1
        lines = capsys.readouterr().out
        assert good in lines
        (line,) = [line for line in lines.splitlines() if re.match(r"(failed:|-) c: ", line)]
        assert f"c{ending}" in line
        assert said in line
        assert remedy in line


# of labels alone, where the file itself is sound
WRONG_LABELS = {
    "fractions": (".nii", nifti(np.float32(1.5)), "expected whole numbers", "do that again with nearest neighbour"),
    "channels": (".nii", nifti(dim=[4, 8, 7, 3, 2, 1, 1, 1]), "found 2 channels", "Merge them"),
    "wide": (".nii", nifti(2.0**40), "within 32 bits", "Number the structures anew"),
    "colours": (".png", picture("RGB"), "found colours", "Save it as a grey picture"),
    "jpeg": (".jpg", picture("L"), "found JPEG", "Draw them anew as PNG"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_are_none_are_named(tmp_path, name, capsys):
    ending, spoil, said, remedy = WRONG_LABELS[name]
    (tmp_path / "maps").mkdir()
    sound_label(tmp_path / "maps" / f"a{'.png' if ending == '.jpg' else ending}")
    spoil(tmp_path / "maps" / f"c{ending}")
    assert main(["reconstruct", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out"), "--surfaces", "none"]) == 1
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("failed: c: ")]
    assert "1 label maps reconstructed" in output
    assert f"c{ending}" in line
    assert said in line
    assert remedy in line


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_convert_reads_the_labels_of_pictures_as_verify_does(tmp_path, mode):
    for part in ("scans", "labels"):
        (tmp_path / part).mkdir()
    sound_image(tmp_path / "scans" / "a.png")
    sound_label(tmp_path / "labels" / "a.png")
    Image.open(tmp_path / "labels" / "a.png").convert(mode).save(tmp_path / "labels" / "a.png")
    call = ["convert", "folders", str(tmp_path / "scans"), str(tmp_path / "out"), "--labels", str(tmp_path / "labels")]
    assert main([*call, "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "out"), "--workspace", str(tmp_path / "workspace"), "--quiet"]) == 0


@pytest.mark.parametrize("layout", ["acdc", "bids", "brats", "lits", "msd", "folders"])
def test_a_source_that_is_not_there_or_of_another_kind_is_named_with_a_remedy(tmp_path, layout, capsys):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "gone", tmp_path / "empty"):
        assert main(["convert", layout, str(source), str(tmp_path / "out"), "--quiet"]) == 2
        message = capsys.readouterr().err
        assert str(source) in message
        assert re.search(r"(Correct|Choose|Give|Say) ", message)
        assert "Traceback" not in message
