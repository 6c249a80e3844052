"""Which variables the command gets. Pure: bytes in, bytes out. The rules are told in ``docs/exec.md``."""

from prism_vault_agent.exec import CONFIG, Failure, shown

REFERENCE = b"vault://"
LONGEST_VARIABLE = 131_072  # MAX_ARG_STRLEN: name, '=', value and NUL of one variable, see execve(2)

# Credentials of ours, and what a service manager tells to one process only: a child would take it for its own.
STRIPPED_PREFIXES = (b"VAULT_", b"BAO_", b"PRISM_VAULT_")
STRIPPED = frozenset(
    (
        b"NOTIFY_SOCKET",
        b"LISTEN_FDS",
        b"LISTEN_PID",
        b"LISTEN_FDNAMES",
        b"WATCHDOG_USEC",
        b"WATCHDOG_PID",
        b"CREDENTIALS_DIRECTORY",
    )
)

# What is left of the caller's own variables with --pristine: who and where it is, its language and its terminal.
PRISTINE_PREFIXES = (b"LC_",)
PRISTINE = frozenset(
    (
        b"COLORTERM",
        b"HOME",
        b"LANG",
        b"LANGUAGE",
        b"LOGNAME",
        b"NO_COLOR",
        b"PATH",
        b"PWD",
        b"SHELL",
        b"TERM",
        b"TMPDIR",
        b"TZ",
        b"USER",
        b"XDG_RUNTIME_DIR",
    )
)


class Kept:
    """What the command gets besides the scope's variables. ``references`` are to be resolved, in this order.

    ``all`` and ``pristine`` are the plain variables without and with ``--pristine``; a reference is in neither.
    """

    __slots__ = ("all", "pristine", "references")

    def __init__(self, own: dict[bytes, bytes], files: dict[bytes, bytes]) -> None:
        """Sort the caller's ``own`` variables and those of its env ``files``, which go before them."""
        told = {name: value for name, value in files.items() if not is_stripped(name)}
        rest = {name: value for name, value in own.items() if name not in told and not is_stripped(name)}
        self.references = [pair for pair in (*told.items(), *rest.items()) if pair[1].startswith(REFERENCE)]
        plain_told = _plain(told)
        self.all = _plain(rest) | plain_told
        self.pristine = {name: value for name, value in _plain(rest).items() if is_pristine(name)} | plain_told


def is_stripped(name: bytes) -> bool:
    """Tell whether a variable is never handed on, whoever set it; only a scope may set one of this name."""
    return name in STRIPPED or name.startswith(STRIPPED_PREFIXES)


def is_pristine(name: bytes) -> bool:
    """Tell whether the caller's own variable of this name is handed on with ``--pristine``."""
    return name in PRISTINE or name.startswith(PRISTINE_PREFIXES)


def _plain(variables: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the variables that are no references."""
    return {name: value for name, value in variables.items() if not value.startswith(REFERENCE)}


def read_block(raw: bytes) -> dict[bytes, bytes]:
    """Return the variables of a raw environment block as the kernel gives it (``/proc/PID/environ``).

    Of a name that is there twice the first counts, as in getenv(3). An item without a name or without ``=`` is not a
    variable and is left out.
    """
    variables: dict[bytes, bytes] = {}
    for item in raw.split(b"\0"):
        name, equals, value = item.partition(b"=")
        if name and equals:
            variables.setdefault(name, value)
    return variables


def kernel_bytes(strings: list[bytes]) -> int:
    """Return what execve(2) counts for these strings: each with its NUL and its pointer."""
    return sum([len(string) for string in strings]) + 9 * len(strings)


def as_strings(variables: dict[bytes, bytes]) -> list[bytes]:
    """Return the variables as the strings that execve(2) takes."""
    return [b"%b=%b" % pair for pair in variables.items()]


def compose(kept: dict[bytes, bytes], released: list[tuple[bytes, bytes]], collision: bytes) -> dict[bytes, bytes]:
    """Return the command's environment: what is ``kept``, and what the agent ``released``.

    ``collision`` says which value stays where both have a name with different values: ``error`` (``Failure`` 78),
    ``scope`` or ``caller``.
    """
    composed = dict(kept)
    for name, value in released:
        if kept.get(name, value) == value or collision == b"scope":
            composed[name] = value
        elif collision != b"caller":
            raise Failure(
                CONFIG,
                f"{shown(name)} is already set, to something else than the scope's value; unset it, "
                'or let the scope say which one counts: on_collision = "scope" or "caller"',
            )
    return composed
