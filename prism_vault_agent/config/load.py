"""Reads the configuration: files in, settings out, or what is wrong with them and where."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from prism_vault_agent.config import schema, sources
from prism_vault_agent.config.accounts import Accounts
from prism_vault_agent.config.auth import METHODS
from prism_vault_agent.config.convert import Conversion
from prism_vault_agent.config.convert import settings as convert
from prism_vault_agent.config.problems import MISSING, Origin, Problem, problems_of
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prism_vault_agent.config.entries import ScopeEntry
    from prism_vault_agent.config.lines import KeyPath
    from prism_vault_agent.config.settings import Settings
    from prism_vault_agent.config.sources import Source

# What a variable of the environment stands in for, where the file does not say it. Never a token.
VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "address": ("BAO_ADDR", "VAULT_ADDR"),
    "namespace": ("BAO_NAMESPACE", "VAULT_NAMESPACE"),
    "ca_file": ("BAO_CACERT", "VAULT_CACERT"),
    "cert_file": ("BAO_CLIENT_CERT", "VAULT_CLIENT_CERT"),
    "key_file": ("BAO_CLIENT_KEY", "VAULT_CLIENT_KEY"),
}
_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_KNOWN: Final = {place: tuple(section.model_fields) for place, section in schema.SECTIONS.items()}

Table = TypeVar("Table", schema.Document, schema.ScopesDocument)


def load(path: str | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the configuration at ``path`` (see ``sources.find`` for None).

    Raises ``ConfigError`` for the first thing that is wrong, with its file, line and key.
    """
    return parse(sources.read(sources.find(path, environ)), environ, Accounts())


def main(path: str, environ: Mapping[str, str]) -> schema.Document:
    """Return what the main file at ``path`` says, by itself, without scopes of other files. Raises like :func:`load`."""
    errors: list[ConfigError] = []
    document, _ = _read(sources.read_one(path, set()), schema.Document, environ, errors)
    if document is None:
        raise errors[0]
    return document


def parse(files: tuple[Source, ...], environ: Mapping[str, str], accounts: Accounts, *, serving: bool = True) -> Settings:
    """Return what files already read mean, noting looked-up names in ``accounts``. Raises like :func:`load`.

    ``serving`` is whether the settings are an agent's (see ``convert.Conversion``).
    """
    settings, errors = examine(files, environ, accounts, serving=serving)
    if settings is None or errors:
        raise errors[0]
    return settings


def examine(
    files: tuple[Source, ...], environ: Mapping[str, str], accounts: Accounts, *, serving: bool = True
) -> tuple[Settings | None, list[ConfigError]]:
    """Return the settings, and everything that is wrong as errors in the order of the files."""
    errors: list[ConfigError] = []
    main, main_origin = _read(files[0], schema.Document, environ, errors)
    documents = [(main, main_origin), *(_read(source, schema.ScopesDocument, {}, errors) for source in files[1:])]
    scopes, origins = _merge(documents, errors)
    if main is None:
        return None, errors
    conversion = Conversion(environ, serving, accounts)
    whole = main.model_copy(update={"scopes": scopes})
    settings = convert(whole, conversion, tuple(source.path for source in files))
    errors += [origins.get(problem.path[:2], main_origin).error(problem) for problem in conversion.problems]
    return settings, errors


def _merge(
    documents: Sequence[tuple[schema.Document | schema.ScopesDocument | None, Origin]], errors: list[ConfigError]
) -> tuple[dict[str, ScopeEntry], dict[KeyPath, Origin]]:
    """Return the scopes of all files, and where each is from; a scope that two files define is an error naming both."""
    scopes: dict[str, ScopeEntry] = {}
    origins: dict[KeyPath, Origin] = {}
    for document, origin in documents:
        for name, entry in document.scopes.items() if document else ():
            here = ("scopes", name)
            if here in origins:
                errors.append(origin.error(Problem(here, f"is defined in {origins[here].name} too", "keep one of them")))
            else:
                origins[here], scopes[name] = origin, entry
    return scopes, origins


def _read(
    source: Source, kind: type[Table], environ: Mapping[str, str], errors: list[ConfigError]
) -> tuple[Table | None, Origin]:
    """Return the document of one file, None where something is wrong with it, and the origin of its keys."""
    origin = Origin(source.path, "")
    try:
        text = source.content.decode()
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = source.content.count(b"\n", 0, error.start) + 1
        errors.append(ConfigError(f"{source.path}:{line}: is not UTF-8", mend="save the file as UTF-8"))
        return None, origin
    except tomllib.TOMLDecodeError as error:
        errors.append(_not_toml(source, str(error)))
        return None, origin
    except (RecursionError, ValueError):
        errors.append(ConfigError(f"{source.path}: is nested too deeply, or has too long a number", mend="correct the file"))
        return None, origin
    origin = Origin(source.path, text, _fill(raw, environ))
    known = {**_KNOWN, (): tuple(kind.model_fields)}
    try:
        return kind.model_validate(raw), origin
    except ValidationError as error:
        # In the order of the file; what is missing comes last, since it may only be misspelt.
        found = problems_of(error, known, METHODS)
        found.sort(key=lambda problem: (problem.what == MISSING, origin.line(problem.path)))
        errors += [origin.error(problem) for problem in found]
        return None, origin


def _not_toml(source: Source, message: str) -> ConfigError:
    """Return the error for a text that is no TOML; the parser tells the place at the end of its message."""
    place = _AT.search(message)
    line = int(place[1]) if place and place[1] else source.content.count(b"\n") + 1
    what = shown(_AT.sub("", message))
    return ConfigError(f"{source.path}:{line}: is not TOML: {what}", mend="correct that line")


def _fill(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[KeyPath, str]:
    """Put variables of the environment where the file is silent; return which variable stands for which key."""
    vault = raw.get("vault")
    used: dict[KeyPath, str] = {}
    if not isinstance(vault, dict):
        return used
    for key, variables in VARIABLES.items():
        variable = next((variable for variable in variables if environ.get(variable)), None)
        if key not in vault and variable is not None:
            vault[key] = environ[variable]
            used["vault", key] = variable
    return used
