r"""How each reader of environment files takes a value, and what none of them can be given. Pure.

No encoding is read alike by all of them, so each has a writer, held against the reader itself by ``tests/dialects``. Sources:
systemd.exec(5), EnvironmentFile=; POSIX.1-2024, Shell Command Language, 2.2; Docker's kvfile, which takes a line as it is;
compose-go's dotenv; python-dotenv, which interpolates ``${...}`` even inside single quotes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import fault, shown

if TYPE_CHECKING:
    from collections.abc import Callable

# MAX_ARG_STRLEN of execve(2): NAME=value with its NUL.
LONGEST_VARIABLE: Final = 131_072
# Docker reads a line, with its end, into a buffer of this size (bufio.MaxScanTokenSize of Go).
LONGEST_LINE: Final = 65_536

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@,+%=-]*")
# Of every plane the last two, and U+FDD0 to U+FDEF: systemd refuses a file that holds one, and logs the value (unichar_is_valid).
_LAST: Final = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
_NONCHARACTER: Final = re.compile(f"[\ufdd0-\ufdef{_LAST}]")


def systemd(name: str, value: str) -> str:
    """Return a value as ``EnvironmentFile=`` of systemd reads it."""
    if _NONCHARACTER.search(value):
        raise unrepresentable(name, "a Unicode noncharacter", "systemd")
    return sh(name, value)


def sh(name: str, value: str) -> str:
    r"""Return a value as a POSIX shell reads it: in double quotes, with ``\``, ``"``, ``$`` and the backtick escaped."""
    _for_a_process(name, value)
    return '"' + re.sub(r'[\\"$`]', r"\\\g<0>", value) + '"'


def docker(name: str, value: str) -> str:
    """Return a value as ``docker run --env-file`` and Compose's ``format: raw`` read it: as it is, on one line."""
    _for_a_process(name, value)
    if "\n" in value:
        raise unrepresentable(name, "a line break", "docker")
    if value.endswith("\r"):
        raise unrepresentable(name, "a carriage return at its end", "docker")
    if len(f"{name}={value}\n".encode()) > LONGEST_LINE:
        raise unrepresentable(name, f"more than the {LONGEST_LINE} bytes that a line may have", "docker")
    return value


def compose(name: str, value: str) -> str:
    r"""Return a value as ``env_file:`` of Compose reads it: in double quotes, with ``\``, ``"`` and ``$`` escaped."""
    _for_a_process(name, value)
    return '"' + re.sub(r'[\\"$]', r"\\\g<0>", value) + '"'


def dotenv(_name: str, value: str) -> str:
    r"""Return a value as python-dotenv reads it when it interpolates, as it does unless told otherwise.

    ``${`` is spelled as the default of a variable without a name, since that reader knows no escape for it.
    """
    escaped = re.sub(r'[\\"]', r"\\\g<0>", value).replace("\r", r"\r").replace("\n", r"\n")
    return '"' + escaped.replace("${", "${:-$}{") + '"'


def portable(name: str, value: str) -> str:
    """Return a value as systemd, shells, Compose and python-dotenv all read it; what they read differently is refused."""
    _for_a_process(name, value)
    if "\r" in value:
        raise unrepresentable(name, "a carriage return", "portable")
    if "${" in value:
        raise unrepresentable(name, "a dollar sign before a brace", "portable")
    if _NONCHARACTER.search(value):
        raise unrepresentable(name, "a Unicode noncharacter", "portable")
    if _PLAIN.fullmatch(value):
        return value
    if not re.search(r"['\\]", value):
        return f"'{value}'"
    if re.search(r"[$`]", value):
        raise unrepresentable(name, "a quote or backslash beside a dollar sign or backtick", "portable")
    return '"' + re.sub(r'[\\"]', r"\\\g<0>", value) + '"'


QUOTING: Final[dict[str, Callable[[str, str], str]]] = {
    "systemd": systemd,
    "sh": sh,
    "docker": docker,
    "compose": compose,
    "dotenv": dotenv,
    "portable": portable,
}


def line(dialect: str, name: str, value: str) -> str:
    """Return ``NAME=value`` in a dialect. Raises ``ConfigError``, with the name and what it cannot carry of it."""
    if (why := fault(name)) is not None:
        raise ConfigError(f"the name {shown(name)} {why}", mend="rename it", reason="bad_name")
    return f"{name}={quoted(dialect, name, value)}\n"


def quoted(dialect: str, name: str, value: str) -> str:
    """Return a value as it stands behind ``NAME=`` in a dialect. Raises like :func:`line`."""
    if "\0" in value:
        raise unrepresentable(name, "a NUL byte", dialect)
    if any("\ud800" <= mark <= "\udfff" for mark in value):
        raise unrepresentable(name, "a lone surrogate", dialect)
    return QUOTING[dialect](name, value)


def unrepresentable(name: str, what: str, dialect: str) -> ConfigError:
    """Return the error of a value that a dialect cannot carry. It names the variable and the class, never the value."""
    return ConfigError(
        f"{name} holds {what}, which a file of format {dialect} cannot carry",
        mend='use another format, or format = "dir" with a file for each secret',
        reason="unrepresentable",
    )


def _for_a_process(name: str, value: str) -> None:
    """Refuse what no process can be given, in whatever file it stands."""
    if len(f"{name}={value}".encode("utf-8", "surrogatepass")) + 1 > LONGEST_VARIABLE:
        raise ConfigError(
            f"{name} is longer than the {LONGEST_VARIABLE} bytes that the kernel takes for a variable",
            mend='store it smaller, or use format = "dir"',
            reason="unrepresentable",
        )
