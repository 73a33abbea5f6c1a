import ast
import re
from pathlib import Path

import pytest

from autoseg.errors import AutosegError, DatasetError
from autoseg.names import as_file_name, counted, inside, plain_name, remove_folder
from autoseg.workspace import Workspace
from tests.helpers.sources import nodes_of

REFUSED = [
    "",
    ".",
    "..",
    "...",
    " ",
    ".. ",
    "/tmp/x",
    "a/b",
    "../x",
    "a\\b",
    "a\0b",
    "a\nb",
    "C:x",
    "x" * 201,
    "ä" * 101,
    "\ud800",
]
TAKEN = ["a", "patient001_frame12", ".hidden", "a.b", "Doe J.", "große Zyste", "12:30", "x" * 200]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_file_name_is_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(DatasetError, match=r"dataset\.json: case '.*: expected a plain file name.*found .+\. Rename it"):
        plain_name(name, what="case", where="dataset.json", error=DatasetError)
    workspace = Workspace(tmp_path)
    for place in (workspace.fingerprints, workspace.model, workspace.comparison):
        with pytest.raises(AutosegError, match="plain file name"):
            place(name)
    for place in (workspace.plan, workspace.prepared, workspace.run):
        for names in (("a", name), (name, "a")):
            with pytest.raises(AutosegError, match="plain file name"):
                place(*names)


@pytest.mark.parametrize("name", TAKEN)
def test_ordinary_names_stay_as_they_are(tmp_path, name):
    assert plain_name(name, what="case") == name
    assert Workspace(tmp_path).run("a", name) == tmp_path / "runs" / "a" / name


@pytest.mark.parametrize("text", [*REFUSED, *TAKEN])
def test_any_text_has_a_file_name_that_is_plain(text):
    made = as_file_name(text, "structure")
    assert plain_name(made, what="file") == made


def test_a_record_names_files_of_its_folder_alone(tmp_path):
    assert inside(tmp_path, "a_surfaces/liver.stl") == tmp_path / "a_surfaces" / "liver.stl"
    for name in ("/etc/passwd", "a/../../b", "..", "a//b", "C:/x"):
        with pytest.raises(AutosegError, match="does not lie in it"):
            inside(tmp_path, name)


def test_a_folder_is_removed_only_where_it_lies_directly_in_its_owner(tmp_path):
    owner, other = tmp_path / "owner", tmp_path / "other"
    for folder in (owner / "mine" / "deep", other):
        folder.mkdir(parents=True)
    (owner / "link").symlink_to(other)
    for folder in (other, owner, owner / "..", owner / "mine" / "deep", owner / "link", owner / "mine" / ".." / ".." / "other"):
        with pytest.raises(AutosegError):
            remove_folder(folder, owner=owner)
    assert (owner / "mine" / "deep").is_dir()
    assert other.is_dir()
    remove_folder(owner / "mine", owner=owner)
    remove_folder(owner / "mine", owner=owner)  # is gone already
    assert not (owner / "mine").exists()


@pytest.mark.parametrize(("number", "told"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases")])
def test_one_case_is_no_plural(number, told):
    assert counted(number, "case") == told


def test_a_number_before_a_noun_is_counted():
    """Where it is 1, the noun has no s: ``counted`` knows. Of several, as in "3 of 12 cases", any number reads well."""
    nouns, found = re.compile(r" (cases|patients|files|jobs|steps|folds|structures|scans|predictions|borders|localisers)\b"), []
    root = Path(__file__).parents[1]
    for path in [*root.glob("autoseg/**/*.py"), *root.glob("planners/**/*.py")]:
        for parts in (node.values for node in nodes_of(path) if isinstance(node, ast.JoinedStr)):
            for before, number, after in zip(["", *parts], parts, parts[1:], strict=False):
                is_of = isinstance(before, ast.Constant) and str(before.value).endswith(("of ", "of the "))
                plain = isinstance(number, ast.FormattedValue) and isinstance(after, ast.Constant)
                is_word = plain and ast.unparse(number.value) in ("format", "sizes")
                if plain and not is_of and not is_word and nouns.match(str(after.value)):
                    found.append(f"{path.relative_to(root)}:{number.lineno}: {ast.unparse(number.value)}{after.value[:20]}")
    assert found == []
