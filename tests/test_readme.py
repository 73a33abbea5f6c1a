"""The README is true: its commands run in their order, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

import autoseg
from autoseg.cli import main
from autoseg.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


EXTENDING = (ROOT / "docs" / "how-to" / "extend.md").read_text()


def commands():
    blocks = re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("autoseg ")]


def test_the_commands_of_the_tour_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = write_phantoms(tmp_path / "Dataset004_Hippocampus", training=10, test=0, in_plane_mm=6)
    for path in [*raw.glob("imagesTr/*_000_*"), *raw.glob("labelsTr/*_000.*")]:  # the one that the README names
        path.rename(path.with_name(path.name.replace("phantom_000", "hippocampus_003")))
    tour = commands()
    assert len(tour) == 5
    for command in tour:
        arguments = shlex.split(command.replace("--time 20m", "--time 2s"))[1:]
        assert main([*arguments, "--device", "cpu"] if arguments[0] in ("train", "predict") else arguments) == 0, command
    assert (tmp_path / "predictions" / "hippocampus_003.nii.gz").is_file()
    (raw / "imagesTr" / "hippocampus_003_0000.nii.gz").rename(tmp_path / "scan.nii.gz")
    exec(re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1], {})
    mask, predicted = (autoseg.read_label_volume(path) for path in ("mask.nii.gz", "predictions/hippocampus_003.nii.gz"))
    assert mask.geometry.matches(predicted.geometry)
    assert (mask.data == predicted.data).all()


def test_the_commands_for_make_exist():
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert set(targets) >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "planners/README.md", "dataset_json_examples/README.md"])
def test_links_lead_to_files(document):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text()):
        assert link.startswith("http") or (ROOT / document).parent.joinpath(link).exists(), link


def test_names_in_the_table_of_extensions_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)`", EXTENDING)
    assert len(named) >= 10
    for path in named:
        assert (ROOT / path).is_file(), path


def test_the_tests_that_the_comparison_names_exist():
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "docs" / "explanation" / "comparison.md").read_text())
    assert len(named) >= 8
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_changes_of_a_version_are_told_in_15_lines():
    _, *versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions
    for version in versions:
        assert 0 < len([line for line in version.splitlines()[1:] if line]) <= 15, version.splitlines()[0]


def test_the_readme_is_short_and_its_picture_small():
    assert len(README.splitlines()) <= 130
    pictures = re.findall(r"!\[.+\]\((.+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 150_000
