"""Is the log still what was put in? Everything is recomputed from the rows, whoever hands them over."""
