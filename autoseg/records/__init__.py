"""The files that one part of autoseg writes and others read: what stands in them, as frozen dataclasses.

A record is a value. Whoever writes it hands one over, whoever reads it gets one back, and neither has to know the other: the
HTML report shows a training run without the training code, and surfaces of a prediction are scored without the network. Where
only one part writes and reads a file, its record stands beside the code.

Results are read leniently: what a newer version added is left out, what an older one did not write yet has a default.
"""

from autoseg.records.case import CaseRecord, read_case
from autoseg.records.cohort import CaseOutcome, CohortRecord, ModelName, cohort_files, read_cohort, read_shards
from autoseg.records.doubts import LOW_AGREEMENT, disagreed, doubts
from autoseg.records.fold import FoldRecord, FoldTaskRecord, Validation, as_recorded, read_fold, read_validations, write_fold
from autoseg.records.model import CalibrationAbout, ModelAbout, ModelInfo, StudyAbout, TrainedAbout
from autoseg.records.surfaces import (
    SurfaceEntry,
    SurfaceManifest,
    SurfaceScores,
    read_surface_manifest,
    read_surface_scores,
    write_surface_scores,
)

__all__ = [
    "LOW_AGREEMENT",
    "CalibrationAbout",
    "CaseOutcome",
    "CaseRecord",
    "Validation",
    "CohortRecord",
    "FoldRecord",
    "FoldTaskRecord",
    "ModelAbout",
    "ModelInfo",
    "ModelName",
    "StudyAbout",
    "SurfaceEntry",
    "SurfaceManifest",
    "SurfaceScores",
    "TrainedAbout",
    "as_recorded",
    "cohort_files",
    "disagreed",
    "doubts",
    "read_case",
    "read_validations",
    "read_cohort",
    "read_fold",
    "read_shards",
    "read_surface_manifest",
    "read_surface_scores",
    "write_fold",
    "write_surface_scores",
]
