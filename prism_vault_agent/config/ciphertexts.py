"""What keys of transit decrypt for a scope: as it is written, and from there the noun that a binding has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from prism_vault_agent.config import shapes
from prism_vault_agent.config.fields import Section
from prism_vault_agent.config.problems import Problem
from prism_vault_agent.policy.names import shown
from prism_vault_agent.scope import SecretReference
from prism_vault_agent.wanted.decryption import Ciphertext, Decryption

if TYPE_CHECKING:
    from prism_vault_agent.config.entries import ScopeEntry
    from prism_vault_agent.config.lines import KeyPath

Base64 = Annotated[str, AfterValidator(shapes.base64)]


class CiphertextEntry(Section):
    """A value that a key of transit decrypts. References name it by its key: `vault://transit/decrypt/KEY#NAME`."""

    ciphertext: Annotated[str, AfterValidator(shapes.ciphertext)] = Field(
        description="What is decrypted: `vault:v1:...` itself, or where it is kept, `vault://<mount>/<path>#<key>[?version=N]`."
    )
    context: Base64 | None = Field(None, description="Context of a derived key, in base64, as it was encrypted with.")
    associated_data: Base64 | None = Field(None, description="Associated data, in base64, as it was encrypted with.")


def decryption(entry: ScopeEntry, reference: SecretReference) -> Decryption | None:
    """Return what is to be decrypted at the path of a reference; None where it is not that of a key of transit.

    All values of the path are decrypted together.
    """
    found = entry.transit.get(reference.path)
    return None if found is None else Decryption(tuple(_ciphertext(key, each) for key, each in found.items()))


def _ciphertext(key: str, entry: CiphertextEntry) -> Ciphertext:
    source = SecretReference.parse(entry.ciphertext) if entry.ciphertext.startswith("vault://") else None
    return Ciphertext(key, "" if source else entry.ciphertext, source, entry.context or "", entry.associated_data or "")


def check(entry: ScopeEntry, here: KeyPath, named: dict[str, set[str | None]], problems: list[Problem]) -> None:
    """Add to ``problems`` what can be no key of transit, and every value that no reference of the scope names.

    ``named`` are the keys that references name, by path; None for all keys.
    """
    for path, table in entry.transit.items():
        where = (*here, "transit", path)
        parts = path.split("/")
        if len(parts) < 3 or parts[-2] != "decrypt" or not all(parts):
            problems.append(Problem(where, "is not the decrypt path of a key of transit", "write <mount>/decrypt/<key>"))
        keys = named.get(path, set())
        for key in sorted(table.keys() - (table.keys() if None in keys else keys)):
            what = "is a ciphertext that no reference of the scope names"
            problems.append(Problem((*where, key), what, f"bind vault://{path}#{key} in env"))
        problems += [
            Problem(where, f"has no ciphertext {shown(key)}, which env names", "add it, or correct its name")
            for key in sorted(each for each in keys if each is not None and each not in table)
        ]
        for key, each in table.items():
            source = _ciphertext(key, each).source
            if source and source.path in (*entry.transit, *entry.certificates, *entry.ssh):
                what = "is kept where nothing is kept"
                problems.append(Problem((*where, key, "ciphertext"), what, "name the key of a secret that holds a ciphertext"))
