"""The machine and versions of a measurement, to store with it."""

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["about"]

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "batchgenerators", "blosc2")


def about():
    """Dictionary: date, processor, cores, load, and versions of the packages that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
