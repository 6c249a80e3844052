"""Templates: what is written is to the byte what the template says, and what goes wrong is told by line and name alone."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.dialects.contents import LARGEST_FILE
from prism_vault_agent.dialects.quoting import QUOTING, line
from prism_vault_agent.dialects.template import rendered
from prism_vault_agent.errors import ConfigError
from tests.dialects import readers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CANARY = "canary-51d8e0"
SECRET = f'{CANARY}\'s $HOME "`id`"\nend\\'
VALUES = {"PASSWORD": SECRET, "TOKEN": CANARY, "USER": "ann", "PORT": "5432"}
PATH = "/etc/prism-vault/templates/app.conf.j2"


def render(text: str, values: dict[str, str] = VALUES) -> str:
    return rendered(PATH, text, values, LARGEST_FILE).decode()


def told(write: Callable[[], str]) -> str:
    """Return what is written, or why it is not."""
    try:
        return write()
    except ConfigError as error:
        return error.message


def refusal(text: str, values: dict[str, str] = VALUES) -> str:
    """Fail unless a template is refused in one line that has no value; return it without the path."""
    with pytest.raises(ConfigError) as refused:
        rendered(PATH, text, values, LARGEST_FILE)
    told = refused.value.line()
    assert (refused.value.exit_status, refused.value.reason) == (78, "bad_template")
    assert CANARY not in told and "HOME" not in told and "\n" not in told
    assert refused.value.__cause__ is None and refused.value.__suppress_context__
    assert told.startswith(PATH) and told.endswith("; correct the template")
    return told.removeprefix(PATH).removesuffix("; correct the template")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("user = {{ USER }}\n", "user = ann\n"),
        ("{{ PASSWORD }}", SECRET),
        ("no line end, <&> as it is", "no line end, <&> as it is"),
        ("{{ USER ~ ':' ~ PORT }}", "ann:5432"),
        ("{{ PORT|int + 1 }} {{ 7 % 4 }} {{ 2 * 3 }} {{ USER[0] }}", "5433 3 6 a"),
        ("{% if TLS is defined %}tls{% else %}plain{% endif %}", "plain"),
        ("{{ TLS|default('off') }}", "off"),
        ("{% for name in [USER, PORT] %}{{ loop.index }}={{ name }};{% endfor %}", "1=ann;2=5432;"),
        ("{% macro entry(key, value) %}{{ key }}: {{ value }}{% endmacro %}{{ entry('user', USER) }}", "user: ann"),
        ("{% set ns = namespace(n=0) %}{% for _ in range(3) %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ [USER, PORT]|join(',') }} {{ USER|upper }} {{ ' x '|trim }} {{ USER|replace('n', 'N') }}", "ann,5432 ANN x aNN"),
        ("{{ 'a b/c'|urlencode }} {{ 'x\\ny'|indent(2) }} {{ USER|length }} {{ 'A'|lower }}", "a%20b%2Fc x\n  y 3 a"),
        ("{{ PASSWORD|base64 }}", base64.b64encode(SECRET.encode()).decode()),
        ("{{ PASSWORD|json }}", json.dumps(SECRET)),
        ("{{ '\ud800'|json }} {{ '\ud800'|base64 }}", '"\\ud800" 7aCA'),
    ],
)
def test_a_template_is_filled_in_to_the_byte(text: str, whole: str):
    """A value stands in the file as it is, or as a filter spells it; nothing is escaped for HTML and no line end is lost."""
    assert render(text) == whole


@given(st.sampled_from(sorted(QUOTING)), st.text(st.characters(), max_size=40))
def test_a_dialect_is_spelt_as_its_own_format_spells_it(dialect: str, value: str):
    """The filter of a dialect writes what the format of that name writes, or refuses what it refuses, naming the variable."""
    template = f"NAME={{{{ NAME|{dialect} }}}}\n"
    assert told(lambda: rendered(PATH, template, {"NAME": value}, LARGEST_FILE).decode()).removeprefix(f"{PATH}:1: ") == told(
        lambda: line(dialect, "NAME", value)
    )


@pytest.mark.tool("systemd-analyze")
def test_the_real_readers_read_what_filters_quote(tmp_path: Path):
    """Dash, systemd and Compose read from a template the value that a filter quoted for them."""
    for dialect, read in (("sh", readers.dash), ("systemd", readers.systemd), ("compose", readers.compose)):
        file = tmp_path / f"{dialect}.env"
        file.write_text(render(f"# made by hand\nPASSWORD={{{{ PASSWORD|{dialect} }}}}\n"))
        assert read(file)["PASSWORD"] == SECRET.encode()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\n{{ PASSWROD }}", ":3: uses PASSWROD, which the scope does not have"),
        ("{{ PASSWROD|sh }}", ":1: uses PASSWROD, which the scope does not have"),
        ("{{ {}[TOKEN] }}", ":1: uses what is not defined"),
        ("{{ PASSWORD|docker }}", ":1: PASSWORD holds a line break, which a file of format docker cannot carry"),
        ("{{ (PASSWORD ~ '')|docker }}", ":1: PASSWORD holds a line break, which a file of format docker cannot carry"),
        ("{{ (PASSWORD ~ USER)|docker }}", ":1: a value holds a line break, which a file of format docker cannot carry"),
        ("a\n{{ TOKEN|pem }}", ":2: TOKEN is not PEM: blocks from BEGIN to END, without headers, and nothing beside them"),
        ("{{ TOKEN|int }}", ":1: fails with ValueError"),
        ("{{ TOKEN + 1 }}", ":1: fails with TypeError"),
        ("{{ 1 / 0 }}", ":1: fails with ZeroDivisionError"),
        ("{{ [TOKEN]|first }}", ":1: uses the filter first, which there is not"),
        ("{{ TOKEN is canary }}", ":1: uses the test canary, which there is not"),
        ("x\n{% if %}", ":2: is not in the language of Jinja2"),
        ("{{ '\\ud800' }}", ":1: a value holds a lone surrogate, which UTF-8 does not have"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ":1: calls itself without end, or nests too deeply"),
        ("\n" + "{% for a in [1] %}" * 30 + "{% endfor %}" * 30, ": nests too deeply"),
        ("\n{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", ": calls itself without end, or nests too deeply"),
        ("{{ TOKEN|json(default=range) }}", ":1: fails with TypeError"),
        ("{% macro m(a) %}\n{{ a }}{% endmacro %}{{ m() }}", ":2: uses what is not defined"),
    ],
)
def test_an_error_tells_line_and_name_and_never_a_value(text: str, told: str):
    """What goes wrong is told with template, line and variable; of Jinja2's own message, which may quote a value, nothing is."""
    assert refusal(text).replace(PATH, "") == told


