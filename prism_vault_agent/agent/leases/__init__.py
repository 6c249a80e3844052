"""What the provider expects back: child tokens and leases, known durably, renewed, and revoked."""
