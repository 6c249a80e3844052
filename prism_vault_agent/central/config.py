"""What central is configured with: one TOML file, checked before anything of it is believed."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Final

from pydantic import ValidationError, model_validator

from prism_vault_agent.central.access_settings import Agent, Issuer, Limits, Mtls, Operator, PolicyEntry, ServiceToken
from prism_vault_agent.central.log_settings import Log
from prism_vault_agent.central.shapes import Duration, Section, is_loopback
from prism_vault_agent.errors import ConfigError

POSTGRESQL: Final = "postgresql://"
OWN_HOST: Final = "central"
LARGEST_FILE: Final = 1 << 20

_LISTEN: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


class Retention(Section):
    """How long the bodies of events are kept; without it, for ever. Their rows, leaves and proofs always are."""

    bodies_after: Duration | None = None


class CentralConfig(Section):
    """One valid configuration of central as a whole."""

    listen: str = "127.0.0.1:8310"
    database: str
    database_owner: str = ""
    log: Log = Log()
    retention: Retention = Retention()
    reservation_ttl: Duration = 60.0
    tls_cert: str = ""
    tls_key: str = ""
    mtls: Mtls | None = None
    issuer: Issuer | None = None
    agents: tuple[Agent, ...] = ()
    operators: tuple[Operator, ...] = ()
    tokens: tuple[ServiceToken, ...] = ()
    policies: tuple[PolicyEntry, ...] = ()
    limits: Limits = Limits()

    @property
    def address(self) -> tuple[str, int]:
        """Return the host and port to listen on; port 0 means any free one."""
        match = _LISTEN.fullmatch(self.listen)
        assert match is not None
        return match["v6"] or match["host"], int(match["port"])

    @model_validator(mode="after")
    def _whole(self) -> CentralConfig:
        match = _LISTEN.fullmatch(self.listen)
        if match is None or int(match["port"]) > 65535:
            raise ValueError("listen is not host:port")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if not self.tls_cert and not is_loopback(self.address[0]):
            raise ValueError("plain http is only served on loopback: set tls_cert and tls_key, or listen on 127.0.0.1")
        shared = self.database.startswith(POSTGRESQL)
        if not shared and not Path(self.database).is_absolute():
            raise ValueError("database is neither an absolute path nor a postgresql:// URL")
        if self.database_owner and not (shared and self.database_owner.startswith(POSTGRESQL)):
            raise ValueError("database_owner is the postgresql:// URL of another role, where database is one")
        if shared and not self.log.has_key:
            raise ValueError("[log] needs a key where the database is a server: prism-vault central keygen FILE makes one")
        return self

    @model_validator(mode="after")
    def _callers(self) -> CentralConfig:
        subjects = [agent.subject for agent in self.agents if agent.subject]
        if subjects and self.issuer is None:
            raise ValueError("a subject is one of identity tokens, so an [issuer] is needed")
        certificates = [agent.certificate for agent in self.agents if agent.certificate]
        certificates += [operator.certificate for operator in self.operators]
        if certificates and self.mtls is None:
            raise ValueError("certificates are believed of an authority only, so [mtls] ca_file is needed")
        if self.mtls is not None and not self.tls_cert:
            raise ValueError("[mtls] needs tls_cert and tls_key: there are no client certificates without TLS")
        _unique("subject of agents", subjects)
        _unique("certificate of agents and operators", certificates)
        _unique("name of tokens", [token.name for token in self.tokens])
        _unique("sha256 of tokens", [token.sha256 for token in self.tokens])
        hosts = [agent.host for agent in self.agents] + [token.host for token in self.tokens if token.host]
        if OWN_HOST in hosts:
            raise ValueError(f"the host name {OWN_HOST} is central's own")
        return self


def load(path: Path) -> CentralConfig:
    """Return the configuration in ``path``. Raises :class:`ConfigError` naming the file and the key that is wrong."""
    try:
        with path.open("rb") as file:
            check_ours(path, os.fstat(file.fileno()))
            text = file.read(LARGEST_FILE + 1)
        if len(text) > LARGEST_FILE:
            raise ConfigError(f"{path} is larger than 1 MiB")
        return CentralConfig.model_validate(tomllib.loads(text.decode()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {where + ': ' if where else ''}{what}") from None


def check_ours(path: Path, found: os.stat_result, *, forbidden: int = 0o022) -> None:
    """Raise :class:`ConfigError` unless a file belongs to us or root and has none of the ``forbidden`` mode bits."""
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to uid {found.st_uid}, not to us or root", mend=f"chown {os.geteuid()} {path}")
    if found.st_mode & forbidden:
        mode = stat.S_IMODE(found.st_mode)
        raise ConfigError(f"{path} has mode {mode:04o}", mend=f"chmod {mode & ~forbidden:04o} {path}")


def _unique(what: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"the same {what} is there twice")


__all__ = ["OWN_HOST", "CentralConfig", "check_ours", "load"]
