import pytest

from autoseg.atomic import replacing
from autoseg.errors import AutosegError, DatasetError
from autoseg.workspace import Workspace, read_json, write_json


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail():
        with replacing(path) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(AutosegError, match=r"x\.json: not readable as JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["Heart", "Dataset002_Heart", "2", "002"])
def test_a_data_set_is_known_by_name_and_number(tmp_path, text):
    raw = tmp_path / "Dataset002_Heart"
    raw.mkdir()
    workspace = Workspace(tmp_path / "w")
    workspace.remember_dataset(raw, "Heart")
    assert workspace.dataset_folder(text) == raw


def test_an_unknown_data_set_lists_what_is_known(tmp_path):
    with pytest.raises(DatasetError, match="none yet"):
        Workspace(tmp_path).dataset_folder("Liver")


def test_two_folders_cannot_share_a_name(tmp_path):
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
    workspace = Workspace(tmp_path / "w")
    workspace.remember_dataset(tmp_path / "1", "Heart")
    with pytest.raises(DatasetError, match="knows 'Heart' as"):
        workspace.remember_dataset(tmp_path / "2", "Heart")
