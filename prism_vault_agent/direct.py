"""`exec --direct`: the same script without an agent. Its adapters block, so there is no event loop, and little is imported.

It uses the caller's own configuration and rights at the provider; nobody watches the process afterwards, and the audit row
says ``mode: direct``.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prism_vault_agent.agent.front.exec_request import reference, total_room
from prism_vault_agent.agent.front.peer import Peer
from prism_vault_agent.audit.direct_http import DirectHttp
from prism_vault_agent.audit.direct_log import DirectLog
from prism_vault_agent.audit.installation import known
from prism_vault_agent.config.compiled import load_fast
from prism_vault_agent.errors import ConfigError, PrismVaultError
from prism_vault_agent.exec import Failure, arguments, environment
from prism_vault_agent.exec.launch import Launch, own_variables
from prism_vault_agent.exec.wire import decode_block
from prism_vault_agent.model import Caller, Grant, Receipt, Render, Request, Reservation, Resolution
from prism_vault_agent.render import foretell, render, run_blocking
from prism_vault_agent.scope import Purpose, ScopeName
from prism_vault_agent.vault import credentials, login, reading
from prism_vault_agent.vault.transport import Transport
from prism_vault_agent.worker.block import environment_block
from prism_vault_agent.worker.messages import Room

if TYPE_CHECKING:
    from typing import NoReturn

    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.exec.arguments import ExecOptions


def run(options: ExecOptions, command: list[str]) -> NoReturn:
    """Become ``command`` with the secrets of its scopes, read with our own configuration. Raises like the script does."""
    deadline = time.monotonic() + options.timeout
    own = own_variables()
    arguments.complete(options, command, own)
    launch = Launch(options, command, own)
    settings = load_fast(options.config or None, os.environ)
    caller = _ourselves()
    if options.dry_run:
        sys.stdout.write(foretell(settings.scopes, caller, _request(options, launch)))
        sys.exit(0)
    vault = Vault(settings, deadline)
    central = DirectHttp(settings.central, settings.agent.state, Bearer(vault))
    rooms = _rooms(launch, pristine=options.pristine)
    sink = OwnEnvironment()
    try:
        rendered = run_blocking(
            render(
                settings.scopes,
                caller,
                _request(options, launch),
                audit=DirectLog(
                    settings.agent.host,
                    central.post,
                    deadline=deadline,
                    patience=settings.central.timeout,
                    installation=known(settings.agent.state),
                ),
                provider=DirectProvider(vault, launch, rooms, deadline),
                sink=sink,
            )
        )
    finally:
        vault.close()
    grant = rendered.reservation.grant
    terms = (b"%d" % round(grant.grace * 1000), b"", b"", rendered.reservation.audit_id.encode())
    launch.become(decode_block(sink.block), pristine=grant.pristine, collision=_collision(grant), terms=terms)


def _collision(grant: Grant) -> bytes:
    """Return what the scopes say of a name that we have already: the strictest of their answers."""
    wishes = {scope.collision for scope in grant.scopes}
    return wishes.pop().encode() if len(wishes) == 1 else b"error"


def _request(options: ExecOptions, launch: Launch) -> Request:
    return Request(
        scopes=tuple(ScopeName(name) for name in options.scopes),
        purpose=Purpose(options.purpose) if options.purpose else None,
        run_ref=options.run_ref or None,
        job_id=options.job_id or None,
        references=tuple(reference(b"=".join(pair).decode("utf-8", "surrogateescape")) for pair in launch.kept.references),
        mode="direct",
    )


def _rooms(launch: Launch, *, pristine: bool) -> tuple[Room, Room]:
    """Return the room beside what is kept, without and with a pristine environment."""
    total = total_room(max(resource.getrlimit(resource.RLIMIT_STACK)[0], 0))
    argv = environment.kernel_bytes([*launch.argv, launch.path])
    clean = Room(argv + environment.kernel_bytes(environment.as_strings(launch.kept.pristine)), total)
    inherited = Room(argv + environment.kernel_bytes(environment.as_strings(launch.kept.all)), total)
    return (clean if pristine else inherited, clean)


def _ourselves() -> Caller:
    """Return this process as the kernel sees it."""
    peer = Peer(os.getuid(), os.getgid(), os.getpid(), os.pidfd_open(os.getpid()), guaranteed=True)
    try:
        return peer.caller()
    finally:
        peer.close()


@dataclass(slots=True)
class Vault:
    """Our own login at the provider, made at its first use and given back at the end."""

    settings: Settings
    deadline: float
    transport: Transport = field(init=False)
    _token: str = ""

    def __post_init__(self) -> None:
        """Nothing is sent yet."""
        self.transport = Transport(self.settings.vault)

    @property
    def token(self) -> str:
        """The token, after logging in where that has not happened yet."""
        if not self._token:
            self._token = login.log_in(self.transport, self.settings.vault.auth, self.deadline).value
        return self._token

    def close(self) -> None:
        """Revoke what we logged in for; a token file's token is not ours to revoke."""
        try:
            if self._token and self.settings.vault.auth.method != "token_file":
                self.transport.request("POST", "auth/token/revoke-self", token=self._token, deadline=time.monotonic() + 2.0)
        except PrismVaultError:
            return  # its ttl ends it
        finally:
            self._token = ""
            self.transport.close()


@dataclass(slots=True)
class DirectProvider:
    """Reads in this very process, which is about to become the command."""

    vault: Vault
    launch: Launch
    rooms: tuple[Room, Room]
    deadline: float

    async def resolve(self, reservation: Reservation) -> Resolution:
        """Read every binding and check that the command can carry them."""
        grant = reservation.grant
        found = reading.read(
            self.vault.transport,
            self.vault.token,
            list(grant.bindings),
            allow_names=frozenset(name for scope in grant.scopes for name in scope.allow_names),
            deadline=self.deadline,
        )
        block = environment_block(found.values, self.rooms[grant.pristine])
        kept = self.launch.kept.pristine if grant.pristine or self.launch.pristine else self.launch.kept.all
        try:
            environment.compose(kept, decode_block(block), _collision(grant))
        except Failure as failure:
            raise ConfigError(failure.line, reason="collision") from None
        return Resolution(reservation, tuple(found.values), tuple(found.leases), block)

    def drop(self, resolution: Resolution) -> None:
        """Nothing is left at the provider but the login, which ``run`` gives back."""


@dataclass(slots=True)
class OwnEnvironment:
    """The sink is this process."""

    block: bytes = b""

    def check(self) -> None:
        """We are still here."""

    async def deliver(self, receipt: Receipt) -> Render:
        """Keep the block for the command that we become."""
        resolution = receipt.resolution
        assert isinstance(resolution.held, bytes)
        self.block = resolution.held
        return Render(resolution.reservation, resolution.names, resolution.leases)


@dataclass(slots=True)
class Bearer:
    """Our credential for central, had once: an identity token of our login, or the service token's file, or none but TLS's."""

    vault: Vault
    _credential: str = ""

    def __call__(self) -> str:
        """Return it; nothing where our certificate does without."""
        central = self.vault.settings.central
        if not self._credential and central.identity_role:
            minted = login.identity_token(self.vault.transport, self.vault.token, central.identity_role, self.vault.deadline)
            self._credential = minted.value
        elif not self._credential and central.token_file:
            self._credential = credentials.read(central.token_file)
        return self._credential
