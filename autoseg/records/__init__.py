"""The files that one part of autoseg writes and others read: their contents as frozen dataclasses.

A record is a value. Writers and readers share only the record, not code: the HTML report shows a training run without the
training code, and surfaces of a prediction are scored without the network. If only one part writes and reads a file, the
record is in the module of that part.

Results are read leniently: fields of newer versions are ignored, and fields missing in older ones have defaults.
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
    "write_fold",
    "write_surface_scores",
]
