import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoseg import pipeline
from autoseg.atomic import remove_leftovers, replacing
from autoseg.data import verified
from autoseg.errors import AutosegError, DatasetError
from autoseg.phantoms import write_phantoms
from autoseg.workspace import Workspace, read_json, write_json

ROOT = Path(__file__).parents[1]


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


def test_text_is_written_in_utf_8_whatever_the_locale(tmp_path):
    write = r"""
        import sys
        from pathlib import Path
        from autoseg.outputs.borders import write_borders
        from autoseg.workspace import write_json, write_text
        folder = Path(sys.argv[1])
        write_text(folder / "x.txt", "M\u00fcller\n")
        write_json(folder / "x.json", {"borders": [{"first": "M\u00fcller", "second": "b"}]})
        write_borders(folder, ["x"])
    """
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(write), tmp_path], env=plain, cwd=ROOT, check=True)
    assert (tmp_path / "x.txt").read_bytes() == "Müller\n".encode()
    assert "Müller" in (tmp_path / "borders.csv").read_text("utf-8")


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


WRITER = """
import os, signal, sys
from pathlib import Path
from autoseg import pipeline
from autoseg.atomic import replacing

with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def test_a_name_that_is_taken_is_refused_before_the_files_are_read(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w")
    for number in ("1", "2"):
        write_phantoms(tmp_path / number / "Dataset001_Same", training=2, test=0, in_plane_mm=8)
    workspace.remember_dataset((tmp_path / "1" / "Dataset001_Same"), "Same")
    monkeypatch.setattr(verified, "scan_dataset", None)  # nothing is looked at
    for verb in (pipeline.verify, pipeline.plan_and_preprocess):
        with pytest.raises(DatasetError, match="this workspace knows 'Same'"):
            verb(tmp_path / "2" / "Dataset001_Same", workspace)


def test_what_a_killed_writer_left_is_taken_away_by_the_next(tmp_path):
    command = [sys.executable, "-c", WRITER, tmp_path / "value.json", "SIGKILL"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    (tmp_path / ".writing-empty").mkdir()  # killed before it held its folder
    assert len(list(tmp_path.glob(".writing-*/value.json"))) == 1
    write_json(tmp_path / "value.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_what_a_living_writer_is_at_stays(tmp_path):
    command = [sys.executable, "-c", WRITER, tmp_path / "value.json", "SIGSTOP"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        write_json(tmp_path / "value.json", {"a": 1})
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.glob(".writing-*/value.json"))) == 1
    finally:
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=60) == 0
    assert (tmp_path / "value.json").read_text() == "half"  # the last one wins
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_threads_that_write_side_by_side_leave_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: (write_json(tmp_path / f"{n % 5}.json", n), remove_leftovers(tmp_path)), range(60)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.json" for n in range(5)]


def test_a_folder_of_somebody_else_is_no_leftover(tmp_path):
    (tmp_path / ".writing-novel").mkdir()
    (tmp_path / ".writing-novel" / "chapter.txt").write_text("mine")
    write_json(tmp_path / "value.json", {"a": 1})
    assert (tmp_path / ".writing-novel" / "chapter.txt").read_text() == "mine"
