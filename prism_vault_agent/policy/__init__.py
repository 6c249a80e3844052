"""Policy: who may have which scope, for which purpose, under which names. Pure functions, default deny."""
