"""Credential files: what they must be before anything in them is used."""

from __future__ import annotations

import os
import stat

from prism_vault_agent.errors import ConfigError

LARGEST = 64 * 1024


def check(descriptor: int, path: str, *, others_may_read: bool = False) -> None:
    """Raise :class:`ConfigError`, with how to mend it, where the open file's owner or mode is unsafe for a credential.

    Safe is: a regular file of ours or root's that only its owner may write and that only its owner and group may read.
    """
    facts = os.fstat(descriptor)
    mode = stat.S_IMODE(facts.st_mode)
    if not stat.S_ISREG(facts.st_mode):
        raise ConfigError(f"{path} is not a regular file", mend="give the path of the file that holds the credential")
    if facts.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{path} belongs to another user (uid {facts.st_uid})", mend=f"chown it: chown {os.geteuid()} {path}")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"{path} can be written by others (mode {mode:04o})", mend=f"run: chmod 0600 {path}")
    if mode & stat.S_IROTH and not others_may_read:
        raise ConfigError(f"{path} can be read by everybody (mode {mode:04o})", mend=f"run: chmod 0600 {path}")


def read(path: str, *, others_may_read: bool = False) -> str:
    """Return the credential in ``path``, without the white space around it.

    Raises :class:`ConfigError` where the file is missing, unsafe (see :func:`check`), empty, or holds what no credential has.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {os.strerror(error.errno or 0)}", mend="check the path and its mode") from None
    try:
        check(descriptor, path, others_may_read=others_may_read)
        content = os.read(descriptor, LARGEST + 1)
    finally:
        os.close(descriptor)
    credential = content.decode("utf-8", "replace").strip()
    if not credential:
        raise ConfigError(f"{path} is empty", mend="write the credential into it")
    if len(content) > LARGEST or "\ufffd" in credential or not credential.isprintable():
        raise ConfigError(f"{path} does not hold a credential", mend="it must hold one line of text")
    return credential
