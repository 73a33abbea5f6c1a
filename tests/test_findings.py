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


def rows_of(page: Path) -> list[str]:
    """The rows of the tables whose last column says what holds them."""
    tables = re.findall(r"^\|.*\| (?:test|held by|shown by) \|\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.M)
    return [row for table in tables for row in table.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    known: dict[str, set[str]] = {}
    for path in ROOT.glob("tests/**/test_*.py"):
        known.setdefault(path.name, set()).update(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    for name, function in re.findall(r"`(?:(?:\w+/)*(test_\w+\.py))?(?:::)?(test_\w+)?`", page.read_text()):
        if name:
            assert name in known
        if function:
            there = known[name] if name else set().union(*known.values())
            assert function in there, f"{name}::{function}"


@pytest.mark.parametrize("page", [page for page in PAGES if rows_of(page)], ids=lambda path: path.stem)
def test_every_row_of_a_table_names_what_holds_it(page: Path) -> None:
    evidence = re.compile(r"`[\w/]*test_\w+(\.py)?(::\w+)?`|`::test_\w+`|`\w+\.sh`")
    assert [row for row in rows_of(page) if not evidence.search(row.split(" | ")[-1])] == []


def test_the_tables_of_field_faults_and_of_other_tools_are_looked_at() -> None:
    assert {page.stem for page in PAGES if len(rows_of(page)) > 20} >= {"field-faults", "field-faults-dicom", "other-tools"}
