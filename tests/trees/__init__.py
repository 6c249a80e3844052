"""The trees of processes that runs are."""
