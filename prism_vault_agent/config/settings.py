"""What the configuration says, as frozen values: the only form in which the rest of the product sees it.

The files are read and checked in ``config/load.py`` (pydantic). Durations are seconds, modes are numbers, users and
groups are ids, paths are absolute. No field holds a secret: credentials are named by the file that holds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.scope import Scope, ScopeName

AuthMethod = Literal["approle", "jwt", "kubernetes", "cert", "userpass", "token_file"]
OnAuthFailure = Literal["keep-trying", "clear", "exit"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate authority, and our own certificate and key, as file paths; empty means none (system authorities)."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How the agent logs in. ``mount`` is the path of the auth method; only the fields of the method are set.

    ``secret_id_wrapped_by``: where set, the secret-id file holds a response-wrapping token that must have been created
    at this path, for instance ``auth/approle/role/server1/secret-id``.
    """

    method: AuthMethod
    mount: str
    role: str = ""
    role_id_file: str = ""
    secret_id_file: str = ""
    secret_id_wrapped_by: str = ""
    jwt_file: str = ""
    username: str = ""
    password_file: str = ""
    token_file: str = ""
    on_failure: OnAuthFailure = "keep-trying"


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where the secrets live. ``timeout`` is seconds for one request, ``poll`` between looks at what was given out.

    ``token_role`` is what child tokens are made with; empty for children of the login's token.
    ``relay`` is the directory of sockets that lead to servers (see ``relay.py``); empty where we have a network.
    """

    address: str
    auth: AuthSettings
    namespace: str = ""
    tls: TlsFiles = field(default_factory=TlsFiles)
    timeout: float = 5.0
    poll: float = 15.0
    poll_requests: int = 100
    token_role: str = ""
    relay: str = ""


@dataclass(frozen=True, slots=True)
class CentralSettings:
    """Where the audit log is. Our credential: the provider's token of ``identity_role``, ``token_file``, or ``tls`` alone.

    ``log_keys`` are the texts of the keys that verify what central signs, all of one name; none where central is believed.
    """

    url: str
    identity_role: str = ""
    token_file: str = ""
    tls: TlsFiles = field(default_factory=TlsFiles)
    timeout: float = 5.0
    replicas: tuple[str, ...] = ()
    log_keys: tuple[str, ...] = ()
    relay: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all replicas of central, in the order in which they are tried."""
        return (self.url, *self.replicas)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The agent's own: its host name on the log, its socket and directories, and its limits."""

    host: str
    socket: str
    socket_uid: int
    socket_gid: int
    socket_mode: int
    state: str
    drops: str = ""
    workers: int = 4
    connections_per_user: int = 64
    files: str = ""
    helper: str = ""
    files_risks: tuple[Literal["swap", "disk"], ...] = ()
    on_end: Literal["keep", "clear"] = "keep"
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """One valid configuration as a whole."""

    agent: AgentSettings
    vault: VaultSettings
    central: CentralSettings
    scopes: Mapping[ScopeName, Scope]
    files: tuple[str, ...] = ()
