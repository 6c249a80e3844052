"""The audit log: how an event gets on it, how it is read, and whether it is whole."""
