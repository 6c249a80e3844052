"""How the log is proved, as configured: which key signs, where it is, and where checkpoints are anchored."""

from __future__ import annotations

import urllib.parse
from typing import Annotated

from pydantic import Field, model_validator

from prism_vault_agent.central.shapes import AbsolutePath, Duration, Name, Section, is_loopback
from prism_vault_agent.proof.keys import is_name


class Transit(Section):
    """An Ed25519 key in the transit engine of OpenBao or Vault, which signs there and never leaves it.

    ``name`` is the log's origin. Central logs in with the token in ``token_file``, or with AppRole. ``version`` is the only
    version of the key that signs: one that is rotated in changes nothing before the configuration says so.
    """

    address: Annotated[str, Field(pattern=r"^https?://[^\s?#/]+/?$")]
    mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")] = "transit"
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    version: Annotated[int, Field(ge=1)] = 1
    name: str
    namespace: str = ""
    ca_file: AbsolutePath = ""
    token_file: AbsolutePath = ""
    role_id_file: AbsolutePath = ""
    secret_id_file: AbsolutePath = ""
    approle_mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")] = "approle"

    @model_validator(mode="after")
    def _whole(self) -> Transit:
        if not is_name(self.name):
            raise ValueError("name is a name without spaces and '+'")
        if bool(self.role_id_file) != bool(self.secret_id_file) or bool(self.token_file) == bool(self.role_id_file):
            raise ValueError("either token_file, or role_id_file and secret_id_file")
        parts = urllib.parse.urlsplit(self.address)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("the token would cross the network in clear: https:// off loopback")
        return self


class Anchor(Section):
    """Where the newest checkpoint is written every so often, out of the database's reach.

    ``file`` gets a line for each, ``command`` runs without a shell and gets the note on its standard input, ``journal`` is a
    socket on which a syslog daemon or systemd's journal listens, usually ``/dev/log``.
    """

    every: Annotated[Duration, Field(ge=1.0)] = 300.0
    file: AbsolutePath = ""
    command: tuple[str, ...] = ()
    command_timeout: Annotated[Duration, Field(le=300.0)] = 30.0
    journal: AbsolutePath = ""

    @model_validator(mode="after")
    def _somewhere(self) -> Anchor:
        if not (self.file or self.command or self.journal):
            raise ValueError("an anchor is a file, a command or a journal")
        if self.command and not self.command[0].startswith("/"):
            raise ValueError("the command is named by its absolute path")
        return self


class Log(Section):
    """How the log is proved: the key that signs, and how long an event waits at most for a checkpoint while there is news.

    The key is in ``key_file``, in the systemd credential of the name ``credential``, or in ``transit``. Without any, it is
    beside a database file, made at the first start.
    """

    key_file: AbsolutePath = ""
    credential: Name | None = None
    transit: Transit | None = None
    checkpoint_interval: Annotated[Duration, Field(le=1.0)] = 0.2
    anchor: Anchor | None = None

    @property
    def has_key(self) -> bool:
        """Whether it says where the key is."""
        return bool(self.key_file or self.credential or self.transit)

    @model_validator(mode="after")
    def _one_key(self) -> Log:
        if sum(map(bool, (self.key_file, self.credential, self.transit))) > 1:
            raise ValueError("one of key_file, credential and transit")
        return self
