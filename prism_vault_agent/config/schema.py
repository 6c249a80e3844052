"""The configuration as it is written: one frozen pydantic model, from which the reference and the JSON Schema are made.

Only shapes are checked here, one field at a time; what needs the host or several fields is checked in ``convert.py``.
No message repeats a value: somebody may have written a secret in the wrong place.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prism_vault_agent.config import shapes
from prism_vault_agent.config.auth import METHODS, AnyAuth
from prism_vault_agent.config.certificates import CertificateEntry
from prism_vault_agent.config.credentials import CredentialEntry
from prism_vault_agent.config.fields import (
    Duration,
    FileMode,
    FileName,
    Id,
    LogKey,
    Mode,
    Name,
    Namespace,
    Path,
    Section,
    Template,
    Text,
    Timeout,
    Ttl,
    Url,
)
from prism_vault_agent.config.notify import NotifyEntry
from prism_vault_agent.model import Format


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
        description="Directory of the sockets `HOST:PORT` that lead to Vault and central, for an agent without a network.",
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


class CallerEntry(Section):
    """Who may ask. Every selector that is set must match, and one at least is needed."""

    kind: Literal["service", "agent", "worker", "operator"] = Field(
        description="Kind of caller; an `agent` must name its run (`--run-ref`), a `worker` its job (`--job-id`)."
    )
    user: Text | None = Field(None, description="User name on this host.")
    uid: Id | None = Field(None, description="User number, instead of `user`.")
    group: Text | None = Field(None, description="Group name on this host; the caller's further groups count.")
    gid: Id | None = Field(None, description="Group number, instead of `group`.")
    executable: Path | None = Field(None, description="Absolute path of the program that asks.")
    unit: Text | None = Field(
        None,
        description="Unit of the host's systemd that the caller runs in, as `systemctl status PID` names it, for instance "
        "`web.service`. Everything of a user's own systemd is in `user@UID.service`.",
    )
    container: Annotated[str, AfterValidator(shapes.container)] | None = Field(
        None, description="Container that the caller runs in: its id, or at least the first 12 digits."
    )


class FileEntry(Section):
    """A file that `prism-vault render` makes of all values of the scope, below the scope's own directory."""

    path: FileName = Field(description="Its name; for `dir` that of a directory, with a file for each value.")
    format: Format = Field(description="Who reads it. What the format cannot carry ends the render.")
    template: Template | None = Field(
        None,
        description="For format `template`: a template of Jinja2, an absolute path below the directory of the main "
        "configuration file, ending in `.j2`, at most 64 KiB.",
    )
    owner: Text | None = Field(None, description="User (name or number) that owns it. Default: the agent's own.")
    group: Text | None = Field(None, description="Group (name or number). Default: the agent's own.")
    mode: FileMode = Field("0400", description="Its mode, as an octal string.")
    notify: NotifyEntry | None = Field(None, description="Who is told when it has changed. Default: nobody.")


class ScopeEntry(Section):
    """A named set of secrets that belong together, with who may have it and why."""

    project: Name = Field(description="Project on the audit log and at central.")
    environment: Name = Field(description="Environment of the project, for instance `lan`.")
    purposes: Annotated[list[Name], Field(min_length=1)] = Field(
        description="Why it may be asked for. A scope with one purpose uses it when none is given."
    )
    callers: Annotated[list[CallerEntry], Field(min_length=1)] = Field(description="Who may ask; nobody else may.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Environment name to secret reference: `vault://<mount>/<path>#<key>[?version=N]`.",
    )
    env_from: list[str] = Field(
        default_factory=list,
        description="References without `#<key>`: every key of the secret becomes an environment name.",
    )
    certificates: dict[str, CertificateEntry] = Field(default_factory=dict, description="Certificates by path: `pki/issue/ROLE`.")
    files: list[FileEntry] = Field(default_factory=list, description="Files that the scope is rendered to.")
    credentials: list[CredentialEntry] = Field(default_factory=list, description="Credentials for the units among the callers.")
    allow_paths: list[Annotated[str, AfterValidator(shapes.pattern)]] = Field(
        default_factory=list,
        description="Paths that the caller's own `vault://` references may name: `<mount>/<path>`, or `<mount>/*`.",
    )
    allow_names: list[str] = Field(
        default_factory=list,
        description="Environment names that change how programs load or run, each allowed here by name.",
    )
    on_collision: Literal["error", "scope", "caller"] = Field(
        "error", description="What happens when the caller already has another value under a name of the scope."
    )
    pristine: bool | None = Field(
        None,
        description="Whether the command gets only a small list of the caller's variables beside the scope's. "
        "Default: true for callers of kind `agent`, else false.",
    )
    poll: Timeout | None = Field(None, description="How often to look after what has this scope. Default: `poll` of `[vault]`.")
    grace: Duration = Field("10s", description="Time between asking a process to end and ending it.")
    ttl: Ttl | None = Field(None, description="Longest life of what is leased for it. Default: what the provider allows.")


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
    ("scopes", "*", "files", "*"): FileEntry,
    ("scopes", "*", "files", "*", "notify"): NotifyEntry,
    ("scopes", "*", "credentials", "*"): CredentialEntry,
}
