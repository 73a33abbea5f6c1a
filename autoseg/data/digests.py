"""Whether a case is unchanged since an earlier scan: digests of its files, their voxels, and its dataset.json entries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from autoseg.data.dataset import Case, DatasetSpec
from autoseg.errors import FileError
from autoseg.imaging.raw import digest_of, read_bytes

__all__ = ["content_digest", "is_as_before", "key_of", "key_on_disk"]

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


def content_digest(data: np.ndarray, *, as_before: bool = False) -> str:
    """Two checksums of the voxels as float32 in stored order: equal for equal images in any file type.

    With ``as_before`` it is BLAKE2b, which takes ten times as long, as in scans that ``is_as_before`` tells.
    """
    digest, checksums = hashlib.blake2b(str(data.shape).encode(), digest_size=8), (zlib_ng.crc32(str(data.shape).encode()), 1)
    with np.errstate(over="ignore"):  # wild numbers of a damaged float64 file
        for part in data.reshape(-1, *data.shape[2:]):  # (Y, X)
            voxels: Any = np.ascontiguousarray(part, np.float32)
            if as_before:
                digest.update(voxels)
            else:
                checksums = zlib_ng.crc32(voxels, checksums[0]), zlib_ng.adler32(voxels, checksums[1])
    return digest.hexdigest() if as_before else "{:08x}-{:08x}".format(*checksums)


def is_as_before(contents: Iterable[str]) -> bool:
    """Whether content digests are those of the first workspaces, with which new ones are to be compared."""
    return any(content and "-" not in content for content in contents)
