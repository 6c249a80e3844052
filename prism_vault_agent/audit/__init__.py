"""The agent's side of the audit log: what a row says, how rows are chained, and how they reach central."""
