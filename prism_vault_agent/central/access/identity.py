"""Who is calling: from the credential and nothing else.

A service token known by its hash, an identity token of the issuer, or a client certificate that TLS has verified.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prism_vault_agent.central.access.certificate import known_names
from prism_vault_agent.central.access.permission import SCOPES, Refused
from prism_vault_agent.central.access.policy import ANY
from prism_vault_agent.central.access.rate import Rates

if TYPE_CHECKING:
    from prism_vault_agent.central.access.certificate import PeerCertificate
    from prism_vault_agent.central.access.issuer import TokenIssuer, Vouched
    from prism_vault_agent.central.access.live import Live
    from prism_vault_agent.central.access.permission import Role, Scope
    from prism_vault_agent.central.access_settings import Agent, Operator, ServiceToken
    from prism_vault_agent.central.config import CentralConfig

By = Literal["configured_token", "stored_token", "identity_token", "certificate", "database"]
MOST_VERIFIED: Final = 4_096
LONGEST_CREDENTIAL: Final = 8_192
STORED: Final = "pvt_"  # how every service token begins that central has made, so that scanners know it too


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose credential holds, which is known ``by`` that kind of credential.

    ``host`` is empty for an operator; ``projects`` may hold ``*`` for all. ``expires`` is when a service token ends, in seconds
    since 1970.
    """

    name: str
    role: Role
    host: str
    projects: frozenset[str]
    scopes: frozenset[Scope] = frozenset()
    by: By = "configured_token"
    expires: float = math.inf

    @property
    def sees_all(self) -> bool:
        """Tell whether the caller reads every project, and the rows that belong to none."""
        return ANY in self.projects

    @property
    def who(self) -> dict[str, str]:
        """The caller as audit rows name it."""
        return {"name": self.name, "by": self.by}

    def has(self, project: str) -> bool:
        """Tell whether a project is the caller's; ``*`` is so for one of all projects only."""
        return self.sees_all or project in self.projects


class Unauthenticated(Exception):
    """The credential does not hold. The reason is a stable word for the log and the answer; never the credential."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Credentials:
    """Every credential that central believes: those of its configuration, and the service tokens that it keeps itself."""

    def __init__(self, config: CentralConfig, issuer: TokenIssuer | None, live: Live) -> None:
        """Believe the tokens of ``config`` and of ``live``, and identity tokens where there is an ``issuer``."""
        self._live = live
        self.rates = Rates(config.limits.rate, config.limits.burst)
        self._tokens = [(token.sha256, _configured(token)) for token in config.tokens]
        self._agents = {agent.subject: _agent(agent, "identity_token") for agent in config.agents if agent.subject}
        self._certified = {agent.certificate: _agent(agent, "certificate") for agent in config.agents if agent.certificate}
        self._certified |= {operator.certificate: _operator(operator) for operator in config.operators}
        self._issuer = issuer
        self._verified: OrderedDict[str, tuple[Vouched, Identity]] = OrderedDict()

    async def identify(self, authorization: str, certificate: PeerCertificate | None = None) -> Identity:
        """Return who calls with an ``Authorization`` header, a verified client certificate, or both.

        With both it is the header's, which may be narrower. Raises :class:`Unauthenticated` where one of them does not hold, and
        :class:`Refused` where they speak for different callers.
        """
        if certificate is None:
            return await self._bearer(authorization)
        certified = self._of(certificate)
        if not authorization:
            return certified
        identity = await self._bearer(authorization)
        if (identity.role, identity.host or identity.name) != (certified.role, certified.host or certified.name):
            raise Refused(400, "two_credentials", "the client certificate and the bearer credential speak for different callers")
        return identity

    def _of(self, certificate: PeerCertificate) -> Identity:
        """Return whom a certificate speaks for. It may have ended since its connection began."""
        names = known_names(certificate, self._certified)
        if not names:
            raise Unauthenticated("unknown_certificate")
        if len(names) > 1:
            raise Unauthenticated("ambiguous_certificate")
        if certificate.ends <= time.time():
            raise Unauthenticated("certificate_ended")
        return self._certified[names[0]]

    async def _bearer(self, authorization: str) -> Identity:
        """Return who holds the credential of an ``Authorization`` header, or raise :class:`Unauthenticated`."""
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("no_credential")
        if len(credential) > LONGEST_CREDENTIAL:
            raise Unauthenticated("credential_too_long")
        digest = hashlib.sha256(credential.encode("utf-8", "replace")).hexdigest()
        found = None
        for sha256, identity in self._tokens:
            if hmac.compare_digest(sha256, digest):  # all are compared, so the time tells nothing
                found = identity
        if found is not None:
            return found
        if credential.startswith(STORED):
            return self._stored(digest)
        return await self._verify(credential, digest)

    def projects_of(self, host: str) -> frozenset[str]:
        """Return the projects of all credentials that speak for a host now."""
        now = time.time()
        stored = [token.identity for token in self._live.tokens if token.believed and token.revoked_at is None]
        configured = [*(identity for _, identity in self._tokens), *self._agents.values(), *self._certified.values()]
        found = [identity.projects for identity in (*configured, *stored) if identity.host == host and identity.expires > now]
        return frozenset().union(*found)

    def _stored(self, digest: str) -> Identity:
        """Return who holds a token that central keeps itself. The time of looking up a hash tells nothing about the token."""
        token = self._live.token(digest)
        if token is None or not token.believed:
            raise Unauthenticated("unknown_token")
        if token.revoked_at is not None:
            raise Unauthenticated("token_revoked")
        if token.identity.expires <= time.time():
            raise Unauthenticated("token_expired")
        return token.identity

    async def _verify(self, credential: str, digest: str) -> Identity:
        """Return the agent that an identity token speaks for, and remember it until the end of the token or of its key."""
        if self._issuer is None or credential.count(".") != 2:
            raise Unauthenticated("unknown_token")
        known = self._verified.get(digest)
        if known is not None and time.time() < known[0].expires and await self._issuer.knows(known[0].kid):
            self._verified[digest] = known
            self._verified.move_to_end(digest)
            return known[1]
        self._verified.pop(digest, None)
        vouched = await self._issuer.verify(credential)
        identity = self._agents.get(vouched.subject)
        if identity is None:
            raise Unauthenticated("unknown_subject")
        self._verified[digest] = (vouched, identity)
        while len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)
        return identity


def _configured(token: ServiceToken) -> Identity:
    return Identity(token.name, token.role, token.host, frozenset(token.projects), SCOPES[token.role], "configured_token")


def _agent(agent: Agent, by: By) -> Identity:
    name = agent.subject or agent.certificate
    return Identity(name, "agent", agent.host, frozenset(agent.projects), SCOPES["agent"], by)


def _operator(operator: Operator) -> Identity:
    return Identity(operator.name, "operator", "", frozenset(operator.projects), SCOPES["operator"], "certificate")
