"""The documents are true: links lead somewhere, commands are ones that the parser knows."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from autoseg import cli
from autoseg.phantoms import STRUCTURES, write_phantoms

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "planners" / "README.md",
    ROOT / "dataset_json_examples" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"generated", "_build"} & set(path.parts)),
]


def module(name: str):  # of docs, which is no package
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def generate():
    return module("generate")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def made_at_build(generate) -> set[str]:
    return {
        f"{generate.FOLDER}/{name}"
        for name in (*generate.COPIED, "commands.md", "costs.md", "options.md", "plan.md", "recipe.md")
    } | {"docs/gallery/index.md"}  # of the scripts in docs/gallery_src


def commands_in(text: str) -> list[str]:
    """Lines of code blocks that call autoseg, with lines that a backslash continues joined."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)).replace("\\\n", " ")
    return [re.split(r"  #| > ", line)[0].strip() for line in blocks.splitlines() if line.startswith("autoseg ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files(document, generate):
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        path = (document.parent / target).resolve()
        assert path.exists() or name_of(path) in made_at_build(generate), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_known_to_the_parser(document):
    for command in commands_in(document.read_text()):
        arguments = shlex.split(re.sub(r"\$\w+", "0", command))[1:]
        try:
            args = cli._parser(arguments).parse_args(arguments)
        except SystemExit:
            pytest.fail(command)
        assert args.verb == arguments[0], command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_code_in_the_documents_is_code(document):
    for kind, code in re.findall(r"^```(python|json)\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE):
        {"python": ast.parse, "json": json.loads}[kind](code)


def test_commands_are_found_where_there_are_some():
    assert sum(len(commands_in(path.read_text())) for path in DOCUMENTS) >= 50
    assert commands_in("```\nautoseg verify DATASET     # all\nautoseg train A \\\n  0\nmake test\n```\nautoseg is\n") == [
        "autoseg verify DATASET",
        "autoseg train A    0",
    ]


def test_every_page_of_the_site_is_in_its_index(generate):
    listed = set()
    for index in (ROOT / "docs" / "index.md", ROOT / "docs" / "experiments" / "index.md"):
        for block in re.findall(r"^```{toctree}\n(.*?)^```", index.read_text(), flags=re.DOTALL | re.MULTILINE):
            names = re.findall(r"^([\w-]+(?:/[\w-]+)?)$", block, flags=re.MULTILINE)
            listed |= {name_of(index.parent / f"{name}.md") for name in names}
    written = {name_of(path) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")} - {"docs/index.md"}
    assert listed == written | made_at_build(generate)


def test_the_reference_tells_of_every_flag_and_setting(generate):
    commands, recipe, plan = generate.commands_page(), generate.recipe_page(), generate.plan_page()
    for verb in cli.VERBS:
        assert f"## autoseg {verb}\n" in commands
    assert "`--fold-agreement`" in commands
    assert "### autoseg model calibrate\n" in commands
    assert "| `learning_rate` | `0.02` | `0.01` | of SGD" in recipe
    assert "| `patch_size` | `tuple[int, int, int]` |" in plan
    for page in (commands, recipe, plan, generate.options_page()):
        tables = [table for table in page.split("\n\n") if re.match(r"\|.* meaning \|$", table, flags=re.MULTILINE)]
        assert tables
        for row in "\n".join(tables).splitlines():
            assert not row.endswith("|  |"), row  # a field without a meaning


def test_links_of_a_copied_document_are_those_of_the_site(generate):
    text = "[scans](scans.json), [rules](../planners/README.md#patch), [out](https://example.org), "
    text += "[tools](../docs/reference/oldest.md)"
    assert generate.within_site(text, "dataset_json_examples/README.md", "docs/generated/dataset-json.md") == (
        "scans (`dataset_json_examples/scans.json`), [rules](planner.md#patch), [out](https://example.org), "
        "[tools](../reference/oldest.md)"
    )


def test_sentences_are_counted_as_a_reader_would():
    sentences = module("sentences")
    text = "# A heading\n\nOne `a b c` two. Three\nfour five! autoseg\n\n- six\n- [seven eight](x.md)\n\n| a | b |\n"
    text += "\n```\ncode here.\n```\n"
    assert [len(sentences.words(one)) for one in sentences.sentences(text)] == [3, 3, 1, 1, 2]


SITE = [path for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")]
HOME = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "planners/README.md")]


@pytest.mark.parametrize("paths", [SITE, *([path] for path in HOME)], ids=["site", *map(name_of, HOME)])
def test_sentences_of_the_documents_are_short(paths):
    sentences = module("sentences")
    lengths = sorted(len(sentences.words(one)) for path in paths for one in sentences.sentences(path.read_text()))
    assert len(lengths) > (300 if paths is SITE else 10)
    assert lengths[len(lengths) // 2] <= 16
    assert lengths[len(lengths) * 95 // 100] <= 30


@pytest.mark.thorough
def test_the_commands_of_the_first_tutorial_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_decathlon(tmp_path / "Task04_Hippocampus")
    done = commands_in((ROOT / "docs" / "tutorials" / "hippocampus.md").read_text())
    assert len(done) >= 7
    for command in done:
        arguments = shlex.split(command.replace("--time 20m", "--iterations 2"))[1:]
        assert cli.main([*arguments, "--device", "cpu"] if arguments[0] in ("train", "predict") else arguments) == 0, command
    fold = tmp_path / "autoseg_workspace" / "runs" / "Hippocampus" / "fullres_3d_self_attention_unet" / "fold_0"
    for name in ("report.html", "curves.png", "validation"):  # which the tutorial promises
        assert (fold / name).exists(), name
    assert (tmp_path / "predictions" / "phantom_006.nii.gz").is_file()


def write_decathlon(task: Path) -> None:
    """Phantoms as a task of the Medical Segmentation Decathlon, and one more scan in the folder ``scans``."""
    drawn = write_phantoms(task.parent / "drawn", training=6, test=1, in_plane_mm=8)
    cases = [path.name.removesuffix("_0000.nii.gz") for path in sorted((drawn / "imagesTr").iterdir())]
    (task / "imagesTr").mkdir(parents=True)
    (drawn / "labelsTr").rename(task / "labelsTr")
    (drawn / "imagesTs").rename(task.parent / "scans")
    for case in cases:
        (drawn / "imagesTr" / f"{case}_0000.nii.gz").rename(task / "imagesTr" / f"{case}.nii.gz")
    names = ("background", *STRUCTURES)
    described = {"name": "Hippocampus", "modality": {"0": "MRI"}, "labels": {str(i): name for i, name in enumerate(names)}}
    files = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases]
    described |= {"numTraining": len(cases), "numTest": 0, "training": files, "test": []}
    (task / "dataset.json").write_text(json.dumps(described))


EXPERIMENTS = sorted(path for path in (ROOT / "docs" / "experiments").glob("*.md") if path.name != "index.md")


def test_the_index_of_the_experiments_has_a_row_for_each_page():
    index = (ROOT / "docs" / "experiments" / "index.md").read_text()
    rows = {row[1]: row for row in re.findall(r"^\| \[(.*)\]\(([\w-]+)\.md\) \| .+ \| (.+) \| (\S+) \| (.+) \|$", index, re.M)}
    assert set(rows) == {path.stem for path in EXPERIMENTS}
    assert [row[3] for row in rows.values()] == sorted((row[3] for row in rows.values()), reverse=True)
    for path in EXPERIMENTS:
        text = path.read_text()
        assert re.findall(r"^## (.*)$", text, re.M) == ["Question", "Setup", "Result", "Decision"], path.name
        question = re.search(r"^## Question\n\n(.*)$", text, re.M)[1]
        date, default, later = re.search(r"^\| (\d{4}-\d\d-\d\d) \| (.+) \| (.+) \|$", text, re.M).groups()
        assert rows[path.stem] == (question, path.stem, default, date, later)


def test_code_names_experiments_that_there_are():
    names = {path.stem for path in EXPERIMENTS}
    code = [*(ROOT / "autoseg").rglob("*.py"), *(ROOT / "planners").rglob("*.py"), *(ROOT / "tests" / "training").glob("*.py")]
    named = [name for path in code for name in re.findall(r"docs/experiments/([\w-]+)\.md", path.read_text())]
    assert len(named) >= 10
    assert set(named) <= names


DISLIKED = re.compile(r"\btak(e|es|en)\b[^.\n]{0,30} away\b| to be had\b|\bpassed over\b| trainings\b|\bdisguise")


def test_messages_keep_to_the_words_of_contributing():
    for path in [*(ROOT / "autoseg").rglob("*.py"), *(ROOT / "planners").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                assert not DISLIKED.search(node.value), f"{name_of(path)}:{node.lineno}"


def test_nothing_says_to_install_autoseg_by_name_since_that_is_another_project():
    texts = [*DOCUMENTS, *(ROOT / "autoseg").rglob("*.py")]
    assert [name_of(path) for path in texts if re.search(r"pip install ['\"]?autoseg", path.read_text())] == []


def test_the_citation_names_the_version_of_the_package():
    version = re.search(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text(), flags=re.MULTILINE)[1]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{version}}}" in (ROOT / "docs" / "how-to" / "cite.md").read_text()


def test_the_page_of_costs_has_the_points_their_growth_and_a_cohort_of_them(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "COSTS", tmp_path / "costs.json")
    assert "Not measured yet" in generate.costs_page()
    points = [{"at": at, "seconds": 10 + at**3 * 1e-6, "memory_mib": 500.0, "written_mib": at**3 * 2**-20} for at in (100, 200)]
    curve = {"points": [*points, {"at": 400, "left_out": "expected to take 1000 s"}], "measured": None}
    growth = {"seconds": 3.0, "memory_mib": 0.0, "written_mib": 3.0}
    curves = {generate.LARGE: {**curve, "measured": growth, "expected": growth}}
    machine = {"date": "2026-01-01", "processor": "made up", "cores": 2}
    (tmp_path / "costs.json").write_text(json.dumps({"machine": machine, "curves": curves}))
    text = generate.costs_page()
    assert "| 200 | 18.0 | 500 | 7.63 |" in text
    assert "time: expected 3.0, measured 3.0" in text
    assert "400: expected to take 1000 s" in text
    assert "27 s a scan" in text  # 300 cubed voxels at a microsecond each
    assert re.search(r"\| 1 \| 31\.[23] \| 2\.46 \|", text)  # 100 000 of them: 31.25 days; 2.7 TB are 2.46 TiB
