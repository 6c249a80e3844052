"""A provider in memory, as its HTTP API shows it: KV version 2, engines, tokens with their children, and faults.

Times are CLOCK_BOOTTIME of the simulated host. What goes wrong is said by fields of :class:`Provider` that a test sets.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import ProviderUnavailable
from prism_vault_agent.vault.transport import Answer
from tests.model.engines import Engines
from tests.model.kept import TOKEN, VALUE, Leased, Token, Version, auth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.model.clock import Clock

DEAD: Final = Answer(403, {"errors": ["permission denied"]})
UNKNOWN: Final = Answer(400, {"errors": ["invalid accessor"]})
LOGIN_SECONDS: Final = 1800
LOGIN_LONGEST: Final = 7200


@dataclass
class Provider(Engines):
    """The server: so many answers are lost (``losing``), and so many workers end before they have told theirs (``dying``).

    So many of those end that have made leases (``dying_readers``), which nobody but the agent's journal knows of then, and so
    many child tokens are revoked by somebody just before they make one (``dying_children``).

    ``read`` is told of every value that is handed out: (path, version or None, accessor of the token); ``revoking`` of every
    token that the agent is about to end.
    """

    clock: Clock
    read: Callable[[str, int | None, str], None] = lambda *_: None
    revoking: Callable[[str], None] = lambda _: None
    away: bool = False
    losing: int = 0
    dying: int = 0
    dying_readers: int = 0
    dying_children: int = 0
    refusing: bool = False
    engine_down: bool = False
    lagging: bool = False
    kv: dict[str, list[Version]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    leases: dict[str, Leased] = field(default_factory=dict)
    issued: dict[str, str] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def write(self, path: str) -> None:
        """Write a new version."""
        versions = self.kv.setdefault(path, [])
        versions.append(Version(self.mark(VALUE), self._stamp()))

    def withdraw(self, path: str, *, destroy: bool) -> None:
        """Delete or destroy the newest version."""
        version = self.kv[path][-1]
        if destroy:
            version.destroyed = True
        version.deleted = version.deleted or self._stamp()

    def passed(self) -> None:
        """End what has ended by now."""
        for token in list(self.tokens.values()):
            if token.ends <= self.clock.boot and token.value in self.tokens:
                self.end(token)
        for lease in list(self.leases.values()):
            if lease.ends <= self.clock.boot:
                self._end_lease(lease)
        if not self.engine_down:
            self.leases = {name: lease for name, lease in self.leases.items() if not lease.stuck}

    def end(self, token: Token) -> None:
        """Revoke a token, its children, and all of their leases."""
        self.tokens.pop(token.value, None)
        for child in [each for each in self.tokens.values() if each.parent is token]:
            self.end(child)
        for lease in [each for each in self.leases.values() if each.token is token]:
            self._end_lease(lease)

    def request(self, method: str, path: str, token: str, body: Mapping[str, Any], query: Mapping[str, Any]) -> Answer:
        """Answer one request. Raises ``ProviderUnavailable`` where nobody answers, be it before or after the act."""
        self.passed()
        if self.away:
            raise ProviderUnavailable("the provider is away", mend="wait")
        answer = self._answer(method, path, token, body, query)
        if self.losing:
            self.losing -= 1
            raise ProviderUnavailable("the answer was lost", mend="retry")
        return answer

    def _answer(self, method: str, path: str, value: str, body: Mapping[str, Any], query: Mapping[str, Any]) -> Answer:
        if path == "sys/health":
            return Answer(200, {})
        if path == "auth/approle/login":
            return self._login()
        token = self.tokens.get(value)
        at = next((each for each in ROUTES if path.startswith(each)), "")
        if token is None or (self.refusing and at not in UNREFUSED):
            return DEAD
        if token.parent is not None and self.dying_children and at in LEASING:
            self.dying_children -= 1
            self.end(token)
            return DEAD
        if not at or method == "LIST":
            return Answer(404, {"errors": []})
        return ROUTES[at](self, path.removeprefix(at), token, body or query)

    def _login(self) -> Answer:
        token = self._make(None, LOGIN_SECONDS, LOGIN_LONGEST)
        told = {**auth(token), "policies": ["default", "prism-vault"], "entity_id": "e", "orphan": True}
        return Answer(200, {"auth": told})

    def _mount(self, path: str, _token: Token, _said: Mapping[str, Any]) -> Answer:
        mount = path.partition("/")[0]
        kind: dict[str, Any] = {"type": "kv", "options": {"version": "2"}} if mount == "secret" else {"type": "database"}
        return Answer(200, {"data": {"path": f"{mount}/", **kind}})

    def _self(self, what: str, token: Token, _said: Mapping[str, Any]) -> Answer:
        if what == "lookup-self":
            return Answer(200, {"data": {"id": token.value, "accessor": token.accessor, "ttl": self._left(token.ends)}})
        if what == "revoke-self":
            for each in [each for each in self.tokens.values() if each.parent is token]:
                self.revoking(each.accessor)
            self.end(token)
            return Answer(204, None)
        self._renew(token, LOGIN_SECONDS)
        return Answer(200, {"auth": self._lives(token)})

    def _create(self, _path: str, token: Token, said: Mapping[str, Any]) -> Answer:
        at_most = int(str(said.get("explicit_max_ttl", "0s")).removesuffix("s")) or math.inf
        return Answer(200, {"auth": auth(self._make(token, int(str(said["ttl"]).removesuffix("s")), at_most))})

    def _lookup_accessor(self, _path: str, _token: Token, said: Mapping[str, Any]) -> Answer:
        if (meant := self._by_accessor(said)) is None:
            return UNKNOWN
        return Answer(200, {"auth": self._lives(meant), "data": {"ttl": self._left(meant.ends)}})

    def _renew_accessor(self, path: str, token: Token, said: Mapping[str, Any]) -> Answer:
        if (meant := self._by_accessor(said)) is not None:
            self._renew(meant, int(said["increment"]))
        return self._lookup_accessor(path, token, said)

    def _revoke_accessor(self, _path: str, _token: Token, said: Mapping[str, Any]) -> Answer:
        if (meant := self._by_accessor(said)) is None:
            return UNKNOWN
        self.revoking(meant.accessor)
        self.end(meant)
        return Answer(204, None)

    def _by_accessor(self, said: Mapping[str, Any]) -> Token | None:
        return next((each for each in self.tokens.values() if each.accessor == said["accessor"]), None)

    def _lease(self, what: str, _token: Token, said: Mapping[str, Any]) -> Answer:
        lease = self.leases.get(said["lease_id"])
        if lease is None:
            return Answer(400, {"errors": ["invalid lease" if what == "lookup" else "lease not found"]})
        if what == "renew" and not lease.stuck:
            lease.ends = min(self.clock.boot + int(said["increment"]), lease.longest)
        return Answer(200, {"lease_duration": self._left(lease.ends), "data": {"ttl": self._left(lease.ends)}})

    def _data(self, path: str, token: Token, said: Mapping[str, Any]) -> Answer:
        path = f"secret/{path}"
        versions = self.kv.get(path, [])
        if not versions:
            return Answer(404, {"errors": []})
        newest = len(versions) - 1 if self.lagging and len(versions) > 1 else len(versions)
        number = int(said.get("version") or newest)
        version = versions[number - 1]
        about = {"version": number, "created_time": version.created, "deletion_time": version.deleted}
        metadata = {**about, "destroyed": version.destroyed}
        if not version.stands:
            return Answer(404, {"data": {"data": None, "metadata": metadata}})
        self.read(path, number, token.accessor)
        return Answer(200, {"data": {"data": {"key": version.value}, "metadata": metadata}})

    def _metadata(self, path: str, _token: Token, _said: Mapping[str, Any]) -> Answer:
        versions = self.kv.get(f"secret/{path}", [])
        if not versions:
            return Answer(404, {"errors": []})
        told = {
            str(number): {"created_time": each.created, "deletion_time": each.deleted, "destroyed": each.destroyed}
            for number, each in enumerate(versions, 1)
        }
        return Answer(200, {"data": {"current_version": len(versions), "versions": told}})

    def _make(self, parent: Token | None, seconds: float, longest: float) -> Token:
        seconds = int(min(seconds, longest))
        number = next(self.numbers)
        ends = self.clock.boot + seconds
        token = Token(self.mark(TOKEN), f"accessor-{number}", parent, seconds, ends, self.clock.boot + longest)
        self.tokens[token.value] = token
        return token

    def _renew(self, token: Token, seconds: int) -> None:
        token.ends = min(self.clock.boot + seconds, token.longest)

    def _end_lease(self, lease: Leased) -> None:
        if self.engine_down:
            lease.stuck, lease.ends = True, math.inf
        else:
            self.leases.pop(lease.lease_id, None)

    def _lives(self, token: Token) -> dict[str, Any]:
        return {"lease_duration": self._left(token.ends), "renewable": True}

    def _left(self, ends: float) -> int:
        return 10**6 if ends == math.inf else max(0, int(ends - self.clock.boot))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self.clock.wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# What is asked for after which beginning of a path; longer ones first where one begins another.
ROUTES: Final = {
    "sys/internal/ui/mounts/": Provider._mount,
    "auth/token/create": Provider._create,
    "auth/token/lookup-accessor": Provider._lookup_accessor,
    "auth/token/renew-accessor": Provider._renew_accessor,
    "auth/token/revoke-accessor": Provider._revoke_accessor,
    "auth/token/": Provider._self,
    "sys/leases/": Provider._lease,
    "secret/data/": Provider._data,
    "secret/metadata/": Provider._metadata,
    "database/creds/": Provider.creds,
    "pki/issue/": Provider.issue,
    "transit/decrypt/": Provider.decrypt,
    "transit/keys/": Provider.key,
}
LEASING: Final = ("database/creds/", "pki/issue/")
# What every token may.
UNREFUSED: Final = ("sys/internal/ui/mounts/", "auth/token/")
