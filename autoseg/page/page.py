"""The whole HTML report: its sections in order, then the data of the 3D panel.

The size of the file is limited, whatever the scans are. Pictures get a fixed part of it, divided equally among the cases, and
are made coarser if they need more. The 3D panel gets what pictures, tables and viewer leave, and shows as many cases as fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from autoseg import __version__
from autoseg.data.labels import LabelSchema
from autoseg.engines import Outcome, map_cases, values_of
from autoseg.evaluation.report import Report
from autoseg.names import counted
from autoseg.page.cases import case_article, order_of_cases, overview
from autoseg.page.markup import colour_of, swatch
from autoseg.page.panel import Panel, block, fill_panel
from autoseg.page.pictures import draw_planes
from autoseg.page.rendering import render, static
from autoseg.page.runs import (
    RunRecord,
    data_section,
    plan_section,
    recipe_section,
    restoration_section,
    training_section,
)
from autoseg.page.scene import PageCase, try_scene
from autoseg.page.scores import scores_section
from autoseg.page.study import StudyShown, study_section
from autoseg.page.viewer import find_viewer, packed
from autoseg.records import CalibrationAbout
from autoseg.workspace import write_text

__all__ = ["Page", "write_page"]

MOST_PICTURED = 60  # cases with pictures, the worst ones
MOST_CHARACTERS = 28_000_000  # of the file
PICTURES = 12_000_000  # of these, for pictures
NOTHING = LabelSchema((), (), False, ())


@dataclass(frozen=True)
class Page:
    """What an HTML report shows.

    Attributes:
        title: a few words, without folders.
        facts: (name, value) pairs for the top.
        labels: meaning of the label values; needed if there are cases.
        report: scores, or None.
        cases: in any order.
        run: of a fold, or None.
        study: findings and comparison of a study, or None.
        folders: paths that may occur in messages, and are removed from them.
        calibration: of the model that made the predictions; None if it is unknown.
        beside: names of files in the same folder, which the report links to.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    labels: LabelSchema = NOTHING
    report: Report | None = None
    cases: tuple[PageCase, ...] = ()
    run: RunRecord | None = None
    study: StudyShown | None = None
    folders: tuple[str, ...] = ()
    calibration: CalibrationAbout | None = None
    beside: tuple[str, ...] = ()


Addresses = Mapping[str, str]  # {case: '#id' of its article}, for cases with pictures


@dataclass(frozen=True)
class Section:
    """A section: its heading, its id for links, and ``html(page, addresses)``, which is '' if there is nothing to show."""

    title: str
    id: str
    html: Callable[[Page, Addresses], Markup]


@dataclass(frozen=True)
class Shown:
    """A rendered section."""

    title: str
    id: str
    html: Markup


def _of_run(draw: Callable[[RunRecord], Markup]) -> Callable[[Page, Addresses], Markup]:
    return lambda page, addresses: draw(page.run) if page.run else Markup()


def _data(page: Page, addresses: Addresses) -> Markup:
    run = page.run
    return data_section(run.fingerprint, run.findings, page.folders) if run and run.fingerprint else Markup()


def _restored(page: Page, addresses: Addresses) -> Markup:
    run = page.run
    return restoration_section(run.restoration, page.folders) if run and run.restoration else Markup()


def _scores(page: Page, addresses: Addresses) -> Markup:
    return scores_section(page.report, addresses, page.folders) if page.report else Markup()


def _study(page: Page, addresses: Addresses) -> Markup:
    return study_section(page.study, page.labels, page.folders) if page.study else Markup()


SECTIONS = (  # in their order; the cases come last, since they get the space that these leave
    Section("Study", "study", _study),
    Section("Training", "training", _of_run(training_section)),
    Section("Plan and its reasons", "plan", _of_run(plan_section)),
    Section("Recipe", "recipe", _of_run(recipe_section)),
    Section("Data set", "data", _data),
    Section("Restored images", "restoration", _restored),
    Section("Scores", "scores", _scores),
)


def write_page(
    page: Page, path: Path, *, workers: int | None = None, on_done: Callable[[Outcome], object] | None = None
) -> tuple[str, ...]:
    """Write a Page as one HTML file, completely or not at all.

    Args:
        workers: threads; see ``engines.map_cases``.
        on_done: called with the Outcome of each case with pictures.

    Returns:
        tuple of sentences about what is left out or coarser; () if nothing is.

    Raises:
        FileError: the file cannot be written.
    """
    html, notes = _render(page, workers, on_done)
    write_text(path, html + "\n")
    return notes