@pytest.mark.parametrize(
    "text",
    ["[TOKEN]", "{'a': TOKEN}", "(TOKEN, USER)", "self", "none", "true", "range", "namespace(a=TOKEN)", "loop", "caller", "m"],
)
@pytest.mark.parametrize("printed", ["{{{{ {} }}}}", "{{{{ '' ~ {} }}}}", "{{{{ ({})|sh }}}}", "{{{{ ({})|json }}}}"])
def test_only_leaves_print(text: str, printed: str):
    """A list, a mapping, a function, nothing, or Jinja2's own objects are not printed, joined to text or quoted."""
    told = refusal("{% macro m() %}{% endmacro %}{% for _ in [1] %}" + printed.format(text) + "{% endfor %}")
    assert told in (":1: prints what is neither text nor a number", ":1: uses caller, which the scope does not have")


@pytest.mark.parametrize(
    "text",
    [
        "''.__class__.__mro__", "TOKEN.__class__", "TOKEN['__class__']", "TOKEN.upper()", "self.__init__", "range.__globals__",
        "self._TemplateReference__context", "namespace.__init__", "[].append(1)", "{}.update({})", "[TOKEN].__len__",
        "'{0.__class__}'.format(TOKEN)", "('%s' ~ '').format(TOKEN)", "cycler.__init__", "lipsum.__globals__", "joiner",
        "TOKEN|attr('__class__')", "[TOKEN]|map('upper')", "TOKEN|xmlattr", "dict(a=TOKEN)", "''.__class__ is defined",
        "'%s'|format(TOKEN)", "'%s' % TOKEN", "self.b()", "TOKEN()", "m.__call__", "m._func", "loop.__init__", "loop._iterator",
    ],
)  # fmt: skip
def test_there_is_no_way_out_of_the_sandbox(text: str):
    """Attributes, methods, functions and objects of Python or Jinja2 are out of reach, also where they are only asked for."""
    body = f"{{% macro m() %}}{{% endmacro %}}{{% for _ in [1] %}}{{{{ {text} }}}}{{% endfor %}}{{% block b %}}{{% endblock %}}"
    told = refusal(body)
    assert "fails with" not in told and "language" not in told


