"""DICOM files made by the tests: tiny series of any orientation and with any defect."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

patient = "Doe^Jane"


def image_dataset(sop_class=CTImageStorage, **changes):
    """An image without pixels and position, with only the attributes that a scanner would write."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = patient, "4711", "19700101", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "1", "20260101", "120000", "9"
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription, ds.ReferringPhysicianName = "CT", 7, "Doe thorax", "Roe"
    ds.ImageType, ds.PositionReferenceIndicator = ["ORIGINAL", "PRIMARY", "AXIAL"], ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def slice_datasets(
    values, *, position=(-10.0, -20.0, 30.0), rotation=None, spacing_mm=(2.5, 0.8, 0.7), shear_mm=0.0, **changes
):
    """One dataset per slice.

    Args:
        values: (Z, Y, X) int16; slice z lies ``z * spacing`` along the normal.
        position: LPS mm of voxel (0, 0, 0).
        rotation: (3, 3), columns are the directions of x, y and z in LPS; right-handed.
        shear_mm: shift of each slice down its columns, relative to the one before.
    """
    rotation = np.eye(3) if rotation is None else rotation
    along, down, normal = rotation.T
    for z, plane in enumerate(values):
        ds = image_dataset(**changes)
        ds.InstanceNumber, ds.SliceThickness, ds.SpacingBetweenSlices = z + 1, 99, 77  # wrong: must not be used
        ds.ImageOrientationPatient = [float(f"{v:.10g}") for v in (*along, *down)]
        place = np.asarray(position) + z * (spacing_mm[0] * normal + shear_mm * down)
        ds.ImagePositionPatient = [float(f"{v:.10g}") for v in place]
        ds.PixelSpacing = list(spacing_mm[1:])
        ds.Rows, ds.Columns = plane.shape
        ds.PixelData = plane.astype("<i2").tobytes()
        yield ds


def save(ds, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, values, *, order=None, **options):
    """Write slices as files, with the numbers ``order`` in their names. Returns the folder."""
    for z, ds in enumerate(slice_datasets(values, **options)):
        save(ds, Path(folder) / f"{z if order is None else order[z]:03d}.dcm")
    return Path(folder)


def multiframe_dataset(values, slope=1.0, **options):
    """All slices as frames of one enhanced MR object."""
    slices = list(slice_datasets(values, **options))
    ds = image_dataset(EnhancedMRImageStorage, Modality="MR", ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    del ds.RescaleSlope, ds.RescaleIntercept
    ds.Rows, ds.Columns, ds.NumberOfFrames = *values.shape[1:], len(values)
    ds.PixelData = values.astype("<i2").tobytes()
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = slices[0].PixelSpacing
    shared.PixelMeasuresSequence[0].SliceThickness = 99
    shared.PixelValueTransformationSequence = [Dataset()]
    transformation = shared.PixelValueTransformationSequence[0]
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, 0, "US"
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for z, one in enumerate(slices):
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
        frame.FrameContentSequence = [Dataset()]
        frame.FrameContentSequence[0].StackID, frame.FrameContentSequence[0].InStackPositionNumber = "1", z + 1
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    return ds


def random_values(shape=(5, 6, 7), seed=0):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def write_segmentation(path, series, pixels, kind, names, **options):
    """A segmentation object through highdicom, of any kind; returns its path.

    Args:
        pixels: (planes, rows, columns[, segments]).
        kind: ``BINARY``, ``FRACTIONAL`` or ``LABELMAP``.
        names: of the segments 1, 2 ...
    """
    import highdicom  # slow to import
    import pydicom
    from pydicom.sr.codedict import codes

    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Kidney,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(path) for path in series.paths],
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues[kind],
        segment_descriptions=described,
        series_instance_uid="1.2.9",
        series_number=9,
        sop_instance_uid="1.2.9.1",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="x",
        device_serial_number="x",
        **options,
    ).save_as(path)
    return path
