"""What the configuration of Vault Agent, OpenBao's agent or consul-template means here, and what of it has no counterpart. Pure.

https://openbao.org/docs/agent-and-proxy/agent/ and https://github.com/hashicorp/consul-template tell what each key means there.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.migrate.go_expression import Expressions
from prism_vault_agent.migrate.go_lexer import NotGo
from prism_vault_agent.migrate.go_template import Translation
from prism_vault_agent.migrate.hcl import Body, Item, NotHcl, parse
from prism_vault_agent.migrate.login import login
from prism_vault_agent.migrate.taken import FileOf, Taken
from prism_vault_agent.policy.names import fault, shown

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN: Final = re.compile(r"\{\{ ([A-Za-z0-9_]+) \}\}")
_WORD: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_FILE_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_OURS: Final = re.compile(r"0?[46][04]0")
# What is there so that Vault Agent runs as it should: the agent here has its own way of each.
NEEDLESS: Final = {
    "pid_file": "systemd knows the agent's process",
    "exit_after_auth": "the agent stays and looks after what it rendered",
    "cache": "it serves other programs with the agent's token; no program here has that",
    "api_proxy": "it serves other programs with the agent's token; no program here has that",
    "listener": "it serves other programs with the agent's token; no program here has that",
    "template_config": "[vault] poll in agent.toml is how often the agent looks",
    "telemetry": "`prism-vault status --json` tells how the agent is",
    "log_level": "[agent] log_level in agent.toml says it",
    "log_format": "[agent] log_format in agent.toml says it",
    "log_file": "the agent's log goes to standard error",
    "consul": "there is no Consul here",
}
_OF_A_TEMPLATE: Final = {
    "error_on_missing_key": "a missing key always ends the render",
    "create_dest_dirs": "the agent makes the directories",
    "backup": "no old value is kept",
    "wait": "all files of a scope change at once, when a poll or a rotation finds a new version",
    "left_delimiter": "", "right_delimiter": "", "source": "", "contents": "", "destination": "",
    "perms": "", "user": "", "group": "", "command": "", "exec": "", "uid": "", "gid": "",
}  # fmt: skip


def translate(text: str, read: Callable[[str], str]) -> Taken:
    """Return what becomes of a configuration; ``read`` gives a template's text by its path, or raises ``ConfigError``.

    Raises ``ConfigError`` with the line where the configuration itself cannot be read.
    """
    try:
        body = parse(text)
    except NotHcl as error:
        raise ConfigError(f"line {error.line} {error}", mend="name a configuration in HCL") from None
    taken = Taken()
    for item in body:
        if item.name == "template":
            _template(item, read, taken)
        elif item.name == "env_template":
            _variable(item, read, taken)
        elif item.name in ("auto_auth", "vault"):
            login(item, taken)
        elif item.name == "exec":
            _exec(item, taken)
        elif item.name in NEEDLESS:
            taken.notes.append((item.line, f"{item.name} is not needed: {NEEDLESS[item.name]}"))
        else:
            taken.left.append((item.line, f"{shown(item.name)} has no counterpart"))
    return taken


def _text_of(body: Body, read: Callable[[str], str], line: int) -> tuple[str, int]:
    """Return the Go template of a stanza, and the line of the configuration that is before its first; 0 for one of a file."""
    source, contents = body.get("source"), body.get("contents")
    if (source is None) == (contents is None):
        raise NotGo(line, "has not exactly one of source and contents")
    item = source or contents
    assert item is not None
    if not isinstance(item.value, str):
        raise NotGo(item.line, f"has {item.name} that is no text")
    return (read(item.value), 0) if source else (item.value, item.line)


def _translated(item: Item, read: Callable[[str], str], taken: Taken) -> str | None:
    """Return the Jinja2 of a stanza; None, and what is in the way in ``left``, where it cannot be."""
    before = dict(taken.env)
    try:
        if not isinstance(item.value, Body):
            raise NotGo(item.line, "is no block")
        text, _ = _text_of(item.value, read, item.line)
        delimiters = [item.value.get("left_delimiter"), item.value.get("right_delimiter")]
        marks = [str(each.value) if each and each.value else "" for each in delimiters]
        said = Expressions(taken.bind)
        translated = Translation(said).of(text, marks[0] or "{{", marks[1] or "}}")
    except NotGo as error:
        inside = isinstance(item.value, Body) and item.value.get("source") is not None
        place = f"line {error.line} of its template" if inside or error.line != item.line else "it"
        taken.left.append((item.line, f"{item.name}: {place} {error}"))
    except ConfigError as error:
        taken.left.append((item.line, f"{item.name}: {error.message}"))
    else:
        for name in dict.fromkeys(said.tested):
            taken.notes.append((item.line, f"{name} is tested: it may be empty, but a key that is not there ends the render"))
        return translated
    taken.env = before
    return None


def _template(item: Item, read: Callable[[str], str], taken: Taken) -> None:
    body = item.value
    destination = body.get("destination") if isinstance(body, Body) else None
    if not isinstance(body, Body) or destination is None or not isinstance(destination.value, str):
        taken.left.append((item.line, "template has no destination"))
        return
    text = _translated(item, read, taken)
    if text is None:
        return
    path = _path(destination.value, taken)
    if path is None:
        taken.left.append((destination.line, f"template: {shown(destination.value)} has no name that a file has here"))
        return
    owner, group = (_word(body, (key, number)) for key, number in (("user", "uid"), ("group", "gid")))
    notify: tuple[str, ...] = ()
    mode = _mode(item, body, taken)
    for each in body:
        if each.name in ("command", "exec"):
            notify = _command(each, path, taken)
        elif each.name not in _OF_A_TEMPLATE:
            taken.left.append((each.line, f"{shown(each.name)} has no counterpart"))
        elif (why := _OF_A_TEMPLATE[each.name]) and each.value not in (False, "", None):
            taken.notes.append((each.line, f"{each.name} is not needed: {why}"))
    taken.files.append(FileOf(destination.value, path, text, mode, owner, group, notify))


def _command(item: Item, path: str, taken: Taken) -> tuple[str, ...]:
    """Return the program and its arguments that run after a change, where no shell is needed for it."""
    inner = item.value.get("command") if isinstance(item.value, Body) else item
    words = inner.value if inner is not None else None
    if isinstance(words, list) and words and all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        if words[0].startswith("/"):
            return tuple(words)
        taken.left.append((item.line, f"{item.name}: name the program that runs when {path} changes by its absolute path"))
    else:
        taken.left.append((item.line, f"{item.name}: what runs when {path} changes is no list of words; no shell reads it here"))
    return ()


def _path(destination: str, taken: Taken) -> str | None:
    """Return the name of a file here, with its directory's name before it where another has that name already."""
    above, name = posixpath.split(destination)
    used = {file.path for file in taken.files}
    for wanted in (name, f"{posixpath.basename(above)}-{name}"):
        clean = _FILE_NAME.sub("-", wanted).lstrip("-._")[:100]
        if clean and clean not in used:
            return clean
    return None


