"""One host as central's configuration names it: its token, and what it may have."""

from __future__ import annotations

import hashlib

AGENT = "a" * 43
SERVER1 = f"""\
[[tokens]]
name = "server1"
sha256 = "{hashlib.sha256(AGENT.encode()).hexdigest()}"
role = "agent"
host = "server1"
projects = ["prism"]
[[policies]]
project = "prism"
environment = "lan"
scopes = ["web"]
hosts = ["server1"]
kinds = ["service"]
purposes = ["service"]
"""
