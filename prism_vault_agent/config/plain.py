"""Settings as plain JSON and back: what ``config show`` prints and what the compiled configuration holds."""

from __future__ import annotations

import dataclasses
from typing import Any

from prism_vault_agent.config.settings import (
    AgentSettings,
    AuthSettings,
    CentralSettings,
    Settings,
    TlsFiles,
    VaultSettings,
)
from prism_vault_agent.scope import (
    Binding,
    CallerRule,
    Credential,
    File,
    Health,
    KeyReaction,
    Limits,
    Notify,
    Reaction,
    Scope,
    SecretReference,
)
from prism_vault_agent.wanted.kinds import wanted_of

Plain = dict[str, Any]


def to_plain(settings: Settings, *, texts: bool = False) -> Plain:
    """Return settings as JSON-ready values; a set becomes a sorted list, and a template's text is left out without ``texts``."""
    plain = dataclasses.asdict(settings)
    for scope in plain["scopes"].values():
        scope["allow_names"] = sorted(scope["allow_names"])
        for file in () if texts else (*scope["files"], *(each["file"] for each in scope["credentials"] if each["file"])):
            del file["text"]  # its digest says which it is
    return plain


def from_plain(plain: Plain) -> Settings:
    """Return the settings that :func:`to_plain` described; ``KeyError`` or ``TypeError`` for anything else."""
    vault, central = plain["vault"], plain["central"]
    return Settings(
        agent=AgentSettings(**{**plain["agent"], "files_risks": tuple(plain["agent"]["files_risks"])}),
        vault=VaultSettings(**{**vault, "auth": AuthSettings(**vault["auth"]), "tls": TlsFiles(**vault["tls"])}),
        central=CentralSettings(
            **{
                **central,
                "tls": TlsFiles(**central["tls"]),
                "replicas": tuple(central["replicas"]),
                "log_keys": tuple(central["log_keys"]),
            }
        ),
        scopes={name: scope_of(scope) for name, scope in plain["scopes"].items()},
        files=tuple(plain["files"]),
    )


def scope_of(plain: Plain) -> Scope:
    """Return the scope that a part of :func:`to_plain` described."""
    return Scope(
        **{
            **plain,
            "purposes": tuple(plain["purposes"]),
            "callers": tuple(CallerRule(**rule) for rule in plain["callers"]),
            "bindings": tuple(
                Binding(each["name"], SecretReference(**each["reference"]), wanted_of(each["wanted"]))
                for each in plain["bindings"]
            ),
            "allow_paths": tuple(plain["allow_paths"]),
            "allow_names": frozenset(plain["allow_names"]),
            "files": tuple(File(**file) for file in plain["files"]),
            "notify": tuple(
                Notify(**{**each, **{key: tuple(each[key]) for key in ("target", "files", "windows")}})
                for each in plain["notify"]
            ),
            "credentials": tuple(
                Credential(each["name"], each["variable"], File(**each["file"]) if each["file"] else None)
                for each in plain["credentials"]
            ),
            "health": _health(plain["health"]),
            "on_rotate": Reaction(**plain["on_rotate"]),
            "on_revoke": Reaction(**plain["on_revoke"]),
            "keys": tuple(
                KeyReaction(each["name"], _reaction(each["on_rotate"]), _reaction(each["on_revoke"]), each["stale_ok"])
                for each in plain["keys"]
            ),
            "rotate_limits": Limits(**{**plain["rotate_limits"], "windows": tuple(plain["rotate_limits"]["windows"])}),
        }
    )


def _reaction(plain: Plain | None) -> Reaction | None:
    return None if plain is None else Reaction(**plain)


def _health(plain: Plain | None) -> Health | None:
    return None if plain is None else Health(plain["within"], tuple(plain["command"]), tuple(plain["units"]))