def _render(page: Page, workers: int | None, on_done: Callable[[Outcome], object] | None) -> tuple[str, tuple[str, ...]]:
    cases = order_of_cases(page.cases, page.report)
    pictured = cases[:MOST_PICTURED]
    addresses = {case.id: f"#case-{number}" for number, case in enumerate(pictured, 1)}
    articles, n_coarse = _articles(page, pictured, addresses, workers, on_done)
    shown = [Shown(one.title, one.id, html) for one in SECTIONS if (html := one.html(page, addresses))]
    listed = overview(cases, page.report, addresses)
    viewer = find_viewer() if cases else None
    viewer_block = block("viewer", packed(viewer)) if viewer else Markup()
    panel = Panel()
    if viewer:
        used = sum(map(len, [viewer_block, listed, articles, *(one.html for one in shown)]))
        panel = fill_panel(pictured, page.labels, MOST_CHARACTERS - used, workers)
    scored = bool(page.report and page.report.rows)
    notes = _notes(len(cases), scored, viewer is not None, panel, n_coarse)
    if cases:
        shown.append(Shown("Cases", "cases", _cases_section(page, cases, notes, scored, listed, articles)))
    html = render(
        "page.html",
        title=page.title,
        style=static("style.css"),
        glue=static("glue.js"),
        facts=page.facts,
        beside=page.beside,
        sections=shown,
        data=_script_data(page, pictured, panel),
        blocks=Markup("\n".join([*panel.blocks, viewer_block] if panel.entries else [])),
        version=__version__,
        with_panel=bool(panel.entries),
        with_review=bool(cases),
    )
    return html, notes


def _script_data(page: Page, pictured: Sequence[PageCase], panel: Panel) -> Markup:
    """Data for the script of the report, as JSON that cannot close its ``<script>`` element."""
    colours = [[name, colour_of(number)] for number, name in enumerate(page.labels.structures)]
    data = {"title": page.title, "cases": [case.id for case in pictured], "panel": panel.entries, "structures": colours}
    return Markup(json.dumps(data).replace("<", "\\u003c"))


def _articles(
    page: Page,
    pictured: Sequence[PageCase],
    addresses: Addresses,
    workers: int | None,
    on_done: Callable[[Outcome], object] | None,
) -> tuple[Markup, int]:
    """(articles of the cases, number of cases whose pictures were made coarser to save space)."""
    drawn = map_cases(
        lambda case: _draw(page, case, addresses[case.id], PICTURES / len(pictured)),
        pictured,
        workers=workers,
        name=lambda case: case.id,
        on_done=on_done,
    )
    found = values_of(drawn)
    return Markup("".join(article for article, _ in found)), sum(coarse for _, coarse in found)


def _draw(page: Page, case: PageCase, address: str, most: float) -> tuple[Markup, bool]:
    """(article of a case, whether its pictures were made coarser to fit into ``most`` characters)."""
    scene, fault = try_scene(case)
    pictures, coarse = draw_planes(scene, page.labels, case.id, most) if scene else (Markup(), False)
    article = case_article(
        case,
        scene,
        page.report,
        page.labels,
        address,
        pictures=pictures,
        fault=fault,
        folders=page.folders,
        calibration=page.calibration,
    )
    return article, coarse


def _notes(n_cases: int, scored: bool, has_viewer: bool, panel: Panel, n_coarse: int) -> tuple[str, ...]:
    notes, chosen = [], "worst" if scored else "first"
    if n_cases > MOST_PICTURED:
        notes.append(f"Pictures show the {MOST_PICTURED} {chosen} of {n_cases} cases.")
    if n_coarse:
        notes.append(f"The pictures of {counted(n_coarse, 'case')} are coarser than they could be, to keep the file small.")
    if n_cases and not has_viewer:
        notes.append("There is no 3D panel: the Python package ipyniivue, which provides the viewer, is not installed.")
    if panel.n_left_out or panel.n_coarse:
        n = len(panel.entries)
        all_drawn = "all cases" if n == n_cases else f"all {counted(n, 'case')} that can be drawn"
        shown = all_drawn if not panel.n_left_out else f"the {counted(n, f'{chosen} case')}" if n else "no cases"
        coarse = f", {panel.n_coarse} of them coarser than they could be" if panel.n_coarse else ""
        notes.append(f"The 3D panel shows {shown}{coarse}, to keep the file small.")
    return tuple(notes)


def _cases_section(
    page: Page, cases: Sequence[PageCase], notes: Sequence[str], scored: bool, listed: Markup, articles: Markup
) -> Markup:
    both = any(case.reference for case in cases) and any(case.predicted for case in cases)
    return render(
        "cases.html",
        scored=scored,
        both=both,
        notes=notes,
        structures=[swatch(i, name) for i, name in enumerate(page.labels.structures)],
        called=cases[0].called,
        overview=listed,
        articles=articles,
    )
