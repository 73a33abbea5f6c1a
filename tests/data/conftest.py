import pytest

from tests.helpers.datasets import Folder


@pytest.fixture
def make_folder(tmp_path):
    """make_folder(n_cases, **options) -> Folder with cases 'case_1', 'case_2', ..."""

    def make(n_cases=0, **options):
        folder = Folder(tmp_path / "Dataset001_Tiny", **options)
        for number in range(1, n_cases + 1):
            folder.add(f"case_{number}")
        return folder

    return make
