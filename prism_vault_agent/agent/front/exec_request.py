"""From the bytes of an exec request to a ``Request`` and the room its caller has. Pure. ``docs/exec.md`` lists the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prism_vault_agent.errors import PrismVaultError, UsageError
from prism_vault_agent.exec import Malformed
from prism_vault_agent.exec.wire import decode_request
from prism_vault_agent.model import Request
from prism_vault_agent.policy.names import shown
from prism_vault_agent.scope import Binding, Purpose, Reaction, ScopeName, SecretReference
from prism_vault_agent.worker.messages import Room

LONGEST_SECONDS: Final = 3600.0
DEFAULT_SECONDS: Final = 10.0
LONGEST_RELEASE: Final = 64
# What execve(2) gives to arguments and environment together: a quarter of the stack limit, within these bounds (fs/exec.c).
SMALLEST_ROOM: Final = 128 * 1024
LARGEST_ROOM: Final = 6 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What the thin client asked: ``seconds`` is the time that is left of its ``--timeout``.

    ``after`` is the release that the command had before it was started anew, if it was.
    """

    request: Request
    seconds: float
    pristine: bool
    dry_run: bool
    after: str | None
    inherited: Room
    clean: Room

    def room(self, *, pristine: bool) -> Room:
        """Return the room beside what the caller keeps of its environment."""
        return self.clean if pristine else self.inherited


def parse(body: bytes) -> ExecRequest:
    """Return the request that ``body`` spells. Raises ``UsageError`` where it does not spell one."""
    scopes: list[ScopeName] = []
    references: list[Binding] = []
    single: dict[str, str] = {}
    try:
        fields = decode_request(body)
    except Malformed:
        raise _malformed("body") from None
    for key, value in fields:
        name, text = key.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape")
        if name == "scope":
            scopes.append(ScopeName(text))
        elif name == "ref":
            references.append(reference(text))
        else:
            single[name] = text
    numbers = {
        name: _number(single, name) for name in ("timeout_ms", "argv_bytes", "env_bytes", "pristine_env_bytes", "stack_limit")
    }
    total = total_room(numbers["stack_limit"])
    return ExecRequest(
        Request(
            scopes=tuple(scopes),
            purpose=Purpose(single["purpose"]) if "purpose" in single else None,
            run_ref=single.get("run_ref"),
            job_id=single.get("job_id"),
            references=tuple(references),
            supervised=single.get("supervised") == "1",
            on_rotate=_reaction(single["on_rotate"]) if "on_rotate" in single else None,
        ),
        seconds=min(numbers["timeout_ms"] / 1000 or DEFAULT_SECONDS, LONGEST_SECONDS),
        pristine=single.get("pristine") == "1",
        dry_run=single.get("dry_run") == "1",
        after=single.get("after"),
        inherited=Room(numbers["argv_bytes"] + numbers["env_bytes"], total),
        clean=Room(numbers["argv_bytes"] + numbers["pristine_env_bytes"], total),
    )


def release(body: bytes) -> str:
    """Return the release that a supervisor waits for orders about. Raises ``UsageError`` for what is no name of one."""
    name = body.decode("ascii", "replace")
    if not 0 < len(name) <= LONGEST_RELEASE or not (name.isascii() and name.isprintable()):
        raise _malformed("release")
    return name


def total_room(stack_limit: int) -> int:
    """Return how many bytes execve(2) takes under a stack limit of so many bytes; 0 means unlimited."""
    return min(max((stack_limit or LARGEST_ROOM * 4) // 4, SMALLEST_ROOM), LARGEST_ROOM)


def reference(text: str) -> Binding:
    """Return the binding that ``NAME=vault://...`` spells. Raises ``UsageError`` that names the variable."""
    name, _, spelled = text.partition("=")
    try:
        parsed = SecretReference.parse(spelled)
    except PrismVaultError as error:
        raise UsageError(f"the variable {shown(name)} holds {error.message}", mend=error.mend) from None
    if parsed.key is None:
        raise UsageError(f"the reference in {shown(name)} names no key", mend="write vault://<mount>/<path>#<key>")
    return Binding(name, parsed)


def _reaction(text: str) -> Reaction:
    """Return what is to be done with a process at a rotation."""
    try:
        reaction = Reaction.parse(text)
    except ValueError:
        raise _malformed("on_rotate") from None
    if reaction.does not in ("restart", "signal", "terminate", "none"):
        raise _malformed("on_rotate")
    return reaction


def _number(single: dict[str, str], name: str) -> int:
    text = single.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _malformed(name)
    return int(text)


def _malformed(name: str) -> UsageError:
    return UsageError(
        f"the request's {name} is malformed", mend="use the prism-vault that belongs to this agent", reason="malformed"
    )
