"""Which outputs a prediction has: ``OUTPUTS`` maps names to functions that return the output requested by the options of
``predict``, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.inference.cohort import Predict
from autoseg.inference.output import Output
from autoseg.options import PredictOptions, Runtime
from autoseg.outputs.attention import AttentionMaps
from autoseg.outputs.borders import Borders
from autoseg.outputs.dicom import DicomResult
from autoseg.outputs.isotropic import Isotropic
from autoseg.outputs.labels import Labels
from autoseg.outputs.measurements import Measurements
from autoseg.outputs.probabilities import Probabilities
from autoseg.outputs.seg_nrrd import SlicerSegmentation
from autoseg.outputs.surfaces import Surfaces, check_surfaces
from autoseg.registry import Registry, unknown

__all__ = ["OUTPUTS", "asked_outputs", "asked_step"]

Make = Callable[[PredictOptions, str], Output | None]


def _surfaces(options: PredictOptions, ending: str) -> Output | None:
    return Surfaces(check_surfaces(options.surfaces)) if options.surfaces.formats else None


def _probabilities(options: PredictOptions, ending: str) -> Output | None:
    return Probabilities() if options.probabilities or "probabilities" in options.write else None


def _isotropic(options: PredictOptions, ending: str) -> Output | None:
    if options.isotropic is None:
        return None
    return Isotropic(options.isotropic, options.inference.resample_channels)


# name -> function of the options and the ending of label files, in the order of writing
OUTPUTS: Registry[Make] = Registry(
    "output",
    {
        "labels": lambda options, ending: Labels(ending),
        "probabilities": _probabilities,
        "surfaces": _surfaces,
        "borders": lambda options, ending: Borders(check_surfaces(options.surfaces)) if options.surfaces.formats else None,
        "measurements": lambda options, ending: Measurements(check_surfaces(options.surfaces)),
        "seg": lambda options, ending: DicomResult("seg") if "seg" in options.write else None,
        "seg_each": lambda options, ending: DicomResult("seg", each=True) if "seg_each" in options.write else None,
        "rtstruct": lambda options, ending: DicomResult("rtstruct") if "rtstruct" in options.write else None,
        "seg_nrrd": lambda options, ending: SlicerSegmentation() if "seg_nrrd" in options.write else None,
        "isotropic": _isotropic,
        "attention": lambda options, ending: AttentionMaps(options.attention_maps) if options.attention_maps else None,
    },
)


def asked_outputs(options: PredictOptions, ending: str) -> tuple[Output, ...]:
    """The requested outputs, in the order of writing.

    Raises:
        AutosegError: ``write`` has an unknown output, or one that another option asks for; an unknown surface format.
    """
    for name in options.write:
        if name not in OUTPUTS and name not in DICOM_RESULTS:
            raise AutosegError(f"--write: {unknown('output', name, [*_made_by_name(ending), *DICOM_RESULTS])}")
    of_others = [name for name in options.write if name not in OUTPUTS]
    made = {name: OUTPUTS[name](options, ending) for name in OUTPUTS}
    if unmade := [name for name in options.write if made.get(name, name) is None]:
        raise AutosegError(
            f"--write: expected results without an option of their own, found {', '.join(unmade)}. Give that option: "
            "--surfaces, --isotropic or --attention-maps"
        )
    return (*(output for output in made.values() if output is not None), *(DicomResult(name) for name in of_others))


def _made_by_name(ending: str) -> list[str]:
    """The outputs that ``write`` alone asks for: those that are neither always made nor the result of another option."""
    plain = PredictOptions()
    return [name for name, make in OUTPUTS.items() if not make(plain, ending) and make(replace(plain, write=(name,)), ending)]


def asked_step(
    model: str | PathLike[str], folder: Path, options: PredictOptions, ending: str, runtime: Runtime, device: str
) -> Predict:
    """The step, for a process of its own, that makes the requested outputs.

    Args:
        model: path of a model's folder or zip.
        folder: for the results.
        ending: file ending of the label files.
        runtime: ``fresh`` replaces existing files.
        device: as in the step.

    Raises:
        AutosegError: as in ``asked_outputs``.
    """
    return Predict(
        model=str(model),
        folder=folder,
        outputs=asked_outputs(options, ending),
        inference=options.inference,
        device=device,
        fresh=runtime.fresh,
        shard=options.shard,
        keeps_memory=True,
    )
