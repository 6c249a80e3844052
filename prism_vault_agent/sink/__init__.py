"""The sink of files: below one directory in memory, each generation of a scope whole, switched at once, and cleared at once."""
