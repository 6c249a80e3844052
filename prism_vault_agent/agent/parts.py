"""The parts of the agent, each made once and given to those that need it; nothing runs yet, and nothing is asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from prism_vault_agent.agent.budget import Budget
from prism_vault_agent.agent.credential import credential_of
from prism_vault_agent.agent.files.consumers import Consumers
from prism_vault_agent.agent.files.files import Files
from prism_vault_agent.agent.files.health import Health
from prism_vault_agent.agent.files.renders import FileRenders
from prism_vault_agent.agent.files.requests import FileRequests
from prism_vault_agent.agent.files.standings import Standings
from prism_vault_agent.agent.freshness import Freshness
from prism_vault_agent.agent.front.front import Front
from prism_vault_agent.agent.in_force import InForce
from prism_vault_agent.agent.leases.leases import Leases
from prism_vault_agent.agent.leases.watch import LeaseWatch
from prism_vault_agent.agent.metrics import Metrics
from prism_vault_agent.agent.orders import Orders
from prism_vault_agent.agent.outdated import revocation
from prism_vault_agent.agent.release import Mounts, Reading
from prism_vault_agent.agent.reload import Reload
from prism_vault_agent.agent.runs.adoption import adopt
from prism_vault_agent.agent.runs.credentials import Credentials
from prism_vault_agent.agent.runs.ends import Ends
from prism_vault_agent.agent.runs.records import RunRecords
from prism_vault_agent.agent.runs.rotation import Rotation
from prism_vault_agent.agent.runs.runs import STOPPED, Runs
from prism_vault_agent.agent.runs.supervisors import Supervisors
from prism_vault_agent.agent.runs.turns import Turns
from prism_vault_agent.agent.sentinel.sentinel import Sentinel
from prism_vault_agent.agent.session import Session
from prism_vault_agent.agent.signals import Signals
from prism_vault_agent.agent.status import Status
from prism_vault_agent.agent.watch import Watch
from prism_vault_agent.agent.workers import Workers
from prism_vault_agent.audit.central_log import CentralLog
from prism_vault_agent.audit.event import Chain, new_id
from prism_vault_agent.audit.held import WitnessFiles
from prism_vault_agent.audit.http import CentralHttp
from prism_vault_agent.audit.journal import Journal
from prism_vault_agent.audit.name import Name, own
from prism_vault_agent.audit.outbox import Outbox
from prism_vault_agent.audit.replicas import Replicas
from prism_vault_agent.audit.stream import SignalStream
from prism_vault_agent.audit.witness import Unwitnessed, Witness
from prism_vault_agent.proof.keys import VerifyingKey

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prism_vault_agent.agent.files.sidecar import Sidecar
    from prism_vault_agent.agent.front.listener import Listeners
    from prism_vault_agent.audit.http import Credential
    from prism_vault_agent.config.apart import Configuration
    from prism_vault_agent.config.settings import CentralSettings, Settings
    from prism_vault_agent.process import Hardening

FLUSH_SECONDS: Final = 2.0


@dataclass(slots=True)
class Log:
    """This host's side of central's log: what is to be told, whether central proves it, and both connections."""

    chain: Chain
    journal: Journal
    outbox: Outbox
    audit: CentralLog
    witness: Witness | Unwitnessed
    credential: Credential
    connections: tuple[CentralHttp, CentralHttp]

    @classmethod
    def make(cls, settings: Settings, session: Session) -> Self:
        """Make it for ``settings``; ``session`` may have the provider vouch for us."""
        replicas, credential = Replicas(settings.central), credential_of(settings.central, session)
        proving = CentralHttp(replicas, credential, settings.central.timeout)
        witness = _witness(settings.central, settings.agent.state, proving)
        central = CentralHttp(replicas, credential, settings.central.timeout, witness.heard)
        chain, journal = Chain(settings.agent.host, new_id()), Journal(f"{settings.agent.state}/journal")
        outbox = Outbox(chain, central.post, journal)
        audit = CentralLog(outbox, settings.central.timeout, witness, Name(own(settings.agent.state)))
        witness.note = audit.note
        return cls(chain, journal, outbox, audit, witness, credential, (central, proving))


@dataclass(slots=True)
class Parts:
    """What serves. Those of :meth:`lasting` outlive those of :meth:`serving`, because stopping needs them."""

    settings: Settings
    workers: Workers
    session: Session
    log: Log
    reading: Reading
    runs: Runs
    consumers: Consumers
    files: Files
    renders: FileRenders
    health: Health
    rotation: Rotation
    watch: Watch
    freshness: Freshness
    lease_watch: LeaseWatch
    orders: Orders
    front: Front
    credentials: Credentials
    signals: Signals
    reload: Reload
    status: Status
    listeners: Listeners
    requests: FileRequests
    supervisors: Supervisors
    sentinel: Sentinel
    sidecar: Sidecar | None

    @classmethod
    def make(
        cls, settings: Settings, listeners: Listeners, hardening: Hardening, configuration: Configuration, sidecar: Sidecar | None
    ) -> Self:  # fmt: skip
        """Make them for ``settings``, which were read from ``configuration``, and for ``sidecar`` where the agent is one."""
        workers, current = Workers(settings.vault, settings.agent.workers), InForce(settings)
        session = Session(workers, settings.vault.auth)
        ours, mounts, state = Log.make(settings, session), Mounts(), settings.agent.state
        audit, chain = ours.audit, ours.chain
        runs = Runs(audit.clear, RunRecords(f"{state}/runs", mounts.known), settings.agent.helper)
        status = Status(session, ours.outbox, ours.witness, audit.name, workers, runs, *listeners, hardening)
        consumers = Consumers(current, audit.note, Standings(f"{state}/notify"))
        files = status.files = Files(settings.agent, audit.clear, audit.note, consumers)
        audit.forget = runs.records.drop, files.ends.forget
        leases = status.leases = Leases(Journal(f"{state}/leases", "leases"))
        reading = Reading(workers, session, mounts, leases, Metrics())
        audit.leases, session.in_use, status.counted = leases, leases.in_use, reading.metrics
        audit.took, consumers.told = reading.metrics.rotations.so_far, reading.metrics.rotations.told
        renders = status.renders = FileRenders(current, audit, reading, files)
        runs.note, runs.on_revoke = audit.note, lambda render, paths: revocation(current().scopes, render, paths)
        health = Health(current, files, consumers, audit.note, f"{state}/health")
        turns = Turns(f"{state}/rotation", reading.metrics.run_rotations)
        rotation = status.rotation = Rotation(current, runs, renders.behind, audit, turns)
        rotation.unjudged, health.switching, health.rolled_back = health.unjudged, rotation.signalling, rotation.back
        renders.renewed = health.passed = rotation.files_settled
        budget = Budget(lambda: current().vault.poll_requests)
        freshness = status.freshness = Freshness(runs, files, leases, current, note=audit.note, path=f"{state}/answered")
        watch = status.watch = Watch(
            reading, runs, files, renders, rotation=rotation, budget=budget, freshness=freshness, settings=current,
        )  # fmt: skip
        lease_watch = LeaseWatch(
            reading, runs, files, renders, note=audit.note, interval=settings.vault.poll, budget=budget,
            waiting=lambda name: consumers.waiting(name) or rotation.waiting(name), outdated=rotation.note,
        )  # fmt: skip
        orders = Orders(chain.host, runs, files, renders, rotation, watch.now, status)
        requests, sentinel = FileRequests(files, renders, status), Sentinel(settings.agent, runs)
        session.refused, status.sidecar, status.sentinel = orders.take_back, sidecar, sentinel
        supervisors = Supervisors(
            runs, lambda: current().agent.connections_per_user, Ends(leases, freshness, runs.on_revoke), f"{state}/revoked"
        )  # fmt: skip
        runs.for_good, rotation.restart = supervisors.ending, supervisors.restart
        front = Front(
            current, audit=audit, reading=reading, runs=runs, files=requests, orders=orders, supervisors=supervisors,
            status=status,
        )  # fmt: skip
        signals = status.signals = Signals(
            SignalStream(Replicas(settings.central), ours.credential, settings.central.timeout, audit.name.installation),
            audit, runs, files, watch.now, rotation=rotation, host=chain.host, epoch=chain.epoch, path=f"{state}/signals",
        )  # fmt: skip
        reload = Reload(
            configuration, in_force=current, runs=runs, files=files, renders=renders, rotation=rotation, status=status,
            note=audit.note,
        )  # fmt: skip
        return cls(
            settings=settings, workers=workers, session=session, log=ours, reading=reading, runs=runs, files=files,
            consumers=consumers, renders=renders, health=health, rotation=rotation, watch=watch, freshness=freshness,
            lease_watch=lease_watch, orders=orders, front=front, signals=signals, reload=reload, status=status,
            credentials=Credentials(current, audit, reading, runs), listeners=listeners, requests=requests,
            supervisors=supervisors, sentinel=sentinel, sidecar=sidecar,
        )  # fmt: skip

    async def take_over(self) -> None:
        """Take over what an earlier agent left: what it could not tell central, its files and runs, and the leases of these."""
        self.log.audit.resume(await self.log.journal.load())
        leases = self.reading.leases
        await leases.load()
        mounts, scopes = self.reading.mounts, self.settings.scopes
        gone = self.sentinel.take_over()
        mounts.known.update(self.files.start(scopes))
        mounts.known.update(adopt(self.runs, scopes, self.log.audit.clear, gone=gone))
        self.sentinel.start(gone)
        self.supervisors.load()
        self.rotation.start()
        self.health.start()
        renders = [each.render for each in (*self.runs, *self.files.held)]
        leases.adopt({render.reservation.id for render in renders}, {each.scope.name for each in self.files.held})
        for render in renders:
            mounts.recall(render.reservation.grant, render.leases)
        self.freshness.tick()

    def lasting(self) -> tuple[Coroutine[None, None, None], ...]:
        """Return the loops that stopping needs."""
        return self.workers.run(), self.log.outbox.run()

    def serving(self) -> tuple[Coroutine[None, None, None], ...]:
        """Return the loops that end first."""
        directories = {os.path.dirname(file) for file in self.settings.files}
        return (
            self.session.run(), self.session.probe(), self.front.serve(self.listeners[0].socket), self.watch.run(),
            self.lease_watch.run(), self.freshness.run(), self.renders.run(), self.consumers.run(), self.rotation.run(),
            self.health.run(), self.signals.run(), self.reload.watch(directories), self.log.witness.run(),
            self.credentials.serve(self.listeners[1]), self.supervisors.run(), self.sentinel.finish(), self.sentinel.run(),
            *self._dropped(), *([self.sidecar.run(self.requests)] if self.sidecar else []),
        )  # fmt: skip

    def _dropped(self) -> list[Coroutine[None, None, None]]:
        """Return the loop of the directory of orders, where there is one."""
        if not self.settings.agent.drops:
            return []
        from prism_vault_agent.agent.drops import Drops  # noqa: PLC0415 - a megabyte of imports, for who has a directory

        return [Drops(self.settings.agent.drops, self.orders).run()]

    async def stop(self) -> None:
        """Take back what is not to stay, revoke what waits for it, tell central what can be told, log out, and close."""
        left = self.files.end(STOPPED) if self.sidecar is not None or self.sentinel.clears else []
        if self.sidecar is not None:
            self.sidecar.left = left
        if self.sentinel.clears:
            adopt(self.runs, {}, self.log.audit.clear, gone=STOPPED)  # what was being released just now
            self.runs.end(self.runs, STOPPED)
            await self.runs.settled()
            if not left and not list(self.runs):
                self.sentinel.dismiss()
        await self.lease_watch.close()
        await self.log.outbox.flush(FLUSH_SECONDS)
        await self.log.witness.close()
        await self.session.revoke()
        for connection in self.log.connections:
            await connection.close()


def _witness(central: CentralSettings, state: str, proving: CentralHttp) -> Witness | Unwitnessed:
    """Return the witness that the configuration asks for."""
    if not central.log_keys:
        return Unwitnessed()
    keys = [VerifyingKey.parse(text) for text in central.log_keys]
    return Witness(keys, proving.get, WitnessFiles(state, keys[0].name))
