"""Who is told of changed files: ``notify`` as it is written, and from there one noun for each consumer of a scope."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

from pydantic import Field

from prism_vault_agent.config.fields import ContainerName, Duration, MaintenanceWindow, Path, Section, Text, Unit
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.shapes import seconds
from prism_vault_agent.scope import Notify, NotifyKind

if TYPE_CHECKING:
    from prism_vault_agent.config import entries
    from prism_vault_agent.config.lines import KeyPath

ENGINE_SOCKET: Final = "/run/docker.sock"
_KINDS: Final[tuple[NotifyKind, ...]] = get_args(NotifyKind)


class NotifyEntry(Section):
    """Who is told when the file has changed: exactly one of `unit`, `pid_file`, `container` and `command`."""

    unit: Unit | None = Field(None, description="Unit of the host's systemd, for instance `web.service`.")
    pid_file: Path | None = Field(None, description="File with the number of a process that is sent `signal`.")
    container: ContainerName | None = Field(None, description="Container of Docker or Podman, by name or id.")
    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Program, by its absolute path, and its arguments; no shell reads them. Its output is discarded."
    )
    action: Literal["reload", "restart", "reload-or-restart"] | None = Field(
        None,
        description="For a unit: what systemd does with it if it runs. Default: `reload-or-restart`. "
        "For a container: `restart`, or set `signal`.",
    )
    signal: Literal["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"] | None = Field(
        None, description="Signal for the process of a pid file, or the first one of a container."
    )
    engine_socket: Path | None = Field(None, description="Socket of the engine. Default: `/run/docker.sock`.")
    splay: Duration = Field(
        "0s", description="It is told after a random part of this time, so that hosts do not act at one moment."
    )
    min_interval: Duration = Field("10s", description="Least time between two attempts.")
    window: list[MaintenanceWindow] = Field(
        default_factory=list,
        description="When it may be told, in the host's time: `02:00-04:00`, `Mon..Fri 22:00-02:00`, `Sat,Sun 00:00-24:00`. "
        "Default: always.",
    )
    max_per_hour: int = Field(12, ge=1, le=3600, description="Most attempts in any hour.")
    timeout: Duration = Field("60s", description="Longest wait for one attempt.")


def consumers(files: list[entries.FileEntry], here: KeyPath, problems: list[Problem]) -> tuple[Notify, ...]:
    """Return the consumers of a scope's files, each once; what is wrong with them is added to ``problems``."""
    found: dict[str, Notify] = {}
    for index, file in enumerate(files):
        if file.notify is None:
            continue
        path = (*here, index, "notify")
        one = _consumer(file.notify, file.path, path, problems)
        if one is None:
            continue
        before = found.get(str(one))
        if before is None:
            found[str(one)] = one
        elif replace(one, files=before.files) == before:
            found[str(one)] = replace(before, files=(*before.files, file.path))
        else:
            problems.append(Problem(path, "tells whom another file of this scope tells, with other limits", "write both alike"))
    return tuple(found.values())


def _consumer(entry: NotifyEntry, file: str, here: KeyPath, problems: list[Problem]) -> Notify | None:
    kinds = [kind for kind in _KINDS if getattr(entry, kind) is not None]
    if len(kinds) != 1:
        what = "names nobody" if not kinds else f"names {' and '.join(kinds)}"
        problems.append(Problem(here, what, f"set exactly one of {', '.join(_KINDS)}"))
        return None
    kind = kinds[0]
    named: str | list[str] = getattr(entry, kind)
    if (wrong := _contradiction(entry, kind)) is not None:
        key, what, mend = wrong
        problems.append(Problem((*here, key) if key else here, what, mend))
        return None
    if seconds(entry.timeout) <= 0:
        problems.append(Problem((*here, "timeout"), "leaves no time at all", 'write at least "1s"'))
    return Notify(
        kind=kind,
        target=(named,) if isinstance(named, str) else tuple(named),
        how=entry.signal or entry.action or ("reload-or-restart" if kind == "unit" else ""),
        files=(file,),
        engine_socket=entry.engine_socket or (ENGINE_SOCKET if kind == "container" else ""),
        splay=seconds(entry.splay),
        min_interval=seconds(entry.min_interval),
        windows=tuple(dict.fromkeys(entry.window)),
        max_per_hour=entry.max_per_hour,
        timeout=seconds(entry.timeout),
    )


def _contradiction(entry: NotifyEntry, kind: NotifyKind) -> tuple[str, str, str] | None:
    """Return the key that does not go with who is told ("" where one is missing), what is wrong and what to do."""
    not_for = f"is not for a {kind}"
    relative = entry.command is not None and not entry.command[0].startswith("/")
    wrong = {
        ("signal", not_for, "leave it out"): kind in ("unit", "command") and entry.signal is not None,
        ("action", not_for, "leave it out"): kind in ("pid_file", "command") and entry.action is not None,
        ("engine_socket", not_for, "leave it out"): kind != "container" and entry.engine_socket is not None,
        ("", "says no signal", 'add signal, for instance "HUP"'): kind == "pid_file" and entry.signal is None,
        ("", "needs either a signal or an action", 'set signal, for instance "HUP", or action = "restart"'): (
            kind == "container" and (entry.signal is None) == (entry.action is None)
        ),
        ("action", "is not what an engine can do", 'write "restart", or set signal'): (
            kind == "container" and entry.action in ("reload", "reload-or-restart")
        ),
        ("command", "does not begin with an absolute path", "write the program's path from / on"): relative,
    }
    return next((told for told, holds in wrong.items() if holds), None)
