"""Every reader of files from elsewhere, with sound files to begin with: one table, ``TARGETS``.

A target reads one file, in a folder that holds what belongs around it. Whatever the file holds, the reader returns or raises an
error of the family of ``AutosegError``; anything else, and anything that takes for ever or fills the memory, is a fault.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from autoseg.data.dataset import Case, read_dataset
from autoseg.data.labelmaps import named_labels
from autoseg.data.labels import LabelSchema
from autoseg.data.layouts import LAYOUTS
from autoseg.data.layouts.folders import read_names
from autoseg.data.splits import read_splits
from autoseg.data.verified import known_scans
from autoseg.errors import AutosegError
from autoseg.evaluation.report import read_report
from autoseg.imaging.files import (
    description_of,
    layers_of,
    read_file,
    read_geometry,
    read_label_volume,
    read_segmentation,
    segment_names,
    series_in,
    write_label_volume,
    write_volume,
)
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.bundle import export_model, load_bundle, load_networks
from autoseg.inference.find import find_model
from autoseg.interop.checkpoint import StoredTensor, read_checkpoint
from autoseg.interop.nnunet import _in_folder as results_in
from autoseg.interop.nnunet import is_nnunet, read_nnunet
from autoseg.interop.nnunet_postprocessing import FUNCTION, MODULE, postprocessing_rules
from autoseg.ledger import Journal, Ledger
from autoseg.options import ReportOptions, TrainingOptions
from autoseg.page.gather import page_of
from autoseg.preprocess.store import open_case
from autoseg.records import (
    read_case,
    read_cohort,
    read_fold,
    read_surface_manifest,
    read_validations,
)
from autoseg.studies.folds import draw_splits
from autoseg.studies.ready import choose_recipe, known_network
from autoseg.training.checkpoint import LoopState, load_checkpoint, read_state, save_checkpoint
from autoseg.training.recipe import RECIPES
from autoseg.workspace import Workspace, read_record, write_json
from planners import Budget, Fingerprint, NetworkSpec, Plan, plan_all
from planners.records import to_json
from tests.helpers import dicom
from tests.helpers.fingerprints import make_fingerprint
from tests.helpers.models import LABELS, make_plan, write_model
from tests.interop import material

__all__ = ["TARGETS", "Target", "read_all"]

GRID = Geometry.from_spacing((2, 3, 4), (3.0, 2.0, 1.0))
CASES = tuple(Case(name, name, (), None) for name in ("a", "b", "c"))
SPLITS = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
Read = Callable[[Path], object]


def unchanged(content: bytes) -> bytes:
    return content


def nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Target:
    """A reader under fuzzing.

    Attributes:
        file: name of the file that is changed, with its folders.
        seeds: sound contents.
        reads: what is called with its path, each by itself.
        around: puts into the folder what belongs around the file.
        packed: what the file holds of the content that is changed: compressed, or with sums that fit, so that the changes come
            through to the reader.
        is_quick: an example takes milliseconds.
    """

    file: str
    seeds: Callable[[], list[bytes]]
    reads: tuple[Read, ...]
    around: Callable[[Path], object] = nothing
    packed: Callable[[bytes], bytes] = unchanged
    is_quick: bool = True

    def write(self, folder: Path, content: bytes) -> Path:
        """Put the file into its folder."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a file that is cut to nothing and written again waits for the disk
        path.write_bytes(self.packed(content))
        return path


def read_all(target: Target, path: Path) -> tuple[AutosegError, ...]:
    """Call every reader of a target; our own errors are returned, of which each must be text, and not endless."""
    found = []
    for read in target.reads:
        try:
            read(path)
        except AutosegError as fault:
            found.append(fault)
    texts = [str(fault).encode() for fault in found]
    assert all(0 < len(text) < 20_000 for text in texts), texts
    return tuple(found)


# Images.


