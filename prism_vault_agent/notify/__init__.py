"""Telling the programs that read rendered files that these have changed: when (``due``, ``window``), and by which way."""
