"""What SECURITY.md promises: no file can run code, and nothing talks to the network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]

# an audit hook of Python sees every socket and every class that a pickle asks for, whoever's code it is
WATCHED = """
import sys
from pathlib import Path

def refuse(event, arguments):
    if event == "pickle.find_class" or event in ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.bind"):
        raise SystemError(f"{event}: {arguments}")

sys.addaudithook(refuse)

import importlib
import pkgutil
import autoseg
import planners
for package in (autoseg, planners):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

from autoseg.cli import main

now = Path(sys.argv[1])
raw, where = now / "Dataset001_A", ["--workspace", now / "w", "--quiet", "--debug"]
tiny = ["cpu_width=0.1", "validations=1", "validation_patches=1", "batch_size=1", "bf16=false"]
tiny = [word for setting in tiny for word in ("--set", setting)]
labels = ["--reference", raw / "labelsTr", "--predicted", raw / "labelsTr"]
for words in (
    ["verify", raw],
    ["plan_and_preprocess", raw],
    ["train", "A", "0", "--iterations", "2", "--device", "cpu", *tiny],
    ["model", "export", "A_fullres_3d_self_attention_unet", now / "model.zip"],
    ["predict", "-i", raw, "-o", now / "masks", "-m", now / "model.zip", "--surfaces", "stl", "--probabilities"],
    ["evaluate", *labels, "-o", now / "scores"],
    ["reconstruct", "-i", now / "masks", "-o", now / "surfaces"],
):
    words = [*map(str, words), *map(str, where)]
    if main(words):
        sys.exit(f"{words} failed")
print("done")
"""


def run(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_the_main_job_unpickles_nothing_and_opens_no_socket(tmp_path):
    write_phantoms(tmp_path / "Dataset001_A", training=5, test=1, in_plane_mm=10)
    done = run(WATCHED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import pickle, datetime; pickle.loads(pickle.dumps(datetime.date(2026, 1, 1)))", "pickle.find_class"),
        ("import socket; socket.socket()", "socket.__new__"),
    ],
)
def test_the_watch_sees_what_it_is_there_for(code, event):
    done = run(WATCHED.partition("import importlib")[0] + code)
    assert done.returncode != 0
    assert f"SystemError: {event}" in done.stderr