@cache
def nifti_seeds() -> list[bytes]:
    import nibabel

    values = np.arange(24).reshape(4, 3, 2)
    images = [
        nibabel.Nifti1Image(values.astype(np.int16), np.diag([1, 2, 3, 1])),
        nibabel.Nifti1Image(np.ones((4, 3, 2, 2), np.float32), np.eye(4)),
        nibabel.Nifti2Image(values.astype(np.uint8), np.diag([-1, -1, 2, 1])),
    ]
    images[0].set_qform(images[0].affine, 1)
    images[0].header.set_slope_inter(2, 1)
    return [image.to_bytes() for image in images]


@cache
def itk_seeds(ending: str) -> list[bytes]:
    with temporary() as folder:
        path = folder / f"a{ending}"
        write_volume(Volume(np.arange(48.0, dtype=np.float32).reshape(2, 2, 3, 4), GRID), path)
        seeds = [path.read_bytes()]
        write_label_volume(LabelVolume(np.arange(24).reshape(2, 3, 4), GRID), path, description="made by a test")
        seeds.append(path.read_bytes())
    return seeds


@cache
def meta_seeds() -> list[bytes]:
    head = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 10 20 30\nElementSpacing = 1 2 3\nDimSize = 4 3 2\n"
        b"ElementToIntensityFunctionSlope = 2\nDistanceUnits = mm\nElementType = MET_SHORT\nElementDataFile = "
    )
    return [head + b"LOCAL\n" + bytes(48), *itk_seeds(".mha")]


@cache
def nrrd_seeds() -> list[bytes]:
    space = (
        b"space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\n"
        b'kinds: domain domain domain\nspace units: "mm" "mm" "mm"\n'
    )
    head = b"NRRD0005\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: little\n"
    segments = (
        b"Segment0_ID:=Segment_1\nSegment0_Name:=liver\nSegment0_LabelValue:=1\nSegment0_Layer:=0\n"
        b"Segment1_ID:=Segment_2\nSegment1_Name:=vein\nSegment1_LabelValue:=1\nSegment1_Layer:=1\n"
    )
    layers = (
        b"NRRD0005\ntype: unsigned char\ndimension: 4\nsizes: 2 4 3 2\nspace: left-posterior-superior\n"
        b"space directions: none (1,0,0) (0,2,0) (0,0,3)\nkinds: list domain domain domain\nspace origin: (0,0,0)\n"
        b"encoding: gzip\n" + segments + b"\n" + gzip.compress(bytes([0, 0, 1, 0] * 12))
    )
    ranges = b"axis mins: 0 0 0\naxis maxs: 4 3 2\ncenters: cell node cell\n"
    return [
        head + space + b"encoding: raw\n\n" + bytes(48),
        head + b"encoding: gzip\nbyte skip: 4\n" + ranges + b"\n" + gzip.compress(bytes(52)),
        head + b"encoding: text\nspacings: 1 2 3\n\n" + b"1 2 3 4 5 6 " * 4,
        layers,
        *itk_seeds(".nrrd"),
    ]


