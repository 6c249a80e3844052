"""The script of ``prism-vault dev``: what is started in which order, and how all of it ends."""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING, Final

from prism_vault_agent.central.signing import BESIDE_DATABASE, read_key
from prism_vault_agent.cli.socket import ask
from prism_vault_agent.dev import openbao, seed, texts
from prism_vault_agent.dev.command import attend
from prism_vault_agent.dev.place import Place, hold
from prism_vault_agent.dev.process import Part, adopt, environment, ours
from prism_vault_agent.dev.progress import tell
from prism_vault_agent.dev.signals import Interrupted, Signals
from prism_vault_agent.errors import PrismVaultError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HOST: Final = "localhost"
STARTED_WITHIN: Final = 60.0
STOPPED_WITHIN: Final = 10.0

_LISTENING: Final = re.compile(r"^listening on (http://\S+)$", re.MULTILINE)


def run(state: str | None, env_file: str | None, command: Sequence[str]) -> int:
    """Start everything; run ``command`` with the secrets of scope ``dev`` or, without one, serve until Ctrl-C; stop everything.

    Returns the command's status (128+n where signal n ended it), 0 after a stop that was asked for, 128+n where it was asked
    for before all was ready. Raises ``ConfigError`` before anything is started, ``Unavailable`` where a part does not start or
    ends by itself.
    """
    variables = seed.read(env_file)
    adopt()
    with Signals() as signals, hold(state) as place:
        stack = Stack(place, signals)
        try:
            stack.start(variables)
            return attend(command, place, signals, stack.dead) if command else stack.serve()
        except Interrupted as interrupted:
            return 128 + interrupted.number
        finally:
            stack.stop()


class Stack:
    """OpenBao, central and the agent, each a process of its own."""

    def __init__(self, place: Place, signals: Signals) -> None:
        """Be a stack of which nothing runs yet."""
        self._place = place
        self._signals = signals
        self._parts: list[Part] = []

    def start(self, variables: Mapping[str, str]) -> None:
        """Start every part, each when the one before it is ready, and write ``env`` when all are."""
        place, operator_token = self._place, f"dev-{secrets.token_urlsafe(24)}"
        place.write("scopes.d/dev.toml", texts.scope(variables, os.getuid()))
        # 1. OpenBao, and in it what an operator sets up for this host.
        tell("starting OpenBao")
        server = openbao.start(place, self._signals, self._parts)
        entity = openbao.set_up(server, place, HOST, variables)
        tell(f"OpenBao answers on {server.address}; secret/dev holds {_counted(len(variables))}")
        self._signals.check()
        # 2. Central, which knows this host by its identity tokens.
        config = place.write("central.toml", texts.central(place, HOST, openbao.issuer(server), entity, operator_token))
        central = self._add("central", ours("central", "serve", "--migrate", "--config", str(config)))
        self._wait(central, lambda: _LISTENING.search(central.printed()))
        url = _listening(central)
        tell(f"central answers on {url}")
        # 3. The agent, which logs in by AppRole, and believes central's key only.
        key = read_key(place.directory / "central" / BESIDE_DATABASE).verifying_key
        config = place.write("agent.toml", texts.agent(place, HOST, server.address, url, str(key)))
        agent = self._add("agent", ours("agent", "--config", str(config)))
        self._wait(agent, lambda: _ready(place))
        tell(f"the agent answers on {place.socket}")
        # 4. How to use it.
        self._signals.check()
        place.write(
            "env",
            texts.env(
                {
                    "PRISM_VAULT_CONFIG": config,
                    "PRISM_VAULT_SOCKET": place.socket,
                    "PRISM_VAULT_CENTRAL_URL": url,
                    "PRISM_VAULT_OPERATOR_TOKEN": operator_token,
                    "VAULT_ADDR": server.address,
                    "VAULT_TOKEN": server.root_token,
                }
            ),
        )

    def serve(self) -> int:
        """Stay until somebody asks us to stop. Raises ``Unavailable`` naming the part that ends by itself."""
        tell(
            "ready. In another shell:",
            f"  . {self._place.env}",
            "  prism-vault exec --scope dev -- env",
            "  prism-vault audit tail",
            "  bao kv get secret/dev",
            f"Scopes of your own go into {self._place.directory}/scopes.d. Ctrl-C stops everything.",
        )
        while (dead := self.dead()) is None:
            found = self._signals.next()
            if found is not None and found.si_signo in {1, 2, 15}:
                return 0
        raise self._failed(dead, "ended by itself")

    def dead(self) -> Part | None:
        """Return a part that has ended by itself, or None."""
        return next((part for part in self._parts if not part.running()), None)

    def stop(self) -> None:
        """End every part, the agent first, so that it can give its token back and tell central the last of its rows."""
        self._place.env.unlink(missing_ok=True)
        if self._parts:
            tell("stopping")
        while self._parts:
            part = self._parts.pop()
            # OpenBao holds everything in memory, and takes two seconds over an orderly end.
            part.stop(0 if part.name == openbao.NAME else STOPPED_WITHIN)

    def _add(self, name: str, arguments: Sequence[str]) -> Part:
        log = self._place.log / f"{name}.log"
        environ = environment(self._place.directory)
        part = Part(name, arguments, log=log, environ=environ, mask=self._signals.before)
        self._parts.append(part)
        return part

    def _wait(self, part: Part, ready: Callable[[], object]) -> None:
        """Wait until the newest part is ready and the others still run."""
        in_time = self._signals.until(lambda: ready() or self.dead(), STARTED_WITHIN)
        if (dead := self.dead()) is not None:
            raise self._failed(dead, "did not start" if dead is part else "ended by itself")
        if not in_time:
            raise self._failed(part, f"was not ready within {STARTED_WITHIN:.0f} s")

    def _failed(self, part: Part, what: str) -> Unavailable:
        mend = f"see {part.log}" if self._place.kept else "run it again with --state DIR to keep its log"
        return Unavailable(f"{part.name} {what}: {part.last_line()}", mend=mend)


def _counted(count: int) -> str:
    return f"{count} value" + ("" if count == 1 else "s")


def _listening(central: Part) -> str:
    found = _LISTENING.search(central.printed())
    assert found is not None
    return found[1]


def _ready(place: Place) -> bool:
    """Tell whether the agent is logged in and has reached central."""
    try:
        status, answer = ask(str(place.socket), "GET", "/v1/status")
    except PrismVaultError:
        return False
    return status == 200 and answer.get("ready") is True
