"""The HTML report: one file that shows a run, predictions or an evaluation, and opens from disk without a network.

``write_page`` takes what is to be shown as values (a ``Page``). All of it is readable without JavaScript, apart from the
panel in three dimensions and the buttons of the review. Nothing of a scan's header gets into it: a case is the name of its
files, and ``scrubbed`` takes folders out of sentences.
"""

from autoseg.page.page import MOST_PICTURED, Page, write_page
from autoseg.page.scene import PageCase

__all__ = ["MOST_PICTURED", "Page", "PageCase", "write_page"]
