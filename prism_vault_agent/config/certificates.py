"""What certificates of a scope are to be: as it is written, and from there the noun that a binding has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from prism_vault_agent.config import shapes
from prism_vault_agent.config.fields import Section, Ttl
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.wanted.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Collection

    from prism_vault_agent.config import entries
    from prism_vault_agent.config.lines import KeyPath
    from prism_vault_agent.scope import SecretReference

Dns = Annotated[str, AfterValidator(shapes.dns)]
Uri = Annotated[str, AfterValidator(shapes.uri)]
Ip = Annotated[str, AfterValidator(shapes.ip)]


class CertificateEntry(Section):
    """A certificate that is issued at a path which the scope's references name. Each release has one of its own, with its key."""

    common_name: Dns = Field(description="Its common name, which the engine makes a DNS name too.")
    dns: list[Dns] = Field(default_factory=list, description="Further DNS names, `*.` before one where the role allows it.")
    uris: list[Uri] = Field(default_factory=list, description="URIs, for instance `spiffe://prism/web`.")
    ips: list[Ip] = Field(default_factory=list, description="IP addresses.")
    ttl: Ttl = Field("168h", description="How long it lives, as the role allows; files get a new one before two thirds of it.")


def certificate(entry: entries.ScopeEntry, reference: SecretReference) -> Certificate | None:
    """Return what is to be issued at the path of a reference; None where it is not that of a certificate.

    It lives no longer than the scope's own ``ttl`` says.
    """
    found = entry.certificates.get(reference.path)
    if found is None:
        return None
    lives = shapes.life(found.ttl, entry.ttl)
    return Certificate(found.common_name, tuple(found.dns), tuple(found.uris), tuple(found.ips), lives)


def check(entry: entries.ScopeEntry, here: KeyPath, named: Collection[str], problems: list[Problem]) -> None:
    """Add to ``problems`` every certificate, of SSH too, that no reference of the scope names, or that is of both kinds."""
    for table, paths, part in (("certificates", entry.certificates, "certificate"), ("ssh", entry.ssh, "signed_key")):
        for path in sorted(paths.keys() - set(named)):
            what = "is a certificate that no reference of the scope names"
            problems.append(Problem((*here, table, path), what, f"bind vault://{path}#{part} and #private_key in env"))
    both = sorted(entry.certificates.keys() & entry.ssh.keys())
    problems += [Problem((*here, "ssh", path), "is in certificates too", "keep one of them") for path in both]
