"""What the agent tells of itself: no values, no tokens."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psutil

import prism_vault_agent
from prism_vault_agent.agent.figures import figures
from prism_vault_agent.agent.metrics import Metrics
from prism_vault_agent.agent.runs.switching import foreseen
from prism_vault_agent.agent.trees.tree import may_be_helped, may_divide
from prism_vault_agent.errors import IntegrityError
from prism_vault_agent.model import Caller
from prism_vault_agent.policy.decide import admits

if TYPE_CHECKING:
    from prism_vault_agent.agent.files.files import Files
    from prism_vault_agent.agent.files.renders import FileRenders
    from prism_vault_agent.agent.files.sidecar import Sidecar
    from prism_vault_agent.agent.freshness import Freshness
    from prism_vault_agent.agent.front.listener import Listener
    from prism_vault_agent.agent.leases.leases import Leases
    from prism_vault_agent.agent.runs.rotation import Rotation
    from prism_vault_agent.agent.runs.runs import Runs
    from prism_vault_agent.agent.sentinel.sentinel import Sentinel
    from prism_vault_agent.agent.session import Session
    from prism_vault_agent.agent.signals import Signals
    from prism_vault_agent.agent.watch import Watch
    from prism_vault_agent.agent.workers import Workers
    from prism_vault_agent.audit.name import Name
    from prism_vault_agent.audit.outbox import Outbox
    from prism_vault_agent.audit.witness import Unwitnessed, Witness
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.model import Render
    from prism_vault_agent.process import Hardening
    from prism_vault_agent.scope import Scope

# Who may see everything.
ROOT: Final = Caller(0, 0, 0, frozenset(), "", 0)


@dataclass(slots=True)
class Status:
    """The parts that know something worth telling."""

    session: Session
    outbox: Outbox
    witness: Witness | Unwitnessed
    name: Name
    workers: Workers
    runs: Runs
    listener: Listener
    asked: Listener | None
    hardening: Hardening
    started_at: float = field(default_factory=time.time)
    loaded_at: float = field(default_factory=time.time)
    config_error: str = ""
    signals: Signals | None = None
    files: Files | None = None
    renders: FileRenders | None = None
    rotation: Rotation | None = None
    watch: Watch | None = None
    sidecar: Sidecar | None = None
    leases: Leases | None = None
    counted: Metrics = field(default_factory=Metrics)
    freshness: Freshness | None = None
    sentinel: Sentinel | None = None

    def tell(self, settings: Settings, asker: Caller) -> dict[str, Any]:
        """Return the answer to ``GET /v1/status``: of scopes and runs, those that are the asker's business."""
        error = self.session.last_error
        expires_in = self.session.expires_in
        return {
            "version": prism_vault_agent.__version__,
            "host": settings.agent.host,
            "pid": os.getpid(),
            "started_at": int(self.started_at),
            "ready": self.ready(),
            "relay": settings.vault.relay,
            "vault": {
                "state": self.session.state,
                "reachable": self.session.reachable,
                "token_expires_in": None if expires_in is None else int(expires_in),
                "last_error": error.message if error else "",
            },
            "central": {
                "state": "reachable" if self.outbox.reachable else "away",
                "queued": self.outbox.queued,
                "lost": self.outbox.lost,
                "last_error": self.outbox.trouble.message if self.outbox.trouble else "",
                "installation": self.name.installation,
                "refused": self.name.refusal.line() if self.name.refusal else "",
            },
            "signals": self.signals.describe() if self.signals else {},
            "log": self.witness.tell(),
            "workers": {"idle": self.workers.idle},
            "scopes": [
                {
                    "name": scope.name,
                    "project": scope.project,
                    "environment": scope.environment,
                    "purposes": list(scope.purposes),
                }
                for scope in settings.scopes.values()
                if self.shows(scope, asker)
            ],
            "runs": self.running(settings, asker),
            "leases": self.leases.describe() if self.leases else {},
            "files": self.rendered(settings, asker),
            "sidecar": self.sidecar.describe(self._described()) if self.sidecar and self.files else None,
            "end": {"on_end": settings.agent.on_end, "sentinel": self.sentinel.pid if self.sentinel else 0},
            "files_memory": self.files.memory if self.files else "",
            "config": {"loaded_at": int(self.loaded_at), "error": self.config_error},
            "socket": {"path": self.listener.path, "ours": self.listener.ours()},
            "credentials_socket": {"path": self.asked.path, "ours": self.asked.ours()} if self.asked else {},
            "process": {
                "uid": os.geteuid(),
                "memory_bytes": psutil.Process().memory_info().rss,
                "not_dumpable": self.hardening.not_dumpable,
                "memory_locked": self.hardening.memory_locked,
                "divides_groups": may_divide(),
                "has_groups_made": may_be_helped(settings.agent.helper),
            },
        }

    def running(self, settings: Settings, asker: Caller) -> list[dict[str, Any]]:
        """Return the runs that are the asker's business."""
        return [
            {
                **run.describe(),
                "left": self.runs.left(run),
                **(self.rotation.describe(run) if self.rotation else {}),
                **self._held(run.render),
                "adopted": run.started_at < self.started_at,
                "next_check": self.watch.next_check(run) if self.watch else None,
                "at_rotation": foreseen(settings.scopes, run),
            }
            for run in self.runs
            if self.may_revoke(asker.uid, run.render.reservation.grant.caller.uid)
        ]

    def rendered(self, settings: Settings, asker: Caller) -> list[dict[str, Any]]:
        """Return the rendered files that are the asker's business, each with when they are looked at next, at the latest."""
        held = {
            each.render.reservation.audit_id: {**self._held(each.render), "adopted": each.at < self.started_at}
            for each in self.files or ()
        }
        mine = [
            {
                **told,
                **held[told["id"]],
                "last_rotation": self.counted.rotations.describe(told["scope"]),
            }
            for told in self._described()
            if self.may_revoke(asker.uid, told["uid"])
            or (told["scope"] in settings.scopes and self.shows(settings.scopes[told["scope"]], asker))
        ]
        checks = {each.scope.name: self.watch.next_check(each) for each in self.files or ()} if self.watch else {}
        return [{**told, "next_check": checks.get(told["scope"])} for told in mine]

    def _described(self) -> list[dict[str, Any]]:
        """Return what is told of the rendered files: also what their scopes say of what is newer, and of what may be."""
        now = {each.scope.name: str(self.renders.reaction(each)) for each in self.files or () if self.renders and each.outdated}
        then = {each.scope.name: str(self.renders.reaction(each, anything=True)) for each in self.files or () if self.renders}
        return [
            {**told, "on_rotate": now.get(told["scope"], ""), "at_rotation": then.get(told["scope"], "")}
            for told in (self.files.describe() if self.files else [])
        ]

    def _held(self, render: Render) -> dict[str, Any]:
        """Return what a release holds: leases, versions of what has any, and for how long nobody confirmed these."""
        found = self.leases.of(render.reservation.id) if self.leases else []
        return {
            "leases": [told for child in found for told in child.describe()],
            "versions": {lease.path: lease.version for lease in render.leases if lease.version is not None},
            **(self.freshness.describe(render) if self.freshness else {}),
        }

    def metrics(self, settings: Settings) -> str:
        """Return the answer to ``GET /metrics``, which is the same whoever asks: sums, without a name."""
        return self.counted.exposition(figures(self.tell(settings, ROOT)))

    def ready(self) -> bool:
        """Tell whether an exec can be expected to work now."""
        provider = self.session.state == "logged_in" and self.session.reachable
        log = self.outbox.reachable and not self.outbox.refusal and not self.witness.refusal and not self.name.refusal
        return provider and log and self.listener.ours()

    def line(self) -> str:
        """Return one line for systemd's STATUS=."""
        central = f"central {'reachable' if self.outbox.reachable else 'away'}"
        refused = ", its log refused" if isinstance(self.witness.refusal, IntegrityError) else ""
        refused += ", its name refused" if self.name.refusal else ""
        return f"{self.session.state}, {central}{refused}, {len(list(self.runs))} runs"

    def shows(self, scope: Scope, asker: Caller) -> bool:
        """Tell whether a scope is the asker's business: it names them, or they are root or the agent's user."""
        return asker.uid in (0, os.geteuid()) or admits(scope, asker)

    def may_revoke(self, asker: int, owner: int) -> bool:
        """Tell whether user ``asker`` may end a run of user ``owner``."""
        return asker in (0, os.geteuid(), owner)
