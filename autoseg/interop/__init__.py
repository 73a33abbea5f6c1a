"""Models of other programs, read as plain data and converted to our models; and the reverse."""
