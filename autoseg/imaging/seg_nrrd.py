"""Writes segmentations of 3D Slicer, ``CASE.seg.nrrd``; ``itk`` reads them.

A NRRD file whose header describes segments: name, colour, terminology, extent, layer, and the value of its voxels there.
Segments that may overlap are in different layers, along the first axis. Keys follow 3D Slicer's documentation of its
segmentation file; lengths are LPS millimetres, as in ITK.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from zlib_ng import gzip_ng

from autoseg.atomic import replacing
from autoseg.imaging.colours import Colour, structure_colours
from autoseg.imaging.crop import NOWHERE, crop, hull, value_boxes
from autoseg.imaging.dicom_codes import code_structure
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume

__all__ = ["write_seg_nrrd"]

_TO_LPS = np.array([-1.0, -1.0, 1.0])
_CONTEXTS = "Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list"
_NOTHING = "^^"  # an empty code


@dataclass(frozen=True)
class _Segment:
    """A structure: its name, its label values, its layer, and its value in that layer."""

    name: str
    values: frozenset[int]
    layer: int
    value: int


def write_seg_nrrd(path: Path, labels: LabelVolume, structures: Mapping[str, Sequence[int]], *, description: str = "") -> None:
    """Write a 3D Slicer segmentation; the file is complete or absent.

    Args:
        labels: (Z, Y, X) label values on their grid.
        structures: {name: its label values}; they may overlap. An absent structure keeps its (empty) segment.
        description: a sentence for the header.
    """
    segments = _segments(structures)
    count = 1 + max((segment.layer for segment in segments), default=0)
    kind = np.min_scalar_type(max((segment.value for segment in segments), default=0))
    layers = np.zeros((count, *labels.data.shape), kind)
    lines = [f"description:={_escaped(description)}"] if description else []
    boxes = value_boxes(labels.data)
    for number, (segment, colour) in enumerate(zip(segments, structure_colours(structures), strict=True)):
        lower, upper = hull([boxes[value] for value in segment.values if value in boxes]) or NOWHERE
        mask = np.isin(crop(labels.data, lower, upper), sorted(segment.values))
        crop(layers[segment.layer], lower, upper)[mask] = segment.value
        ends = [end for low, high in zip(lower[::-1], upper[::-1], strict=True) for end in (low, high - 1)]
        lines += [f"Segment{number}_{key}:={_escaped(text)}" for key, text in _described(segment, colour, ends, number)]
    header = [*_header(layers, labels.geometry), *lines, *_REPRESENTATION, "", ""]
    voxels = np.moveaxis(layers, 0, -1).astype(kind.newbyteorder("<"))
    with replacing(path) as draft, open(draft, "wb") as plain:
        plain.write("\n".join(header).encode())
        with gzip_ng.GzipNGFile("", "wb", compresslevel=4, fileobj=plain, mtime=0) as packed:
            packed.write(voxels.tobytes())


_REPRESENTATION = (
    "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
    "Segmentation_MasterRepresentation:=Binary labelmap",  # the name in earlier versions
    "Segmentation_SourceRepresentation:=Binary labelmap",
    "Segmentation_ReferenceImageExtentOffset:=0 0 0",
)


def _segments(structures: Mapping[str, Sequence[int]]) -> list[_Segment]:
    """Each structure in the first layer where no other structure shares a label value with it.

    If all are in one layer and each has a single label value of at least 1, that value is kept; else structures are
    numbered within their layer.
    """
    placed: list[_Segment] = []
    taken: list[set[int]] = []  # values of each layer
    count = Counter[int]()  # its structures
    for name, values in structures.items():
        group = frozenset(int(value) for value in values)
        layer = next((number for number, there in enumerate(taken) if not group & there), len(taken))
        taken[layer:] = taken[layer:] or [set()]
        taken[layer] |= group
        count[layer] += 1
        placed.append(_Segment(name, group, layer, count[layer]))
    if len(taken) == 1 and all(len(one.values) == 1 and min(one.values) > 0 for one in placed):
        return [_Segment(one.name, one.values, 0, min(one.values)) for one in placed]
    return placed


def _header(layers: np.ndarray, geometry: Geometry) -> list[str]:
    """The standard NRRD header lines for (L, Z, Y, X) layers."""
    several = len(layers) > 1
    sizes = [*([len(layers)] if several else []), *layers.shape[:0:-1]]
    steps = (geometry.affine[:3, [2, 1, 0]] * _TO_LPS[:, None]).T  # one row each for x, y, z
    directions = [*(["none"] if several else []), *(_vector(step) for step in steps)]
    return [
        "NRRD0005",
        f"type: {_TYPES[layers.dtype.itemsize]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(geometry.affine[:3, 3] * _TO_LPS)}",
    ]


_TYPES = {1: "uint8", 2: "uint16", 4: "uint32"}


def _described(segment: _Segment, colour: Colour, ends: list[int], number: int) -> list[tuple[str, str]]:
    """The (key, text) entries of a segment for 3D Slicer. ``ends`` are its first and last voxel along x, y and z."""
    return [
        ("ID", f"Segment_{number + 1}"),
        ("Name", " ".join(segment.name.split())),
        ("NameAutoGenerated", "0"),
        ("Color", " ".join(f"{part / 255:.6g}" for part in colour)),
        ("ColorAutoGenerated", "0"),
        ("LabelValue", str(segment.value)),
        ("Layer", str(segment.layer)),
        ("Extent", " ".join(map(str, ends))),
        ("Tags", f"Segmentation.Status:completed|TerminologyEntry:{_terminology(segment.name)}|"),
    ]


def _terminology(name: str) -> str:
    """The SNOMED CT codes found for a structure's name: context, category, type and side, no region."""
    code = code_structure(name)
    category, kind = ("^".join((c.scheme_designator, c.value, c.meaning)) for c in (code.category, code.kind))
    side = "^".join((code.side.scheme_designator, code.side.value, code.side.meaning)) if code.side else _NOTHING
    return "~".join((_CONTEXTS[0], category, kind, side, _CONTEXTS[1], _NOTHING, _NOTHING))


def _vector(numbers: np.ndarray) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"


def _escaped(text: str) -> str:
    """The text of a key, escaped for NRRD."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")
