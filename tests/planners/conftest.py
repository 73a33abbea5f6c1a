import pytest

from tests.helpers.fingerprints import make_fingerprint


@pytest.fixture(scope="session")
def fingerprint_of():
    return make_fingerprint


@pytest.fixture(scope="session")
def hippocampus():
    """260 small scans of 1 mm."""
    return make_fingerprint([((1, 1, 1), (36, 50, 35), 260)], structures=("Anterior", "Posterior"))


@pytest.fixture(scope="session")
def liver():
    """131 large CT scans."""
    return make_fingerprint([((1, 0.768, 0.768), (432, 512, 512), 131)], ("CT",), ("liver", "cancer"))
