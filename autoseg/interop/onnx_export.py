"""A model as one ONNX file, for programs without torch, and a JSON file that describes its use.

The graph maps one window to logits: ``image`` (1, C, z, y, x) float32, of the size of the training patch, to ``logits``
(1, K, z, y, x), the mean over folds. The steps before and after (orientation, crop, normalisation, resampling, windows, and
their inverse) are not in the graph; the JSON describes them in words and numbers, including the whole plan.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, ModelError
from autoseg.workspace import write_json
from planners.plan import Plan
from planners.records import to_json

__all__ = ["write_onnx"]

FORMAT = "autoseg onnx 1"
OPSET = 20
MAX_BYTES = 2**31 - 2**20  # limit of one protobuf file

READING = (
    "Turn the scan to plan.orientation (canonical: axes z, y, x run to the head, the front and the right), then permute axes "
    "by plan.axis_order.",
    "Crop to the box of voxels that are not zero in some channel.",
    "Normalise each channel as plan.normalization says. input_mean and input_std are part of the graph.",
    "Resample to plan.spacing_mm as plan.resampling says; slices of 2D models keep their distance.",
    "Cover the volume with windows of the size of the input that overlap by half, after putting input_mean (0 where there is "
    "none) around a volume that is smaller.",
    "Blend the logits of windows with a product of Gaussians (standard deviation an eighth of the edge) that peaks as "
    "plan.window_peak says.",
    "Where wanted, average over mirrorings along plan.mirror_axes.",
    "Resample the logits to the cropped scan (plan.resampling.logits_order), decide, and put the result back into the scan.",
)


class _Mean(torch.nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.networks[0](image)
        for network in list(self.networks)[1:]:
            logits = logits + network(image)
        return logits / len(self.networks)


def write_onnx(
    path: Path, networks: Sequence[torch.nn.Module], *, plan: Plan, labels: LabelSchema, about: dict[str, Any]
) -> Path:
    """Write ``path`` and, beside it, the same name with ``.json``.

    Args:
        path: ends in ``.onnx``.
        networks: of the folds, in evaluation mode, on the CPU.
        plan, labels: of the model.
        about: further entries of the JSON, such as the digest of the model.

    Raises:
        AutosegError: the packages ``onnx`` and ``onnxscript`` are not installed.
        ModelError: the file exists or has another ending, or the weights are too large for one file.
    """
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: expected a name that ends in .onnx")
    if path.exists() or path.with_suffix(".json").exists():
        raise ModelError(f"{path}: it, or {path.with_suffix('.json').name}, exists already; choose another name")
    stored = sum(tensor.nbytes for network in networks for tensor in network.state_dict().values())
    if stored > MAX_BYTES:
        raise ModelError(f"{path}: {stored} bytes of weights do not fit into one file of ONNX. Export fewer folds")
    shape = (1, plan.network.in_channels, *plan.patch_size)
    program = _without_traces(_program(_Mean(networks).eval(), torch.zeros(shape)))
    heads = list(labels.structures) if labels.has_regions else ["background", *labels.structures]
    decide = (
        "a region is where its logit is above 0; paint labels.paint_values in order"
        if labels.has_regions
        else "the largest logit wins; head 0 is background, head k has labels.paint_values[k - 1]"
    )
    with replacing(path) as draft:  # both, so that a kill leaves neither
        program.save(str(draft), external_data=False)
        write_json(
            draft.with_suffix(".json"),
            {
                "format": FORMAT,
                "file": path.name,
                **about,
                "input": {"name": "image", "type": "float32", "shape": list(shape)},
                "output": {"name": "logits", "type": "float32", "shape": [1, plan.network.out_channels, *plan.patch_size]},
                "heads": heads,
                "how": [*READING, f"Decide: {decide}."],
                "labels": to_json(labels),
                "plan": to_json(plan),
            },
        )
    return path


def _without_traces(program: Any) -> Any:
    """The program without its source positions, which contain paths of this machine."""
    model = program.model
    for graph in (model.graph, *model.functions.values()):
        for part in (graph, *graph.all_nodes()):
            part.metadata_props.clear()
    return program


def _program(network: torch.nn.Module, image: torch.Tensor) -> Any:
    """The graph of a network for inputs of this shape.

    Raises:
        AutosegError: torch is too old, or packages are missing.
    """
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        raise AutosegError(
            f"to write ONNX torch 2.6 or later is needed, found {torch.__version__}: pip install --upgrade torch"
        )
    level = logging.getLogger("torch.onnx").level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's internals; tests check the result
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            return torch.onnx.export(
                network,
                (image,),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except ImportError as fault:
        raise AutosegError(f"to write ONNX: pip install onnx onnxruntime onnxscript ({fault})") from fault
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
