"""Findings as text: the worst first, equal ones of many cases together."""

from itertools import groupby

__all__ = ["findings_table"]

SEVERITIES = ("error", "warning", "note")
NAMED = 5  # cases named in a line; JSON has them all


def findings_table(findings):
    """Lines of text, one paragraph for each kind of finding, and a count at the end.

    Findings that share severity, code and remedy are one paragraph: the first message in full, the other cases by name.
    """
    if not findings:
        return "no findings: every file was read and nothing is wrong"

    def kind(finding):
        return (SEVERITIES.index(finding.severity), finding.code, finding.remedy)

    lines = []
    for (severity, code, remedy), group in groupby(sorted(findings, key=kind), key=kind):
        group = list(group)
        lines.append(f"{SEVERITIES[severity]}  {code}  {_subject(group[0])}{group[0].message}")
        if len(group) > 1:
            others = ", ".join(_file_or_case(finding) for finding in group[1 : NAMED + 1])
            more = f" and {len(group) - 1 - NAMED} more" if len(group) - 1 > NAMED else ""
            lines.append(f"         the same in {others}{more}")
        lines.append(f"         -> {remedy}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    return "\n".join([*lines, ", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in counts.items())])


def _file_or_case(finding):
    """The file that a message begins with, which tells a case's image from its label; else the case."""
    file, colon, _ = finding.message.partition(": ")
    return file if colon and "." in file and " " not in file else finding.case or "the data set"


def _subject(finding):
    return f"{finding.case}: " if finding.case else ""