def picture(mode: str, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    values = np.arange(48 * len(mode.rstrip(";16BIF")) or 48).astype({"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8))
    shape = (6, 8, 3) if mode == "RGB" else (6, 8, 4) if mode == "RGBA" else (6, 8)
    image = Image.fromarray(np.resize(values, shape))
    image = image.convert(mode) if mode == "P" else image
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def png_seeds() -> list[bytes]:
    return [picture(mode, "PNG") for mode in ("L", "RGB", "P", "I;16")]


@cache
def tiff_seeds() -> list[bytes]:
    plain = [picture(mode, "TIFF") for mode in ("L", "RGB", "I;16", "F")]
    return [*plain, picture("L", "TIFF", compression="tiff_adobe_deflate"), picture("L", "TIFF", compression="packbits")]


@cache
def jpeg_seeds() -> list[bytes]:
    return [picture("L", "JPEG"), picture("RGB", "JPEG")]


def with_sums(content: bytes) -> bytes:
    """A PNG whose parts have the checksums of what is in them."""
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        body = content[at + 4 : at + 8 + length]
        out += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + content[at:])


def read_segments_of(path: Path) -> None:
    for name in segment_names(path):
        with contextlib.suppress(AutosegError):
            read_segmentation(path).mask(name)
    layers_of(path)


IMAGE: tuple[Read, ...] = (read_file, read_geometry, read_label_volume)
ITK: tuple[Read, ...] = (*IMAGE, description_of, segment_names, read_segments_of)


# DICOM.


def as_bytes(dataset: Any) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@cache
def dicom_seeds() -> list[bytes]:
    from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

    values = dicom.random_values((2, 3, 4))
    single = next(iter(dicom.slice_datasets(values)))
    deflated = next(iter(dicom.slice_datasets(values)))
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packed = next(iter(dicom.slice_datasets(values)))
    packed.compress(RLELossless, generate_instance_uid=False)
    seeds = [as_bytes(one) for one in (single, dicom.multiframe_dataset(values), deflated, packed)]
    return [*seeds, seeds[0][132:]]  # the last without the signature


def labelled_seed(write: Callable[..., Any]) -> bytes:
    """What one of our writers of DICOM results makes of two structures."""
    with temporary() as folder:
        labels = np.zeros((3, 4, 5), np.uint8)
        labels[1, 1:3, 1:3], labels[2, 2, 2] = 1, 2
        (series,) = series_in(dicom.write_series(folder / "in", dicom.random_values(labels.shape))).series
        volume = LabelVolume(labels, read_geometry(series))
        write(folder / "a.dcm", series, volume, {"liver": (1,), "vein": (2,)}, model="m", version="1")
        return (folder / "a.dcm").read_bytes()


@cache
def segmentation_seeds() -> list[bytes]:
    from autoseg.imaging.dicom_seg import write_seg

    return [labelled_seed(write_seg)]


@cache
def structure_seeds() -> list[bytes]:
    """Ours, in implicit VR; and the same in explicit VR, with a hole, a point and nothing."""
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRLittleEndian

    from autoseg.imaging.dicom_rtstruct import write_rtstruct

    ours = labelled_seed(write_rtstruct)
    other = dcmread(io.BytesIO(ours))
    other.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    (contour,) = other.ROIContourSequence[0].ContourSequence
    inner, point = deepcopy(contour), deepcopy(contour)
    corner = np.reshape(contour.ContourData, (-1, 3)).astype(float)
    inner.ContourData = [f"{value:.4f}" for value in ((corner + corner.mean(axis=0)) / 2).ravel()]
    point.ContourGeometricType, point.NumberOfContourPoints, point.ContourData = "POINT", 1, contour.ContourData[:3]
    other.ROIContourSequence[0].ContourSequence += [inner, point]
    del other.ROIContourSequence[1].ContourSequence
    return [ours, as_bytes(other)]


DRAWN_ON = Geometry.from_affine((3, 4, 5), [[0, 0, -0.7, 10], [0, -0.8, 0, 20], [2.5, 0, 0, 30]])  # of ``labelled_seed``


def map_drawn(path: Path) -> None:
    read_label_volume(path, onto=DRAWN_ON)


def structures_of(path: Path) -> None:
    for name in segment_names(path):
        read_segmentation(path).mask(name, DRAWN_ON)


def scans_of(path: Path) -> None:
    for series in series_in(path).series:
        for read in (read_geometry, read_file):
            with contextlib.suppress(AutosegError):
                read(series)


# Data sets, plans and settings.


def text_of(value: Any) -> bytes:
    return json.dumps(to_json(value)).encode()


DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "whole": [1, 2], "ignore": 3},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
    "numTraining": 2,
    "patients": {"a": "p"},
    "dataset": {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz", "patient": "p"}},
    "test": ["b"],
}


def dataset_seeds() -> list[bytes]:
    plain = {key: DATASET[key] for key in ("channel_names", "file_ending", "numTraining")}
    return [text_of(DATASET | {"test": []}), text_of({**plain, "labels": {"background": 0, "liver": 7}})]


def dataset_around(folder: Path) -> None:
    for name in ("imagesTr/a_0000", "imagesTr/b_0000", "labelsTr/a", "labelsTr/b", "imagesTs/c_0000"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.nii.gz").touch()


DECATHLON = {
    "name": "Liver",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver"},
    "training": [{"image": "./imagesTr/a_0000.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    "test": ["./imagesTs/c_0000.nii.gz"],
}


def network_of(path: Path) -> NetworkSpec:
    return read_record(NetworkSpec, path)


def plans_from(path: Path) -> None:
    fingerprint = read_record(Fingerprint, path, strict=False)
    with contextlib.suppress(ValueError):  # what no plan can be made of; ``make_plans`` says it in a sentence
        plan_all(fingerprint, Budget())


# Records of the workspace.


def of_path(read: Callable[[Path], object]) -> Read:
    """A reader that takes the folder."""
    return lambda path: read(path.parent)


@cache
def fold_seeds() -> list[bytes]:
    task = {
        "plan": make_plan(),
        "labels": LABELS,
        "recipe": RECIPES["autoseg"],
        "length": {"seconds": None, "steps": 30},
        "seed": 0,
        "training": ["a", "b"],
        "validation": ["c"],
        "prepared_digest": "d",
    }
    decisions = [{"what": "device", "chosen": "cpu", "rule": "there is no other"}]
    return [text_of({"task": task, "device": "cpu", "batch_size": 2, "versions": {"torch": "2"}, "decisions": decisions})]


CASE = {
    "made_by": "autoseg predict",
    "case": "a",
    "identity": {"model": "m", "inputs": [{"file": "a_0000.nii.gz", "digest": "d"}], "options": {}},
    "state": "done",
    "outputs": {"a.nii.gz": "1", "a_surfaces/liver.stl": "2"},
    "labels": {"liver": 1, "both": [1, 2]},
    "seconds": {"infer": 2.5},
    "notes": ["small"],
    "measurements": [{"structure": "liver", "volume_ml": 1.5, "touches_border": False}],
    "surface_scores": [{"structure": "liver", "surface_nsd": 0.5}],
}
COHORT = {
    "made_by": "autoseg predict",
    "versions": {"python": "3"},
    "model": {"name": "m", "digest": "d"},
    "labels": LABELS,
    "options": {"folds": ["0"]},
    "shard": [0, 1],
    "seconds": 1.5,
    "failures": {"b": "why"},
    "cases": [],
}
SURFACES = {
    "formats": ["stl"],
    "decimate": 0.0,
    "coordinates": "RAS",
    "structures": [{"structure": "liver", "files": ["liver.stl"], "colour": [1, 2, 3], "vertices": 4, "faces": 4, "note": ""}],
}
HISTORY = b'{"step": 1, "seconds": 2.5, "patch_dice": {"ball": null}}\n{"step": 2, "seconds": 4, "validation_loss": 0.5}\n'
JOURNAL = (
    b'{"made_by": "x"}\n{"file": "a.nii.gz", "key": "k", "digest": "d"}\n{"file": "b.nii.gz", "key": "k", "digest": "d"}\n'
)
FINDING = {"severity": "error", "case": "a", "code": "unreadable-file", "message": "expected an image", "remedy": "Copy it."}
SCAN = {
    "case": "a",
    "key": "k",
    "digests": ["1", "2"],
    "contents": ["3", "4"],
    "orientation": "SAR",
    "label_counts": [[0, 9], [1, 3]],
    "findings": [FINDING],
    "full_shape": [2, 3, 4],
    "spacing_mm": [3.0, 2.0, 1.0],
}


@cache
def report_seeds() -> list[bytes]:
    from autoseg.evaluation.folder import evaluate_folder

    with temporary() as folder:
        for part in ("reference", "predicted"):
            (folder / part).mkdir()
            write_label_volume(LabelVolume(np.arange(24).reshape(2, 3, 4) % 2, GRID), folder / part / "a.nii.gz")
        report = evaluate_folder(folder / "reference", folder / "predicted", LabelSchema(("liver",), ((1,),), False, (1,)))
        report = report[0] if isinstance(report, tuple) else report
        write_json(folder / "metrics.json", report)
        return [(folder / "metrics.json").read_bytes()]


@cache
def prepared_folder() -> Path:
    from autoseg.preprocess.case import PreparedCase
    from autoseg.preprocess.store import store_case

    folder = Path(kept()) / "prepared"
    image, codes = np.ones((1, 4, 5, 6), np.float32), np.zeros((4, 5, 6), np.int16)
    codes[1:3, 2:4, 2:5] = 1
    locations = {1: np.argwhere(codes == 1).astype(np.int32)}
    geometry = Geometry.from_spacing(codes.shape, (1, 1, 1))
    store_case(folder, PreparedCase("a", image, codes, geometry, locations), "made")
    return folder


def ledger_of(path: Path) -> None:
    ledger = Ledger(path.parent, "autoseg predict")
    ledger.claim("a", {"model": "m"}, [path.parent / "a.nii.gz"])


def page_of_fold(path: Path) -> None:
    page_of(path.parents[0], ReportOptions())


# Models.


@cache
def kept() -> str:
    """A folder that lasts as long as the process."""
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def model_folder() -> Path:
    folder = Path(kept()) / "model"
    write_model(folder, make_plan())
    return folder


def model_around(folder: Path) -> None:
    for path in model_folder().iterdir():
        if path.is_file() and path.suffix in (".json", ".safetensors"):
            (folder / path.name).write_bytes(path.read_bytes())


def model_seeds() -> list[bytes]:
    content = json.loads((model_folder() / "model.json").read_text())
    content.pop("seal")
    content["info"] = {"run": "mine"}
    return [json.dumps(content).encode()]


@cache
def zip_seeds() -> list[bytes]:
    return [export_model(model_folder(), Path(kept()) / "model.zip").read_bytes()]


def weights_seeds() -> list[bytes]:
    return [(model_folder() / "fold_0.safetensors").read_bytes()]


def with_digest_of_weights(path: Path) -> None:
    """A model whose record says that exactly these weights belong to it."""
    import hashlib

    content, weights = json.loads(model_seeds()[0]), path.read_bytes()
    digest = hashlib.blake2b(weights, digest_size=16).hexdigest()
    content["weights"] = [{"fold": "0", "digest": digest, "bytes": len(weights)}]
    (path.parent / "model.json").write_text(json.dumps(content))
    networks_of(path.parent)


def networks_of(path: Path) -> None:
    load_networks(load_bundle(path))


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.InstanceNorm3d(2, affine=True))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 1, 2, 2, 2)).sum().backward()
    optimizer.step()
    return network, optimizer


@cache
def checkpoint_seeds() -> list[bytes]:
    network, optimizer = trained()
    path = Path(kept()) / "checkpoint.safetensors"
    save_checkpoint(path, LoopState("same", 100, False, step=7, smoothed=0.25), network, {}, [optimizer])
    with_sums_of_it = path.read_bytes()
    weights = safetensors.torch.load(with_sums_of_it)
    state = json.dumps(to_json(LoopState("same", 100, False)))
    older = safetensors.torch.save(weights, metadata={"state": state})  # as versions wrote it that knew no digests
    return [older, with_sums_of_it]


def resumed(path: Path) -> None:
    network, optimizer = trained()
    load_checkpoint(path, network, [optimizer])


@cache
def results_folder() -> Path:
    folder = Path(kept()) / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    spec = material.spec_of()
    material.write_results(folder, spec, material.configuration_of(spec))
    rules = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}],
    }
    (folder / "crossval_results_folds_0").mkdir()
    (folder / "crossval_results_folds_0" / "postprocessing.json").write_text(json.dumps(rules))
    return folder


