"""A corpus of bad input, made by code: files that cannot be read, and whole commands with broken input.

Each has a name, and four parts of the message that it must cause: where, what was expected, what was found, the remedy.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.workspace import write_json
from tests.helpers.datasets import Folder
from tests.helpers.models import make_plan, write_model, write_scans

__all__ = ["INPUTS", "UNREADABLE", "WRONG_LABELS", "BadInput", "sound_image", "sound_label"]

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


# of images and labels: ending, how the file is made, what the message says was expected or found, and the remedy
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
    "no directions": (".nii", nifti(sform_code=0, qform_code=0, pixdim=[1] + [np.nan] * 7), "above 0 mm", "Export the file"),
    "complex": (".nii", nifti(np.complex64(1j)), "found complex64", "Convert the file"),
    "MetaImage of text": (".mha", text("no image"), "expected sizes of its axes", "Copy or export"),
    "MetaImage cut": (".mha", cut, "expected sizes of its axes", "Copy or export"),
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


# of labels alone, in files that can be read
WRONG_LABELS = {
    "fractions": (".nii", nifti(np.float32(1.5)), "expected whole numbers", "do that again with nearest neighbour"),
    "channels": (".nii", nifti(dim=[4, 8, 7, 3, 2, 1, 1, 1]), "found 2 channels", "Merge them"),
    "wide": (".nii", nifti(2.0**40), "within 32 bits", "Renumber the structures"),
    "colours": (".png", picture("RGB"), "found colours", "Save it as a grey picture"),
    "jpeg": (".jpg", picture("L"), "found JPEG", "Draw them again and save them as PNG"),
}


# Whole commands.


@dataclass(frozen=True)
class BadInput:
    """A command with broken input.

    Attributes:
        make: writes the input to an empty folder; returns the arguments of the command.
        where, expected, found, remedy: parts of the message, in this order.
        status: exit status of the command.
    """

    make: Callable[[Path], list[str]]
    where: str
    expected: str
    found: str
    remedy: str
    status: int = 2


def verified(spoil: Callable[[Folder], object]) -> Callable[[Path], list[str]]:
    """``verify`` of three valid cases, in which ``spoil`` breaks something."""

    def make(place: Path) -> list[str]:
        folder = Folder(place / "Dataset001_Tiny")
        for case in ("a", "b", "c"):
            folder.add(case)
        (folder.path / "dataset.json").write_text(json.dumps(folder.json))
        spoil(folder)
        return ["verify", str(folder.path)]

    return make


def described(**changes: object) -> Callable[[Path], list[str]]:
    """``verify`` of a data set with changes to its dataset.json; None removes a key."""

    def spoil(folder: Folder) -> None:
        changed = {key: value for key, value in {**folder.json, **changes}.items() if value is not None}
        (folder.path / "dataset.json").write_text(json.dumps(changed))

    return verified(spoil)


def described_by(text: str) -> Callable[[Path], list[str]]:
    return verified(lambda folder: (folder.path / "dataset.json").write_text(text))


def shifted_label(folder: Folder) -> None:
    grid = Geometry.from_spacing((6, 8, 10), (2.0, 1.0, 1.0)).cropped((0, 3, 0), (6, 8, 10))
    label = np.zeros(grid.shape, np.uint8)
    label[1:3, 2:5, 2:6] = 1
    write_label_volume(LabelVolume(label, grid), folder.label_path("b"))


def label_of(value: int) -> Callable[[Folder], object]:
    return lambda folder: folder.add("b", label=np.full((6, 8, 10), value, np.uint8))


def image_of(value: float) -> Callable[[Folder], object]:
    def spoil(folder: Folder) -> None:
        image = np.random.default_rng(1).normal(size=(6, 8, 10))
        image[2, 3, 4] = value
        folder.add("b", image=image)

    return spoil


def trained(**changes: object) -> Callable[[Path], list[str]]:
    """``train`` with a recipe of these settings."""

    def make(place: Path) -> list[str]:
        (place / "mine.json").write_text(json.dumps(changes))
        return [
            "train",
            str(place / "Dataset001_Tiny"),
            "0",
            "--recipe",
            str(place / "mine.json"),
            "--workspace",
            str(place / "w"),
        ]

    return make


def networked(**changes: object) -> Callable[[Path], list[str]]:
    """``train`` with a network of these parameters."""

    def make(place: Path) -> list[str]:
        write_json(place / "net.json", make_plan().network)
        content = json.loads((place / "net.json").read_text())
        (place / "net.json").write_text(json.dumps(content | changes))
        return [
            "train",
            str(place / "Dataset001_Tiny"),
            "0",
            "--network",
            str(place / "net.json"),
            "--workspace",
            str(place / "w"),
        ]

    return make


def predicted(spoil: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """``predict`` with a tiny model, in whose folder ``spoil`` breaks something."""

    def make(place: Path) -> list[str]:
        write_model(place / "model", make_plan())
        (place / "in").mkdir()
        write_scans(place / "in", 1)
        spoil(place)
        model = next(path for path in (place / "model.zip", place / "model") if path.exists())
        return ["predict", "-i", str(place / "in"), "-o", str(place / "out"), "-m", str(model), "--device", "cpu"]

    return make


def record_of_model(**changes: object) -> Callable[[Path], object]:
    def spoil(place: Path) -> None:
        path = place / "model" / "model.json"
        content = json.loads(path.read_text())
        content.pop("seal")
        for key, value in changes.items():
            holder = content
            *holders, last = key.split("__")
            for name in holders:
                holder = holder[name]
            holder[last] = value
        path.write_text(json.dumps(content))

    return spoil


def bitten_model(place: Path) -> None:
    path = place / "model" / "fold_0.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def edited_model(place: Path) -> None:
    path = place / "model" / "model.json"
    path.write_text(path.read_text().replace("phantom", "phantasm"))


def zipped_model(write: Callable[[zipfile.ZipFile], object]) -> Callable[[Path], object]:
    def spoil(place: Path) -> None:
        with zipfile.ZipFile(place / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            write(archive)

    return spoil


def cut_zip(place: Path) -> None:
    zipped_model(lambda archive: archive.write(place / "model" / "model.json", "model.json"))(place)
    content = (place / "model.zip").read_bytes()
    (place / "model.zip").write_bytes(content[: len(content) // 2])


def two_models(archive: zipfile.ZipFile) -> None:
    for name in ("a/model.json", "b/model.json"):
        archive.writestr(name, "{}")


def foreign_record(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "run.json").write_text('{"made_by": "somebody"}')


def reconstructed(record: dict[str, object]) -> Callable[[Path], list[str]]:
    """``reconstruct`` of two label maps, with a record of a prediction beside the first one."""

    def make(place: Path) -> list[str]:
        (place / "maps").mkdir()
        for case in "ab":
            sound_label(place / "maps" / f"{case}.nii.gz")
        (place / "maps" / "a.json").write_text(json.dumps({"made_by": "autoseg predict", **record}))
        return ["reconstruct", "-i", str(place / "maps"), "-o", str(place / "out"), "--surfaces", "none"]

    return make


def evaluated(name: str, record: object) -> Callable[[Path], list[str]]:
    """``evaluate`` with references from an earlier prediction whose record is broken."""

    def make(place: Path) -> list[str]:
        for part in ("reference", "predicted"):
            (place / part).mkdir()
            sound_label(place / part / "a.nii.gz")
        (place / "reference" / name).write_text(json.dumps(record))
        folders = ["--reference", str(place / "reference"), "--predicted", str(place / "predicted")]
        return ["evaluate", *folders, "-o", str(place / "out")]

    return make


def known_as(content: object) -> Callable[[Path], list[str]]:
    """``verify`` of a data set by its number, of which the workspace has a broken record."""

    def make(place: Path) -> list[str]:
        folder = place / "w" / "fingerprints" / "Tiny"
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps(content))
        return ["verify", "1", "--workspace", str(place / "w")]

    return make


def listed(case: str) -> dict[str, object]:
    return {case: {"images": ["imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"}}


JSON, AGAIN = "not readable as JSON", "Copy the model again"
NO_VALUES = {"structures": ["liver"], "values": [[]], "has_regions": False, "paint_values": [1]}
PREDICTED = "autoseg predict"
INPUTS: dict[str, BadInput] = {
    # a data set
    "no description": BadInput(
        verified(lambda f: (f.path / "dataset.json").unlink()), "Tiny", "", "no dataset.json in it", "shows how to write one"
    ),
    "description of text": BadInput(described_by("channels: CT"), "dataset.json", "JSON", "Expecting value", "Correct it"),
    "description without end": BadInput(described_by("[" * 100_000), "dataset.json", "JSON", "nested too deeply", "Correct it"),
    "description that is a list": BadInput(
        described_by("[1, 2]"), "dataset.json", "expected an object", "found list", "Write one as"
    ),
    "channels not numbered": BadInput(
        described(channel_names={"CT": "0"}), "dataset.json", "must number the channels from 0", "{'CT': '0'}", "such as"
    ),
    "labels turned round": BadInput(
        described(labels={"0": "background", "1": "first"}), "dataset.json", "", "the older form", "swap it"
    ),
    "a key twice": BadInput(
        described_by('{"dataset": {"b": {}, "c": {}, "b": {}}}'),
        "dataset.json",
        "JSON",
        "'b' occurs twice in one",
        "Correct it",
    ),
    "no labels": BadInput(described(labels={"background": 0}), "dataset.json", "", "no structure besides background", ""),
    "a value twice": BadInput(
        described(labels={"background": 0, "first": 1, "second": 1}), "dataset.json", "its own value", "found [1, 1]", ""
    ),
    "a value beyond 32 bits": BadInput(
        described(labels={"background": 0, "first": 10**12}), "dataset.json", "-2147483648...2147483647", "1000000000000", ""
    ),
    "no ending": BadInput(described(file_ending=None), "dataset.json", "a text such as", "found None", ""),
    "a case that leads out": BadInput(
        described(dataset=listed("../b")), "case '../b'", "a plain file name", "found a path separator", "Rename it"
    ),
    "test names nobody": BadInput(described(test=["nobody"]), "dataset.json", "", "there is no such case", "Correct the names"),
    "folder called otherwise": BadInput(
        verified(lambda f: (f.path / "labelsTr").rename(f.path / "masks")),
        "Tiny",
        "expected a folder labelsTr",
        "found imagesTr, masks",
        "Rename it",
    ),
    "image missing": BadInput(
        verified(lambda f: f.image_path("b").unlink()), "b: ", "b_0000.nii.gz", "found no such file", "Add the image", 1
    ),
    "label missing": BadInput(
        verified(lambda f: f.label_path("b").unlink()), "b: ", "b.nii.gz", "found no such file", "Add the label", 1
    ),
    "label on another grid": BadInput(
        verified(shifted_label), "b: ", "the grid of the image", "up to 3 voxels apart", "resample one to the grid", 1
    ),
    "value that nobody declared": BadInput(
        verified(label_of(9)), "b: ", "among [0, 1, 2]", "found 9 in 480 voxels", "Name the values", 1
    ),
    "nothing labelled": BadInput(
        verified(label_of(0)), "b: ", "expected labelled structures", "found only 0", "otherwise label it", 0
    ),
    "image with NaN": BadInput(
        verified(image_of(float("nan"))), "b: ", "finite intensities", "found 1 of 480 voxels", "Export the image again", 1
    ),
    "image with infinity": BadInput(
        verified(image_of(float("inf"))), "b: ", "finite intensities", "found 1 of 480 voxels", "Export the image again", 1
    ),
    "folds of nobody": BadInput(
        verified(lambda f: (f.path / "splits.json").write_text('[{"train": ["a"], "val": ["nobody"]}]')),
        "splits.json: fold 0",
        "cases of this data set",
        "found nobody",
        "Correct the names",
        1,
    ),
    "folds of text": BadInput(
        verified(lambda f: (f.path / "splits.json").write_text("a, b")), "splits.json", JSON, "Expecting", "Correct it", 1
    ),
    "workspace that knows no folder": BadInput(
        known_as(["Dataset001_Tiny"]), "dataset.json", "an object", "found ['Dataset001_Tiny']", "Correct it there"
    ),
    # settings
    "setting that is none": BadInput(trained(learning_rat=1), "mine.json", "settings of a recipe are", "'learning_rat'", ""),
    "setting of text": BadInput(trained(learning_rate="fast"), "mine.json", "expected float", "found 'fast'", ""),
    "setting without sense": BadInput(trained(foreground=7), "mine.json", "must be fractions", "found 7", ""),
    "network of two lengths": BadInput(
        networked(features=[8, 16, 32]), "net.json", "one entry for each stage", "features with 3", "Correct it there"
    ),
    "network without width": BadInput(
        networked(features=[8, 0]), "net.json", "from 1 to 65536", "found (8, 0)", "Correct it there"
    ),
    "network that nobody knows": BadInput(networked(name="hydra_net"), "hydra_net", "Known: ", "no network called", ""),
    # a model
    "no model": BadInput(
        predicted(lambda p: (p / "model" / "model.json").unlink()), "model: ", "", "no model.json in it", "Give the folder"
    ),
    "model of text": BadInput(
        predicted(lambda p: (p / "model" / "model.json").write_text("a model")), "model.json", JSON, "Expecting", "Correct it"
    ),
    "model that was edited": BadInput(predicted(edited_model), "model.json", "", "not what autoseg wrote", "copy it again"),
    "model of a later version": BadInput(
        predicted(record_of_model(plan__schema=99)), "model.json.plan", "reads up to 3", "schema 99", "Update it"
    ),
    "model with other outputs": BadInput(
        predicted(record_of_model(plan__network__out_channels=3)), "model.json", "labels need 2", "has 3 outputs", AGAIN
    ),
    "model without values": BadInput(
        predicted(record_of_model(labels__values=[[]])), "model.json.labels", "expected label values", "without any", AGAIN
    ),
    "model of a wider network": BadInput(
        predicted(record_of_model(plan__network__features=[4, 4096])), "fold_0", "weights that fit", "mismatch", AGAIN
    ),
    "weights with a bit flipped": BadInput(
        predicted(bitten_model), "fold_0.safetensors", "expected digest", "found digest", AGAIN
    ),
    "weights missing": BadInput(
        predicted(lambda p: (p / "model" / "fold_0.safetensors").unlink()), "fold_0", "10168 bytes", "no such file", AGAIN
    ),
    "zip cut": BadInput(predicted(cut_zip), "model.zip", "a whole zip", "File is not a zip file", "Copy it again"),
    "zip of two models": BadInput(
        predicted(zipped_model(two_models)), "model.zip", "expected one model.json", "found 2", "Give the zip of one"
    ),
    "zip that leads out": BadInput(
        predicted(zipped_model(lambda z: z.writestr("../model.json", "{}"))), "../model.json", "", "outside", "do not trust"
    ),
    "zip that grows": BadInput(
        predicted(zipped_model(lambda z: z.writestr("model.json", b" " * 10**7))), "model.json", "", "10000000", "do not trust"
    ),
    # records
    "predictions of another program": BadInput(
        predicted(foreign_record), "run.json", "", "not made by this program", "Choose another folder"
    ),
    "record with labels of text": BadInput(
        reconstructed({"labels": {"liver": "one"}}), "a.json: labels.liver", "a list", "found 'one'", "Move the file away", 1
    ),
    "record with a label of nothing": BadInput(
        reconstructed({"labels": {"liver": []}}), "a.json: labels", "label values", "without any", "Move the file away", 1
    ),
    "predictions whose labels have no values": BadInput(
        evaluated("run.json", {"made_by": PREDICTED, "labels": NO_VALUES}), "run.json", "label values", "without any", "Move"
    ),
    "prediction whose label is an object": BadInput(
        evaluated("a.json", {"made_by": PREDICTED, "labels": {"liver": {}}}), "a.json", "a list", "found {}", "Move"
    ),
}
