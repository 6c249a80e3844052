"""prism-vault: scoped secrets for processes on a host, recorded before they are released.

The Python modules carry no promise: the stable surface is the command line, the socket, the HTTP API and the
configuration files (see ``docs/``). This file imports nothing, because every ``exec`` pays for it.
"""

__version__ = "0.1.0"
