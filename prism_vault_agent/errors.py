"""The error tree. An error says what failed, and its class says what the caller should do next.

::

    PrismVaultError            70  a defect of ours
    ├─ UsageError              64  the command line is wrong
    ├─ IntegrityError          65  the audit chain does not verify
    ├─ SecretNotFound          66  no such secret, key or version; do not retry
    ├─ AgentUnavailable        69  no agent answers on the socket
    ├─ CannotCreate            73  a file or socket of ours cannot be made
    ├─ Unavailable             75  temporary: retry with backoff
    │  ├─ AuditUnavailable         central did not take the record
    │  └─ ProviderUnavailable      the provider did not answer, is sealed or is busy
    ├─ ProtocolError           76  a peer answered something we do not understand
    ├─ Denied                  77  policy said no; do not retry
    │  └─ TokenExpired             the provider's token is dead: log in again (never reaches a caller)
    └─ ConfigError             78  the configuration, or a value that its delivery cannot carry

The numbers are those of ``sysexits.h`` (see ``sysexits(3)``), so a systemd unit can name them in
``RestartPreventExitStatus=``. Messages are built from names and paths, never from a value or from the body of an answer.
"""

from __future__ import annotations


class PrismVaultError(Exception):
    """A failure that is told to the caller in one line.

    ``reason`` is a stable word for audit rows and logs; ``mend`` says what to do next; ``scope`` and ``audit_id`` are
    filled in where they are known. None of them may hold a secret value.
    """

    exit_status = 70
    reason = "internal"

    def __init__(self, message: str, *, mend: str = "", reason: str = "", scope: str = "", audit_id: str = "") -> None:
        """Keep the message and what goes with it; ``reason`` defaults to the class's own."""
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.scope = scope
        self.audit_id = audit_id
        if reason:
            self.reason = reason

    def line(self) -> str:
        """Return the one line that a person reads: what failed, for which scope, what to do next."""
        where = f"scope {self.scope}: " if self.scope else ""
        told = f"{where}{self.message}" + (f"; {self.mend}" if self.mend else "")
        return told + (f" ({self.audit_id})" if self.audit_id else "")


class UsageError(PrismVaultError):
    """The command line is wrong."""

    exit_status = 64
    reason = "usage"


class IntegrityError(PrismVaultError):
    """The audit log does not verify: a row was changed, removed or put out of order."""

    exit_status = 65
    reason = "integrity"


class SecretNotFound(PrismVaultError):
    """The secret, its key or its version does not exist, was deleted or was destroyed."""

    exit_status = 66
    reason = "secret_not_found"


class AgentUnavailable(PrismVaultError):
    """No agent answers on the socket."""

    exit_status = 69
    reason = "agent_unavailable"


class CannotCreate(PrismVaultError):
    """A file, directory or socket of ours cannot be made."""

    exit_status = 73
    reason = "cannot_create"


class Unavailable(PrismVaultError):
    """A temporary failure: the same request may succeed later."""

    exit_status = 75
    reason = "unavailable"


class AuditUnavailable(Unavailable):
    """Central did not durably take a record, so nothing may be released.

    Where it answered, ``request_id`` is what its log calls the request, and ``code`` its word for the problem.
    """

    reason = "audit_unavailable"
    request_id = ""
    code = ""


class ProviderUnavailable(Unavailable):
    """The provider did not answer in time, is sealed, on standby, rate limiting or broken."""

    reason = "provider_unreachable"


class ProtocolError(PrismVaultError):
    """A peer's answer has the wrong shape, is too large or is cut short."""

    exit_status = 76
    reason = "protocol"


class Denied(PrismVaultError):
    """Policy said no, here, at central or at the provider. Retrying does not help."""

    exit_status = 77
    reason = "denied"


class TokenExpired(Denied):
    """The provider's token is expired, revoked or used up: one new login may help."""

    reason = "token_expired"


class ConfigError(PrismVaultError):
    """The configuration is wrong, or a value cannot be carried by the delivery that the scope asks for."""

    exit_status = 78
    reason = "config"


def every_class() -> dict[str, type[PrismVaultError]]:
    """Return all error classes by name, so that an error can cross a process border and come back as itself."""
    found: dict[str, type[PrismVaultError]] = {}
    waiting: list[type[PrismVaultError]] = [PrismVaultError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting.extend(kind.__subclasses__())
    return found


def to_plain(error: PrismVaultError) -> dict[str, str]:
    """Return an error as JSON-ready text, to be raised again by :func:`from_plain` on the other side."""
    return {
        "class": type(error).__name__,
        "message": error.message,
        "mend": error.mend,
        "reason": error.reason,
        "scope": error.scope,
        "audit_id": error.audit_id,
    }


def from_plain(plain: dict[str, str]) -> PrismVaultError:
    """Return the error that :func:`to_plain` described; an unknown class becomes the root of the tree."""
    kind = every_class().get(plain.get("class", ""), PrismVaultError)
    return kind(
        plain.get("message", ""),
        mend=plain.get("mend", ""),
        reason=plain.get("reason", ""),
        scope=plain.get("scope", ""),
        audit_id=plain.get("audit_id", ""),
    )