@pytest.mark.parametrize(
    "text",
    [
        "{% include '/etc/passwd' %}",
        "{% include TOKEN %}",
        "{% import 'x.j2' as x %}",
        "{% from 'x.j2' import y %}",
        "{% extends 'x.j2' %}",
        "{% include 'x' ignore missing %}",
    ],
)
def test_no_other_file_is_taken_in(text: str):
    """A template is one file: what it would include or import is refused before anything is rendered."""
    assert refusal(f"\n{text}") == ":2: takes in another file, which it may not"


def test_escaping_for_html_is_refused():
    """What would change values on their way into the file is refused."""
    told = refusal("{% autoescape true %}{{ PASSWORD }}{% endautoescape %}")
    assert told == ":1: escapes for HTML, which would change values"


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'x' * 1000000000 }}", "{{ [1] * 1000000000 }}", "{{ range(10**9)|length }}", "{{ range(1000000000)|length }}",
        "{{ 9 ** 9 ** 9 }}", "{% set n = namespace(x=9) %}{% for _ in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
    ],
)  # fmt: skip
def test_what_would_grow_without_bound_is_refused(text: str):
    """Text and lists are not multiplied, powers and long ranges are not computed: such a template ends at once."""
    assert refusal(text).split(": ")[1].split()[0] in ("uses", "fails")


def test_a_file_has_at_most_one_mebibyte():
    """A template that prints as much as a file may have is rendered; with one byte more it is refused."""
    half = {"HALF": "x" * (LARGEST_FILE // 2)}
    assert len(render("{{ HALF }}{{ HALF }}", half)) == LARGEST_FILE
    told = refusal("{{ HALF }}{{ HALF }}x", half)
    assert told == f": makes more than the {LARGEST_FILE} bytes that a file may have"
    assert "makes more" in refusal("{% for _ in range(99999) %}{{ HALF }}{% endfor %}", half)


def test_who_has_no_template_never_loads_jinja2():
    """Neither a worker nor the module of templates has Jinja2 in it before one is rendered."""
    code = "import sys, prism_vault_agent.worker.parent, prism_vault_agent.dialects.template as t; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "prism_vault_agent.dialects.template" in loaded
    assert not {"jinja2", "markupsafe", "prism_vault_agent.dialects.sandbox"} & set(loaded)


def test_without_jinja2_it_says_what_to_install():
    """Where the extra is not installed a template is refused, telling which it is."""
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from prism_vault_agent.dialects.template import rendered\n"
        "from prism_vault_agent.errors import ConfigError\n"
        "try: rendered('/x.j2', 'x', {}, 9)\n"
        "except ConfigError as error: print(error.line())\n"
    )
    said = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "Jinja2 is not installed, and format template needs it; pip install 'prism-vault-agent[template]'\n"
