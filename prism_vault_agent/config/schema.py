"""The configuration as it is written: one frozen pydantic model, from which the reference and the JSON Schema are made.

Only shapes are checked here, one field at a time; what needs the host or several fields is checked in ``convert.py``.
No message repeats a value: somebody may have written a secret in the wrong place.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prism_vault_agent.config.auth import METHODS, AnyAuth
from prism_vault_agent.config.certificates import CertificateEntry
from prism_vault_agent.config.ciphertexts import CiphertextEntry
from prism_vault_agent.config.credentials import CredentialEntry
from prism_vault_agent.config.entries import CallerEntry, FileEntry, ScopeEntry
from prism_vault_agent.config.fields import (
    LogKey,
    Mode,
    Name,
    Namespace,
    Path,
    Section,
    Text,
    Timeout,
    Url,
)
from prism_vault_agent.config.health import HealthEntry
from prism_vault_agent.config.notify import NotifyEntry
from prism_vault_agent.config.reactions import KeyEntry, LimitsEntry
from prism_vault_agent.config.ssh import SshEntry


class Agent(Section):
    """The agent on this host. Everything has a default."""

    host: Name | None = Field(None, description="This host's name on the audit log. Default: its own name.")
    socket: Path | None = Field(
        None,
        description="Unix socket of the agent, at most 107 bytes. Default: `/run/prism-vault/agent.sock` for root, "
        "else `$XDG_RUNTIME_DIR/prism-vault/agent.sock`.",
    )
    socket_owner: Text | None = Field(None, description="User (name or number) that owns the socket. Default: the agent's own.")
    socket_group: Text | None = Field(None, description="Group (name or number) of the socket. Default: the agent's own.")
    socket_mode: Mode = Field("0660", description="Mode of the socket, as an octal string.")
    state: Path | None = Field(
        None, description="Durable state. Default: `/var/lib/prism-vault` for root, else `$XDG_STATE_HOME/prism-vault`."
    )
    workers: int = Field(4, ge=1, le=64, description="Single-use worker processes that are kept ready.")
    connections_per_user: int = Field(64, ge=1, le=10_000, description="Connections that one user may hold at a time.")
    files: Path | None = Field(
        None,
        description="Directory of rendered files, on a tmpfs; root's agent mounts one there. Default: `/run/prism-vault/files` "
        "for root, else `$XDG_RUNTIME_DIR/prism-vault/files`.",
    )
    relay: Path | None = Field(
        None,
        description="Directory of the sockets `HOST:PORT` that lead to Vault and central, for an agent without a network. "
        "Default: what PRISM_VAULT_RELAY says, which is set by the agent's unit.",
    )
    helper: Path | None = Field(
        None,
        description="Socket of the privileged helper, by which an agent that is not root gives files to other users and ends "
        "their processes. Default: none for root, else `/run/prism-vault/helper.sock`.",
    )
    files_risks: list[Literal["swap", "disk"]] = Field(
        default_factory=list,
        description="Risks that are taken with rendered files: `swap`, a tmpfs that may be swapped out; `disk`, a file system "
        "that is not in memory. Without them such a directory is refused.",
    )
    on_end: Literal["keep", "clear"] = Field(
        "keep",
        description="What becomes of files and processes when the agent ends, however it does: they stay, and the next agent "
        "looks after them; or files are cleared at once, and processes ended within their grace.",
    )
    drops: Path | None = Field(
        None,
        description="Directory in which root and the agent's user drop orders: `NAME.rotate` and `NAME.revoke`, a scope or a "
        "secret in each line. Default: none.",
    )
    log_format: Literal["json", "console"] = Field("json", description="One JSON object, or one readable line, per event.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is logged.")


class Vault(Section):
    """Vault or OpenBao: where the secrets live."""

    address: Url = Field(description="`https://` address; `http://` only on loopback. Default: BAO_ADDR or VAULT_ADDR.")
    namespace: Namespace = Field("", description="Namespace. Default: BAO_NAMESPACE or VAULT_NAMESPACE.")
    ca_file: Path | None = Field(
        None,
        description="Certificate authorities to trust instead of the system's. Default: BAO_CACERT or VAULT_CACERT.",
    )
    cert_file: Path | None = Field(None, description="Our client certificate. Default: BAO_CLIENT_CERT or VAULT_CLIENT_CERT.")
    key_file: Path | None = Field(None, description="Its private key. Default: BAO_CLIENT_KEY or VAULT_CLIENT_KEY.")
    timeout: Timeout = Field("5s", description="Longest wait for one answer.")
    poll: Timeout = Field(
        "15s", description="How often to look whether what was given out was deleted or destroyed, and for newer versions of it."
    )
    poll_requests: int = Field(100, ge=1, le=10_000, description="Requests a second at most that looking takes, of all scopes.")
    token_role: Name | None = Field(
        None,
        description="Token role by which the child tokens of leased releases are made. Where it says `orphan=true` they and "
        "their leases outlive the agent's login. Default: none, they are children of the login's token and end with it.",
    )
    auth: AnyAuth = Field(description="How the agent logs in.")


class Central(Section):
    """The central service: where the audit log is."""

    url: Url = Field(description="`https://` address; `http://` only on loopback.")
    replicas: list[Url] = Field(
        default_factory=list,
        description="Addresses of further replicas of the same central: the next one is asked where one does not answer, "
        "or answers 503, and stays in use until it does so itself.",
    )
    log_key: LogKey | None = Field(
        None,
        description="Key that verifies what central signs, as its operator gives it: `name+hash+base64`. With it, nothing is "
        "released without central's signed receipt, and this host is a witness of the log. Without it, central is believed.",
    )
    further_log_keys: list[LogKey] = Field(
        default_factory=list,
        description="Further keys of the same name, while the log's key is being replaced: what any of them signed counts.",
    )
    audit: Literal["strict"] = Field(
        "strict", description="Both audit steps are acknowledged before anything is released. There is no other value."
    )
    identity_role: Text | None = Field(
        None,
        description="Identity-token role at the provider; its token is our credential at central. Or set `token_file`, or "
        "`cert_file` and `key_file` alone.",
    )
    token_file: Path | None = Field(None, description="File that holds our service token at central.")
    ca_file: Path | None = Field(None, description="Certificate authorities to trust instead of the system's.")
    cert_file: Path | None = Field(
        None,
        description="Our client certificate, where central believes them: a credential by itself, or beside a token of the same "
        "host. A renewed one is used from the next connection on.",
    )
    key_file: Path | None = Field(None, description="Its private key.")
    timeout: Timeout = Field("5s", description="Longest wait for one answer.")


def _defaults() -> Agent:
    return Agent.model_validate({})


class Document(Section):
    """One configuration: the main file with its `scopes.d/*.toml`."""

    agent: Agent = Field(default_factory=_defaults, description="The agent on this host.")
    vault: Vault = Field(description="Where the secrets live.")
    central: Central = Field(description="Where the audit log is.")
    scopes: dict[Name, ScopeEntry] = Field(default_factory=dict, description="The scopes, by name.")


class ScopesDocument(Section):
    """A file below `scopes.d`: scopes and nothing else."""

    scopes: dict[Name, ScopeEntry] = Field(default_factory=dict, description="The scopes, by name.")


# Sections by where they are; "*" is any name or any entry of a list, and a method stands behind vault.auth.
SECTIONS: dict[tuple[str, ...], type[Section]] = {
    (): Document,
    ("agent",): Agent,
    ("vault",): Vault,
    **{("vault", "auth", method): section for method, section in METHODS.items()},
    ("central",): Central,
    ("scopes", "*"): ScopeEntry,
    ("scopes", "*", "callers", "*"): CallerEntry,
    ("scopes", "*", "certificates", "*"): CertificateEntry,
    ("scopes", "*", "ssh", "*"): SshEntry,
    ("scopes", "*", "transit", "*", "*"): CiphertextEntry,
    ("scopes", "*", "files", "*"): FileEntry,
    ("scopes", "*", "files", "*", "notify"): NotifyEntry,
    ("scopes", "*", "credentials", "*"): CredentialEntry,
    ("scopes", "*", "keys", "*"): KeyEntry,
    ("scopes", "*", "rotate_limits"): LimitsEntry,
    ("scopes", "*", "health"): HealthEntry,
}
