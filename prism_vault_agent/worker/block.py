"""From values to the environment block that a process can be given, or an error that names the variable. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.exec.wire import encode_block
from prism_vault_agent.worker.messages import Room

# MAX_ARG_STRLEN of execve(2): 32 pages for one NAME=value with its NUL.
LONGEST_STRING: Final = 131_072
POINTER: Final = 8


def environment_block(values: Mapping[str, str | bytes], room: Room) -> bytes:
    """Return ``values`` as ``NAME=value`` strings, each ended by a NUL, or raise :class:`ConfigError` that names one."""
    pairs = []
    used = room.used
    for name, value in values.items():
        encoded = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        if b"\0" in encoded:
            raise _cannot(name, "holds a NUL byte, which no environment can carry")
        length = len(name) + len(encoded) + 2
        if length > LONGEST_STRING:
            raise _cannot(name, f"needs {length} bytes with its name; the kernel takes {LONGEST_STRING}")
        used += length + POINTER
        if used > room.total:
            raise _cannot(name, f"does not fit: environment and arguments together may have {room.total} bytes")
        pairs.append((name.encode(), encoded))
    return encode_block(pairs)


def _cannot(name: str, why: str) -> ConfigError:
    return ConfigError(f"{name} {why}", mend="store it smaller, or split the scope", reason="unrepresentable")
