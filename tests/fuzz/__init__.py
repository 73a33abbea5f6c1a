"""Readers under fuzzing: what they are (``targets``), how their files are changed (``mutations``), and who changes them:
Hypothesis (``test_readers.py``) or a fuzzer that watches which lines run (``coverage_guided.py``)."""
