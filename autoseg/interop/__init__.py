"""Models of other programs, read as plain data and turned into models of our own; and the way back."""
