"""A data-set folder made of what a layout found: which files it has, what they are made of, and what describes them."""