def _mode(item: Item, body: Body, taken: Taken) -> str:
    """Return the mode: the one that is there where it lets no others read, else ours."""
    perms = body.get("perms")
    if perms is None:
        taken.notes.append(
            (item.line, "perms: all could read it (0644 by default), here its owner alone: set owner, group or mode")
        )
        return "0400"
    text = str(perms.value)
    if isinstance(perms.value, str) and _OURS.fullmatch(text):
        return text.rjust(4, "0")
    taken.left.append((perms.line, f"perms: {shown(text)} is no mode for secrets; it is 0400 here: set owner, group or mode"))
    return "0400"


def _word(body: Body, keys: tuple[str, ...]) -> str:
    found = next((each.value for key in keys if (each := body.get(key)) is not None), "")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""


def _variable(item: Item, read: Callable[[str], str], taken: Taken) -> None:
    """Bind the variable of an ``env_template``, whose content must be the value of one key."""
    name = item.labels[0] if len(item.labels) == 1 else ""
    if (why := fault(name)) is not None:
        taken.left.append((item.line, f"env_template: the variable's name {why}"))
        return
    before = dict(taken.env)
    text = _translated(item, read, taken)
    reference = taken.env.get(found[1]) if text is not None and (found := _PLAIN.fullmatch(text)) else None
    taken.env = before
    if text is None:
        return
    if reference is None:
        taken.left.append((item.line, f"env_template: {name} is more than the value of one key; store it whole, under a key"))
    elif name.lower() in {each.lower() for each in taken.env}:
        taken.left.append((item.line, f"env_template: {name} is there twice, or differs from another only by case"))
    else:
        taken.env[name] = reference


def _exec(item: Item, taken: Taken) -> None:
    """Note the command that Vault Agent runs with the variables: here it is run by ``prism-vault exec``."""
    command: Any = item.value.get("command") if isinstance(item.value, Body) else None
    words = command.value if command is not None else None
    if isinstance(words, list) and words and all(isinstance(word, str) and word.isprintable() for word in words):
        taken.command = shlex.join(words)
    else:
        taken.left.append((item.line, "exec: its command is no list of words"))
    for each in item.value if isinstance(item.value, Body) else ():
        if each.name != "command":
            taken.notes.append(
                (
                    each.line,
                    f"exec: {shown(each.name)} is not needed: the scope's grace is for that",
                )
            )
