"""Reading what the bindings of a render name: one request a path, each mount looked up once, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_vault_agent.errors import ConfigError, PrismVaultError, SecretNotFound
from prism_vault_agent.vault import certificate, kv, leased, ssh
from prism_vault_agent.vault import mounts as mounting
from prism_vault_agent.vault.naming import named, places_of
from prism_vault_agent.vault.refusal import refusal
from prism_vault_agent.wanted.certificate import Certificate
from prism_vault_agent.wanted.decryption import Decryption
from prism_vault_agent.wanted.ssh_certificate import SshCertificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from prism_vault_agent.model import Lease
    from prism_vault_agent.scope import Binding
    from prism_vault_agent.vault.mounts import Mounts
    from prism_vault_agent.vault.transport import Answer, Transport

CONNECTIONS = 16
# Below this many paths a connection more costs longer than it saves.
PATHS_A_CONNECTION = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read. ``values`` are by environment name, bytes where they are no text; ``mounts`` serve the next reading."""

    values: dict[str, str | bytes] = field(repr=False)
    leases: tuple[Lease, ...]
    mounts: Mounts


def read(
    transport: Transport,
    token: str,
    bindings: Sequence[Binding],
    *,
    deadline: float,
    allow_names: frozenset[str] = frozenset(),
    mounts: Mounts | None = None,
    child: Callable[[], str] | None = None,
) -> Reading:
    """Read every binding, in their order. ``deadline`` is CLOCK_MONOTONIC seconds.

    ``mounts`` is what an earlier reading returned; a mount that has changed since is found out and looked up again.
    ``allow_names`` are the dangerous names that a secret's own keys may have, where they become the names. ``child`` makes the
    token to read with where a path may give a lease; without it such a path is refused.

    Raises:
        SecretNotFound: ``no_such_path``, ``no_such_key``, ``no_such_version``, ``deleted`` or ``destroyed``.
        Denied, TokenExpired: ``provider_policy``, or the token is dead.
        ConfigError: a mount without secrets, a lease without ``child``, a version of KV v1, a key that cannot be a name, a name
            given twice, a ciphertext that is none or of another key.
        ProviderUnavailable, ProtocolError: as ``Transport.request``.
    """
    places = tuple(dict.fromkeys(place for each in bindings for place in places_of(each)))
    try:
        secrets, leases, found = _read_places(transport, token, places, dict(mounts or {}), deadline=deadline, child=child)
    except (SecretNotFound, ConfigError) as error:
        if not mounts or error.reason not in {"no_such_path", "config"}:
            raise
        secrets, leases, found = _read_places(transport, token, places, {}, deadline=deadline, child=child)
    return Reading(named(bindings, secrets, allow_names), tuple(lease for each in leases.values() for lease in each), found)


def read_each(
    transport: Transport,
    token: str,
    wanted: Sequence[tuple[Sequence[Binding], frozenset[str]]],
    *,
    deadline: float,
    mounts: Mounts,
) -> list[Reading | PrismVaultError]:
    """Read what several releases want, bindings and ``allow_names`` of each, with one request a path for all of them.

    What concerns one of them only, a key that is missing, is its own error. Raises as :func:`read` where a path cannot be
    read, whoever wants it, and where one may give a lease: such a release is read by itself.
    """
    places = tuple(dict.fromkeys(place for bindings, _ in wanted for each in bindings for place in places_of(each)))
    secrets, leases, found = _read_places(transport, token, places, dict(mounts), deadline=deadline, child=None)
    answers: list[Reading | PrismVaultError] = []
    for bindings, allow_names in wanted:
        mine = {place for each in bindings for place in places_of(each)}
        own = tuple(lease for place, of_place in leases.items() if place in mine for lease in of_place)
        try:
            answers.append(Reading(named(bindings, secrets, allow_names), own, found))
        except PrismVaultError as error:
            answers.append(error)
    return answers


