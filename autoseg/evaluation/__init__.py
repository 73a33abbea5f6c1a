"""Scores for label maps, whichever tool made them: overlap, surface distances, volumes, and how sure their means are.

``METRICS`` names them; ``evaluate_case`` and ``evaluate_folder`` compute them; ``write_report`` writes the tables.
"""

from autoseg.evaluation.evaluate import CaseMetrics, evaluate_case, evaluate_folder
from autoseg.evaluation.metrics import METRICS
from autoseg.evaluation.report import Failure, Report, Summary, summarise, write_report
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
    "summarise",
    "wilcoxon_holm",
    "write_report",
]
