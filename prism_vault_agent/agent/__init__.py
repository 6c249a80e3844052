"""The agent's front: the long-lived process that owns the socket, policy, the audit log and the token; never a secret value."""

import sys

# structlog has a renderer for people that we do not use; where rich is installed it imports that, and pygments: 4 MB for nothing.
_absent = "rich" not in sys.modules
if _absent:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what makes an import of it fail
import structlog  # noqa: E402, F401 - as it is imported first

if _absent:
    del sys.modules["rich"]
