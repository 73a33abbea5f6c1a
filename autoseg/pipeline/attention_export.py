"""Maps of self-attention beside the labels."""

import logging
from dataclasses import asdict

from autoseg.errors import ModelError
from autoseg.imaging import nifti
from autoseg.inference.cohort import Exporter
from autoseg.inference.slot_maps import blended_maps, choose_slots
from autoseg.networks import slot_blocks
from autoseg.reconstruct.native import maps_to_native

__all__ = ["attention_exporters"]

logger = logging.getLogger(__name__)

SHUT = 0.02  # gates begin at 0; after 20 minutes they were at most 0.01 by SGD, 0.1 with an attention_rate (EXPERIMENTS.md)


def attention_exporters(predictor, folder, per_head):
    """An Exporter of ``CASE_attention/stageS.nii.gz``: where slots look, one file for each stage of slot attention.

    A file has a volume for each slot, uint8 on the scan's own grid, 255 where the slot looks most. ``CASE.json`` gets
    ``attention``: which slot of which head each volume is, its entropy, and the value that 255 stands for, in multiples of the
    average; and of each stage the ``gate``, the largest in absolute value, which says how much of what the slots gather is
    added to the features. It is a folder, since whatever takes a folder of label maps would take maps beside them for such.

    Args:
        predictor: the Predictor that the cases are predicted with.
        folder: of the predictions.
        per_head: slots for each head; 0 for no such files, and no Exporter.

    Raises:
        ModelError: the network has no slots.
    """
    spec = predictor.bundle.plan.network
    gates = {stage: block.gate.abs().max().item() for stage, block in slot_blocks(predictor.networks[0]).items()}
    if per_head and not gates:
        raise ModelError(
            f"{predictor.bundle.name}: no slots whose attention could be shown; its network is {spec.name!r}. Leave "
            "--attention-maps out, or take a model of self_attention_unet whose plan has attention of kind slot"
        )
    if per_head and max(gates.values()) < SHUT:
        logger.warning(
            f"{predictor.bundle.name}: the gates of its attention are all but shut (at most {max(gates.values()):.3f}), so its "
            "slots have learned little and look about as they did at random. Train with --set attention_rate=0.005 to open them"
        )

    def write(case, prediction, prepared, logits):
        home, native = folder / f"{case.id}_attention", prepared.native
        files, stages = [], []
        for stage, chosen in choose_slots(predictor, prepared.data, per_head).items():
            maps = blended_maps(predictor, prepared.data, stage, chosen)
            volumes, largest = maps_to_native(maps, prepared.grid, native, scratch=predictor.scratch)
            files.append(home / f"stage{stage}.nii.gz")
            nifti.write(files[-1], volumes, native)
            slots = [asdict(slot) | {"maximum": most} for slot, most in zip(chosen, largest, strict=True)]
            stages.append({"stage": stage, "gate": gates[stage], "file": f"{home.name}/{files[-1].name}", "slots": slots})
        return files, {"attention": {"fold": predictor.folds[0], "mirrored": False, "stages": stages}}

    return [Exporter("attention_maps", ("_attention",), write, {"per_head": per_head})] if per_head else []
