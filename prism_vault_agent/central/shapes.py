"""What every section of central's configuration is made of."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_DURATION: Final = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<unit>ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: object) -> float:
    """Return the seconds that text such as ``60s`` or ``5m`` means."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("write a number and a unit, for instance 60s, 5m or 1h")
    return int(match["number"]) * _UNITS[match["unit"]]


def _absolute(path: str) -> str:
    """Return the path of a file that may be absent (empty), but not relative to wherever central was started."""
    if path and not Path(path).is_absolute():
        raise ValueError("write an absolute path")
    return path


Duration = Annotated[float, BeforeValidator(_seconds)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Section(BaseModel):
    """Frozen, without unknown keys, and without the input in its error messages."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def is_loopback(host: str) -> bool:
    """Tell whether what is sent to ``host`` stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
