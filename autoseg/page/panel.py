"""Cases of the 3D panel: the first ones, as many as fit into the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from autoseg.data.labels import LabelSchema
from autoseg.engines import map_cases, values_of
from autoseg.page.scene import PageCase, try_scene
from autoseg.page.viewer import pack_case

__all__ = ["Panel", "block", "fill_panel"]

FEWEST = 6  # cases to make space for: each may take a sixth of it


@dataclass
class Panel:
    """What the panel shows.

    Attributes:
        entries: one for each case, for the script.
        blocks: the data that the entries refer to, as HTML.
        n_coarse: cases that were made coarser to fit.
        n_left_out: cases that did not fit.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[Markup] = field(default_factory=list)
    n_coarse: int = 0
    n_left_out: int = 0


def fill_panel(cases: Sequence[PageCase], labels: LabelSchema, most: float, workers: int | None = None) -> Panel:
    """The Panel of the first cases that fit into ``most`` characters; cases that cannot be drawn are left out."""
    panel, share = Panel(), most / min(len(cases), FEWEST)
    numbered = list(enumerate(cases))
    for start in range(0, len(cases), FEWEST):  # a few at a time: of large scans, no more will fit
        few = numbered[start : start + FEWEST]
        packed = map_cases(lambda item: _pack(item[0], item[1], labels, share), few, workers=workers)
        for number, (entry, blocks, coarse) in enumerate(values_of(packed), start):
            most -= sum(map(len, blocks))
            if most < 0:
                panel.n_left_out = len(cases) - number
                return panel
            panel.entries += [entry] if entry else []
            panel.blocks += blocks
            panel.n_coarse += coarse
    return panel


def _pack(number: int, case: PageCase, labels: LabelSchema, most: float) -> tuple[dict[str, Any] | None, list[Markup], bool]:
    """(entry for the script, None if the case cannot be drawn; blocks of data; whether they were made coarser)."""
    scene, _ = try_scene(case)
    if scene is None:
        return None, [], False
    volumes, surfaces, coarse = pack_case(scene, case.surfaces, labels, most)
    ids = {name: f"data-{number}-{name}" for name in volumes}
    blocks = [block(ids[name], data) for name, data in volumes.items()]
    meshes = []
    for i, (name, colour, data) in enumerate(surfaces):
        meshes.append({"name": name, "colour": colour, "id": f"data-{number}-surface-{i}"})
        blocks.append(block(meshes[-1]["id"], data))
    point = [round(float(mm), 2) for mm in scene.geometry.to_world([scene.slices])[0]]
    return {"case": case.id, "volumes": ids, "surfaces": meshes, "point": point}, blocks, coarse


def block(name: str, data: str) -> Markup:
    """Data in base64 as an element that the browser does not interpret."""
    return Markup(f'<script type="application/octet-stream" id="{name}">{data}</script>')
