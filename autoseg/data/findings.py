"""Findings about the data, and their text: worst first, equal findings of many cases together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import groupby

from autoseg.names import first_of

__all__ = ["SEVERITIES", "Finding", "findings_table", "pattern_of"]

SEVERITIES = ("error", "warning", "note")
NAMED = 5  # cases named in a line; the JSON file has all


@dataclass(frozen=True)
class Finding:
    """Something a person should know about the data.

    Attributes:
        severity: ``error`` (training would be wrong or stop), ``warning`` or ``note``.
        case: identifier, or "" for the whole data set.
        code: kebab-case name of the kind of finding.
        message: what was expected and what was found.
        remedy: what to do about it.
    """

    severity: str
    case: str
    code: str
    message: str
    remedy: str


def findings_table(findings: Sequence[Finding]) -> str:
    """Lines of text, one paragraph for each kind of finding, and a count at the end.

    Findings with the same severity, code and remedy, whose messages differ only in numbers, cases and files, share one
    paragraph: the first message in full, then the names of the other cases, separately for those with other numbers.
    """
    if not findings:
        return "no findings: every file was read and nothing is wrong"
    cases = {finding.case for finding in findings}

    def kind(finding: Finding) -> tuple[int, str, str, str]:
        return (SEVERITIES.index(finding.severity), finding.code, finding.remedy, pattern_of(finding.message, cases))

    lines = []
    for (severity, code, remedy, _), group in groupby(sorted(findings, key=kind), key=kind):
        first, *rest = group
        lines.append(f"{SEVERITIES[severity]}  {code}  {_subject(first)}{first.message}")
        alike: dict[str, list[Finding]] = {"the same": [], "with other numbers": []}
        for finding in rest:
            alike["the same" if _without_case(finding) == _without_case(first) else "with other numbers"].append(finding)
        lines += [f"         {how} in {_listed(some)}" for how, some in alike.items() if some]
        lines.append(f"         -> {remedy}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    return "\n".join([*lines, ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in counts.items())])


def pattern_of(message: str, cases: Container[str]) -> str:
    """A message without the parts that differ between cases: numbers, and names of cases and files."""

    def common(word: re.Match[str]) -> str:
        name = re.split(r"[/\\]", word[0])[-1]
        return "#" if re.search(r"\d", word[0]) or name.partition(".")[0] in cases else word[0]

    return re.sub(r"[\w.+/\\-]+", common, message)


def _listed(findings: Sequence[Finding]) -> str:
    """The first files or cases of some findings, and the number of others."""
    names = Counter(_file_or_case(finding) for finding in findings)
    return first_of((f"{name} ({n} times)" if n > 1 else name for name, n in names.items()), NAMED)


def _without_case(finding: Finding) -> str:
    return finding.message.replace(finding.case, "#") if finding.case else finding.message


def _file_or_case(finding: Finding) -> str:
    """The file at the start of a message, which distinguishes a case's image from its label; else the case."""
    file, colon, _ = finding.message.partition(": ")
    return file if colon and "." in file and " " not in file else finding.case or "the data set"


def _subject(finding: Finding) -> str:
    return f"{finding.case}: " if finding.case else ""
