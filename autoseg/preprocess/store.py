"""Prepared cases on disk: compressed in blocks, so that a patch is read without the rest.

One folder per case: ``image.b2nd`` and ``codes.b2nd`` (blosc2), ``sites.npy``, and ``case.json``, which is written last and
holds the digest of everything the case was made from. A folder without it, or with another digest, is made anew; that is
all there is to resuming, skipping and noticing a changed plan.
"""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import blosc2
import numpy as np

from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.workspace import read_json, write_json
from planners.records import digest, from_json

__all__ = ["LoadedCase", "StoredCase", "is_stored", "loaded", "open_case", "preparation_digest", "store_case"]

VERSION = 1  # of what preparing means: raise it when the same inputs give other arrays
BLOCK, CHUNK = 32, 128  # voxels; 32^3 float32 is 128 KiB, which fits a core's cache


def _kept_open():
    """Cases of which both arrays stay open, at most: half of the files that this process may have open."""
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return 64
    allowed, _ = getrlimit(RLIMIT_NOFILE)
    return 1024 if allowed < 0 else min(1024, max(1, allowed // 4))


KEPT_OPEN = _kept_open()


@dataclass(frozen=True)
class StoredCase:
    """A prepared case whose voxels stay on disk until they are asked for.

    ``image`` (C, z, y, x) and ``codes`` (z, y, x) are blosc2 arrays: slicing one reads the blocks it touches. ``sites`` maps a
    code to its (N, 3) voxels. Only the ``KEPT_OPEN`` cases used last keep their files open, however many there are.
    """

    case: str
    folder: Path
    geometry: Geometry

    @property
    def image(self):
        return _open_array(self.folder / "image.b2nd")

    @property
    def codes(self):
        return _open_array(self.folder / "codes.b2nd")

    @property
    def sites(self):
        return _open_sites(self.folder)

    @property
    def shape(self):
        return self.geometry.shape


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The same with its voxels in memory: ``image`` and ``codes`` are numpy arrays."""

    case: str
    geometry: Geometry
    image: np.ndarray
    codes: np.ndarray
    sites: dict

    @property
    def shape(self):
        return self.geometry.shape


def loaded(cases, most_bytes):
    """The cases with their voxels in memory, where those need at most ``most_bytes`` together; else as they are."""
    if sum(array.nbytes for case in cases for array in (case.image, case.codes)) > most_bytes:
        return cases
    return [LoadedCase(case.case, case.geometry, case.image[...], case.codes[...], case.sites) for case in cases]


def preparation_digest(file_digests, labels, plan):
    """Sixteen hexadecimal digits of all that a prepared case depends on: files, label values, parts of the plan, VERSION."""
    parts = (plan.axis_order, plan.spacing_mm, plan.normalization, plan.resampling, plan.patch_size[0] == 1)
    if plan.orientation != "canonical":
        parts = (*parts, plan.orientation)
    return digest([VERSION, file_digests, labels, parts])


def is_stored(folder, made_from):
    """Whether ``folder`` holds a whole case with that digest."""
    path = Path(folder) / "case.json"
    if not path.is_file():
        return False
    try:
        return read_json(path).get("made_from") == made_from
    except AutosegError:
        return False


def store_case(folder, prepared, made_from):
    """Write a ``PreparedCase``; what was in ``folder`` is replaced, ``case.json`` comes last."""
    folder = Path(folder)
    _open_array.cache_clear()
    _open_sites.cache_clear()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_array(folder / "image.b2nd", prepared.image)
    _write_array(folder / "codes.b2nd", prepared.codes)
    codes = sorted(prepared.sites)
    voxels = [prepared.sites[code] for code in codes]
    np.save(folder / "sites.npy", np.concatenate(voxels) if voxels else np.zeros((0, 3), np.int32))
    write_json(
        folder / "case.json",
        {
            "case": prepared.case,
            "geometry": prepared.geometry,
            "codes": codes,
            "sites": [len(v) for v in voxels],
            "made_from": made_from,
        },
    )


def open_case(folder):
    """Open a stored case.

    Raises:
        AutosegError: ``case.json`` is missing or damaged. A damaged array raises it when it is used; says to prepare again.
    """
    folder = Path(folder)
    about = read_json(folder / "case.json")
    return StoredCase(case=about["case"], folder=folder, geometry=from_json(Geometry, about["geometry"]))


@lru_cache(2 * KEPT_OPEN)
def _open_array(path):
    with _blamed_on(path.parent):
        return blosc2.open(str(path), mode="r", mmap_mode=None if os.name == "nt" else "r")  # Windows cannot replace it then


@lru_cache(KEPT_OPEN)
def _open_sites(folder):
    about = read_json(folder / "case.json")
    with _blamed_on(folder):
        pieces = np.split(np.load(folder / "sites.npy", allow_pickle=False), np.cumsum(about["sites"])[:-1])
        return dict(zip(about["codes"], pieces, strict=True)) if about["codes"] else {}


@contextmanager
def _blamed_on(folder):
    try:
        yield
    except (OSError, RuntimeError, ValueError) as fault:
        raise AutosegError(
            f"{folder}: the prepared case cannot be opened ({fault}). If it is damaged, delete the folder and run "
            "autoseg plan_and_preprocess"
        ) from fault


def _write_array(path, array):
    lead = (1,) * (array.ndim - 3)
    blosc2.asarray(
        np.ascontiguousarray(array),
        urlpath=str(path),
        mode="w",
        chunks=lead + tuple(min(n, CHUNK) for n in array.shape[-3:]),
        blocks=lead + tuple(min(n, BLOCK) for n in array.shape[-3:]),
        cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1),
    )
