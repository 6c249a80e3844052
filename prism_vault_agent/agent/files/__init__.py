"""The rendered files that are out there: rendered, switched, cleared, adopted, and who is told of a change."""
