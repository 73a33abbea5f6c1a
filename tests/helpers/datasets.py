"""Small data sets on disk, to use as they are or to break."""

import json

import numpy as np

from autoseg.data.dataset import read_dataset
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume

SHAPE = (6, 8, 10)


class Folder:
    """A data-set folder that a test fills and changes file by file."""

    def __init__(self, path, n_channels=1, ending=".nii.gz"):
        self.path, self.n_channels, self.ending = path, n_channels, ending
        self.json = {
            "channel_names": {str(i): f"T{i + 1}" for i in range(n_channels)},
            "labels": {"background": 0, "first": 1, "second": 2},
            "file_ending": ending,
        }
        (path / "imagesTr").mkdir(parents=True)
        (path / "labelsTr").mkdir()

    def image_path(self, case, channel=0):
        return self.path / "imagesTr" / f"{case}_{channel:04d}{self.ending}"

    def label_path(self, case):
        return self.path / "labelsTr" / f"{case}{self.ending}"

    def add(self, case, *, seed=0, spacing_mm=(2.0, 1.0, 1.0), geometry=None, image=None, label=None):
        rng = np.random.default_rng([seed, *case.encode()])
        geometry = geometry or Geometry.from_spacing(SHAPE if image is None else image.shape, spacing_mm)
        for channel in range(self.n_channels):
            data = rng.normal(100, 20, geometry.shape) if image is None else image
            write_volume(Volume(data[None].astype(np.float32), geometry), self.image_path(case, channel))
        if label is None:
            label = np.zeros(geometry.shape, np.uint8)
            label[1:3, 2:5, 2:6] = 1
            label[3:5, 2:5, 2:6] = 2
        write_label_volume(LabelVolume(label, geometry), self.label_path(case))
        return self

    def read(self):
        (self.path / "dataset.json").write_text(json.dumps(self.json))
        return read_dataset(self.path)
