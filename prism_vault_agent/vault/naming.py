"""What is read for a binding, and which name gets which value of what was read."""

from __future__ import annotations

from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy import names
from prism_vault_agent.vault import kv
from prism_vault_agent.vault.values import as_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from prism_vault_agent.scope import Binding


def place_of(binding: Binding) -> kv.Place:
    """Return what a binding is a part of; bindings of one place are of one request."""
    return kv.Place(binding.reference.path, binding.reference.version, binding.wanted)


def places_of(binding: Binding) -> list[kv.Place]:
    """Return all that is read for a binding: where its ciphertexts are kept, too."""
    further = [kv.Place(each.path, each.version) for each in binding.references[1:]]
    return [*further, place_of(binding)]


def named(
    bindings: Sequence[Binding], secrets: dict[kv.Place, dict[str, Any]], allow_names: frozenset[str]
) -> dict[str, str | bytes]:
    """Return the value of each name, text or bytes, from the ``secrets`` that were read.

    Raises:
        SecretNotFound: ``no_such_key``.
        ConfigError: a whole secret for one name, a key that cannot be a name, a name with two different values.
    """
    values: dict[str, str | bytes] = {}
    for binding in bindings:
        reference = binding.reference
        secret = secrets[place_of(binding)]
        if binding.name is not None and reference.key is None:
            raise ConfigError(f"{binding.name} is bound to a whole secret, {reference}", mend="add #<key>", reason="no_such_key")
        for key in secret if reference.key is None else [reference.key]:
            if key not in secret:
                raise kv.no_such_key(reference)
            name = key if binding.name is None else binding.name
            if binding.name is None:
                _check(name, reference.path, allow_names)
            value = secret[key] if isinstance(secret[key], bytes) else as_text(secret[key], f"{reference}")
            if values.setdefault(name, value) != value:
                raise ConfigError(f"{name} has two different values", mend="bind it once", reason="collision")
    return values


def _check(name: str, path: str, allow_names: frozenset[str]) -> None:
    fault = names.fault(name)
    if fault is None and names.dangerous(name) and name not in allow_names:
        fault = "changes how programs load or run"
    if fault:
        raise ConfigError(
            f"the key {names.shown(name)} of vault://{path} cannot be a name: it {fault}",
            mend="bind the keys one by one, or allow the name in the scope",
            reason="bad_name",
        )
