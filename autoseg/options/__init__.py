"""The options of each verb, as frozen values. The command line's flags are made from them (``autoseg.cli.flags``).

Fields with a flag declare its spelling; their meaning is in the class's ``Attributes:``, which is also the flag's help.
Nothing heavy is imported here, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autoseg.errors import AutosegError
from autoseg.options.fields import option
from autoseg.options.parsing import (
    as_fit,
    duration,
    edge_mm,
    finite,
    fraction,
    names,
    path,
    positive,
    quoted,
    setting,
    shard,
    text,
    whole,
)

__all__ = [
    "CompareOptions",
    "ConvertOptions",
    "EvaluateOptions",
    "InferenceOptions",
    "PlanOptions",
    "PredictOptions",
    "ReconstructOptions",
    "ReportOptions",
    "Runtime",
    "SlurmOptions",
    "StudyOptions",
    "SurfaceOptions",
    "TrainOptions",
    "TrainingOptions",
]

OnDone = Callable[[Any], object]


def silent(title: str, total: int) -> OnDone:
    """Show no progress: ``progress(title, total)`` returns a function to call with the Outcome of each case."""
    return lambda outcome: None


@dataclass(frozen=True)
class Runtime:
    """Where and how work is done; results depend on it only by rounding.

    Attributes:
        device: auto (default), cpu, cuda, cuda:1, mps
        workers: threads that read, prepare, write and score; default: one per core, eight at most
        engine: what computes the cases, or the folds of a study: local (default), dask (as many processes of this machine as
            --workers says), or dask:ADDRESS (a cluster)
        fresh: do everything again and replace what is there
        progress: ``progress(title, total)`` returns a function to call with the Outcome of each case
        elsewhere: nothing is computed here; the device belongs to another machine
        follow: a training run on a CPU changes its number of threads with the cores that other programs leave free
    """

    device: str = option("auto", text, "DEVICE")
    workers: int | None = option(None, positive, "N")
    engine: str = option("local", text, "NAME")
    fresh: bool = option(False)
    progress: Callable[[str, int], OnDone] = field(default=silent, compare=False)
    elsewhere: bool = field(default=False)
    follow: bool = field(default=False)


@dataclass(frozen=True)
class PlanOptions:
    """How a data set is planned.

    Attributes:
        planner: the plan to prepare the cases for: fullres_3d (default), slices_2d (default for 2D images), lowres_3d,
            cascade_3d, or one of an installed package
        preset: classic (default), or residual encoders m, l, xl
        memory_gb: GPU memory to plan for, in GB; default: the preset's own, 8 for classic
        parity: make exactly the decisions of nnU-Net
        dry_run: measure and plan, write nothing
        preprocess: stop after planning
    """

    planner: str | None = option(None, text, "NAME")
    preset: str = option("classic", text, "NAME")
    memory_gb: float | None = option(None, finite, "X")
    parity: bool = option(False)
    dry_run: bool = option(False)
    preprocess: bool = option(True, name="--no-preprocess")


@dataclass(frozen=True)
class TrainingOptions:
    """What one training run and a comparison of several have in common.

    Attributes:
        plan: name of a plan of the data set; default: fullres_3d, or slices_2d for 2D images
        seconds: train each fold for this long by the clock, such as 90s, 30m, 1.5h or 2d
        iterations: train each fold for N steps; default: the plan's
        recipe: autoseg (default), parity (nnU-Net's), or a JSON file
        settings: change one setting of the recipe, which autoseg recipe lists; may be given several times
        seed: seed of all random numbers (default 0)
    """

    plan: str | None = option(None, text, "NAME")
    seconds: float | None = option(None, duration, "30m", name="--time", group="length")
    iterations: int | None = option(None, positive, "N", group="length")
    recipe: str = option("autoseg", path, "FILE")
    settings: tuple[tuple[str, Any], ...] = option((), setting, "KEY=VALUE", name="--set", many=True)
    seed: int = option(0, whole, "N")


@dataclass(frozen=True)
class TrainOptions:
    """How folds are trained.

    Attributes:
        network: name of a network, which autoseg networks lists, or a JSON file like a plan's network entry; default: the
            plan's
        training: length, recipe and seed
        name: name of the run; default: plan and network
        start: start from the weights of this model: a name, folder or zip
        unseen: declare that the model of --from, which does not record its training cases, saw none of the validation cases
        dry_run: show what would be trained; start and write nothing
        explain: print each decision with its rule and numbers
        groups: with several folds, also give scores for each group in a column of a table, such as patients.csv:scanner
        at_once: folds to train at the same time, each in a process; auto: as many as cores and memory allow (default 1). With
            several devices, such as --device cuda:0,cuda:1, one fold on each
        threads: cores that the networks use; default: those that other programs leave free when it starts, shared by the folds
            that are trained at the same time
        report: with several folds, leave out the report on all of them together
    """

    network: Any = option(None, text, "NAME")
    training: TrainingOptions = TrainingOptions()
    name: str | None = option(None, text, "RUN")
    start: str | None = option(None, path, "MODEL", name="--from")
    unseen: bool = option(False)
    dry_run: bool = option(False)
    explain: bool = option(False)
    groups: str | None = option(None, path, "FILE:COLUMN")
    at_once: int = option(1, as_fit, "N|auto")
    threads: int | None = option(None, positive, "N")
    report: bool = option(True, name="--no-report")


@dataclass(frozen=True)
class CompareOptions:
    """How networks are compared.

    Attributes:
        networks: the first is tested against each of the others; default: all
        training: length, recipe and seed
        repeats: train each network N times, with --seed and the seeds after it (default 1)
        match_flops: scale widths to the operations per patch of the first network
        margin: networks within this difference of Dice are called equivalent (default 0.005)
        target: folder for the tables; default: WORKSPACE/comparisons/NAME
    """

    networks: tuple[str, ...] = option((), names, "A,B,C")
    training: TrainingOptions = TrainingOptions()
    repeats: int = option(1, positive, "N")
    match_flops: bool = option(False)
    margin: float = option(0.005, fraction, "X")
    target: str | None = option(None, path, "OUT", name="--output")


@dataclass(frozen=True)
class StudyOptions:
    """What a study trains, compares and decides.

    Attributes:
        plans: names of plans of the data set; default: fullres_3d, or slices_2d for 2D images
        networks: networks to train under each plan; default: the plan's own
        folds: folds to cross-validate, such as 0-2; default: all
        training: length, recipe and seed, of each fold
        margin: configurations within this difference of Dice are called equivalent (default 0.005)
        groups: also give scores for each group in a column of a table, such as patients.csv:scanner
        name: name of the study; its model is called DATASET_NAME (default study)
        at_once: folds to train at the same time, each in a process; auto: as many as cores and memory allow (default 1). With
            several devices, such as --device cuda:0,cuda:1, one fold on each
    """

    plans: tuple[str, ...] = option((), names, "A,B")
    networks: tuple[str, ...] = option((), names, "A,B")
    folds: str | None = option(None, text, "FOLDS")
    training: TrainingOptions = TrainingOptions()
    margin: float = option(0.005, fraction, "X")
    groups: str | None = option(None, path, "FILE:COLUMN")
    name: str = option("study", text, "NAME")
    at_once: int = option(1, as_fit, "N|auto")


@dataclass(frozen=True)
class SlurmOptions:
    """How the jobs of an array are submitted.

    Attributes:
        shards: number of shards of a prediction, one job each (default 8)
        at_once: at most N jobs at the same time
        limit: time of a job, such as 8h; default: that of the partition
        warning: seconds before that limit at which a job stops cleanly and goes back into the queue (default 120)
        sbatch: a setting of sbatch for all jobs, such as --sbatch=--gres=gpu:1
        before: a line of bash at the beginning of each job, such as 'module load cuda'
        logs: folder for the output of the jobs (default slurm)
    """

    shards: int = option(8, positive, "N")
    at_once: int | None = option(None, positive, "N")
    limit: float | None = option(None, duration, "8h", name="--time")
    warning: int = option(120, positive, "SECONDS")
    sbatch: tuple[str, ...] = option((), text, "SETTING", many=True)
    before: tuple[str, ...] = option((), text, "LINE", many=True)
    logs: str = option("slurm", path, "DIR")


@dataclass(frozen=True)
class InferenceOptions:
    """How a model is applied to a scan.

    Attributes:
        folds: folds of the model to average; default: all
        mirror: do not average predictions of mirrored images (test-time augmentation, TTA); faster
        step: tile step of the sliding window, as a fraction of the window (default 0.5)
        windows: all, or adaptive: overlapping windows only where windows side by side leave doubt; default: what the model says
        resample_channels: resample all channels to the grid of the first
        fold_agreement: measure the inter-fold Dice of each structure
        postprocess: keep the networks' labels; skip the model's rules for pieces and holes
        precision: ``fp32``, ``bf16``, or ``auto``: the faster one
        closed_gates: without the networks' self-attention, to measure what it does
        half_sums: add up windows and compare logits in half precision, as nnU-Net does: the masks of an imported model then
            equal nnU-Net's in the corners of a volume too
    """

    folds: tuple[str, ...] | None = option(None, names, "0,1")
    mirror: bool = option(True, name="--no-mirror")
    step: float = option(0.5, finite, "STEP")
    windows: str | None = option(None, text, choices=("all", "adaptive"))
    resample_channels: bool = option(False)
    fold_agreement: bool = option(False)
    postprocess: bool = option(True, name="--no-postprocessing")
    precision: str = field(default="auto")
    closed_gates: bool = field(default=False)
    half_sums: bool = option(False)


@dataclass(frozen=True)
class SurfaceOptions:
    """How surfaces of structures are written.

    Attributes:
        formats: stl, ply, obj, vtp, glb; none: no surfaces
        decimate: remove this fraction of the triangles of each surface (default 0)
        coordinates: coordinate system of the surface files (default lps)
        shared: surfaces of neighbours share their common border: no gap, no overlap
    """

    formats: tuple[str, ...] = option((), names, "stl,glb", name="--surfaces")
    decimate: float = option(0.0, float, "FRACTION")
    coordinates: str = option("lps", text, choices=("lps", "ras"))
    shared: bool = option(False, name="--surfaces-shared")

    def __post_init__(self) -> None:
        if not 0 <= self.decimate < 1:
            raise AutosegError(
                f"decimate: expected the fraction of triangles to remove, from 0 to below 1, found {self.decimate}"
            )
        if self.shared and self.decimate:
            raise AutosegError(
                f"surfaces-shared: expected all triangles, since neighbours would lose different ones of their border, found "
                f"decimate {self.decimate}. Leave --decimate out, or --surfaces-shared"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the files depend on, as JSON; newer options are left out at their defaults."""
        settings = {"formats": list(self.formats), "decimate": self.decimate, "coordinates": self.coordinates}
        return {**settings, **({"shared": True} if self.shared else {})}


@dataclass(frozen=True)
class PredictOptions:
    """What is made of each scan.

    Attributes:
        inference: how the model is applied
        probabilities: also write CASE_probabilities.npz
        attention_maps: write where self-attention looks, as CASE_attention/stageS.nii.gz: the N most selective slots of each
            head (default 4)
        write: further results: probabilities, seg_nrrd (CASE.seg.nrrd for 3D Slicer); for DICOM scans seg, rtstruct (DICOM
            results) and seg_each (one DICOM object for each structure)
        layout: bids: also copies under the names of a BIDS derivative, in OUT/derivatives/autoseg
        surfaces: whose surfaces are written, and how
        isotropic: also write CASE_iso (restored) and CASE_iso_cubic (interpolated) with cubic voxels of MM mm; without MM: of
            the finest spacing of the scan
        invert_monochrome1: invert MONOCHROME1 images of DICOM, as converters that use ITK do
        reference: score the results against the labels there
        shard: predict only shard i of N (the first is 0), for jobs side by side
        watch: keep running and predict new scans, each once its files have not changed for SECONDS (default 10)
    """

    inference: InferenceOptions = InferenceOptions()
    probabilities: bool = option(False)
    attention_maps: int = option(0, positive, "N", bare=4)
    write: tuple[str, ...] = option((), names, "KINDS")
    layout: str = option("folder", text, choices=("folder", "bids"))
    surfaces: SurfaceOptions = SurfaceOptions()
    isotropic: float | None = option(None, edge_mm, "MM", bare=0.0)
    invert_monochrome1: bool = option(False)
    reference: str | None = option(None, path, "DIR")
    shard: tuple[int, int] = option((0, 1), shard, "i/N")
    watch: float | None = option(None, finite, "SECONDS", bare=10.0)


@dataclass(frozen=True)
class ReconstructOptions:
    """What is made of label maps.

    Attributes:
        surfaces: whose surfaces are written, and how
        isotropic: also write CASE_iso with cubic voxels of MM mm; without MM: of the finest spacing of the map
        labels: a dataset.json with the names; default: beside the maps
    """

    surfaces: SurfaceOptions = SurfaceOptions(formats=("stl", "glb"))
    isotropic: float | None = option(None, edge_mm, "MM", bare=0.0)
    labels: str | None = option(None, path, "JSON")


@dataclass(frozen=True)
class EvaluateOptions:
    """How predictions are scored.

    Attributes:
        labels: a dataset.json; default: beside the folders, else every value found
        tolerance_mm: tolerance of NSD, in mm; default: the larger of 1 mm and the voxel size
        partial: score only the cases that were predicted; missing ones are no failures
        groups: also give scores for each group in a column of a table, such as patients.csv:scanner
        lesions: structures to score lesion by lesion as well
        lesion_overlap: smallest IoU at which a lesion counts as found (default 0.1)
        lesion_ml: ignore pieces smaller than X mL; default: none
    """

    labels: str | None = option(None, path, "JSON")
    tolerance_mm: float | None = option(None, finite, "X")
    partial: bool = option(False)
    groups: str | None = option(None, path, "FILE:COLUMN")
    lesions: tuple[str, ...] = option((), names, "A,B")
    lesion_overlap: float = option(0.1, fraction, "IOU")
    lesion_ml: float = option(0.0, finite, "X")


@dataclass(frozen=True)
class ReportOptions:
    """Where an HTML report finds what it shows.

    Attributes:
        images: folder of the scans; default: imagesTr beside the references' labelsTr
        reference: folder of reference labels, to show them; default: none
        predicted: folder of the label maps to show; default: PATH
    """

    images: Any = option(None, path, "DIR")
    reference: str | None = option(None, path, "DIR")
    predicted: str | None = option(None, path, "DIR")


@dataclass(frozen=True)
class ConvertOptions:
    """How a source becomes a data-set folder.

    Attributes:
        link: hard links under nnU-Net's names; default: files stay where they are
        copy: copies under nnU-Net's names
        skip_bad: leave out cases with errors; without it, one error stops the conversion
        cine: acdc: every frame of the 4D series as a test case
        labels: folders: folder of labels
        channels: folders, join: names of channels, such as CT; bids: suffixes, such as T1w
        also: join: further data-set folders
        names: folders, bids: names of label values: JSON, a table, a colour table of ITK-SNAP, FreeSurfer or 3D Slicer
        ignore: folders, bids: label value of voxels without annotation
        derivative: bids: folder below derivatives to take the labels from
        structures: folders, bids: names of the structures to take, in their order; default: all. A name with a comma stands in
            double quotes
    """

    link: bool = option(False, group="mode")
    copy: bool = option(False, group="mode")
    skip_bad: bool = option(False)
    cine: bool = option(False)
    labels: str | None = option(None, path, "DIR")
    channels: tuple[str, ...] | None = option(None, names, "A,B")
    also: tuple[str, ...] | None = option(None, names, "A,B")
    names: str | None = option(None, path, "FILE")
    ignore: int | None = option(None, int, "VALUE")
    derivative: str | None = option(None, text, "NAME")
    structures: tuple[str, ...] | None = option(None, quoted, "A,B")
