"""Scores for label maps of any tool: overlap, surface distances, volumes, and confidence intervals of their means.

``METRICS`` names them; ``evaluate_case`` and ``evaluate_folder`` compute them; ``write_report`` writes the tables.
"""

from autoseg.evaluation.evaluate import evaluate_case
from autoseg.evaluation.folder import evaluate_folder
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.report import CaseMetrics, Failure, Report, Summary, read_report, summarise
from autoseg.evaluation.report_files import write_report
from autoseg.evaluation.statistics import Difference, holm, is_equivalent, mean_interval, paired_difference, wilcoxon_holm

__all__ = [
    "METRICS",
    "CaseMetrics",
    "Difference",
    "Failure",
    "Report",
    "Summary",
    "evaluate_case",
    "evaluate_folder",
    "holm",
    "is_equivalent",
    "mean_interval",
    "paired_difference",
    "read_report",
    "summarise",
    "wilcoxon_holm",
    "write_report",
]