def _read_places(
    transport: Transport,
    token: str,
    places: tuple[kv.Place, ...],
    known: Mounts,
    *,
    deadline: float,
    child: Callable[[], str] | None,
) -> tuple[dict[kv.Place, dict[str, Any]], dict[kv.Place, tuple[Lease, ...]], Mounts]:
    found = mounting.look_up(transport, token, (place.path for place in places), known, deadline=deadline)
    secrets: dict[kv.Place, dict[str, Any]] = {}
    leases: dict[kv.Place, tuple[Lease, ...]] = {}
    decrypted = [place for place in places if isinstance(place.wanted, Decryption)]
    places = tuple(place for place in places if place not in decrypted)
    own = token
    if other := [place for place in places if _is_other(place, found)]:
        if child is None:
            raise ConfigError(
                f"{other[0]} is not of a KV mount, and nobody would give back its lease",
                mend="run an agent, and leave out --direct",
                reason="unsupported_mount",
            )
        token = child()
    for place, answer in _answers(transport, token, places, found, deadline):
        if answer.status == 403:
            raise refusal(transport, token, str(place), deadline=deadline)
        if _is_other(place, found):
            secrets[place], lease = _understand(place, answer)
            leases[place] = (lease,)
            continue
        try:
            secrets[place], lease = kv.understand(place, answer, found[mounting.mount_of(place.path, found) or ""])
        except SecretNotFound as error:
            if place.version and error.reason == "no_such_path" and _exists(transport, token, place, found, deadline):
                raise kv.no_such_version(place) from None
            raise
        leases[place] = (lease,)
    for place in decrypted:
        from prism_vault_agent.vault.transit import decrypt  # noqa: PLC0415 - only who has a ciphertext pays for it

        secrets[place], leases[place] = decrypt(transport, own, place, secrets, deadline)
    return secrets, leases, found


def _is_other(place: kv.Place, found: Mounts) -> bool:
    """Tell whether a path is of an engine that may give leases."""
    return found[mounting.mount_of(place.path, found) or ""] == mounting.OTHER


def _ask(transport: Transport, token: str, place: kv.Place, found: Mounts, deadline: float) -> Answer:
    if not _is_other(place, found):
        return kv.ask(transport, token, place, found, deadline)
    if isinstance(place.wanted, SshCertificate):
        return ssh.ask(transport, token, place, place.wanted, deadline)
    if isinstance(place.wanted, Certificate):
        return certificate.ask(transport, token, place, place.wanted, deadline)
    return leased.ask(transport, token, place, deadline)


def _understand(place: kv.Place, answer: Answer) -> tuple[dict[str, Any], Lease]:
    if isinstance(place.wanted, SshCertificate):
        return ssh.understand(place, answer, place.wanted)
    if isinstance(place.wanted, Certificate):
        return certificate.understand(place, answer, place.wanted)
    return leased.understand(place, answer)


def _exists(transport: Transport, token: str, place: kv.Place, found: Mounts, deadline: float) -> bool:
    """Tell whether the path of a version that does not exist has other versions."""
    answer = kv.ask(transport, token, kv.Place(place.path, None), found, deadline)
    return answer.ok or isinstance((answer.data or {}).get("data"), dict)


def _answers(
    transport: Transport, token: str, places: tuple[kv.Place, ...], found: Mounts, deadline: float
) -> list[tuple[kv.Place, Answer]]:
    """Return the answers for all places, or up to the first that is not a success; raise the first error instead."""
    waiting = list(enumerate(places))[::-1]
    answers: dict[int, Answer] = {}
    failures: dict[int, Exception] = {}

    def work(through: Transport) -> None:
        while not failures:
            try:
                at, place = waiting.pop()
            except IndexError:
                return
            try:
                answers[at] = _ask(through, token, place, found, deadline)
            except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
                failures[at] = error
            else:
                if not answers[at].ok:
                    waiting.clear()

    import threading  # noqa: PLC0415 - as in kv.py

    others = [transport.another() for _ in range(min(CONNECTIONS, -(-len(places) // PATHS_A_CONNECTION)) - 1)]
    threads = [threading.Thread(target=work, args=(other,), daemon=True) for other in others]
    for thread in threads:
        thread.start()
    work(transport)
    for thread, other in zip(threads, others, strict=True):
        thread.join()
        other.close()
    if failures:
        raise failures[min(failures)]
    refused = sorted(at for at, answer in answers.items() if not answer.ok)
    return [(places[at], answers[at]) for at in (refused[:1] or sorted(answers))]
