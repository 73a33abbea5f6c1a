"""Three planes through a case, as radiologists look at them: the patient's right is on the left of the picture.

A plane is an SVG in millimetres: the slice as PNG, contours as lines on top, so that they stay sharp and light. Each plane
goes where prediction and reference differ most, or, without one of them, where most of the structures lies.
"""

import base64
import io

import numpy as np
from contourpy import contour_generator
from PIL import Image

from autoseg.page.markup import colour_of, text

__all__ = ["draw_planes"]

PLANES = (  # name, marks at the left, right, top and bottom; axis 0 to the head, 1 to the front, 2 to the right
    ("axial", "RLAP"),
    ("coronal", "RLSI"),
    ("sagittal", "APSI"),
)
LONGEST = 320  # pixels of a picture; finer scans are made smaller
SIDES = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}


def draw_planes(scene, labels, title):
    """HTML of the planes of a Scene; planes of one voxel's thickness, as of a 2D image, are left out.

    Args:
        labels: LabelSchema; structure number i has colour i, the reference is white.
        title: what the case is called in descriptions of the pictures.
    """
    shape = scene.geometry.shape
    shown = [axis for axis in range(3) if min(n for i, n in enumerate(shape) if i != axis) > 1]
    slices = scene.slices
    planes = [_plane(scene, labels, axis, slices[axis], title) for axis in shown]
    return f'<div class="planes">{"".join(planes)}</div>'


def _plane(scene, labels, axis, index, title):
    name, marks = PLANES[axis]
    rows_mm, columns_mm = [s for i, s in enumerate(scene.geometry.spacing_mm) if i != axis]

    def cut(data):
        return np.take(data, index, axis)[::-1, ::-1]

    n_rows, n_columns = [n for i, n in enumerate(scene.geometry.shape) if i != axis]
    width, height = n_columns * columns_mm, n_rows * rows_mm
    image = "" if scene.scan is None else _image(cut(scene.scan), width, height)
    paths = []
    for data, css in ((scene.reference, "reference"), (scene.predicted, "predicted")):
        for number in range(len(labels.structures) if data is not None else 0):
            outline = _outline(labels.mask(cut(data), number))
            if outline:
                colour = f' stroke="{colour_of(number)}"' if css == "predicted" else ""
                paths.append(f'<path class="{css}"{colour} d="{outline}"/>')
    bar = next((mm for mm in (50, 20, 10, 5, 2, 1) if mm <= width / 3), 1)
    alt = (
        f"{title}, {name} slice; left of the picture: {SIDES[marks[0]]}, top: {SIDES[marks[2]]}; "
        f"contours of {' and '.join(_kinds(scene))}"
    )
    letters = "".join(f'<b class="at-{side}">{mark}</b>' for side, mark in zip("lrtb", marks, strict=True))
    return (
        f'<figure class="plane" style="--ratio:{width / height:.4f}"><div>'
        f'<svg viewBox="0 0 {width:.4g} {height:.4g}" role="img" aria-label="{text(alt)}">{image}'
        f'<g transform="scale({columns_mm:.6g} {rows_mm:.6g})">{"".join(paths)}</g>'
        f'<path class="bar" d="M{width * 0.04:.4g} {height - width * 0.04:.4g}h{bar}"/></svg>'
        f'<span aria-hidden="true">{letters}</span></div>'
        f"<figcaption>{name}, bar {bar} mm</figcaption></figure>"
    )


def _kinds(scene):
    return [k for k, data in ((scene.called, scene.predicted), ("reference", scene.reference)) if data is not None]


def _image(grey, width, height):
    """The slice (rows, columns) uint8 as an SVG element of so many mm."""
    image = Image.fromarray(np.ascontiguousarray(grey))
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<image width="{width:.4g}" height="{height:.4g}" preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'


def _outline(mask):
    """Contours of a (rows, columns) bool mask as an SVG path in pixels; '' for an empty one."""
    if not mask.any():
        return ""
    lines = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    return "".join("M" + "L".join(f"{x - 0.5:g} {y - 0.5:g}" for x, y in line[:-1]) + "z" for line in lines)
