"""The HTML report: one file that shows a training run, a study, predictions or an evaluation, and opens from disk offline.

``write_page`` renders a ``Page``, which holds everything to show as values. The report is readable without JavaScript, except
for the 3D panel and the review buttons. Nothing of a scan's header gets into it: a case is identified by the name of its files,
and ``scrubbed`` removes folders from messages.
"""

from autoseg.page.page import MOST_PICTURED, Page, write_page
from autoseg.page.scene import PageCase

__all__ = ["MOST_PICTURED", "Page", "PageCase", "write_page"]
