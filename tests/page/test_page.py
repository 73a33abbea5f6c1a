"""The page without a browser: what is on it, what must not be, and that a page that fails costs nothing else."""

import base64
import gzip
import html.parser
import json
import re
import shutil

import nibabel
import numpy as np
import pytest

from autoseg.cli import main
from autoseg.errors import AutosegError
from autoseg.evaluation.markdown import RECONSTRUCTION_COLUMNS
from autoseg.evaluation.report import read_report
from autoseg.imaging import nifti
from autoseg.imaging.files import read_volume, write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import SurfaceMesh, write_scene
from autoseg.imaging.volume import LabelVolume, Volume, orient
from autoseg.options import EvaluateOptions, ReconstructOptions, ReportOptions, SurfaceOptions
from autoseg.page import viewer
from autoseg.page.cases import case_article
from autoseg.page.markup import colour_of, number, scrubbed
from autoseg.page.panel import FEWEST, fill_panel
from autoseg.page.pictures import draw_planes
from autoseg.page.plots import Curve, Spread, draw_distribution, draw_lines
from autoseg.page.runs import RunRecord, recipe_section
from autoseg.page.scene import PageCase, Scene, read_scene
from autoseg.pipeline import evaluate, reconstruct, report
from autoseg.records import CaseRecord, FoldRecord, as_recorded
from autoseg.training.recipe import Recipe
from autoseg.workspace import write_json
from tests.helpers.evaluations import NASTY, ONE, ONE_WORKER, STRUCTURE, ball, write_noisy_page
from tests.helpers.models import make_plan

BESIDE = ["methods.md", "references.bib"]
NO_CASES = {"training": (), "validation": ()}
VOID = {"meta", "link", "br", "input", "image", "path", "rect", "circle"}


