"""What to tell where no agent answers or the command cannot be started. Loaded only when that happens."""

import errno
import posix

from prism_vault_agent.exec import (
    AGENT_UNAVAILABLE,
    CONFIG,
    DENIED,
    NOT_FOUND,
    NOT_RUNNABLE,
    TEMPORARY,
    Failure,
    environment,
    shown,
)

LONGEST_PATH = 107  # of a Unix socket, see unix(7)


def not_connected(paths: list[str], error: OSError) -> Failure:
    """Return what to tell where none of the socket ``paths`` could be connected to."""
    where = ascii(" or ".join(paths))[1:-1]
    if any(len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH for path in paths):
        return Failure(CONFIG, f"the socket's path {where} is over {LONGEST_PATH} bytes; use a shorter one")
    if isinstance(error, PermissionError):
        return _closed(paths[0], where)
    why = "there is no such socket" if isinstance(error, FileNotFoundError) else f"{error.strerror}".lower()
    return Failure(
        AGENT_UNAVAILABLE,
        f"no agent on {where} ({why}); start one (systemctl start prism-vault-agent, or prism-vault agent), "
        "or read the secrets yourself with --direct",
    )


def _closed(path: str, where: str) -> Failure:
    """Return what to tell where the socket is closed to us."""
    try:
        status = posix.stat(path)
    except OSError:
        return Failure(DENIED, f"you may not reach the agent's socket {where}; ask for access to its directory")
    mode = status.st_mode & 0o7777
    return Failure(
        DENIED,
        f"you may not use the agent's socket {where} (user {status.st_uid}, group {_group(status.st_gid)}, mode {mode:04o}); "
        "ask to be made a member of that group",
    )


def _group(gid: int) -> str:
    """Return the group's name, else its number."""
    import grp  # noqa: PLC0415 - as this file is

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def no_more(error: OSError) -> Failure:
    """Return what to tell where the kernel gives a supervisor no further process or descriptor."""
    why = f"{error.strerror or error}".lower()
    return Failure(
        TEMPORARY,
        f"the command cannot be supervised ({why}); raise the limits of its user (ulimit -u, -n) or of its unit or container "
        "(TasksMax=, pids), or end others",
    )


def no_command(name: bytes, candidates: list[bytes]) -> Failure:
    """Return what to tell where none of the ``candidates`` for the command ``name`` can be executed."""
    for path in candidates:
        try:
            is_directory = posix.stat(path).st_mode & 0o170000 == 0o040000
        except PermissionError:
            return Failure(NOT_RUNNABLE, f"{shown(name)} cannot be reached; check the modes of the directories above it")
        except OSError:
            continue
        if not is_directory:
            return Failure(NOT_RUNNABLE, f"{shown(path)} may not be executed; check its mode, and that it is a program")
        if b"/" in name:
            return Failure(NOT_RUNNABLE, f"{shown(name)} is a directory; name a program")
    return Failure(NOT_FOUND, f"there is no command {shown(name)}; check its spelling and PATH")


def not_started(path: bytes, argv: list[bytes], variables: dict[bytes, bytes], error: OSError) -> Failure:
    """Return what to tell where the kernel refused to execute ``path``."""
    name = shown(argv[0])
    if error.errno == errno.E2BIG:
        longest = max(variables, key=lambda name: len(name) + len(variables[name]), default=b"")
        total = environment.kernel_bytes([*argv, *environment.as_strings(variables)])
        return Failure(
            CONFIG,
            f"arguments and environment of {name} are too large for the kernel ({total} bytes; the longest variable is "
            f"{shown(longest)}); pass large values in files, or use --pristine",
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        try:
            posix.stat(path)
        except OSError:
            return Failure(NOT_FOUND, f"{name} is gone since it was looked up; start it again")
        return Failure(NOT_RUNNABLE, f"the interpreter that {name} names does not exist; check its first line")
    if error.errno == errno.ENOEXEC:
        return Failure(NOT_RUNNABLE, f"{name} is no program for this machine and has no #! line; add one, or name a shell")
    return Failure(NOT_RUNNABLE, f"{name} cannot be executed: {error.strerror}; check its file and your limits")
