"""A source that may only be read is enough, and stays as it was.

Nothing stops root from writing, so where the tests run as root a child process without that privilege does the work.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
WORK = """
import sys
from pathlib import Path
from autoseg.cli import main

source = Path(sys.argv[1])
for path in (source / "new", source / "imagesTr/new", source / "dataset.json"):
    try:
        path.open("a")
    except PermissionError:
        continue
    sys.exit(f"{path} can be written: this test would prove nothing")
for arguments in (
    ["verify", str(source)],
    ["plan_and_preprocess", str(source)],
    ["convert", "folders", str(source / "imagesTr"), "converted", "--labels", str(source / "labelsTr"), "--channels", "MR"],
    ["plan_and_preprocess", "converted"],
):
    if main(arguments):
        sys.exit(f"{arguments} failed")
"""


@pytest.fixture
def source(tmp_path):
    """A data set of three cases that may only be read; its rights are given back at the end."""
    folder = write_phantoms(tmp_path / "source", training=3, test=1, in_plane_mm=8)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def state(folder):
    """Times, and digests of the files, of all that is there."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_verify_plan_prepare_and_convert_write_nothing_into_the_source(source, tmp_path):
    is_root = os.geteuid() == 0
    if is_root and not shutil.which("setpriv"):
        pytest.skip("root runs the tests, and there is no setpriv to give up its privilege")
    out, before = tmp_path / "out", state(source)
    out.mkdir()
    command = [*(WITHOUT_PRIVILEGE if is_root else []), sys.executable, "-c", WORK, str(source)]
    variables = {"PATH": os.environ["PATH"], "HOME": str(out), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=out, env=variables, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert state(source) == before
    assert {path.name for path in out.iterdir()} >= {"converted", "autoseg_workspace"}
