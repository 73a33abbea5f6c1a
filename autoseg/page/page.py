"""The page as a whole: sections in their order, and the data of the panel at the end.

A page has a size that it keeps to, whatever the scans are. Pictures may take so much of it, each case an equal part, and get
coarser where they need more; what they, the tables and the viewer leave is for the panel, which shows as many cases as fit.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from autoseg import __version__
from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.engines import map_cases
from autoseg.evaluation.report import Report
from autoseg.page.cases import case_article, order_of_cases, overview, summary_sections
from autoseg.page.markup import colour_of, swatch, text
from autoseg.page.panel import Panel, block, fill_panel, value_of
from autoseg.page.pictures import draw_planes
from autoseg.page.runs import RunRecord, facts, run_sections
from autoseg.page.scene import PageCase, try_scene
from autoseg.page.viewer import find_viewer, packed

__all__ = ["Page", "write_page"]

MOST_PICTURED = 60  # cases with pictures, the worst ones
MOST_CHARACTERS = 28_000_000  # of a page
PICTURES = 12_000_000  # of these, for pictures


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
    pictured = cases[:MOST_PICTURED]
    addresses = {case.id: f"#case-{number}" for number, case in enumerate(pictured, 1)}
    drawn = map_cases(
        lambda case: _draw(page, case, addresses[case.id], PICTURES / len(pictured)),
        pictured,
        workers=workers,
        name=lambda case: case.id,
        on_done=on_done,
    )
    articles, coarse = zip(*map(value_of, drawn), strict=True) if drawn else ((), ())
    sections = run_sections(page.run, page.folders) if page.run else []
    if page.report is not None:
        sections.append(("Scores", "scores", summary_sections(page.report, addresses, page.folders)))
    table = _folded(overview(cases, page.report, addresses), len(cases))
    viewer = find_viewer() if cases else None
    panel, viewer_block = Panel(), ""
    if viewer:
        viewer_block = block("viewer", packed(viewer))
        used = sum(map(len, [viewer_block, table, *articles, *(html for *_, html in sections)]))
        panel = fill_panel(pictured, page.labels, MOST_CHARACTERS - used, workers)
    notes = _notes(cases, viewer, panel, sum(coarse), bool(page.report and page.report.rows))
    if cases:
        sections.append(("Cases", "cases", _cases_section(page, cases, notes, table + "".join(articles))))
    colours = [[name, colour_of(number)] for number, name in enumerate(page.labels.structures)] if page.labels else []
    data = {"title": page.title, "cases": [case.id for case in pictured], "panel": panel.entries, "structures": colours}
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
        blocks="\n".join([*panel.blocks, viewer_block] if panel.entries else []),
        version=text(__version__),
        panel=(own / "panel.html").read_text("utf-8") if panel.entries else "",
        review=(own / "review.html").read_text("utf-8") if cases else "",
    )
    return html, notes


def _draw(page, case, address, most):
    """(the article of a case, whether its pictures, of at most ``most`` characters, had to be coarser for that)."""
    scene, fault = try_scene(case)
    pictures, coarse = draw_planes(scene, page.labels, case.id, most) if scene else ("", False)
    article = case_article(case, scene, page.report, page.labels, address, pictures=pictures, fault=fault, folders=page.folders)
    return article, coarse


def _notes(cases, viewer, panel, n_coarse, scored):
    notes, chosen = [], "worst" if scored else "first"
    if len(cases) > MOST_PICTURED:
        notes.append(f"Pictures are of the {MOST_PICTURED} {chosen} of {len(cases)} cases.")
    if n_coarse:
        notes.append(
            f"The pictures of {n_coarse} case{'s' * (n_coarse != 1)} are coarser than they could be, to keep the file small."
        )
    if cases and viewer is None:
        notes.append(
            "Without the panel in three dimensions: the Python package ipyniivue, which brings the viewer, is missing."
        )
    if panel.n_left_out or panel.n_coarse:
        n = len(panel.entries)
        shown = "all cases" if not panel.n_left_out else f"the {n} {chosen} cases" if n else "no cases"
        coarse = f", {panel.n_coarse} of them coarser than they could be" if panel.n_coarse else ""
        notes.append(f"In the panel in three dimensions are {shown}{coarse}, to keep the file small.")
    return tuple(notes)


def _cases_section(page, cases, notes, listed):
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
        f"{listed}"
    )


def _folded(html, n_cases):
    return (
        f"<details{' open' if n_cases <= 12 else ''}><summary>All {n_cases} cases in a table</summary>{html}</details>"
        if html
        else ""
    )
