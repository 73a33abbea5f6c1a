"""Maps of self-attention beside the labels."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.data.dataset import Case
from autoseg.errors import ModelError
from autoseg.imaging import nifti
from autoseg.inference.inferred import Inferred, ModelFacts
from autoseg.inference.output import Written
from autoseg.reconstruct.native import maps_to_native

__all__ = ["AttentionMaps"]

logger = logging.getLogger(__name__)

# gates begin at 0; after 20 minutes they were at most 0.01 by SGD, 0.1 with an attention_rate
# (docs/experiments/attention-open-gates.md)
SHUT = 0.02


@dataclass(frozen=True)
class AttentionMaps:
    """``CASE_attention/stageS.nii.gz``: the attention of the slots, one file for each stage of slot attention.

    A file has a volume for each slot, uint8 on the grid of the scan, 255 at the largest attention. ``CASE.json`` gets
    ``attention``: the slot and head of each volume, its entropy, and the value that 255 stands for, in multiples of the
    average; and for each stage the ``gate``, the largest in absolute value, which shows how much of the slots' output is added
    to the features. The maps are in a folder of their own so that they are not mistaken for label maps.

    Attributes:
        per_head: number of slots for each head.
    """

    per_head: int
    name = "attention"
    suffixes = ("_attention",)

    @property
    def identity(self) -> dict[str, Any]:
        return {"export": {"attention_maps": {"per_head": self.per_head}}}

    def check(self, model: ModelFacts) -> None:
        """ModelError for a network without slots; a warning if its gates never opened."""
        if not model.gates:
            raise ModelError(
                f"{model.name}: no slots whose attention could be shown; its network is {model.plan.network.name!r}. Leave "
                "--attention-maps out, or take a model of self_attention_unet whose plan has attention of kind slot"
            )
        if max(model.gates.values()) < SHUT:
            logger.warning(
                f"{model.name}: the gates of its attention are almost closed (at most {max(model.gates.values()):.3f}), so its "
                "slots have learned little and look about as they did at random. Give autoseg train "
                "--set attention_rate=0.005 to open them"
            )

    def write(self, case: Case, found: Inferred, folder: Path) -> Written:
        home, prepared = folder / f"{case.id}_attention", found.prepared
        files, stages = [], []
        for seen in found.attention(self.per_head):
            volumes, largest = maps_to_native(seen.maps, prepared.grid, prepared.native, scratch=found.scratch)
            files.append(home / f"stage{seen.stage}.nii.gz")
            nifti.write(files[-1], volumes, prepared.native)
            slots = [asdict(slot) | {"maximum": most} for slot, most in zip(seen.slots, largest, strict=True)]
            gate = found.model.gates[seen.stage]
            stages.append({"stage": seen.stage, "gate": gate, "file": f"{home.name}/{files[-1].name}", "slots": slots})
        return Written(tuple(files), {"attention": {"fold": found.model.folds[0], "mirrored": False, "stages": stages}})
