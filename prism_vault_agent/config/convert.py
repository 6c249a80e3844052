"""From what is written to what holds: a validated document becomes frozen settings, or a list of problems.

Here is what needs more than one field or the host: defaults, users and groups, references, names of variables.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prism_vault_agent.config.accounts import Accounts
from prism_vault_agent.config.credentials import check_names
from prism_vault_agent.config.places import LONGEST_SOCKET_PATH, places
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.scopes import scope
from prism_vault_agent.config.settings import (
    AgentSettings,
    AuthSettings,
    CentralSettings,
    Settings,
    TlsFiles,
    VaultSettings,
)
from prism_vault_agent.config.shapes import name, seconds
from prism_vault_agent.config.templates import Templates
from prism_vault_agent.relay import VARIABLE
from prism_vault_agent.scope import ScopeName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.config import schema
    from prism_vault_agent.config.lines import KeyPath


@dataclass(slots=True)
class Conversion:
    """One conversion under way: the host it is for, and what was found wrong so far.

    ``serving`` is whether the settings are an agent's, which must have a socket; who asks no agent can do without.
    """

    environ: Mapping[str, str]
    serving: bool = True
    accounts: Accounts = field(default_factory=Accounts)
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, path: KeyPath, what: str, mend: str) -> None:
        """Note a problem and go on, so that one run tells them all."""
        self.problems.append(Problem(path, what, mend))


def settings(document: schema.Document, conversion: Conversion, files: tuple[str, ...]) -> Settings:
    """Return the settings that ``document`` means on this host; problems are added to ``conversion``."""
    templates = Templates(os.path.dirname(files[0]), read=conversion.serving)
    check_names(document.scopes, conversion.problems)
    # Whoever asks no agent has a network of its own.
    relay = (document.agent.relay or conversion.environ.get(VARIABLE, "")) if conversion.serving else ""
    return Settings(
        agent=_agent(document.agent, conversion),
        vault=_vault(document.vault, relay, conversion),
        central=_central(document.central, relay, conversion),
        scopes={
            ScopeName(key): scope(key, entry, conversion.accounts, templates, conversion.problems)
            for key, entry in document.scopes.items()
        },
        files=files,
    )


def _agent(section: schema.Agent, conversion: Conversion) -> AgentSettings:
    default = places(conversion.environ, os.geteuid())
    socket = section.socket or default.socket
    if not socket and conversion.serving:
        conversion.wrong(("agent", "socket"), "has no default here, since XDG_RUNTIME_DIR is not set", "set it")
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        what = f"is longer than the {LONGEST_SOCKET_PATH} bytes that a socket's path may have"
        conversion.wrong(("agent", "socket"), what, "choose a shorter path")
    return AgentSettings(
        host=section.host or _host(conversion),
        socket=socket,
        socket_uid=_account(section.socket_owner, "user", ("agent", "socket_owner"), conversion),
        socket_gid=_account(section.socket_group, "group", ("agent", "socket_group"), conversion),
        socket_mode=int(section.socket_mode, 8),
        state=section.state or default.state,
        drops=section.drops or "",
        workers=section.workers,
        connections_per_user=section.connections_per_user,
        files=section.files or default.files,
        helper=section.helper or default.helper,
        files_risks=tuple(dict.fromkeys(section.files_risks)),
        on_end=section.on_end,
        log_format=section.log_format,
        log_level=section.log_level,
    )


def _host(conversion: Conversion) -> str:
    found = os.uname().nodename
    try:
        return name(found)
    except ValueError:
        conversion.wrong(("agent", "host"), "has no default here, since the host's own name is not a name", "set it")
        return found


def _account(text: str | None, kind: str, path: KeyPath, conversion: Conversion) -> int:
    """Return the number of a user or group; our own where none is named."""
    if text is None:
        return os.geteuid() if kind == "user" else os.getegid()
    number = conversion.accounts.uid(text) if kind == "user" else conversion.accounts.gid(text)
    if number is None:
        conversion.wrong(path, f"names a {kind} that this host does not have", "create it, or name another")
        return -1
    return number


def _vault(section: schema.Vault, relay: str, conversion: Conversion) -> VaultSettings:
    tls = _tls(section, "vault", conversion)
    auth = section.auth
    if auth.method == "cert" and not tls.cert_file:
        conversion.wrong(("vault", "auth", "method"), "needs a client certificate", "set cert_file and key_file in [vault]")
    given = {key: value for key, value in auth.model_dump(exclude={"mount"}).items() if value is not None}
    usual = {"token_file": "token"}.get(auth.method, auth.method)
    return VaultSettings(
        address=section.address,
        auth=AuthSettings(mount=(auth.mount or usual).strip("/"), **given),
        namespace=section.namespace.strip("/"),
        tls=tls,
        timeout=seconds(section.timeout),
        poll=seconds(section.poll),
        poll_requests=section.poll_requests,
        token_role=section.token_role or "",
        relay=relay,
    )


def _central(section: schema.Central, relay: str, conversion: Conversion) -> CentralSettings:
    _one_credential(section, conversion)
    for place, url in enumerate(section.replicas):
        if url in (section.url, *section.replicas[:place]):
            conversion.wrong(("central", "replicas", place), "names an address twice", "name each replica once")
    return CentralSettings(
        url=section.url,
        identity_role=section.identity_role or "",
        token_file=section.token_file or "",
        tls=_tls(section, "central", conversion),
        timeout=seconds(section.timeout),
        replicas=tuple(section.replicas),
        log_keys=_log_keys(section, conversion),
        relay=relay,
    )


def _one_credential(section: schema.Central, conversion: Conversion) -> None:
    """Find fault where central cannot know who we are: by one token at most, and without one by a certificate, over TLS."""
    tokens = [each for each in (section.identity_role, section.token_file) if each is not None]
    if len(tokens) > 1 or not (tokens or section.cert_file):
        conversion.wrong(("central",), "needs one credential", "set identity_role, token_file, or cert_file and key_file alone")
    elif not tokens and any(not url.startswith("https:") for url in (section.url, *section.replicas)):
        conversion.wrong(("central",), "a certificate alone needs https://", "use https://, or set identity_role or token_file")


def _log_keys(section: schema.Central, conversion: Conversion) -> tuple[str, ...]:
    """Return the keys of the log, which has one name."""
    if section.log_key is None:
        if section.further_log_keys:
            conversion.wrong(("central", "further_log_keys"), "needs a key beside which they are further ones", "set log_key")
        return ()
    name = section.log_key.partition("+")[0]
    for place, key in enumerate(section.further_log_keys):
        if key.partition("+")[0] != name:
            what = "is the key of another log: its name is not that of log_key"
            conversion.wrong(("central", "further_log_keys", place), what, "a log keeps its name when its key is replaced")
    return (section.log_key, *section.further_log_keys)


def _tls(section: schema.Vault | schema.Central, table: str, conversion: Conversion) -> TlsFiles:
    if (section.cert_file is None) != (section.key_file is None):
        missing = "key_file" if section.key_file is None else "cert_file"
        conversion.wrong((table, missing), "is missing", "a client certificate needs cert_file and key_file")
    return TlsFiles(section.ca_file or "", section.cert_file or "", section.key_file or "")
