"""Dialects: how a file spells values so that its reader gets each byte for byte, or an error before anything is written."""
