"""Versions of what matters for a result, and the machine it was made on; for records."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import numpy
import torch

from autoseg import __version__

__all__ = ["machine", "versions"]


def versions() -> dict[str, str]:
    """Name -> version, with the system."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The date, the processor that ``device`` (torch.device) is, and the cores beside it."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif (info := Path("/proc/cpuinfo")).is_file():
        name = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), name)
    return {"date": datetime.date.today().isoformat(), "device": name, "cores": os.cpu_count()}