class Outline(html.parser.HTMLParser):
    """Elements with their attributes, texts outside of scripts and styles, and tags that were never closed."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def source(place):
    return (place / "evaluation" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    found = Outline(source)
    assert not found.open, "elements are not closed"
    return found


def test_an_evaluation_ends_with_a_page_that_has_the_scores_and_the_cases_worst_first(page):
    cases = [attributes["data-case"] for attributes in page.all("article")]
    assert cases == ["case_c", "case_b", NASTY, "case_a"]
    assert "Evaluation of 4 cases" in page.texts
    assert {"1.000", "0.000"} <= set(page.texts)
    assert any("case_c" in text for text in page.texts)
    assert "1.543" in page.texts  # measured volume
    assert sum(attributes.get("class") == "distribution" for attributes in page.all("svg")) == 4
    assert "Intervals over fewer than 6 cases say little" in " ".join(page.texts)


def test_a_second_table_has_the_errors_of_masks_as_volumes_with_intervals(place, source):
    report = read_report(place / "evaluation" / "metrics.json")
    table = re.search(r"<h3>The masks as volumes of 0 and 1</h3>(.*?)</table>", source, re.DOTALL)[1]
    shown = {metric: title for metric, title in RECONSTRUCTION_COLUMNS.items() if metric != "brier"}  # without probabilities
    assert re.findall(r'<th scope="col".*?>(.*?)</th>', table)[2:] == list(shown.values())
    row = re.search(r"kidney</th>(.*?)</tr>", table)[1]
    for metric, digits in zip(shown, (5, 5, 3, 3), strict=True):
        found = report.summary("kidney", metric)
        ends = f"[{found.low:.{digits}f}, {found.high:.{digits}f}]"
        assert f'{found.mean:.{digits}f} <span class="interval">{ends}</span>' in row
    error, fraction = report.mean_of("mse_mask_fg"), report.mean_of("foreground_share_fg")
    assert f"MSE {error:.5f} at a fraction of {fraction:.5f}" in source


def test_names_become_text_and_never_markup(page, source):
    assert NASTY in page.texts
    assert STRUCTURE in page.texts
    assert "alert(1)" not in " ".join(re.findall(r"<script>(.*?)</script>", source, re.DOTALL))
    assert len(page.all("b")) == 4 * sum("plane" in a.get("class", "").split() for a in page.all("figure"))
    data = json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', source)[1])
    assert NASTY in data["cases"]


def test_nothing_on_the_page_leads_out_of_it(page, source):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            if name in attributes:
                inside = re.match(r"#|data:image/png;base64,|$", attributes[name])
                assert inside or attributes[name] in BESIDE, (tag, attributes[name][:80])
    own = re.sub(r'<script type="application/octet-stream".*?</script>', "", source, flags=re.DOTALL)
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttpRequest", own)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_page_leads_to_the_methods_text_and_its_references_beside_it(place, page):
    leads = [link["href"] for link in page.all("a") if not link["href"].startswith("#")]
    assert leads == BESIDE
    assert all((place / "evaluation" / name).is_file() for name in leads)


def test_a_page_without_a_methods_text_beside_it_leads_nowhere(place, tmp_path):
    shutil.copy(next((place / "predicted").glob("*.nii.gz")), tmp_path)
    page = report(tmp_path, ReportOptions(), ONE_WORKER).path
    assert not (tmp_path / "methods.md").exists()
    assert "methods.md" not in page.read_text(encoding="utf-8")


def test_no_folder_of_this_machine_is_on_the_page(place, source):
    assert "read from x.nii" in source
    assert "expected case_c.nii.gz" in source
    for part in (str(place), "Jane Doe", place.parent.name, "labelsTr"):
        assert part not in source


def test_pictures_have_descriptions_and_the_headings_go_down_by_one(page):
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_a_folder_of_predictions_without_references_shows_volumes(place, tmp_path):
    shutil.copytree(place / "predicted", tmp_path / "out")
    found = report(tmp_path / "out", ReportOptions(place / "imagesTr"), ONE_WORKER)
    page = Outline(found.path.read_text(encoding="utf-8"))
    assert "Predictions of 3 cases" in page.texts
    assert "volume, mL" in page.texts
    assert "label 1" in page.texts
    assert len(page.all("image")) == 9


def test_what_was_reconstructed_is_shown_with_its_label_maps_measurements_and_surfaces(place, tmp_path):
    maps = tmp_path / "maps"
    shutil.copytree(place / "predicted", maps)
    reconstruct(maps, tmp_path / "out", runtime=ONE_WORKER)
    source = report(tmp_path / "out", ReportOptions(place / "imagesTr", predicted=str(maps)), ONE_WORKER).path.read_text(
        encoding="utf-8"
    )
    page = Outline(source)
    assert "Reconstruction of 3 label maps" in page.texts
    assert "labels, in the colour of the structure" in page.texts
    assert {"euler number", "surface area, mm²", STRUCTURE} <= set(page.texts)
    assert len(page.all("image")) == 9
    assert sum(a.get("class") == "predicted" for a in page.all("path")) >= 9
    assert str(tmp_path) not in source
    if viewer.find_viewer():
        panel = json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', source)[1])["panel"]
        assert [set(entry["volumes"]) for entry in panel] == [{"scan", "labels"}] * 3
        assert {surface["name"] for entry in panel for surface in entry["surfaces"]} == {STRUCTURE, "kidney"}


def test_cubic_label_maps_of_reconstructions_are_no_predictions(place, tmp_path):
    shutil.copytree(place / "predicted", tmp_path / "maps")
    reconstruct(tmp_path / "maps", tmp_path / "out", ReconstructOptions(SurfaceOptions(), isotropic=0.0), ONE_WORKER)
    page = Outline(report(tmp_path / "out", runtime=ONE_WORKER).path.read_text(encoding="utf-8"))
    assert "Reconstruction of 3 label maps" in page.texts
    assert STRUCTURE in page.texts


def test_label_maps_that_have_moved_or_changed_since_are_said(place, tmp_path):
    maps = tmp_path / "maps"
    shutil.copytree(place / "predicted", maps)
    reconstruct(maps, tmp_path / "out", ReconstructOptions(SurfaceOptions()), ONE_WORKER)
    (maps / "case_a.nii.gz").rename(tmp_path / "case_a.nii.gz")
    shutil.copy(tmp_path / "case_a.nii.gz", maps / "case_b.nii.gz")
    page = Outline(report(tmp_path / "out", ReportOptions(predicted=str(maps)), ONE_WORKER).path.read_text(encoding="utf-8"))
    assert "case_a.nii.gz: the label map is not shown; autoseg report --predicted DIR names its folder" in page.texts
    assert "case_b.nii.gz: is not the label map that surfaces and measurements were made from" in page.texts
    assert len(page.all("article")) == 3


def test_empty_label_maps_are_said_to_be_empty(tmp_path):
    empty = LabelVolume(np.zeros((4, 9, 9), np.uint8), Geometry.from_spacing((4, 9, 9), (3.0, 1.0, 1.0)))
    write_label_volume(empty, tmp_path / "maps" / "a.nii.gz")
    reconstruct(tmp_path / "maps", tmp_path / "out", runtime=ONE_WORKER)
    page = Outline(
        report(tmp_path / "out", ReportOptions(predicted=str(tmp_path / "maps")), ONE_WORKER).path.read_text(encoding="utf-8")
    )
    assert "labels: no voxel is labelled" in page.texts


def test_cubic_volumes_of_predictions_are_no_cases(place, tmp_path):
    shutil.copytree(place / "predicted", tmp_path / "out")
    for suffix in ("_iso", "_iso_cubic"):
        scan = read_volume(place / "imagesTr" / "case_a_0000.nii.gz")
        path = tmp_path / "out" / f"case_a{suffix}.nii.gz"
        nifti.write(path, scan.data[0], scan.geometry, description="derived: scan on cubic voxels by splines")
    page = Outline(report(tmp_path / "out", runtime=ONE_WORKER).path.read_text(encoding="utf-8"))
    assert "Predictions of 3 cases" in page.texts


def test_without_the_viewer_the_page_is_made_and_says_so(place, monkeypatch, tmp_path):
    monkeypatch.setattr("autoseg.page.page.find_viewer", lambda: None)
    shutil.copytree(place / "evaluation", tmp_path / "e")
    found = report(tmp_path / "e", runtime=ONE_WORKER)
    assert "ipyniivue" in found.notes[0]
    page = Outline(found.path.read_text(encoding="utf-8"))
    assert not page.all("dialog")
    assert len(page.all("article")) == 4


def test_a_page_that_fails_costs_no_scores(place, monkeypatch, tmp_path, caplog):
    def fail(*args, **options):
        raise RuntimeError("no more ink")

    monkeypatch.setattr("autoseg.pipeline.reporting.write_page", fail)
    scored = evaluate(place / "labelsTr", place / "predicted", tmp_path, EvaluateOptions(partial=True), ONE_WORKER)
    assert len(scored.cases) == 3
    assert (tmp_path / "metrics.json").is_file()
    assert not (tmp_path / "report.html").exists()
    assert "no more ink" in caplog.messages[-1]


def test_the_command_names_the_page_and_refuses_other_folders(place, tmp_path, capsys):
    shutil.copytree(place / "evaluation", tmp_path / "e")
    assert main(["report", str(tmp_path / "e"), "--quiet"]) == 0
    assert str(tmp_path / "e" / "report.html") in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "neither a run's fold, nor predictions" in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("inside", ["", "labelsTr"])
def test_a_data_set_is_no_folder_of_results_and_nothing_is_written_into_it(place, tmp_path, capsys, inside):
    shutil.copytree(place / "labelsTr", tmp_path / "labelsTr")
    (tmp_path / "dataset.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(tmp_path / inside)]) == 2
    assert "expected results, found a data set" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stored_report_comes_back_as_it_was(place, tmp_path):
    scored = evaluate(place / "labelsTr", place / "predicted", tmp_path, runtime=ONE_WORKER)
    assert read_report(tmp_path / "metrics.json") == scored
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(AutosegError, match="Score the predictions again"):
        read_report(tmp_path / "metrics.json")


def test_the_patients_right_is_on_the_left_of_the_picture_for_any_orientation_of_the_file(tmp_path):
    """A ball to the right, the back and the feet of the middle: drawn to the left, the right (sagittal), and below."""
    shape, centre = (20, 30, 40), (5, 8, 32)  # towards head, front, right
    grid, mask = Geometry.from_spacing(shape, (1.0, 1.0, 1.0)), ball(shape, centre, 3)
    for order, flips in (((0, 1, 2), ()), ((2, 0, 1), (0, 2)), ((1, 2, 0), (1,))):
        data = np.ascontiguousarray(np.flip(mask.transpose(order), flips))
        write_label_volume(LabelVolume(data, grid.transposed(order).flipped(flips)), tmp_path / "case.nii.gz")
        drawn, _ = draw_planes(read_scene(PageCase("case", predicted=tmp_path / "case.nii.gz")), ONE, "case")
        expected = {"axial": (39 - 32, 29 - 8), "coronal": (39 - 32, 19 - 5), "sagittal": (29 - 8, 19 - 5)}
        for name, (column, row) in expected.items():
            plane = re.search(rf'<svg[^>]*aria-label="case, {name} .*?</svg>', drawn)[0]
            points = np.array(
                re.findall(r"[ML]([\d.]+) ([\d.]+)", re.search(r'class="predicted"[^>]* d="([^"]*)"', plane)[1]), float
            )
            assert np.allclose(points.mean(axis=0) - 0.5, (column, row), atol=0.3)


def test_a_scan_whose_axes_run_otherwise_than_those_of_the_mask_is_shown(tmp_path):
    grid = Geometry.from_spacing((6, 8, 10), (2.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    write_label_volume(LabelVolume(mask, grid), tmp_path / "case.nii.gz")
    turn = (1, 2, 0), (0, 2)
    scan = Volume(orient(mask[None].astype(np.float32), *turn), grid.oriented(*turn))
    write_volume(scan, tmp_path / "scan.nii.gz")
    scene = read_scene(PageCase("case", predicted=tmp_path / "case.nii.gz", images=(tmp_path / "scan.nii.gz",)))
    assert scene.notes == ()
    assert ((scene.scan > 0) == (scene.predicted > 0)).all()


@pytest.mark.parametrize("shape", [(1, 30, 40), (30, 1, 40), (1, 1, 40), (1, 1, 1), (9, 9, 9)])
@pytest.mark.parametrize("filled", [0, 1])
def test_images_of_one_slice_and_empty_masks_are_drawn(shape, filled):
    mask = np.full(shape, filled, np.uint8)
    scene = Scene(mask * 9, None, mask, Geometry.from_spacing(shape, (3.0, 1.0, 1.0)))
    drawn, _ = draw_planes(scene, ONE, "case")
    assert drawn.count("<svg") == {3: 3, 2: 1, 1: 0, 0: 0}[sum(n > 1 for n in shape)]
    assert ('class="predicted"' in drawn) == (bool(filled) and "<svg" in drawn)
    assert set(viewer.pack_scene(scene, ONE)) == {"scan", "prediction"}


def test_large_volumes_are_thinned_out_and_stay_in_place():
    mask = ball((40, 400, 400), (20, 300, 100), 15)
    scene = Scene(None, None, mask, Geometry.from_spacing(mask.shape, (2.0, 0.5, 0.5)))
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(viewer.pack_scene(scene, ONE)["prediction"])))
    data = np.asarray(image.dataobj)
    assert max(data.shape) <= viewer.LONGEST
    centre = image.affine @ [*np.argwhere(data).mean(axis=0), 1]
    assert np.allclose(centre[:3], (50, 150, 40), atol=1.5)


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [1.0] * 9, [0.5, 0.9, 0.95, 0.96, 70.0]])
def test_a_distribution_has_a_mark_for_every_case_within_its_frame(values):
    drawn = draw_distribution("m", [Spread("s", [(f"c{i}", v, "#a") for i, v in enumerate(values)], np.mean(values))])
    marks = [float(x) for x in re.findall(r'(?:cx="|class="dot" d="M)([\d.]+)', drawn)]
    assert len(marks) == len(values)
    assert all(0 < x < 470 for x in marks)
    assert ("beyond the axis" in drawn) == (70.0 in values)


def test_curves_with_gaps_and_of_one_check_are_drawn():
    assert draw_lines("loss", [1, 2], [Curve("a", "first", [0.3, 0.2])]).count('class="first" d="M') == 1
    alone = draw_lines("loss", [5], [Curve("a", "first", [0.3]), Curve("b", "second", [None])])
    assert alone.count("<circle") == 1  # a line of one place would not be seen
    assert draw_lines("loss", [1, 2], [Curve("a", "first", [None, None])]) == ""


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("expected /home/jane/data/a.nii.gz, found none", "expected a.nii.gz, found none"),
        (r"C:\Users\Jane\a.nii is broken", "a.nii is broken"),
        ("see ../shared/x.json and ~/y", "see x.json and y"),
        ("3/4 of the cases, mm/s and/or 1 / 2", "3/4 of the cases, mm/s and/or 1 / 2"),
        ("in /known folder/Jane Doe/labels/c.nii", "in c.nii"),
        ("the folder /known folder/Jane Doe is gone", "the folder Jane Doe is gone"),
    ],
)
def test_sentences_lose_their_folders(sentence, expected):
    assert scrubbed(sentence, ["/known folder/Jane Doe/labels", "/known folder/Jane Doe"]) == expected


def test_numbers_and_colours_are_for_people():
    assert [number(v) for v in (None, True, 12345, -1e-17, -1.5, "x")] == ["–", "yes", "12,345", "0.000", "−1.500", "x"]
    assert [number(v) for v in (3.584e-9, -0.00001)] == ["3.6e−09", "−1e−05"]  # of structures of a micrometre
    assert len({colour_of(i) for i in range(40)}) == 40
    assert all(re.fullmatch("#[0-9a-f]{6}", colour_of(i)) for i in range(140))


def test_a_surface_in_lps_is_shown_where_the_mask_is(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    trimesh.creation.icosphere(radius=4).apply_translation((-10, -20, 30)).export(tmp_path / "thing.stl")
    ((name, colour, block),) = viewer.pack_surfaces(tmp_path, ONE)
    raw = gzip.decompress(base64.b64decode(block))
    n_faces, n_vertices = np.frombuffer(raw[4:12], "<u4")
    vertices = np.frombuffer(raw[16 + 12 * n_faces :], "<f4").reshape(-1, 3)
    assert len(vertices) == n_vertices
    assert (name, colour) == ("thing", colour_of(0))
    assert np.allclose(vertices.mean(axis=0), (10, 20, 30), atol=0.1)


def test_large_surfaces_are_made_small_and_stay_closed(tmp_path, monkeypatch):
    trimesh = pytest.importorskip("trimesh")
    monkeypatch.setattr(viewer, "MOST_OF_CASE", 4000)
    for name in ("one", "two"):
        trimesh.creation.icosphere(subdivisions=5, radius=9).export(tmp_path / f"{name}.stl")
    for _, _, block in viewer.pack_surfaces(tmp_path, ONE):
        raw = gzip.decompress(base64.b64decode(block))
        n_faces, n_vertices = np.frombuffer(raw[4:12], "<u4")
        assert n_faces <= 2000
        assert n_vertices == n_faces // 2 + 2  # Euler: triangles share their corners


def test_surfaces_are_named_and_placed_by_what_stands_beside_them(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    shape = trimesh.creation.icosphere(radius=4).apply_translation((10, 20, 30))
    write_scene([SurfaceMesh(shape.vertices, shape.faces, "thing")], tmp_path / "scene.glb", coordinates="ras")
    write_json(tmp_path / "surfaces.json", {"coordinates": "RAS", "structures": []})
    from_scene = viewer.pack_surfaces(tmp_path, ONE)
    shape.export(tmp_path / "a_thing.ply")
    shape.export(tmp_path / "a_thing.stl")
    about = [{"structure": "thing", "files": ["a_thing.ply", "a_thing.stl"]}]
    write_json(tmp_path / "surfaces.json", {"coordinates": "RAS", "structures": about})
    from_files = viewer.pack_surfaces(tmp_path, ONE)
    for found in (from_scene, from_files):
        assert [name for name, *_ in found] == ["thing"]
        raw = gzip.decompress(base64.b64decode(found[0][2]))
        vertices = np.frombuffer(raw[16 + 12 * len(shape.faces) :], "<f4").reshape(-1, 3)
        assert np.allclose(vertices.mean(axis=0), (10, 20, 30), atol=0.1)


@pytest.mark.parametrize(("name", "content"), [("a.stl", b"no mesh at all"), ("scene.glb", b"glTF"), ("surfaces.json", b"{")])
def test_damaged_surfaces_are_told_and_the_page_goes_without_them(tmp_path, caplog, name, content):
    (tmp_path / name).write_bytes(content)
    assert viewer.pack_surfaces(tmp_path, ONE) == []
    assert name in caplog.text


@pytest.mark.slow
def test_a_page_of_sixty_noisy_scans_keeps_to_its_size_and_says_what_is_coarser(monkeypatch, tmp_path):
    """Noise is what PNG cannot make small: 60 scans of this size would be 15 MB of pictures, and hundreds of volumes."""
    notes = write_noisy_page(tmp_path / "report.html", monkeypatch)
    assert (tmp_path / "report.html").stat().st_size < 30e6
    assert "The pictures of 60 cases are coarser than they could be, to keep the file small." in notes
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(note in source for note in notes)
    assert source.count("<image ") == 180
    if viewer.find_viewer():
        panel = json.loads(re.search(r'<script type="application/json" id="page-data">(.*?)</script>', source)[1])["panel"]
        assert len(panel) >= FEWEST
        assert f"the {len(panel)} first cases, {len(panel)} of them coarser than they could be, to keep" in notes[-1]


def test_pictures_and_contours_get_coarser_until_they_fit_and_stay_in_place():
    rng, shape = np.random.default_rng(0), (6, 200, 300)
    ragged = (rng.random(shape) < 0.5).astype(np.uint8)  # a mask whose contours run around every voxel
    scene = Scene(rng.integers(0, 256, shape, np.uint8), None, ragged, Geometry.from_spacing(shape, (2.0, 1.0, 1.0)))
    fine, coarse = draw_planes(scene, ONE, "case"), draw_planes(scene, ONE, "case", 60_000)
    assert [made for _, made in (fine, coarse)] == [False, True]
    assert len(fine[0]) > 400_000
    assert len(coarse[0]) < 63_000  # the frame of each plane is not counted
    for drawn, _ in (fine, coarse):
        path = re.search(r'class="predicted"[^>]* d="([^"]*)"', drawn)[1]
        points = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path), float)
        assert np.allclose(points.mean(axis=0), (150, 100), atol=4)
        assert np.all((points.min(axis=0) >= -8) & (points.max(axis=0) <= (308, 208)))


def test_the_panel_is_filled_with_what_there_is_room_for(place):
    cases = [PageCase(f"c{n}", predicted=place / "predicted" / "case_a.nii.gz") for n in range(9)]
    labels = read_report(place / "evaluation" / "metrics.json").labels
    everything = fill_panel(cases, labels, 1e9, workers=1)
    assert (len(everything.entries), everything.n_coarse, everything.n_left_out) == (9, 0, 0)
    some = fill_panel(cases, labels, 7.5 * sum(map(len, everything.blocks)) / 9, workers=1)
    assert [entry["case"] for entry in some.entries] == [f"c{n}" for n in range(7)]
    assert some.n_left_out == 2
    undrawn = fill_panel([PageCase("no mask"), *cases], labels, 7.5 * sum(map(len, everything.blocks)) / 9, workers=1)
    assert ([entry["case"] for entry in undrawn.entries], undrawn.n_left_out) == ([f"c{n}" for n in range(7)], 2)
    names = {f'id="{name}"' for entry in some.entries for name in entry["volumes"].values()}
    assert all(any(name in block for block in some.blocks) for name in names)


def test_settings_have_the_names_that_the_command_line_takes():
    task = as_recorded({"plan": make_plan(), "labels": ONE, "recipe": Recipe(), "length": {}, "seed": 0} | NO_CASES)
    shown = recipe_section(RunRecord(FoldRecord(task)))
    assert all(name in shown for name in ("augmentation free epochs", "constant until", "validations"))
    assert not any(f">{name}<" in shown for name in ("plain epochs", "hold", "checks"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("surface_area_mm2", "surface area, mm²"),
        ("longest_diameter_mm", "longest diameter, mm"),
        ("mesh_volume_difference_percent", "mesh volume difference, %"),
        ("fold_agreement", "inter-fold Dice"),
        ("voxels", "voxels"),
    ],
)
def test_measurements_are_named_in_words_with_their_unit(name, said):
    article = case_article(
        PageCase("a", record=CaseRecord(measurements=({"structure": "thing", name: 1.0},))), None, None, ONE, "#a"
    )
    assert f">{said}</th>" in article
