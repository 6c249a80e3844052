"""The composition root of central: from a configuration to an ASGI application. The only file here that builds things."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from prism_vault_agent.central.access.identity import Credentials
from prism_vault_agent.central.access.issuer import TokenIssuer
from prism_vault_agent.central.access.live import Live
from prism_vault_agent.central.access.policy import Policy
from prism_vault_agent.central.access.refusals import Refusals
from prism_vault_agent.central.anchoring import Anchoring
from prism_vault_agent.central.anchors import places
from prism_vault_agent.central.http.api import Api
from prism_vault_agent.central.http.appending import AppendRoutes
from prism_vault_agent.central.http.door import Door
from prism_vault_agent.central.http.health import HealthRoutes
from prism_vault_agent.central.http.orders import OrderRoutes
from prism_vault_agent.central.http.policies import CONFIGURED, PolicyRoutes
from prism_vault_agent.central.http.proving import ProofRoutes
from prism_vault_agent.central.http.reading import ReadRoutes
from prism_vault_agent.central.http.signals import SignalStreams
from prism_vault_agent.central.http.tokens import TokenRoutes
from prism_vault_agent.central.log.feed import Feed
from prism_vault_agent.central.log.names import Names
from prism_vault_agent.central.log.proofs import Proofs, origin_of
from prism_vault_agent.central.log.receipts import Receipts
from prism_vault_agent.central.log.releases import Revocations
from prism_vault_agent.central.log.retention import Retention
from prism_vault_agent.central.log.sequencer import Sequencer
from prism_vault_agent.central.log.signals import CHANNEL
from prism_vault_agent.central.log.store import Store
from prism_vault_agent.central.log.sweep import Sweeper
from prism_vault_agent.central.log.told import ToldRows
from prism_vault_agent.central.log.writer import Writer
from prism_vault_agent.central.metrics import Metrics
from prism_vault_agent.central.readiness import Readiness
from prism_vault_agent.central.running import Running
from prism_vault_agent.central.signing import signer
from prism_vault_agent.central.storage.engines import reading_engine, writing_engine
from prism_vault_agent.central.storage.listen import listen
from prism_vault_agent.central.storage.postgres import is_postgres

if TYPE_CHECKING:
    from prism_vault_agent.central.config import CentralConfig
    from prism_vault_agent.central.running import Loop


def build(config: CentralConfig) -> Door:
    """Return central as an ASGI application; its lifespan starts and ends the writer and the sweeper."""
    log = structlog.get_logger("central")
    issuer = TokenIssuer(config.issuer) if config.issuer is not None else None
    configured = [Policy(f"{CONFIGURED}{number}", 0, entry.rule()) for number, entry in enumerate(config.policies, 1)]
    live = Live(reading_engine(config.database, 1), configured)
    credentials = Credentials(config, issuer, live)
    readers = reading_engine(config.database)
    shared = is_postgres(config.database)
    metrics = Metrics("postgresql" if shared else "sqlite")

    def failed(error: Exception) -> None:
        metrics.failed.inc()
        log.error("transaction_failed", error=type(error).__name__, cause=str(error))

    writer = Writer(Store(writing_engine(config.database)), failed)
    # Where others write too, sequencing waits for nobody and nobody for it; in a file, only one can write.
    sequencing = Writer(Store(writing_engine(config.database)), failed) if shared else writer
    signs = signer(config, origin_of(readers))
    sequencer = Sequencer(sequencing, signs, config.log.checkpoint_interval, shared=shared)
    proofs = Proofs(readers, config.log.checkpoint_interval)
    writer.news = live.news = sequencer.news  # a row that another process puts into a file is news too
    writer.done = sequencing.done = metrics.transaction
    metrics.queue.set_function(lambda: writer.waiting)
    sweeper = Sweeper(readers, writer, config.reservation_ttl, metrics.abandoned.inc)
    receipts = Receipts(signs)
    metrics.receipts_missed.read = lambda: receipts.missed
    feed = Feed(readers, live.follow)
    metrics.streams.set_function(lambda: feed.connected)
    writer.told = feed.told
    told = ToldRows(feed, writer)
    refusals = Refusals(writer)
    names = Names(sequencing, refusals, metrics)
    works: list[Loop] = [live.run, sweeper.run, sequencer.run, partial(feed.run, told.note), told.run, names.run]
    anchor, keep = config.log.anchor, config.retention.bodies_after
    anchoring = None if anchor is None else Anchoring(proofs, places(anchor), anchor.every)
    if anchoring is not None:
        works.append(anchoring.run)
    if keep is not None:
        works.append(Retention(readers, writer, keep, None if anchoring is None else anchoring.covered).run)
    if shared:
        works.append(partial(listen, config.database, CHANNEL, feed.told))

    reads, streams = ReadRoutes(readers, sequencer.grown), SignalStreams(feed, names=names)
    routes = (
        reads,
        ProofRoutes(proofs, signs.verifying_key),
        OrderRoutes(writer, Revocations(readers, feed.hosts)),
        PolicyRoutes(readers, writer, live, credentials, configured),
        TokenRoutes(readers, writer, live, config.tokens),
        HealthRoutes(Readiness(writer, readers, issuer, receipts), metrics),
    )
    closing = [live.close, readers.dispose, signs.close]
    running = Running({writer, sequencing}, works, first=live.follow, last=sequencer.finish, closing=closing, issuer=issuer)
    app = Api(running.lifespan, [each.router() for each in routes])
    appends = AppendRoutes(writer, live, receipts, metrics, rates=credentials.rates, names=names)
    return Door(app, appends, streams, credentials, metrics, refusals=refusals, waited_for=(streams.end, reads.end))
