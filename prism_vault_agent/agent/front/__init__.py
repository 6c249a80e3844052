"""Who asks the agent, for what, and how it is answered: the listening socket, attestation by the kernel, requests, routes."""
