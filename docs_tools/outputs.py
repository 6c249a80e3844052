"""Outputs that documents show: what stands between two marks is the text that its command really gives.

::

    <!-- output: NAME -->
    ...refreshed...
    <!-- end -->

``NAME`` is a key of :data:`OUTPUTS`, whose function returns the text; it is shown as a block of code.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

from docs_tools import demo, imports
from docs_tools.configuration import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUTS: Final[dict[str, Callable[[], str]]] = {
    "an agent.toml": lambda: EXAMPLE,
    "make demo": demo.shown,
    "import env": imports.of_env_file,
    "import vault-agent": imports.of_vault_agent,
}
_BLOCK: Final = re.compile(r"(?P<mark><!-- output: (?P<name>[^\n]+?) -->\n)(?P<old>.*?)(?P<end><!-- end -->)", re.DOTALL)


def refreshed(text: str, document: str) -> str:
    """Return ``text`` with every block as its command gives it. Raises ``SystemExit`` for a name that is not registered."""

    def fresh(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in OUTPUTS:
            raise SystemExit(f"{document}: no output is called {name!r}; add it to OUTPUTS in docs_tools/outputs.py")
        return f"{block['mark']}```\n{_made(name)}\n```\n{block['end']}"

    return _BLOCK.sub(fresh, text)


@functools.cache
def _made(name: str) -> str:
    """Return an output, made once however many documents show it."""
    return OUTPUTS[name]().strip()
