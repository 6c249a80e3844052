"""The agent's front: the long-lived process that owns the socket, policy, the audit log and the token; never a secret value."""
