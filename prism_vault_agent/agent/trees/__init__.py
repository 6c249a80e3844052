"""The trees of processes that a run has become: found whole, also what has left its parent and its session, and ended whole."""
