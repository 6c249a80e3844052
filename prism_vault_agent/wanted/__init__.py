"""What an engine is asked for at the path of a reference, where the path alone does not say it: nouns of the core."""
