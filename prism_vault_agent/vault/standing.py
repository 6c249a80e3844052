"""Does what was read still stand? Asked by metadata alone, so that no value is read without a reservation."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_vault_agent.errors import PrismVaultError, ProtocolError, ProviderUnavailable, TokenExpired
from prism_vault_agent.vault import fields, static
from prism_vault_agent.vault.mounts import OTHER, mount_of
from prism_vault_agent.vault.refusal import refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from prism_vault_agent.vault.mounts import Mounts
    from prism_vault_agent.vault.transport import Answer, Transport

    _Judge = Callable[[str, Iterable[int], dict[str, Any] | None, "Standing"], None]

# So many paths of one folder are worth a list of all that is in it.
WORTH_A_LIST = 3
# So many paths one after the other that the provider does not answer are the provider's fault, not theirs.
IN_A_ROW = 3


@dataclass(slots=True)
class Standing:
    """What metadata says. ``withdrawn`` is how, by path and version: deleted, destroyed or no_such_path.

    ``newest`` is the newest version of each path, where that one stands. ``failed`` is why a path could not be asked.
    ``unlisted`` are folders that the server does not list with their metadata; ``requests`` is how many it took, and ``denied``
    how many of them were.
    """

    withdrawn: dict[tuple[str, int], str] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)
    requests: int = 0
    denied: int = 0


def look(
    transport: Transport,
    token: str,
    versions: Iterable[tuple[str, int]],
    mounts: Mounts,
    *,
    deadline: float,
    unlisted: Collection[str] = (),
) -> Standing:
    """Return what became of these versions (path, number) of KV v2, and which is the newest of each path.

    A path of transit has the versions of its key that something was decrypted with: it is asked for what it still decrypts.
    One of a static role has the time at which its password was set, and the role tells the latest.
    One list tells of a whole folder where the server has ``detailed-metadata``, unless the folder is ``unlisted``. A version
    that metadata cannot be read of (403) is not told: that is a lack of a policy, not a withdrawal. What is wrong with one path
    alone is told of that path, be it the only one: then the provider's health is asked for.

    Raises as ``Transport.request`` where the provider is away, ``TokenExpired`` where the token is dead.
    """
    asked: dict[str, list[int]] = {}
    others: dict[str, tuple[str, _Judge]] = {}
    for path, version in versions:
        mount = mount_of(path, mounts) or ""
        if mounts.get(mount) == 2:
            asked.setdefault(path, []).append(version)
        elif mounts.get(mount) == OTHER and (about := _about_other(mount, path)):
            asked.setdefault(path, []).append(version)
            others[path] = about
    asking = _Asking(transport, token, mounts, deadline)
    known = asking.listed(folder for folder in _folders(path for path in asked if path not in others) if folder not in unlisted)
    told, in_a_row = asking.told, 0
    for path, numbers in asked.items():
        try:
            if path in others:
                where, judge = others[path]
                judge(path, numbers, asking.other(where), told)
            else:
                _judge(path, numbers, known.get(path) or asking.one(path), told)
            in_a_row = 0
        except (ProtocolError, ProviderUnavailable) as error:
            in_a_row += 1
            if isinstance(error, ProviderUnavailable) and (in_a_row == IN_A_ROW or (in_a_row == len(asked) and asking.is_away())):
                raise
            told.failed[path] = error.message
    if asked and told.denied == len(asked):  # a dead token is answered as one that lacks a policy
        dead = refusal(transport, token, "all metadata", deadline=deadline)
        if isinstance(dead, TokenExpired):
            raise dead
    return told


@dataclass(slots=True)
class _Asking:
    """Questions about metadata, counted in ``told``."""

    transport: Transport
    token: str
    mounts: Mounts
    deadline: float
    told: Standing = field(default_factory=Standing)

    def one(self, path: str) -> dict[str, Any] | None:
        """Return the metadata of one path: None where there is no such path, nothing in it where it may not be read."""
        return self._about(self._request("GET", "metadata", path))

    def other(self, where: str) -> dict[str, Any] | None:
        """Return what a key of transit or a static role tells of itself, as :meth:`one` does."""
        self.told.requests += 1
        return self._about(self.transport.request("GET", where, token=self.token, deadline=self.deadline))

    def is_away(self) -> bool:
        """Tell whether the provider answers nobody; what has failed so far is its paths' own fault where it does."""
        self.told.requests += 1
        try:
            query = {"standbyok": "true", "perfstandbyok": "true"}
            self.transport.request("GET", "sys/health", query=query, deadline=self.deadline)
        except ProviderUnavailable:
            return True
        return False

    def _about(self, answer: Answer) -> dict[str, Any] | None:
        if answer.status == 404:
            return None
        self.told.denied += answer.status == 403
        return fields.mapping(answer.data, "data") if answer.ok else {}

    def listed(self, folders: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of all that the server lists in these folders: what is missing there may only be hidden from us."""
        found: dict[str, dict[str, Any]] = {}
        for folder in folders:
            try:
                answer = self._request("LIST", "detailed-metadata", folder)
                about = fields.mapping(fields.mapping(answer.data, "data"), "key_info") if answer.ok else {}
            except PrismVaultError:
                about = {}
            if not about:
                self.told.unlisted.append(folder)
            found |= {f"{folder}{name}": each for name, each in about.items() if isinstance(each, dict)}
        return found

    def _request(self, method: str, what: str, path: str) -> Answer:
        mount = mount_of(path, self.mounts) or ""
        self.told.requests += 1
        where = f"{mount}{what}/{path.removeprefix(mount)}"
        return self.transport.request(method, where, token=self.token, deadline=self.deadline)


def _about_other(mount: str, path: str) -> tuple[str, _Judge] | None:
    """Return where an engine other than KV tells of a path without what is there, and how to judge that; None where nowhere."""
    for gives, tells, judge in (("decrypt/", "keys/", _judge_key), (static.CREDENTIALS, static.ROLES, _judge_role)):
        if path.startswith(mount + gives):
            return mount + tells + path.removeprefix(mount + gives), judge
    return None


def _folders(paths: Iterable[str]) -> Iterator[str]:
    """Return the folders, ending in a slash, of which enough is asked."""
    counts: dict[str, int] = {}
    for path in paths:
        folder = path[: path.rfind("/") + 1]
        counts[folder] = counts.get(folder, 0) + 1
    return (folder for folder, count in counts.items() if count >= WORTH_A_LIST)


def _judge(path: str, numbers: Iterable[int], about: dict[str, Any] | None, told: Standing) -> None:
    """Take in what the metadata of a path says of these versions of it."""
    if about is None:
        told.withdrawn |= {(path, number): "no_such_path" for number in numbers}
        return
    if not about:
        return
    known = fields.mapping(about, "versions")
    current = about.get("current_version")
    if isinstance(current, int) and not _how(known.get(str(current))):
        told.newest[path] = current
    for number in numbers:
        if how := _how(known.get(str(number))):
            told.withdrawn[path, number] = how


def _judge_key(path: str, numbers: Iterable[int], about: dict[str, Any] | None, told: Standing) -> None:
    """Take in which of these versions of a key of transit decrypt no more."""
    if about is None:
        told.withdrawn |= {(path, number): "no_such_path" for number in numbers}
    elif about:
        least, gone = about.get("min_decryption_version"), fields.flag(about, "soft_deleted")
        if not isinstance(least, int):
            raise ProtocolError("the answer's field min_decryption_version is not a number", reason="malformed_answer")
        told.withdrawn |= {(path, number): "deleted" for number in numbers if gone or number < least}


def _judge_role(path: str, numbers: Iterable[int], about: dict[str, Any] | None, told: Standing) -> None:
    """Take in when a static role's password was last set."""
    if about is None:
        told.withdrawn |= {(path, number): "no_such_path" for number in numbers}
    elif about:
        told.newest[path] = static.version(about)


def _how(version: object) -> str:
    """Return how one version was withdrawn, or nothing. Versions over the mount's max_versions are gone from the list."""
    if version is None:
        return "destroyed"
    if not isinstance(version, dict):
        raise ProtocolError("the answer's field versions is not that of a secret", reason="malformed_answer")
    if fields.flag(version, "destroyed"):
        return "destroyed"
    ends = fields.text(version, "deletion_time", "")
    if not ends:
        return ""
    from datetime import UTC, datetime  # noqa: PLC0415 - few secrets need it

    try:
        return "deleted" if datetime.fromisoformat(ends) <= datetime.now(UTC) else ""
    except ValueError:
        raise ProtocolError("the answer's field deletion_time is not a time", reason="malformed_answer") from None
