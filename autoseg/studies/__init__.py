"""Several training runs that answer one question: each is run by the pipeline, what they left is read back and compared."""
