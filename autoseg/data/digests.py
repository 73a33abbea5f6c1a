"""Whether a case is unchanged since an earlier scan: digests of its files, their voxels, and its dataset.json entries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from autoseg.data.dataset import Case, DatasetSpec
from autoseg.errors import FileError
from autoseg.imaging.raw import digest_of, read_bytes

__all__ = ["content_digest", "key_of", "key_on_disk"]

VERSION = 1  # of the measurements; scans of other versions are not reused


def key_of(dataset: DatasetSpec, case: Case, digests: Sequence[str]) -> str:
    labels = dataset.labels
    parts = [VERSION, dataset.channels, labels.declared_values, labels.ignore, digests]
    parts += [case.unlabelled] if case.unlabelled else []
    return digest_of(json.dumps(parts).encode())


def key_on_disk(case: Case, dataset: DatasetSpec) -> str:
    try:
        return key_of(dataset, case, [digest_of(read_bytes(path)) for path in (*case.image_paths, case.label) if path])
    except FileError:
        return ""


def content_digest(data: np.ndarray) -> str:
    """Digest of the voxels as float32 in stored order: equal for equal images in any file type."""
    state = hashlib.blake2b(str(data.shape).encode(), digest_size=8)
    with np.errstate(over="ignore"):  # wild numbers of a damaged float64 file
        for part in data.reshape(-1, *data.shape[2:]):  # (Y, X)
            voxels: Any = np.ascontiguousarray(part, np.float32)
            state.update(voxels)
    return state.hexdigest()
