import pytest

from tests.helpers.evaluations import make_evaluation


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with an evaluation of four cases; its path has a blank, as the names of people do."""
    return make_evaluation(tmp_path_factory.mktemp("Jane Doe"))
