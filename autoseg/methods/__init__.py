"""Automatic methods section: ``methods.md`` and ``references.bib`` beside a model, predictions and an evaluation.

A text consists of *statements*: a sentence or two, and the keys of the publications that they cite (``references.bib``). Every
decision of a planner or of a training run has a statement (``decisions``), and so has every setting of a recipe (``training``).
All numbers come from the records in the folder, which the text names at its end. So it can be written again at any time,
also for results of older versions, and no result depends on it.
"""

from autoseg.methods.folder import methods_of
from autoseg.methods.write import BIBLIOGRAPHY, METHODS, try_methods, write_methods

__all__ = ["BIBLIOGRAPHY", "METHODS", "methods_of", "try_methods", "write_methods"]
