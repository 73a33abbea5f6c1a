"""A data-set folder from what a layout found: its files, their sources, and its description."""
