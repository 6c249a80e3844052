"""One scope: from its entry in a file to the noun that policy decides on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_vault_agent.config import certificates, ciphertexts
from prism_vault_agent.config.credentials import credential
from prism_vault_agent.config.health import health
from prism_vault_agent.config.notify import consumers
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.config.reactions import key_reactions, limits
from prism_vault_agent.config.shapes import seconds
from prism_vault_agent.config.ssh import ssh_certificate
from prism_vault_agent.config.templates import template_of
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import dangerous, fault, shown
from prism_vault_agent.scope import Binding, CallerRule, File, Purpose, Reaction, Scope, ScopeName, SecretReference

if TYPE_CHECKING:
    from prism_vault_agent.config import entries
    from prism_vault_agent.config.accounts import Accounts
    from prism_vault_agent.config.lines import KeyPath
    from prism_vault_agent.config.templates import Templates
    from prism_vault_agent.wanted.kinds import Wanted

SELECTORS = ("user", "uid", "group", "gid", "executable", "unit", "container")


def scope(name: str, entry: entries.ScopeEntry, accounts: Accounts, templates: Templates, problems: list[Problem]) -> Scope:
    """Return the scope; what is wrong with it is added to ``problems``."""
    here: KeyPath = ("scopes", name)
    for index, allowed in enumerate(entry.allow_names):
        if (why := fault(allowed)) is not None:
            problems.append(Problem((*here, "allow_names", index), f"names a variable that {why}", "write its exact name"))
    _check_names(entry, here, problems)
    notify = consumers(entry.files, (*here, "files"), problems)
    bindings = (*_named(entry, here, problems), *_whole(entry, here, problems))
    named: dict[str, set[str | None]] = {}
    for binding in bindings:
        named.setdefault(binding.reference.path, set()).add(binding.reference.key)
    certificates.check(entry, here, named.keys(), problems)
    ciphertexts.check(entry, here, named, problems)
    return Scope(
        name=ScopeName(name),
        project=entry.project,
        environment=entry.environment,
        purposes=tuple(Purpose(purpose) for purpose in dict.fromkeys(entry.purposes)),
        callers=tuple(_rule(rule, (*here, "callers", index), accounts, problems) for index, rule in enumerate(entry.callers)),
        bindings=bindings,
        allow_paths=tuple(dict.fromkeys(entry.allow_paths)),
        allow_names=frozenset(entry.allow_names),
        collision=entry.on_collision,
        pristine=entry.pristine,
        grace=seconds(entry.grace),
        ttl=seconds(entry.ttl) if entry.ttl else 0.0,
        stale_ok=None if entry.stale_ok is None else seconds(entry.stale_ok),
        poll=None if entry.poll is None else seconds(entry.poll),
        files=tuple(
            _file(file, (*here, "files", index), entry, accounts=accounts, templates=templates, problems=problems)
            for index, file in enumerate(entry.files)
        ),
        notify=notify,
        health=health(entry, here, notify, problems),
        credentials=tuple(
            credential(given, (*here, "credentials", index), entry, templates=templates, problems=problems)
            for index, given in enumerate(entry.credentials)
        ),
        on_rotate=Reaction.parse(entry.on_rotate),
        on_revoke=Reaction.parse(entry.on_revoke),
        keys=key_reactions(entry, here, problems),
        rotate_limits=limits(entry.rotate_limits),
    )


def _check_names(entry: entries.ScopeEntry, here: KeyPath, problems: list[Problem]) -> None:
    """Refuse variables that no process can have, that change how programs run, or that differ only by case."""
    twins: dict[str, str] = {}
    for name in entry.env:
        path = (*here, "env", name)
        if (why := fault(name)) is not None:
            problems.append(Problem(path, f"the variable's name {why}", "rename it"))
        elif dangerous(name) and name not in entry.allow_names:
            mend = f'if that is meant, add allow_names = ["{name}"] to the scope'
            problems.append(Problem(path, "this variable changes how programs load or run", mend))
        elif (twin := twins.setdefault(name.lower(), name)) != name:
            problems.append(Problem(path, f"differs from {shown(twin)} only by case", "keep one of them"))


def _named(entry: entries.ScopeEntry, here: KeyPath, problems: list[Problem]) -> list[Binding]:
    bindings = []
    for name, text in entry.env.items():
        path = (*here, "env", name)
        reference = _reference(text, path, problems)
        if reference is not None and reference.key is None:
            problems.append(Problem(path, "names no key of the secret", "add #<key>, or list the reference in env_from"))
        elif reference is not None:
            bindings.append(Binding(name, reference, _wanted(entry, reference)))
    return bindings


def _whole(entry: entries.ScopeEntry, here: KeyPath, problems: list[Problem]) -> list[Binding]:
    bindings = []
    for index, text in enumerate(entry.env_from):
        path = (*here, "env_from", index)
        reference = _reference(text, path, problems)
        if reference is not None and reference.key is not None:
            problems.append(Problem(path, "names one key of the secret", "leave #<key> out, or bind it in env"))
        elif reference is not None:
            bindings.append(Binding(None, reference, _wanted(entry, reference)))
    return bindings


def _wanted(entry: entries.ScopeEntry, reference: SecretReference) -> Wanted | None:
    """Return what an engine is asked for at the path of a reference, where the path alone does not say it."""
    found = certificates.certificate(entry, reference) or ssh_certificate(entry, reference)
    return found or ciphertexts.decryption(entry, reference)


def _reference(text: str, path: KeyPath, problems: list[Problem]) -> SecretReference | None:
    try:
        return SecretReference.parse(text)
    except ConfigError as error:
        problems.append(Problem(path, error.message, error.mend))
        return None


def _rule(entry: entries.CallerEntry, here: KeyPath, accounts: Accounts, problems: list[Problem]) -> CallerRule:
    if all(getattr(entry, selector) is None for selector in SELECTORS):
        problems.append(Problem(here, "would admit everybody", f"set at least one of {', '.join(SELECTORS)}"))
    for text, number in (("user", "uid"), ("group", "gid")):
        if getattr(entry, text) is not None and getattr(entry, number) is not None:
            problems.append(Problem((*here, number), f"says the same as {text}", "keep one of them"))
    uid, gid = entry.uid, entry.gid
    if entry.user is not None and (uid := accounts.uid(entry.user)) is None:
        problems.append(Problem((*here, "user"), "names a user that this host does not have", "create it, or name another"))
    if entry.group is not None and (gid := accounts.gid(entry.group)) is None:
        problems.append(Problem((*here, "group"), "names a group that this host does not have", "create it, or name another"))
    return CallerRule(entry.kind, uid, gid, entry.executable, entry.unit, entry.container)


def _file(
    entry: entries.FileEntry,
    here: KeyPath,
    scope: entries.ScopeEntry,
    *,
    accounts: Accounts,
    templates: Templates,
    problems: list[Problem],
) -> File:
    if entry.path in [other.path for other in scope.files[: here[-1] if isinstance(here[-1], int) else 0]]:
        problems.append(Problem((*here, "path"), "is the path of another file of this scope", "give each its own"))
    if not scope.env and not scope.env_from:
        problems.append(Problem(here, "would be empty, since the scope has no env and no env_from", "bind something"))
    uid = accounts.own[0] if entry.owner is None else accounts.uid(entry.owner)
    gid = accounts.own[1] if entry.group is None else accounts.gid(entry.group)
    for number, key, kind in ((uid, "owner", "user"), (gid, "group", "group")):
        if number is None:
            problems.append(Problem((*here, key), f"names a {kind} that this host does not have", "create it, or name another"))
    uid, gid = -1 if uid is None else uid, -1 if gid is None else gid
    template = template_of(entry, (*here, "template"), templates, problems)
    return File(entry.path, entry.format, uid, gid, int(entry.mode, 8), *template)
