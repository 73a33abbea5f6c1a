"""Which files of a folder are the input scans, and which are left out and why.

A folder may hold scans of one *kind*: NIfTI, NRRD and MetaImage, pictures, DICOM series, or the cases of a data set. Two kinds
side by side are refused as ambiguous. Pictures beside scans are taken as views of them and left out. So are label maps,
recognised by their names or by their content. Everything left out is reported.
"""

import logging
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import LABEL_WORD, NUMBER, Case, read_dataset
from autoseg.errors import AutosegError
from autoseg.imaging.files import (
    FORMATS,
    PICTURES,
    ending_of,
    is_dicom,
    is_slicer_segmentation,
    left_unread,
    read_file,
    read_geometry,
    series_in,
)
from autoseg.imaging.tree import files_under
from autoseg.imaging.values import looks_like_labels
from autoseg.names import case_name, first_of, is_hidden

__all__ = ["Inputs", "called_as_labels", "find_inputs", "holds_labels", "image_files", "tell"]

logger = logging.getLogger(__name__)

DATA_SET, SERIES, PICTURE = "a data set", "DICOM series", "pictures"
LISTED = 4  # names in a sentence
SAMPLE = 1 << 16  # bytes


@dataclass(frozen=True)
class Inputs:
    """The scans that were found.

    Attributes:
        cases: sorted by name, without labels.
        ending: of label maps that are written for them.
        left_out: a sentence for each thing found but not used, with the reason. These are warnings, shown even if progress
            is not, and contain no folder paths.
        notes: sentences about DICOM series, such as copies left out; also warnings.
        told: sentences for the screen only, never stored, since they may identify a patient.
    """

    cases: tuple[Case, ...]
    ending: str
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def find_inputs(source: str | Path, *, channels: Sequence[str], file_ending: str = ".nii.gz", inverts: bool = False) -> Inputs:
    """The scans in a file, a folder or a tree of DICOM series.

    Args:
        source: a scan with all channels; a folder of ``CASE_0000.EXT`` (one file per channel) or ``CASE.EXT`` files (all
            channels); a data-set folder, whose test cases are used; or a DICOM file, folder or tree, each series a case.
            Endings may be in upper or lower case; links are followed.
        channels: names of the required channels.
        file_ending: of the training scans; decides between two files of one scan.
        inverts: see ``DicomSeries``.

    Raises:
        AutosegError: nothing found; different kinds of scans; numbers in names that may or may not be channels.
    """
    source = Path(source)
    if source.is_file():
        if is_dicom(source):
            return _of_series(source, series_in(source, inverts=inverts), channels, file_ending, [])
        name, ending = _stem(source).removesuffix("_0000"), ending_of(source)
        return Inputs((Case(name, name, (source,), None),), ending)
    if not source.is_dir():
        raise AutosegError(f"{source}: there is no such file or folder. Correct the path")
    kinds: dict[str, list[Path]] = defaultdict(list)
    files, maps = _without_maps(image_files(source))
    for path in files:
        kinds[_kind(path)].append(path)
    if not kinds and _is_bids(source):
        return _of_bids(source, channels)
    has_dataset = (source / "dataset.json").is_file() and (not kinds or (source / "imagesTr").is_dir())
    found = None if has_dataset else series_in(source, inverts=inverts)
    beside = [DATA_SET] * has_dataset + [SERIES] * bool(found and found.series)
    kind, left_out = _chosen(source, kinds, beside, file_ending)
    if kind == DATA_SET:
        return _of_dataset(source, left_out)
    files = kinds.get(kind, [])
    left_out += [*maps, *left_unread(source.iterdir()), *_in_subfolders(source)]
    if not files:
        return _of_series(source, found, channels, file_ending, left_out)
    cases, unused = _cases(source, files, len(channels), file_ending)
    cases, masks = _without_masks(cases)
    others = found.left_out if found else ()
    return Inputs(cases, _ending(files, file_ending), (*left_out, *unused, *masks, *others))


