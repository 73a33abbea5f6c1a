"""Where there is no room, or no right to write, that is said before the work, or with numbers where it ends all the same."""

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg import control_groups, room
from autoseg.atomic import replacing
from autoseg.cli import main
from autoseg.errors import FileError
from autoseg.imaging.geometry import Geometry
from autoseg.phantoms import write_phantoms
from autoseg.preprocess.case import PreparedCase
from autoseg.preprocess.store import is_whole, store_case
from autoseg.room import as_size, check_writable, free_memory, memory_limit
from autoseg.training.checkpoint import LoopState, load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def with_free(monkeypatch):
    """A function that makes the disk seem to have so many bytes free."""
    usage = namedtuple("usage", "total used free")
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40 - free, free))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 2 MiB; where such a disk cannot be made the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        sys.platform != "linux"
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def noise(edge):
    image = np.random.default_rng(0).normal(size=(1, edge, edge, edge)).astype(np.float32)
    return PreparedCase("c", image, np.zeros(image.shape[1:], np.int16), Geometry.from_spacing(image.shape[1:], (1, 1, 1)), {})


def test_a_folder_that_is_missing_can_be_written_to_and_is_still_missing(tmp_path):
    check_writable(tmp_path / "a" / "b", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(FileError, match="expected a folder"):
        check_writable(tmp_path / "a" / "b")


def test_too_little_room_is_told_with_numbers(tmp_path, with_free):
    with_free(3 * 2**30)
    check_writable(tmp_path / "out", 3 * 2**30)
    with pytest.raises(FileError, match=r"out: no room left on its disk: at least 4\.5 GiB needed, 3\.0 GiB free"):
        check_writable(tmp_path / "out", 9 * 2**29)
    assert [as_size(n) for n in (5, 2048, 3 * 2**20)] == ["5 bytes", "2.0 KiB", "3.0 MiB"]


MIB = 2**20
NEW = {"memory.max": 100, "memory.current": 90}, "anon {}\nactive_file {}\ninactive_file {}\n"
OLD = (
    {"memory.limit_in_bytes": 100, "memory.usage_in_bytes": 90},
    "cache 7\nrss {}\ntotal_active_file {}\ntotal_inactive_file {}\n",
)


@pytest.mark.parametrize(
    ("own", "inner", "form"),
    [
        ("0::/", "", NEW),  # a container, which sees its own group as the root
        ("0::/slurm/job_7/step_0", "slurm/job_7", NEW),  # the limit is that of a group above
        ("3:cpu:/x\n4:memory:/job\n0::/", "memory/job", OLD),
        ("4:hugetlb,memory:/somewhere/else", "memory", OLD),
        (None, "", NEW),
    ],
)
def test_free_memory_is_what_the_limit_of_a_container_leaves_without_the_page_cache(tmp_path, monkeypatch, own, inner, form):
    numbers, stat = form
    (tmp_path / "groups" / inner).mkdir(parents=True)
    for name, size in numbers.items():
        (tmp_path / "groups" / inner / name).write_text(f"{size * MIB}\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    assert (memory_limit(), free_memory()) == (100 * MIB, 10 * MIB)
    (tmp_path / "groups" / inner / "memory.stat").write_text(stat.format(50 * MIB, 10 * MIB, 30 * MIB))
    assert (memory_limit(), free_memory()) == (100 * MIB, 50 * MIB)


def test_groups_without_a_limit_leave_the_memory_of_the_machine(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(room, "MEMORY", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 3 kB\n")
    assert free_memory() == 3 * 1024


def test_preparing_more_than_there_is_room_for_is_refused_before_the_first_case(tmp_path, with_free, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=2, test=0, in_plane_mm=10)
    with_free(10)
    assert main(["plan_and_preprocess", str(raw), "--workspace", str(tmp_path / "w"), "--quiet"]) == 2
    assert "10 bytes free" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.b2nd"))


def test_a_checkpoint_for_which_there_is_no_room_leaves_the_last_one(tmp_path, with_free):
    path, network = tmp_path / "checkpoint.safetensors", torch.nn.Linear(100, 100)
    optimizers = [torch.optim.SGD(network.parameters())]
    save_checkpoint(path, LoopState("same", 9, False, step=1), network, {}, optimizers)
    with_free(10_000)
    with pytest.raises(FileError, match=r"at least 39\.5 KiB needed, 9\.8 KiB free"):
        save_checkpoint(path, LoopState("same", 9, False, step=2), network, {}, optimizers)
    assert load_checkpoint(path, network, optimizers)[0].step == 1
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_fills_up_while_a_file_is_written_is_told(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"no room left on its disk: .* needed, .* free"), replacing(tmp_path / "a") as draft:
        draft.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_library_says_of_a_full_disk_is_told_as_one(small_disk):
    message = ""
    try:
        store_case(small_disk / "c", noise(96), "abc")
    except FileError as fault:  # whoever keeps it keeps the file open, and its room taken
        message = str(fault)
    assert "disk/c: no room left on its disk" in message
    assert list(small_disk.iterdir()) == []
    store_case(small_disk / "c", noise(48), "abc")
    assert is_whole(small_disk / "c")
    with pytest.raises(FileError, match="no room left on its disk"):
        save_checkpoint(small_disk / "checkpoint", LoopState("same", 9, False), torch.nn.Linear(1000, 500), {}, [])


WORK = """
import sys
from autoseg.cli import main
print([main(arguments.split("|")) for arguments in sys.argv[1:]])
"""


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_folder_that_may_only_be_read_is_refused_before_the_work(tmp_path):
    is_root = os.geteuid() == 0
    if is_root and not shutil.which("setpriv"):
        pytest.skip("root runs the tests, and there is no setpriv to give up its privilege")
    raw = write_phantoms(tmp_path / "Dataset001_A", training=2, test=1, in_plane_mm=10)
    out, labels = tmp_path / "out", raw / "labelsTr"
    out.mkdir()
    out.chmod(0o555)
    (tmp_path / "none.zip").touch()
    calls = [
        ["plan_and_preprocess", raw, "--workspace", out],
        ["evaluate", "--reference", labels, "--predicted", labels, "-o", out / "scores"],
        ["reconstruct", "-i", labels, "-o", out],
        ["predict", "-i", raw, "-o", out / "new", "-m", tmp_path / "none.zip"],
        ["convert", "folders", raw / "imagesTr", out / "new", "--labels", labels, "--channels", "MR"],
    ]
    command = [
        *(WITHOUT_PRIVILEGE if is_root else []),
        sys.executable,
        "-c",
        WORK,
        *("|".join(map(str, call)) for call in calls),
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == [str([2] * len(calls))], done.stderr
    assert done.stderr.count("cannot be") == len(calls), done.stderr
    assert done.stderr.count("reconstruct:") == done.stderr.count("evaluate:") == 0  # no case was worked on
