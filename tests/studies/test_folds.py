"""Which folds a text means."""

from __future__ import annotations

import pytest

from autoseg.errors import AutosegError
from autoseg.studies.folds import fold_names


@pytest.mark.parametrize(
    ("text", "names"),
    [("0-4", "01234"), ("1", "1"), ("0,2", "02"), ("3-4,0-1", "3401"), (" 0-1 , 1-2", "012"), ("2-2", "2")],
)
def test_numbers_and_ranges_are_folds_each_once(text: str, names: str) -> None:
    assert fold_names(text, 5) == tuple(names)


@pytest.mark.parametrize("text", ["0-5", "3-1", "5", "-1", "0-", "all", "0--2", "0-99999999999", "", "²", "1-²", "1" * 5000])
def test_what_is_no_fold_is_refused(text: str) -> None:
    with pytest.raises(AutosegError, match="expected a number from 0 to 4"):
        fold_names(text, 5)
