"""A file as its author spells it, in Jinja2, with values of a scope put in where it says so. Pure.

Who writes a template is the operator, so the sandbox is there for mistakes first: a misspelt name, a whole list printed, a loop
without end. How long a template may take and how much memory it may have is the caller's to bound (see ``worker/bounds.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template


def rendered(path: str, text: str, values: Mapping[str, str], largest: int) -> bytes:
    """Return the template ``text`` with ``values`` in it, at most ``largest`` bytes of UTF-8.

    Raises ``ConfigError`` with the template's ``path``, the line and, where it is about one, the variable; never with a value.
    ``TimeoutError`` and ``MemoryError``, from wherever they come, are told as what the template did.
    """
    try:
        from prism_vault_agent.dialects.sandbox import Sandbox  # noqa: PLC0415 - Jinja2 costs who has a template, nobody else
    except ModuleNotFoundError:
        raise ConfigError(
            "Jinja2 is not installed, and format template needs it", mend="pip install 'prism-vault-agent[template]'"
        ) from None
    template: Template | None = None
    try:
        sandbox = Sandbox(values)
        template = sandbox.compiled(sandbox.checked(text))
        parts, size = [], 0
        for part in template.root_render_func(template.new_context(dict(values))):
            parts.append(part.encode())
            size += len(parts[-1])
            if size > largest:
                break
    except Exception as error:  # noqa: BLE001 - Jinja2 and Python have many, and any of them may quote a value
        _fail(path, _line(error, template), _why(error))
    if size > largest:
        _fail(path, None, f"makes more than the {largest} bytes that a file may have")
    return b"".join(parts)


def check(path: str, text: str) -> None:
    """Raise ``ConfigError`` as :func:`rendered` would, where that needs no value: the language, filters, tests, other files.

    The text is parsed and nothing else, which takes no longer and no more than its length allows.
    """
    from prism_vault_agent.dialects.sandbox import Sandbox  # noqa: PLC0415 - as above

    try:
        Sandbox({}).checked(text)
    except Exception as error:  # noqa: BLE001 - as above
        _fail(path, _line(error, None), _why(error))


def _fail(path: str, line: int | None, why: str) -> NoReturn:
    place = f"{path}:{line}" if line else path
    raise ConfigError(f"{place}: {why}", mend="correct the template", reason="bad_template") from None


def _line(error: Exception, template: Template | None) -> int | None:
    """Return the line of the template that an error is about: as the error says, or the innermost that was being rendered."""
    line: int | None = getattr(error, "line", None)
    if template is None:
        # A line of Python's own is one of the code that Jinja2 made.
        return line if isinstance(error, SyntaxError) else line or getattr(error, "lineno", None)
    at = error.__traceback__
    while at is not None:
        inside: bool = at.tb_frame.f_globals.get("__jinja_template__") is template
        if inside:
            line = template.get_corresponding_lineno(at.tb_lineno)
        at = at.tb_next
    return line


def _why(error: Exception) -> str:
    """Return what happened, by the class of the error: only our own say more."""
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415 - as above
    from jinja2.exceptions import SecurityError  # noqa: PLC0415 - as above

    from prism_vault_agent.dialects.sandbox import Refused  # noqa: PLC0415 - as above

    if isinstance(error, Refused):
        return str(error)
    told = {
        TemplateSyntaxError: "is not in the language of Jinja2",
        SecurityError: "calls or changes what a template may not",
        TimeoutError: "takes too much time",
        MemoryError: "takes too much memory",
        RecursionError: "calls itself without end, or nests too deeply",
        SyntaxError: "nests too deeply",
    }
    return next((what for kind, what in told.items() if isinstance(error, kind)), f"fails with {type(error).__name__}")
