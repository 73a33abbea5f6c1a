"""Software versions and the machine that a result was made with, for records."""

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
    """Name -> version, including the operating system."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The date (ISO), the name of the processor or GPU that ``device`` is, and the number of CPU cores."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif (info := Path("/proc/cpuinfo")).is_file():
        name = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")), name)
    return {"date": datetime.date.today().isoformat(), "device": name, "cores": os.cpu_count()}