def results_around(folder: Path) -> None:
    import shutil

    shutil.copytree(results_folder(), folder, dirs_exist_ok=True)


def results_seeds(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        found = [(results_folder() / name).read_bytes()]
        if name == "plans.json":
            spec = material.spec_of()
            older = material.older(material.configuration_of(spec))
            found.append(json.dumps(material.plans_of({"3d_fullres": older})).encode())
        return found

    return seeds


@cache
def data_pkl_seeds() -> list[bytes]:
    out = io.BytesIO()
    torch.save(material.checkpoint_of({"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}, "3d_fullres"), out)
    with zipfile.ZipFile(out) as archive:
        return [archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))]


def in_checkpoint(content: bytes) -> bytes:
    """A checkpoint of torch with this ``data.pkl``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", bytes(24))
        archive.writestr("archive/data/1", bytes(16))
        archive.writestr("archive/data/2", bytes(12))
    return out.getvalue()


def checkpoint_of_torch(path: Path) -> None:
    waiting = [read_checkpoint(path, path)]
    for _ in range(1000):
        value = waiting.pop() if waiting else None
        if isinstance(value, StoredTensor):
            value.load()
        waiting += list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list | tuple) else []


def rules_pickled() -> list[bytes]:
    """([the function], [its arguments]) as nnU-Net writes them; the function is a name that nothing looks up."""
    function = f"c{MODULE}\n{FUNCTION}\n".encode()
    plain = pickle.dumps((["f"], [{"labels_or_regions": [1, 2]}]), 2)
    return [pickle.dumps(([], []), 4), plain.replace(b"X\x01\x00\x00\x00fq\x01", function)]


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


FOLD = "workspace/runs/phantom/tiny/fold_0"
ABOUT = "workspace/fingerprints/phantom"


def fold_around(folder: Path) -> None:
    """A finished fold of a workspace, for its page."""
    (folder / FOLD / "validation").mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).mkdir(parents=True, exist_ok=True)
    (folder / FOLD / "fold.json").write_bytes(fold_seeds()[0])
    (folder / FOLD / "history.jsonl").write_bytes(HISTORY)


def fold_of_record(path: Path) -> None:
    """The page of a fold whose workspace holds the file."""
    page_of(path.parents[3] / FOLD, ReportOptions())


def splits_of_workspace(path: Path) -> None:
    from autoseg.data.dataset import DatasetSpec

    spec = DatasetSpec("phantom", path.parents[2], ("CT",), LABELS, CASES, (), ".nii.gz")
    draw_splits(spec, (), Workspace(path.parents[2]), keep=False)


def names_in(path: Path) -> None:
    from autoseg.outputs.from_labels import _names_of

    _names_of(path.parent / "a.nii.gz", "a")


def labels_beside(path: Path) -> None:
    named_labels(path.parent, {"a": path.parent / "a.nii.gz"})


def map_around(folder: Path) -> None:
    write_label_volume(LabelVolume(np.arange(24).reshape(2, 3, 4) % 3, GRID), folder / "a.nii.gz")


TARGETS: dict[str, Target] = {
    "nifti": Target("a.nii", nifti_seeds, (*IMAGE, description_of)),
    "nifti-gz": Target("a.nii.gz", nifti_seeds, (*IMAGE, description_of), packed=lambda content: gzip.compress(content, 1)),
    "gzip": Target("a.nii.gz", lambda: [gzip.compress(one, mtime=0) for one in nifti_seeds()], IMAGE),
    "metaimage": Target("a.mha", meta_seeds, ITK),
    "nrrd": Target("a.seg.nrrd", nrrd_seeds, ITK),
    "png": Target("a.png", png_seeds, IMAGE, packed=with_sums),
    "tiff": Target("a.tif", tiff_seeds, IMAGE),
    "jpeg": Target("a.jpg", jpeg_seeds, IMAGE),
    "dicom": Target("a.dcm", dicom_seeds, (scans_of, read_file, read_label_volume)),
    "dicom-segmentation": Target("a.dcm", segmentation_seeds, (segment_names, read_label_volume), is_quick=False),
    "dicom-structures": Target("a.dcm", structure_seeds, (structures_of, map_drawn), is_quick=False),
    "dataset": Target("dataset.json", dataset_seeds, (of_path(read_dataset), labels_beside), dataset_around),
    "decathlon": Target("dataset.json", lambda: [text_of(DECATHLON)], (of_path(lambda f: LAYOUTS["msd"](f)),), dataset_around),
    "names": Target("names.json", lambda: [b'{"liver": 1, "vein": 2}'], (read_names,)),
    "plan": Target("plan.json", lambda: [text_of(make_plan())], (lambda path: read_record(Plan, path),)),
    "network": Target("network.json", lambda: [text_of(make_plan().network)], (known_network,)),
    "recipe": Target(
        "recipe.json",
        lambda: [text_of(RECIPES["autoseg"]), b'{"learning_rate": 0.02, "patch_stages": []}'],
        (lambda path: choose_recipe(TrainingOptions(recipe=str(path))),),
    ),
    "splits": Target("splits.json", lambda: [text_of(SPLITS)], (lambda path: read_splits(path, CASES),)),
    "stored-splits": Target(
        f"{ABOUT}/splits.json",
        lambda: [text_of({"patients": [[name, name] for name in "abc"], "folds": SPLITS})],
        (splits_of_workspace,),
    ),
    "fingerprint": Target(
        "fingerprint.json",
        lambda: [text_of(make_fingerprint([((1, 1, 1), (36, 50, 35), 3)]))],
        (plans_from,),
        is_quick=False,
    ),
    "scan": Target("scan.json", lambda: [text_of({"cases": [SCAN]}), text_of([SCAN])], (known_scans,)),
    "findings": Target(f"{ABOUT}/findings.json", lambda: [text_of([FINDING])], (fold_of_record,), fold_around),
    "known-dataset": Target(
        f"{ABOUT}/dataset.json",
        lambda: [b'{"folder": "/data/Dataset001_Liver"}'],
        (lambda path: Workspace(path.parents[2]).dataset_folder("1"), fold_of_record),
        fold_around,
    ),
    "fold": Target(f"{FOLD}/fold.json", fold_seeds, (of_path(read_fold), page_of_fold), fold_around),
    "history": Target(f"{FOLD}/history.jsonl", lambda: [HISTORY], (read_validations, page_of_fold), fold_around),
    "case": Target("a.json", lambda: [text_of(CASE)], (read_case, ledger_of, names_in, labels_beside), map_around),
    "run": Target("run.json", lambda: [text_of(COHORT)], (of_path(read_cohort), of_path(read_fold), labels_beside), map_around),
    "surfaces": Target("surfaces.json", lambda: [text_of(SURFACES)], (of_path(read_surface_manifest),)),
    "metrics": Target("metrics.json", report_seeds, (read_report,)),
    "journal": Target("journal.jsonl", lambda: [JOURNAL], (lambda path: Journal.open(path, {"made_by": "x"}),)),
    "prepared": Target("prepared/case.json", lambda: [(prepared_folder() / "case.json").read_bytes()], (of_path(open_case),)),
    "model": Target("model.json", model_seeds, (of_path(networks_of),), model_around, is_quick=False),
    "model-found": Target(
        "models/tiny/model.json", model_seeds, (lambda path: find_model("mine", Workspace(path.parents[2])),)
    ),
    "model-zip": Target("model.zip", zip_seeds, (networks_of, is_nnunet), is_quick=False),
    "weights": Target("fold_0.safetensors", weights_seeds, (with_digest_of_weights,), is_quick=False),
    "checkpoint": Target("checkpoint.safetensors", checkpoint_seeds, (read_state, resumed)),
    "nnunet-plans": Target("plans.json", results_seeds("plans.json"), (of_path(read_nnunet),), results_around, is_quick=False),
    "nnunet-dataset": Target(
        "dataset.json", results_seeds("dataset.json"), (of_path(read_nnunet),), results_around, is_quick=False
    ),
    "nnunet-rules": Target(
        "crossval_results_folds_0/postprocessing.json",
        results_seeds("crossval_results_folds_0/postprocessing.json"),
        (lambda path: results_in(path.parents[1]).postprocessing(["0"], (1, 2)),),  # without weights, which have their own
        results_around,
    ),
    "nnunet-rules-pickle": Target(
        "postprocessing.pkl", rules_pickled, (lambda path: postprocessing_rules(path.read_bytes(), (1, 2), path.name),)
    ),
    "nnunet-pickle": Target("a.pth", data_pkl_seeds, (checkpoint_of_torch,), packed=in_checkpoint),
    "nnunet-checkpoint": Target(
        "fold_0/checkpoint_final.pth",
        results_seeds("fold_0/checkpoint_final.pth"),
        (read_nnunet,),
        results_around,
        is_quick=False,
    ),
}
