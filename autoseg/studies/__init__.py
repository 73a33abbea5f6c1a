"""Studies of several training runs: each is run by the pipeline, then their results are read and compared."""