def tell(inputs: Inputs) -> None:
    """Log what was left out as warnings, and what is only for the screen."""
    for sentence in (*(f"left out: {reason}" for reason in inputs.left_out), *inputs.notes):
        logger.warning("%s", sentence)
    for sentence in inputs.told:
        logger.info("%s", sentence)


def image_files(folder: str | Path) -> list[Path]:
    """The files of a folder with the ending of an image, in any letter case, sorted, without hidden ones.

    Broken links are included, so that they fail as cases and are not lost.
    """
    found = sorted(path for path in Path(folder).iterdir() if not is_hidden(path.name) and not path.is_dir())
    return [path for path in found if path.name.lower().endswith(tuple(FORMATS))]


def _without_maps(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """(the files without label maps, sentences about these): segmentations of 3D Slicer, and files called as labels of scans
    among them."""
    of_slicer = [path for path in paths if is_slicer_segmentation(path)]
    named = called_as_labels(_stem(path) for path in paths if path not in of_slicer)
    labels = [path for path in paths if path not in of_slicer and _stem(path) in named]
    told = [(of_slicer, "segmentations of 3D Slicer, no scans"), (labels, "called as labels of the scans beside them")]
    maps = {*of_slicer, *labels}
    return [path for path in paths if path not in maps], [f"{_listed(found)}: {why}" for found, why in told if found]


def called_as_labels(stems: Iterable[str]) -> set[str]:
    """The names, without ending, that label maps of the others have: ``P1_seg`` beside ``P1``, ``P1_0000`` or ``P1_t1``, and
    ``segmentation-0`` beside ``volume-0``."""
    bare = {stem: LABEL_WORD.sub("", stem) for stem in stems}
    scans = {stem for stem, name in bare.items() if name == stem}
    known = scans and {"", *(part for scan in scans for part in _parts(scan))}
    return {stem for stem, name in bare.items() if name != stem and name in known}


def holds_labels(path: Path) -> bool:
    """Whether a file that is called as a scan ``looks_like_labels``. Only files whose voxels pack into less than a bit each are
    read whole: label maps do, scans hardly ever."""
    try:
        voxels, size = math.prod(read_geometry(path).shape), path.stat().st_size
        with path.open("rb") as file:
            sample = b"".join(file.read(SAMPLE) for quarter in (1, 2, 3) if file.seek(size * quarter // 4) >= 0)
        packed = size * len(zlib.compress(sample, 1)) / max(1, len(sample))
        return 8 * packed < voxels and looks_like_labels(read_file(path).data)
    except (AutosegError, OSError):  # it fails as a case
        return False


def _without_masks(cases: tuple[Case, ...]) -> tuple[tuple[Case, ...], list[str]]:
    """(the cases, sentences), without the cases of label maps alone, such as ``GTV`` beside ``CT``; all if all are of these."""
    masks = [case for case in cases if len(cases) > 1 and all(map(holds_labels, case.image_paths))]
    if len(masks) in (0, len(cases)):
        return cases, []
    why = "label maps by their content, beside scans; if one is a scan, give it alone"
    listed = _listed(path for case in masks for path in case.image_paths)
    return tuple(case for case in cases if case not in masks), [f"{listed}: {why}"]


def _parts(name: str) -> set[str]:
    """A name, and what is before and behind each of its underscores and hyphens."""
    marks = list(re.finditer("[_-]", name))
    return {name, *(name[: mark.start()] for mark in marks), *(name[mark.end() :] for mark in marks)}


def _stem(path: Path) -> str:
    return case_name(path.name[: -len(ending_of(path))])


def _kind(path: Path) -> str:
    ending = ending_of(path)
    return PICTURE if ending in PICTURES else "NIfTI" if FORMATS[ending] is FORMATS[".nii"] else "NRRD or MetaImage"


def _chosen(source: Path, kinds: dict[str, list[Path]], beside: list[str], file_ending: str) -> tuple[str, list[str]]:
    """(the kind to use, sentences about others); the other kinds are removed from ``kinds``.

    Args:
        beside: what else is in the folder.
    """
    left_out = []
    if PICTURE in kinds and len(kinds) + len(beside) > 1 and file_ending not in PICTURES:
        pictures = kinds.pop(PICTURE)
        left_out.append(f"{_listed(pictures)}: pictures beside {' and '.join((*kinds, *beside))}")
    preferred = _kind(Path(f"x{file_ending}"))
    if len(kinds) > 1 and not beside and len({frozenset(map(_stem, paths)) for paths in kinds.values()}) == 1:
        kept = preferred if preferred in kinds else next(iter(kinds))
        for kind in [kind for kind in kinds if kind != kept]:
            left_out.append(f"{_listed(kinds.pop(kind))}: the scans also lie there as {kept}")
    if len(kinds) + len(beside) > 1:
        told = [f"{kind} ({_listed(paths)})" for kind, paths in kinds.items()] + beside
        raise AutosegError(
            f"{source}: expected scans of one kind, found {', '.join(told[:-1])} and {told[-1]}. Give the file or folder of "
            "the scans to predict, or move the others away"
        )
    return next(iter((*kinds, *beside)), SERIES), left_out


def _listed(paths: Iterable[Path]) -> str:
    return first_of((path.name for path in paths), LISTED)


def _in_subfolders(source: Path) -> list[str]:
    inner = [
        p
        for p in files_under(source)
        if p.parent != source and not is_hidden(p.name) and p.name.lower().endswith(tuple(FORMATS))
    ]
    inner = [path for path in inner if ending_of(path) not in PICTURES]
    return [f"{_listed(inner)}: in subfolders, where only DICOM series are looked for"] if inner else []


def _ending(files: list[Path], file_ending: str) -> str:
    """The ending of label maps: that of the files; of several, that of the training scans, else the most common."""
    count = Counter(map(ending_of, files))
    return file_ending if file_ending in count else count.most_common(1)[0][0]


def _cases(source: Path, files: list[Path], n_channels: int, file_ending: str) -> tuple[tuple[Case, ...], list[str]]:
    """(cases, sentences about files that belong to no case), from files of one kind.

    ``_0000`` and so on after a name is a channel if all required channels are numbered. If only ``_0000`` occurs, each file
    is assumed to hold all channels (colour pictures, 4D files).
    """
    files, left_out = _one_of_each_name(files, file_ending)
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in files:
        if match := NUMBER.fullmatch(_stem(path)):
            numbered[match[1]][int(match[2])] = path
    first = {name: channels for name, channels in numbered.items() if min(channels) < n_channels}
    if not first:
        return tuple(Case(_stem(path), _stem(path), (path,), None) for path in files), left_out
    beyond = {frozenset(number for number in channels if number >= n_channels) for channels in numbered.values()}
    if len(beyond) > 1 or (len(numbered) == 1 and any(beyond)):  # else each case has the same extra channels
        _refuse_numbers(source, numbered, n_channels)
    is_whole = all(number == 0 for channels in first.values() for number in channels if number < n_channels)
    cases = []
    for name, channels in sorted(first.items()):
        own = ending_of(channels[min(channels)])
        wanted = range(1 if is_whole else n_channels)
        cases.append(Case(name, name, tuple(channels.get(n, source / f"{name}_{n:04d}{own}") for n in wanted), None))
    used = {path for case in cases for path in case.images}
    if unused := [path for path in files if path not in used]:
        left_out.append(f"{_listed(unused)}: no channel of a case")
    return tuple(cases), left_out


def _one_of_each_name(files: list[Path], file_ending: str) -> tuple[list[Path], list[str]]:
    of: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files, key=lambda path: (ending_of(path) != file_ending, path.name)):
        of[_stem(path)].append(path)
    second = [path for paths in of.values() for path in paths[1:]]
    kept = [of[name][0] for name in sorted(of)]
    return kept, [f"{_listed(second)}: of the same name as another file, {_listed(of[_stem(second[0])][:1])}"] if second else []


def _refuse_numbers(source: Path, numbered: dict[str, dict[int, Path]], n_channels: int) -> None:
    """Refuse numbers beyond the channels if only some names have them: they may be scans or extra channels."""
    paths = [path for channels in numbered.values() for path in channels.values()]
    needed = f"_0000 to _{n_channels - 1:04d}" if n_channels > 1 else "_0000"
    raise AutosegError(
        f"{source}: expected the channels {needed} of each case, found {_listed(sorted(paths))}. If each is a scan of its own, "
        "rename them so that no four digits follow the last underscore (img-0001), or give them one by one; if they are "
        "channels of one scan, remove those that the model does not know"
    )


def _of_dataset(source: Path, left_out: list[str]) -> Inputs:
    spec = read_dataset(source)
    if not spec.test:
        raise AutosegError(f"{source}: a data set without test cases. Give the folder of the scans, such as imagesTr")
    return Inputs(tuple(spec.test), spec.file_ending, tuple(left_out))


def _is_bids(source: Path) -> bool:
    """Whether the folder holds anatomical scans under BIDS names."""
    found = (path for inner in ("", "ses-*/") for path in source.glob(f"sub-*/{inner}anat/sub-*.nii*"))
    return next(found, None) is not None


def _of_bids(source: Path, channels: Sequence[str]) -> Inputs:
    """One case for each session of each subject."""
    from autoseg.data.layouts.bids import find, suffixes

    there = suffixes(source)
    known = {suffix.lower(): suffix for suffix in there}
    wanted = [known.get(channel.lower()) for channel in channels]
    if None in wanted and len(channels) == len(there) == 1:
        wanted = list(there)
    suffixes_wanted = [suffix for suffix in wanted if suffix]
    if len(suffixes_wanted) < len(channels):
        raise AutosegError(
            f"{source}: the model needs {', '.join(channels)}, and the sessions of this BIDS data set have {', '.join(there)}. "
            "Copy the scans to predict to CASE_0000.nii.gz and so on, and give the folder of these"
        )
    found = find(source, channels=suffixes_wanted)
    left_out = [f"{one.case}: {one.message}" for one in found.findings if one.severity == "error"]
    cases = tuple(Case(case.id, case.patient, tuple(image.path for image in case.images), None) for case in found.cases)
    if not cases:
        raise AutosegError(f"{source}: no session has one scan of {', '.join(suffixes_wanted)} each: {'; '.join(left_out)}")
    return Inputs(cases, ".nii.gz", tuple(left_out))


def _of_series(source: Path, found: Any, channels: Sequence[str], file_ending: str, left_out: list[str]) -> Inputs:
    """One case for each series; labels are written as NIfTI."""
    left_out = [*left_out, *found.left_out]
    if not found.series:
        listed = "".join(f"\n  left out: {sentence}" for sentence in left_out)
        raise AutosegError(
            f"{source}: no scans in it; expected CASE_0000{file_ending}, another of {', '.join(FORMATS)}, or DICOM. Give "
            f"the folder that holds them{listed}"
        )
    if not any(series.planes[0].samples == len(channels) for series in found.series):
        raise AutosegError(
            f"{source}: the model needs {len(channels)} channels ({', '.join(channels)}), and DICOM does not say which series "
            "is which. Convert them to CASE_0000.nii.gz, CASE_0001.nii.gz and so on, and give the folder of these"
        )
    notes = [f"{series.name}: {note}" for series in found.series for note in series.notes]
    told = [
        f"{series.origin}: identifies the patient; its case is called {series.name}" for series in found.series if series.origin
    ]
    cases = tuple(Case(series.name, series.name, (series,), None) for series in found.series)
    return Inputs(cases, ".nii.gz", tuple(left_out), tuple(notes), tuple(told))
