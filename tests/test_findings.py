"""Findings have one form, and the pages that tell of other tools name scripts and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
TABLE = ROOT / "docs" / "reference" / "other-tools.md"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_finding_pins_what_it_installs_and_asserts_without_autoseg(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert code.startswith("set -euo pipefail\nfolder=$(mktemp -d)\ntrap 'rm -rf \"$folder\"' EXIT\n")
    (installed,) = re.findall(r'pip" install ((?:--\S+ )*)(.*)', code)
    assert all("==" in package for package in installed[1].split())
    assert "assert " in code
    assert "autoseg" not in code


def test_every_finding_is_on_the_page() -> None:
    assert set(re.findall(r"`(\w+\.sh)`", TABLE.read_text())) == {script.name for script in SCRIPTS}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    known = {
        name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", page.read_text()))
    assert not named - known
