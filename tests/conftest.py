"""Cores for tests that run beside others, and the fixtures that tests of several folders share."""

import os
import sys
import threading

import pytest
from hypothesis import settings

# before torch is imported: processes of tests share the cores, and so do the commands that they start
# whatever else the machine does, all commands of a test compute with the same number
# a process of several takes its share whatever it inherits: the one that started it has read this file too, and taken all cores
processes = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
if processes or "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(processes or 1)))


def pytest_addoption(parser):
    what = "no thorough tests, the first and the last variant of a test with parameters, few examples of a property"
    parser.addoption("--quick", action="store_true", help=what)
    what = "with --cov: count only what tests of this folder run that are not thorough; may be given several times"
    parser.addoption("--cov-in", action="append", metavar="FOLDER", help=what)


def pytest_configure(config):
    if config.getoption("--quick"):
        settings.register_profile("quick", max_examples=10)
        settings.load_profile("quick")


# files that take half a minute and more begin first, so that no process waits for another at the end
LONG = ("test_kills", "test_compare", "test_page", "test_browser", "test_plugins", "test_story", "test_study", "test_outside")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    if not config.getoption("--quick"):
        return
    families = {}
    for item in items:
        families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    ends = {id(item) for family in families.values() for item in (family[0], family[-1])}
    kept, dropped = [], []
    for item in items:
        (kept if id(item) in ends and not item.get_closest_marker("thorough") else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that is not counted runs untraced, and so do the fixtures that it is the first to need."""
    folders = item.config.getoption("--cov-in")
    is_part = folders and item.path.relative_to(item.config.rootpath / "tests").parts[0] in folders
    if not folders or (is_part and not item.get_closest_marker("thorough")):
        return (yield)
    here, elsewhere = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(here)
        threading.settrace(elsewhere)


@pytest.fixture(scope="session")
def draw():
    """The module ``tests.helpers.dicom``."""
    from tests.helpers import dicom

    return dicom
