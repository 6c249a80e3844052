"""What a worker does: one job for the front, with its own connection to the provider. See ``messages.py`` for the table."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable
from typing import Final

from prism_vault_agent.config.settings import VaultSettings
from prism_vault_agent.dialects.contents import contents as write
from prism_vault_agent.errors import PrismVaultError, ProtocolError, ProviderUnavailable, SecretNotFound, TokenExpired, to_plain
from prism_vault_agent.policy.names import shown
from prism_vault_agent.scope import Binding, File, SecretReference
from prism_vault_agent.vault import child, login, reading, rights, standing
from prism_vault_agent.vault.mounts import look_up
from prism_vault_agent.vault.transport import Transport
from prism_vault_agent.wanted.kinds import wanted_of
from prism_vault_agent.worker.block import environment_block
from prism_vault_agent.worker.messages import BEGUN, Message, Room, receive, send
from prism_vault_agent.worker.staging import described, staged, staged_or_why, unheard, written


class Worker:
    """One worker: its connection to the provider and, between ``resolve`` and ``deliver``, the block of values."""

    def __init__(self, front: socket.socket, settings: VaultSettings, transport: Transport) -> None:
        """Serve the front on ``front``; ``transport`` may already be connected."""
        self.front = front
        self.settings = settings
        self.transport = transport
        self.block = b""

    def serve(self) -> None:
        """Do one job (and deliver what it resolved), then return. A front that is gone ends it at once."""
        while (received := receive(self.front)) is not None:
            job, descriptor = received
            try:
                answer = PASSED[job["do"]](self, job, descriptor) if job["do"] in PASSED else JOBS[job["do"]](self, job)
            except PrismVaultError as error:
                answer = {"error": to_plain(error)}
            except OSError as error:
                answer = {"error": to_plain(ProtocolError(f"the worker failed: {os.strerror(error.errno or 0)}"))}
            try:
                send(self.front, answer)
            except (BrokenPipeError, ConnectionResetError):
                if descriptor is not None:  # nobody waits any more for what was staged
                    unheard(job, answer, descriptor)
                return
            if job["do"] not in BEFORE_OTHERS or "error" in answer:
                return

    def resolve(self, job: Message) -> Message:
        """Read every binding and keep the block; answer with what was read, described."""
        found = self._read(job)
        self.block = environment_block(found.values, Room(**job["room"]))
        return described(found)

    def credential(self, job: Message) -> Message:
        """Read every binding and keep what the credential is; answer with what was read, described."""
        found = self._read(job)
        name, variable, file = job["credential"]
        if not variable:
            ((_, self.block),) = written(File(**file), found.values).items()
        elif variable in found.values:
            (self.block,) = write("dir", name, {variable: found.values[variable]}).values()
        else:
            raise SecretNotFound(f"no secret of env_from has a key {shown(variable)}", mend="correct the credential's variable")
        return described(found)

    def stage(self, job: Message, place: int | None) -> Message:
        """Read every binding and write the files of a scope where nobody sees them yet; answer with what was read and written."""
        return staged(job, self._read(job), place)

    def stage_each(self, job: Message, place: int | None) -> Message:
        """Stage the files of several scopes, and read each path once for all of them; answer each by itself.

        Where a path cannot be read nothing is staged: which scope that concerns is found out by staging each alone.
        """
        wanted = [(_bindings(each), frozenset(each["allow_names"])) for each in job["each"]]
        try:
            found = reading.read_each(self.transport, job["token"], wanted, deadline=job["deadline"], mounts=job["mounts"])
        except (ProviderUnavailable, TokenExpired):
            raise
        except PrismVaultError:
            return {"alone": True}
        answers = (staged_or_why({**job, **each}, read, place) for each, read in zip(job["each"], found, strict=True))
        return {"each": list(answers)}

    def _read(self, job: Message) -> reading.Reading:
        made: list[child.Child] = []

        def make() -> str:
            """Make a child token, once, and read with it as soon as the front has its accessor durably."""
            if not made:
                made.append(child.make(self.transport, job["token"], job["child"], job["deadline"], self.settings.token_role))
                self._announce(made[0], job)
            return made[0].value

        return reading.read(
            self.transport,
            job["token"],
            _bindings(job),
            allow_names=frozenset(job["allow_names"]),
            mounts=job["mounts"],
            deadline=job["deadline"],
            child=make,
        )

    def _announce(self, made: child.Child, job: Message) -> None:
        """Tell the front of a child token and wait for its word; one that nobody waits for is revoked by us."""
        try:
            send(self.front, {"child": {"accessor": made.accessor, "seconds": made.seconds, "orphan": made.orphan}})
            word = receive(self.front)
        except (BrokenPipeError, ConnectionResetError):
            word = None
        if word is None or word[0]["do"] != "go":
            child.revoke(self.transport, job["token"], made.accessor, (), job["deadline"])
            raise ProtocolError("nobody waits for what was to be read")

    def deliver(self, job: Message, descriptor: int | None) -> Message:
        """Write the answer's head, where there is one, and the block to the receiver's socket."""
        if descriptor is None:
            raise ProtocolError("a delivery came without its socket")
        with socket.socket(fileno=descriptor) as receiver:
            receiver.settimeout(max(0.001, job["deadline"] - time.monotonic()))
            send(self.front, BEGUN)
            head = f"{job['head']}Content-Length: {len(self.block)}\r\n\r\n" if job["head"] else ""
            receiver.sendall(head.encode("latin-1") + self.block)
        return {"delivered": True}

    def login(self, job: Message) -> Message:
        """Log in and answer the token with its facts."""
        return dataclasses.asdict(login.log_in(self.transport, self.settings.auth, job["deadline"]))

    def renew(self, job: Message) -> Message:
        """Renew the token; answer for how many seconds it now lives."""
        from prism_vault_agent.vault import session  # noqa: PLC0415 - hvac would double what every worker is forked with

        return {"seconds": session.renew(self.transport, job["token"], job["deadline"])}

    def identity(self, job: Message) -> Message:
        """Have the provider vouch for us to central."""
        return dataclasses.asdict(login.identity_token(self.transport, job["token"], job["role"], job["deadline"]))

    def standing(self, job: Message) -> Message:
        """Tell which versions that were given out no longer stand, and the newest version of each path."""
        versions = [(path, version) for path, version in job["versions"]]
        mounts = job["mounts"]
        if job.get("look_up"):
            paths = dict.fromkeys(path for path, _ in versions)
            mounts = look_up(self.transport, job["token"], paths, mounts, deadline=job["deadline"])
        found = standing.look(
            self.transport, job["token"], versions, mounts, deadline=job["deadline"], unlisted=job.get("unlisted", ())
        )
        withdrawn = [[path, version, how] for (path, version), how in found.withdrawn.items()]
        return {**dataclasses.asdict(found), "withdrawn": withdrawn, "mounts": mounts}

    def left(self, job: Message) -> Message:
        """Tell how long child tokens and leases still live."""
        return {"left": child.left(self.transport, job["token"], job["accessors"], job["leases"], job["deadline"])}

    def extend(self, job: Message) -> Message:
        """Renew child tokens and leases; tell how long each lives now."""
        return {"left": child.extend(self.transport, job["token"], job["accessors"], job["leases"], job["deadline"])}

    def give_back(self, job: Message) -> Message:
        """Revoke a child token; tell which of its leases the server has not ended yet."""
        return {"remaining": child.revoke(self.transport, job["token"], job["accessor"], job["leases"], job["deadline"])}

    def rights(self, job: Message) -> Message:
        """Tell which rights our token lacks for what the scopes bind, and how many that takes."""
        bindings = [Binding(name, SecretReference.parse(ref), wanted_of(wanted)) for name, ref, wanted in job["bindings"]]
        lacking, count = rights.missing(
            self.transport, job["token"], bindings, job["mounts"], role=self.settings.token_role, deadline=job["deadline"]
        )
        return {"missing": [dataclasses.asdict(right) for right in lacking], "count": count}

    def health(self, job: Message) -> Message:
        """Ask whether the provider would serve: no token is needed for it."""
        query = {"standbyok": "true", "perfstandbyok": "true"}
        self.transport.request("GET", "sys/health", query=query, deadline=job["deadline"])
        return {}

    def revoke(self, job: Message) -> Message:
        """Give the token back, and with it all that was made by it."""
        from prism_vault_agent.vault import session  # noqa: PLC0415 - as in renew

        session.revoke_self(self.transport, job["token"], job["deadline"])
        return {}


def _bindings(job: Message) -> list[Binding]:
    return [Binding(name, SecretReference.parse(ref), wanted_of(wanted)) for name, ref, wanted in job["bindings"]]


# Jobs that come with a descriptor, and the others.
PASSED: Final[dict[str, Callable[[Worker, Message, int | None], Message]]] = {
    "deliver": Worker.deliver,
    "stage": Worker.stage,
    "stage_each": Worker.stage_each,
}
# Jobs behind which another comes: the delivery of what was read.
BEFORE_OTHERS: Final = ("resolve", "credential")
JOBS: Final[dict[str, Callable[[Worker, Message], Message]]] = {
    "resolve": Worker.resolve,
    "credential": Worker.credential,
    "login": Worker.login,
    "renew": Worker.renew,
    "identity": Worker.identity,
    "standing": Worker.standing,
    "left": Worker.left,
    "extend": Worker.extend,
    "give_back": Worker.give_back,
    "rights": Worker.rights,
    "health": Worker.health,
    "revoke": Worker.revoke,
}
