"""Every public name exists, says what it is, and costs no torch until it needs it."""

import subprocess
import sys

import pytest

import autoseg


@pytest.mark.parametrize("name", [name for name in autoseg.__all__ if name != "__version__"])
def test_public_names_exist_and_are_documented(name):
    thing = getattr(autoseg, name)
    assert thing.__doc__


@pytest.mark.thorough
def test_importing_autoseg_and_reading_a_plan_needs_no_torch():
    code = (
        "import sys, autoseg, planners, autoseg.evaluation, autoseg.data.check, autoseg.preprocess.case;"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        autoseg.nonsense  # noqa: B018
