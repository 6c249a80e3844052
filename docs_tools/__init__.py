"""Makes the references in ``docs/reference`` from the code, and compares the outputs that documents show with the real ones."""
