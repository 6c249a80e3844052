"""What SSH certificates of a scope are to be: as it is written, and from there the noun that a binding has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from prism_vault_agent.config import shapes
from prism_vault_agent.config.fields import Section, Text, Ttl
from prism_vault_agent.wanted.ssh_certificate import PUBLIC_KEY, SshCertificate

if TYPE_CHECKING:
    from prism_vault_agent.config.entries import ScopeEntry
    from prism_vault_agent.scope import SecretReference


def _public_key(value: str) -> str:
    """Return the public key of an authority."""
    if not PUBLIC_KEY.fullmatch(value):
        raise ValueError("is not a public key of SSH; write its line, ssh-ed25519 AAAA...")
    return value


def _principal(value: str) -> str:
    """Return the name of a user or host."""
    if "," in shapes.text(value):
        raise ValueError("is more than one principal; write each by itself")
    return value


class SshEntry(Section):
    """An SSH certificate for a pair of Ed25519 keys that is made for each release. References name its parts: `vault://ssh/sign/ROLE#KEY`."""

    principals: Annotated[list[Annotated[str, AfterValidator(_principal)]], Field(min_length=1)] = Field(
        description="Whom it names: users to log in as, or names of the host."
    )
    key_type: Literal["ed25519"] = Field(
        "ed25519",
        description="Type of the keys: no other is made. For another make the pair there, with `ssh-keygen`.",
    )
    cert_type: Literal["user", "host"] = Field("user", description="What it is for.")
    extensions: dict[Text, str] | None = Field(
        None, description="Extensions with their values, for instance `permit-pty`. Default: those of the engine's role."
    )
    critical_options: dict[Text, str] = Field(
        default_factory=dict, description="Critical options with their values, for instance `force-command`."
    )
    ca: list[Annotated[str, AfterValidator(_public_key)]] = Field(
        default_factory=list, description="Public keys of the authorities that may sign it. Default: whichever the engine has."
    )
    ttl: Ttl = Field("24h", description="How long it lives, as the role allows; files get a new one before two thirds of it.")


def ssh_certificate(entry: ScopeEntry, reference: SecretReference) -> SshCertificate | None:
    """Return what is to be signed at the path of a reference; None where it is not that of an SSH certificate.

    It lives no longer than the scope's own ``ttl`` says.
    """
    found = entry.ssh.get(reference.path)
    if found is None:
        return None
    return SshCertificate(
        tuple(dict.fromkeys(found.principals)),
        found.cert_type,
        tuple(sorted(found.critical_options.items())),
        None if found.extensions is None else tuple(sorted(found.extensions.items())),
        tuple(match[1] for each in found.ca if (match := PUBLIC_KEY.fullmatch(each))),
        shapes.life(found.ttl, entry.ttl),
    )
