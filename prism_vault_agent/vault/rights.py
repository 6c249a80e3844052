"""Which rights the scopes take at the provider, and which of them a token has: asked of the server, nothing is tried."""

from __future__ import annotations

from dataclasses import dataclass

from prism_vault_agent.errors import ConfigError, Denied
from prism_vault_agent.vault import static
from prism_vault_agent.vault.mounts import OTHER, look_up, mount_of
from prism_vault_agent.vault.refusal import refusal
from prism_vault_agent.wanted.certificate import Certificate
from prism_vault_agent.wanted.decryption import Decryption
from prism_vault_agent.wanted.ssh_certificate import SshCertificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prism_vault_agent.scope import Binding
    from prism_vault_agent.vault.mounts import Mounts
    from prism_vault_agent.vault.transport import Transport

ACCESSORS = ("lookup", "renew", "revoke")
LEASES = ("lookup", "renew")


@dataclass(frozen=True, slots=True)
class Right:
    """A capability on a path. ``needed``: without it nothing can be given out; else something is noticed late, or not at all."""

    path: str
    capability: str
    needed: bool = True


def missing(
    transport: Transport, token: str, bindings: Iterable[Binding], mounts: Mounts, *, role: str, deadline: float
) -> tuple[list[Right], int]:
    """Return the rights that ``token`` lacks for ``bindings``, and how many it takes; ``role`` is the token role, or empty.

    A path whose mount the server does not let us know of is one that lacks every right. What child tokens of a token role read is
    the role's business, and not asked for. Raises ``Denied`` where the server may not be asked (``sys/capabilities-self``),
    ``TokenExpired``, and as ``Transport.request``.
    """
    bound = list(bindings)
    known, unknown = dict(mounts), []
    for path in dict.fromkeys(each.path for binding in bound for each in binding.references):
        try:
            known = look_up(transport, token, [path], known, deadline=deadline)
        except (Denied, ConfigError) as error:
            if error.reason not in {"provider_policy", "unsupported_mount"}:
                raise
            unknown.append(Right(path, "read"))
    wanted = list(dict.fromkeys(needed(bound, known, role)))
    body = {"paths": [right.path for right in wanted]}
    answer = transport.request("POST", "sys/capabilities-self", token=token, body=body, deadline=deadline, repeatable=True)
    if answer.status == 403:
        mend = 'add to its policy: path "sys/capabilities-self" { capabilities = ["update"] }'
        raise refusal(transport, token, "sys/capabilities-self", deadline=deadline, mend=mend)
    told = (answer.data or {}).get("data") or {}
    lacking = [right for right in wanted if not {right.capability, "root"} & set(told.get(right.path) or ())]
    return [*unknown, *lacking], len(unknown) + len(wanted)


def needed(bindings: Iterable[Binding], mounts: Mounts, role: str) -> Iterator[Right]:
    """Return what it takes to give out ``bindings`` and to look after them; what is of a mount that is not known is left out."""
    leased = False
    for binding in bindings:
        for reference in binding.references:
            path = reference.path
            mount = mount_of(path, mounts)
            if mount is None:
                continue
            below = path.removeprefix(mount)
            if mounts[mount] == 2:
                yield Right(f"{mount}data/{below}", "read")
                yield Right(f"{mount}metadata/{below}", "read", needed=False)
            elif mounts[mount] != OTHER:
                yield Right(path, "read")
            elif isinstance(binding.wanted, Decryption):
                yield Right(path, "update")
                yield Right(f"{mount}keys/{below.removeprefix('decrypt/')}", "read", needed=False)
            else:
                leased = True
                if below.startswith(static.CREDENTIALS):
                    yield Right(f"{mount}{static.ROLES}{below.removeprefix(static.CREDENTIALS)}", "read", needed=False)
                if not role:
                    yield Right(path, "update" if isinstance(binding.wanted, Certificate | SshCertificate) else "read")
    if leased:
        yield Right(f"auth/token/create/{role}" if role else "auth/token/create", "update")
        yield from (Right(f"auth/token/{each}-accessor", "update") for each in ACCESSORS)
        yield from (Right(f"sys/leases/{each}", "update", needed=False) for each in LEASES)
