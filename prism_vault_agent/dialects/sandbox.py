"""Jinja2's sandbox, made narrower: values are text without attributes, a few filters, no other file, and only leaves print.

Nothing here says what a value is: an error of ours is a :class:`Refused`, whose text is built from names of the template and of
variables. What Jinja2 and Python say themselves may quote values and is never told.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, Undefined, nodes
from jinja2.filters import do_default, do_indent
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace, missing

from prism_vault_agent.dialects import quoting
from prism_vault_agent.dialects.pem import wrapped
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.policy.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jinja2.runtime import Context

_OTHER_FILES: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_LARGEST_FACTOR: Final = 2**63
A_VALUE: Final = "a value"


class Refused(TemplateRuntimeError):
    """What a template may not do, in words that hold no value; ``line`` where it is known before the template runs."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


class Missing(StrictUndefined):
    """What is not defined: any use of it is refused, with its name where the template itself spells that."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: type[Exception] = Refused
    ) -> None:
        """Take what Jinja2 gives, all but its ``exc``; a name that was computed may be a value, and is forgotten."""
        spelt = hint is None and obj is missing and name is not None
        told = f"uses {shown(str(name))}, which the scope does not have" if spelt else "uses what is not defined"
        del exc
        super().__init__(told, obj, name, Refused)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template with the values of one scope."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self, values: Mapping[str, str]) -> None:
        """``values`` are here so that an error can tell which variable it is about."""
        super().__init__(undefined=Missing, finalize=self._printed, autoescape=False, keep_trailing_newline=True, loader=None)
        self._names = {value: name for name, value in values.items()}
        self.globals = {"range": safe_range, "namespace": Namespace}
        self.filters = {
            "default": do_default,
            "length": len,
            "leaf": leaf,
            "join": _joined,
            **{name: _of_text(do) for name, do in TEXT.items()},
        }
        self.filters |= {dialect: self._quoting(dialect) for dialect in quoting.QUOTING}
        self.filters["pem"] = self._pem

    def checked(self, text: str) -> nodes.Template:
        """Return what a text is, parsed; nothing of it is computed. Raises :class:`Refused` for what none may have, by line.

        Raises Jinja2's ``TemplateSyntaxError`` too.
        """
        tree = self.parse(text)
        for found in tree.find_all(_OTHER_FILES):
            raise Refused("takes in another file, which it may not", found.lineno)
        for found in tree.find_all(nodes.ScopedEvalContextModifier):
            raise Refused("escapes for HTML, which would change values", found.lineno)
        for each in tree.find_all((nodes.Filter, nodes.Test)):
            kind, known = ("filter", self.filters) if isinstance(each, nodes.Filter) else ("test", self.tests)
            if each.name not in known:
                raise Refused(f"uses the {kind} {shown(each.name)}, which there is not", each.lineno)
        return tree

    def compiled(self, tree: nodes.Template) -> Template:
        """Return the template that a checked text is; what is constant in it is computed, as long as that takes."""
        for concat in list(tree.find_all(nodes.Concat)):
            concat.nodes = [nodes.Filter(part, "leaf", [], [], None, None, lineno=part.lineno) for part in concat.nodes]
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only loops and namespaces have attributes."""
        return isinstance(obj, LoopContext | Namespace) and super().is_safe_attribute(obj, attr, value)

    def is_safe_callable(self, obj: Any) -> bool:
        """Only what is offered can be called, and what the template defines."""
        return obj is safe_range or obj is Namespace or isinstance(obj, Macro | LoopContext)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:  # noqa: ARG002 - Jinja2 passes them
        """Refuse an attribute at once; Jinja2 would let it be tested for."""
        raise Refused("asks for an attribute, and values have none")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply numbers, and not text or lists: the result would be as large as somebody likes."""
        if not isinstance(left, Undefined) and not isinstance(right, Undefined):
            small = all(isinstance(each, int | float) and abs(each) < _LARGEST_FACTOR for each in (left, right))
            if operator == "**" or not small:
                raise Refused(f"uses {operator} on what is no number, or a large one")
        return super().call_binop(context, operator, left, right)

    def _printed(self, value: Any) -> Any:
        if any("\ud800" <= mark <= "\udfff" for mark in _text(value)):
            raise Refused(f"{self._names.get(value, A_VALUE)} holds a lone surrogate, which UTF-8 does not have")
        return value

    def _quoting(self, dialect: str) -> Callable[[Any], str]:
        def quoted(value: Any) -> str:
            text = _text(value)
            try:
                return quoting.quoted(dialect, self._names.get(text, A_VALUE), text)
            except ConfigError as error:
                raise Refused(error.message) from None

        return quoted

    def _pem(self, value: Any) -> str:
        text = _text(value)
        try:
            return wrapped(text)
        except ValueError as error:
            raise Refused(f"{self._names.get(text, A_VALUE)} {error}") from None


def leaf(value: Any) -> Any:
    """Return what may be printed as it is: text or a number. Raises :class:`Refused` for anything else."""
    if isinstance(value, Undefined):
        str(value)  # which is refused, by name
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise Refused("prints what is neither text nor a number")
    return value


def _text(value: Any) -> str:
    return str(leaf(value))


def _of_text(do: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that is given text, whatever it is applied to."""
    return lambda value, *arguments, **named: do(_text(value), *arguments, **named)


def _joined(value: Iterable[Any], between: str = "") -> str:
    return _text(between).join(_text(each) for each in value)


TEXT: Final[dict[str, Callable[..., Any]]] = {
    "base64": lambda text: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(),
    "indent": do_indent,
    "int": int,
    "json": lambda text: json.dumps(text),  # noqa: PLW0108 - and none of its options
    "lower": str.lower,
    "replace": str.replace,
    "trim": str.strip,
    "upper": str.upper,
    "urlencode": lambda text: quote(text, safe=""),
}
