"""The reference of environment names, from policy."""

from __future__ import annotations

from docs_tools.markdown import GENERATED
from prism_vault_agent.policy.names import DANGEROUS_NAMES, DANGEROUS_PREFIXES, LONGEST_NAME


def page() -> str:
    """Return the page."""
    prefixes = ", ".join(f"`{prefix}*`" for prefix in sorted(DANGEROUS_PREFIXES))
    names = ", ".join(f"`{name}`" for name in sorted(DANGEROUS_NAMES))
    return (
        f"{GENERATED}# Environment names\n\n"
        "A name that a scope binds, or that a caller uses for a `vault://` reference of its own, is a letter or underscore "
        f"followed by letters, digits and underscores, {LONGEST_NAME} characters at most. Two names of one scope may not "
        "differ only by case. Anything else is refused before anything is reserved or read.\n\n"
        "## Names that change how programs load or run\n\n"
        "Whoever sets one of these decides what code a program runs, where it looks for things, or whom it trusts. A scope may "
        "set one only where its `allow_names` lists that very name; a caller's own reference may use one under the same rule.\n\n"
        f"By prefix: {prefixes}.\n\n"
        f"By name: {names}.\n"
    )
