"""A scope as it is written: its section of a configuration file, and the sections in that.

Only shapes are checked here, one field at a time; what needs the host or several fields is checked in ``scopes.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from prism_vault_agent.config import shapes
from prism_vault_agent.config.certificates import CertificateEntry
from prism_vault_agent.config.ciphertexts import CiphertextEntry
from prism_vault_agent.config.credentials import CredentialEntry
from prism_vault_agent.config.fields import Duration, FileMode, FileName, Id, Name, Path, Section, Template, Text, Timeout, Ttl
from prism_vault_agent.config.health import HealthEntry
from prism_vault_agent.config.notify import NotifyEntry
from prism_vault_agent.config.reactions import KeyEntry, LimitsEntry, OnRevoke, OnRotate
from prism_vault_agent.config.ssh import SshEntry
from prism_vault_agent.scope import Format


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
    ssh: dict[str, SshEntry] = Field(default_factory=dict, description="SSH certificates by path: `ssh/sign/ROLE`.")
    transit: dict[str, Annotated[dict[str, CiphertextEntry], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Values that a key of transit decrypts, by its path `transit/decrypt/KEY` and their names.",
    )
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
    stale_ok: Ttl | None = Field(
        None,
        description="How long what was given out may be used while the provider does not say that it stands. Then files are "
        "cleared and processes ended, or at the end of a lease before that. Default: no bound but the end of leases.",
    )
    on_rotate: OnRotate = Field(
        "notify",
        description="What is done when a secret of it has a newer version: `restart`, `signal:NAME` or `terminate` the processes "
        "that hold an older one, after its files; `notify`: files are written anew, and who is to be told of them is; "
        "`rewrite`: files only; `none`: nothing that was given out is touched.",
    )
    on_revoke: OnRevoke = Field(
        "terminate",
        description="What is done with processes when it is taken back, beside the files, which are cleared in any case: "
        "`terminate`; `signal:NAME`, in place of SIGTERM; `clear`: they are left, whatever they hold.",
    )
    keys: dict[str, KeyEntry] = Field(
        default_factory=dict, description="`on_rotate`, `on_revoke` and `stale_ok` of single variables."
    )
    rotate_limits: LimitsEntry | None = Field(None, description="How often and when `on_rotate` is done to processes.")
    health: HealthEntry | None = Field(
        None, description="How new files are judged, else they are taken back. Default: not at all."
    )
