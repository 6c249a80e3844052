"""The command line proper: one module for each command, imported only when it is the one that runs."""
