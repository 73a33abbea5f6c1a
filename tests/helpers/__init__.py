"""Code that several test files share: ``from tests.helpers.dicom import write_series``. Fixtures stay thin."""
