"""Axial, coronal and sagittal slices of a case in radiological convention: the patient's right is on the left.

A slice is an SVG in millimetres: the scan as PNG, with contours as vector lines on top, which stay sharp and take little space.
The slice with most differences between prediction and reference is shown or, with one mask alone, the slice with most
labelled voxels. PNG hardly compresses noise, and ragged masks have long contours. Both are made coarser if they need too much
space.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from PIL import Image

from autoseg.data.labels import LabelSchema
from autoseg.imaging.crop import crop, hull, value_boxes
from autoseg.page.markup import colour_of, text
from autoseg.page.scene import Scene

__all__ = ["draw_planes"]

PLANES = (  # name; letters at the left, right, top and bottom. Array axes point to the head, the front and the right
    ("axial", "RLAP"),
    ("coronal", "RLSI"),
    ("sagittal", "APSI"),
)
LONGEST = 320  # pixels of the longer side of a picture; larger slices are reduced
SHORTEST = 32  # pixels; no longer side is reduced below this to save space
STEPS = (1, 2, 4, 8, 16)  # contours are drawn from every n-th voxel, with the first n that fits
SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


def draw_planes(scene: Scene, labels: LabelSchema, title: str, most: float = math.inf) -> tuple[Markup, bool]:
    """The slices of a Scene; those only one voxel wide or high, as of a 2D image, are left out.

    Args:
        labels: LabelSchema; structure number i has colour i, the reference is white.
        title: name of the case in descriptions of the pictures.
        most: characters of all pictures together.

    Returns:
        (HTML, whether anything was made coarser to fit into ``most``).
    """
    shape = scene.geometry.shape
    shown = [axis for axis in range(3) if min(n for i, n in enumerate(shape) if i != axis) > 1]
    slices = scene.slices
    planes = [_plane(scene, labels, axis, slices[axis], title, most / len(shown)) for axis in shown]
    return Markup(f'<div class="planes">{"".join(html for html, _ in planes)}</div>'), any(coarse for _, coarse in planes)


def _plane(scene: Scene, labels: LabelSchema, axis: int, index: int, title: str, most: float) -> tuple[str, bool]:
    name, marks = PLANES[axis]
    rows_mm, columns_mm = [s for i, s in enumerate(scene.geometry.spacing_mm) if i != axis]

    def cut(data: np.ndarray) -> np.ndarray:
        return np.asarray(np.take(data, index, axis)[::-1, ::-1])

    n_rows, n_columns = [n for i, n in enumerate(scene.geometry.shape) if i != axis]
    width, height = n_columns * columns_mm, n_rows * rows_mm
    slices = [
        (css, cut(data)) for css, data in (("reference", scene.reference), ("predicted", scene.predicted)) if data is not None
    ]
    paths, coarse_lines = _contours(slices, labels, most / 2)
    image, coarse_image = ("", False) if scene.scan is None else _image(cut(scene.scan), width, height, most - len(paths))
    bar = next((mm for mm in (50, 20, 10, 5, 2, 1) if mm <= width / 3), 1)
    alt = (
        f"{title}, {name} slice; left of the picture: {SIDES[marks[0]]}, top: {SIDES[marks[2]]}; "
        f"contours of {' and '.join(_kinds(scene))}"
    )
    letters = "".join(f'<b class="at-{side}">{mark}</b>' for side, mark in zip("lrtb", marks, strict=True))
    html = (
        f'<figure class="plane" style="--ratio:{width / height:.4f}"><div>'
        f'<svg viewBox="0 0 {width:.4g} {height:.4g}" role="img" aria-label="{text(alt)}">{image}'
        f'<g transform="scale({columns_mm:.6g} {rows_mm:.6g})">{paths}</g>'
        f'<path class="bar" d="M{width * 0.04:.4g} {height - width * 0.04:.4g}h{bar}"/></svg>'
        f'<span aria-hidden="true">{letters}</span></div>'
        f"<figcaption>{name}, bar {bar} mm</figcaption></figure>"
    )
    return html, coarse_lines or coarse_image


def _kinds(scene: Scene) -> list[str]:
    return [k for k, data in ((scene.called, scene.predicted), ("reference", scene.reference)) if data is not None]


def _image(grey: np.ndarray, width: float, height: float, most: float) -> tuple[str, bool]:
    """(SVG element of a (rows, columns) uint8 slice, width and height in mm; whether it was reduced to fit into ``most``)."""
    whole, longest = Image.fromarray(np.ascontiguousarray(grey)), LONGEST
    while True:
        image = whole.copy()
        image.thumbnail((longest, longest), Image.Resampling.BOX)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        if len(data) <= most or longest <= SHORTEST:
            break
        longest = max(SHORTEST, int(0.95 * max(image.size) * math.sqrt(max(most, 0) / len(data))))
    at = f'width="{width:.4g}" height="{height:.4g}" preserveAspectRatio="none"'
    return f'<image {at} href="data:image/png;base64,{data}"/>', longest < LONGEST


def _contours(slices: Sequence[tuple[str, np.ndarray]], labels: LabelSchema, most: float) -> tuple[str, bool]:
    """(SVG paths of the contours, in pixels; whether they were made coarser to fit into ``most`` characters).

    Args:
        slices: (CSS class, (rows, columns) label values) of each mask.
    """
    for step in STEPS:
        paths = []
        for css, data in slices:
            thin = data[::step, ::step]
            boxes = value_boxes(thin[None])
            for number, values in enumerate(labels.values):
                if box := hull([boxes[value] for value in values if value in boxes]):
                    (_, *lower), (_, *upper) = box
                    outline = _outline(labels.mask(crop(thin, lower, upper), number), step, lower)
                    colour = f' stroke="{colour_of(number)}"' if css == "predicted" else ""
                    paths.append(f'<path class="{css}"{colour} d="{outline}"/>')
        if sum(map(len, paths)) <= most:
            break
    return "".join(paths), step > 1


def _outline(mask: np.ndarray, step: int, lower: Sequence[int]) -> str:
    """Contours of a (rows, columns) bool mask of every ``step``-th pixel, as an SVG path in pixels.

    Args:
        lower: row and column of the slice where the mask begins.
    """
    lines: Any = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)  # (n, 2) arrays: x and y
    first = np.subtract(lower[::-1], 1)
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in step * (line[:-1] + first) + 0.5) + "z" for line in lines)
