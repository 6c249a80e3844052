"""Putting the units that ship in place, and taking exactly those away again."""
