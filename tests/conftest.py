"""Cores for tests that run beside others, and the fixtures that tests of several folders share."""

import os

import pytest
from hypothesis import settings

# before torch is imported: processes of tests share the cores, and so do the commands that they start
if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // (1 + beside))))

settings.register_profile("check", max_examples=10)  # of ``make check``; see tests/helpers/examples.py


@pytest.fixture(scope="session")
def draw():
    """The module ``tests.helpers.dicom``."""
    from tests.helpers import dicom

    return dicom
