"""What a launcher does that was not started by an isolated interpreter."""

import posix
import sys

from prism_vault_agent.exec.launch import own_variables

# Often set in container images, and without effect on what is imported.
HARMLESS = frozenset((b"PYTHONUNBUFFERED", b"PYTHONDONTWRITEBYTECODE", b"PYTHONHASHSEED", b"PYTHONIOENCODING", b"PYTHONUTF8"))


def ensure(launcher: str) -> None:
    """Start ``launcher`` again, isolated, where the caller's variables change the interpreter; else do nothing.

    What the caller sets for its own programs in Python must not change this one. The command still gets all of it.
    """
    own = own_variables()
    if any(name.startswith(b"PYTHON") for name in own.keys() - HARMLESS):
        posix.execve(sys.executable, [sys.executable, "-ISE", launcher, *sys.argv[1:]], own)
