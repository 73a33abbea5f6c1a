"""What several test files draw, write or start: ``from tests.helpers.dicom import write_series``. Fixtures stay thin."""
