"""The page as a whole: sections in their order, and the data of the panel at the end."""

import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from autoseg import __version__
from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.engines import map_cases
from autoseg.errors import AutosegError
from autoseg.evaluation.report import Report
from autoseg.page.cases import case_article, order_of_cases, overview, summary_sections
from autoseg.page.markup import colour_of, swatch, text
from autoseg.page.runs import RunRecord, facts, run_sections
from autoseg.page.scene import PageCase, read_scene
from autoseg.page.viewer import find_viewer, pack_scene, pack_surfaces, packed

__all__ = ["Page", "write_page"]

MOST_PICTURED = 60  # cases with pictures, the worst ones
PANEL_CHARACTERS = 12_000_000  # of volumes and surfaces for the panel; cases beyond that are not in it


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: in a few words, without folders.
        facts: (name, value) pairs for the top.
        labels: what the label values mean; needed where there are cases.
        report: scores, or None.
        cases: in any order.
        run: RunRecord of a training, or None.
        folders: paths that may occur in messages and must not get onto the page.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    labels: LabelSchema | None = None
    report: Report | None = None
    cases: tuple[PageCase, ...] = ()
    run: RunRecord | None = None
    folders: tuple[str, ...] = ()


def write_page(page, path, *, workers=None, on_done=None):
    """Write a Page as one HTML file; it appears whole or not at all.

    Args:
        on_done: called with the Outcome of each pictured case.

    Returns:
        tuple of sentences about what could not be shown; () when all could.
    """
    html, notes = _render(page, workers, on_done)
    with replacing(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return notes


def _render(page, workers, on_done):
    cases = order_of_cases(page.cases, page.report)
    addresses = {case.id: f"#case-{number}" for number, case in enumerate(cases[:MOST_PICTURED], 1)}
    viewer = find_viewer() if cases else None
    drawn = map_cases(
        lambda case: _draw(page, case, addresses[case.id], viewer is not None),
        cases[:MOST_PICTURED],
        workers=workers,
        name=lambda case: case.id,
        on_done=on_done,
    )
    for outcome in drawn:
        if outcome.error is not None:
            raise outcome.error
    blocks, manifest, articles = [], [], []
    for case, outcome in zip(cases, drawn, strict=False):
        article, parts, entry = outcome.value
        fits = entry and sum(map(len, blocks)) + sum(len(block) for _, block in parts) <= PANEL_CHARACTERS
        articles.append(article(bool(fits)))
        if fits:
            manifest.append({"case": case.id, **entry})
            blocks += [f'<script type="application/octet-stream" id="{name}">{block}</script>' for name, block in parts]
    notes = _notes(cases, viewer, manifest, bool(page.report and page.report.rows))
    sections = run_sections(page.run, page.folders) if page.run else []
    if page.report is not None:
        sections.append(("Scores", "scores", summary_sections(page.report, addresses, page.folders)))
    if cases:
        sections.append(("Cases", "cases", _cases_section(page, cases, articles, addresses, notes, manifest)))
    if manifest:
        blocks.append(f'<script type="application/octet-stream" id="viewer">{packed(viewer)}</script>')
    colours = [[name, colour_of(number)] for number, name in enumerate(page.labels.structures)] if page.labels else []
    data = {"title": page.title, "cases": [case.id for case in cases[:MOST_PICTURED]], "panel": manifest, "structures": colours}
    own = files("autoseg.page")
    links = "".join(f'<a href="#{name}">{text(title)}</a>' for title, name, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{text(title)}</h2>{html}</section>' for title, name, html in sections)
    html = Template((own / "template.html").read_text("utf-8")).substitute(
        title=text(page.title),
        style=(own / "style.css").read_text("utf-8"),
        glue=(own / "glue.js").read_text("utf-8"),
        facts=facts(page.facts),
        links=links,
        sections=body,
        data=json.dumps(data).replace("<", "\\u003c"),
        blocks="\n".join(blocks),
        version=text(__version__),
        panel=(own / "panel.html").read_text("utf-8") if manifest else "",
        review=(own / "review.html").read_text("utf-8") if cases else "",
    )
    return html, notes


def _draw(page, case, address, with_panel):
    """(function of whether the case is in the panel -> article, blocks for the panel, its entry there or None)."""
    try:
        scene, fault = read_scene(case), ""
    except AutosegError as found:
        scene, fault = None, str(found)
    parts, entry = [], None
    if scene and with_panel:
        volumes = pack_scene(scene, page.labels)
        surfaces = pack_surfaces(case.surfaces, page.labels)
        parts = [(f"{address[1:]}-{name}", block) for name, block in volumes.items()]
        parts += [(f"{address[1:]}-surface-{i}", block) for i, (_, _, block) in enumerate(surfaces)]
        meshes = [
            {"name": name, "colour": colour, "id": f"{address[1:]}-surface-{i}"} for i, (name, colour, _) in enumerate(surfaces)
        ]
        point = [round(float(mm), 2) for mm in scene.geometry.to_world([scene.slices])[0]]
        entry = {"volumes": {name: f"{address[1:]}-{name}" for name in volumes}, "surfaces": meshes, "point": point}

    def article(in_panel):
        return case_article(
            case, scene, page.report, page.labels, address, fault=fault, in_panel=in_panel, folders=page.folders
        )

    return article, parts, entry


def _notes(cases, viewer, manifest, scored):
    notes, chosen = [], "worst" if scored else "first"
    if len(cases) > MOST_PICTURED:
        notes.append(f"Pictures are of the {MOST_PICTURED} {chosen} of {len(cases)} cases.")
    if cases and viewer is None:
        notes.append(
            "Without the panel in three dimensions: the Python package ipyniivue, which brings the viewer, is missing."
        )
    elif viewer and len(manifest) < min(len(cases), MOST_PICTURED):
        shown = f"the {len(manifest)} {chosen} cases" if manifest else "no cases"
        notes.append(f"In the panel in three dimensions are {shown}, to keep the file small.")
    return tuple(notes)


def _cases_section(page, cases, articles, addresses, notes, manifest):
    legend = "".join(f"<span>{swatch(i, name)}</span>" for i, name in enumerate(page.labels.structures))
    both = any(case.reference for case in cases) and any(case.predicted for case in cases)
    lines = f'<span><i class="line predicted"></i>{cases[0].called}, in the colour of the structure</span>'
    lines += '<span><i class="line reference"></i>reference</span>' if both else ""
    how = (
        "Each plane goes through the slice where prediction and reference differ most; "
        if both
        else "Each plane goes through the slice with most of the structures; "
    )
    order = "The worst come first, by mean Dice. " if page.report and page.report.rows else ""
    said = "".join(f"<p>{text(note)}</p>" for note in notes)
    return (
        f"<p>{order}{how}R and L are the patient's right and left, A and P front and back, S and I head and feet.</p>{said}"
        f'<p class="legend">{legend}{lines}</p>'
        f"{_folded(overview(cases, page.report, addresses), len(cases))}{''.join(articles)}"
    )


def _folded(html, n_cases):
    return (
        f"<details{' open' if n_cases <= 12 else ''}><summary>All {n_cases} cases in a table</summary>{html}</details>"
        if html
        else ""
    )
