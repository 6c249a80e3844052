"""Go templates to Jinja2: what translates, to the byte, and what is refused by line because it would not be the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.dialects.contents import LARGEST_FILE
from prism_vault_agent.dialects.template import rendered
from prism_vault_agent.migrate.go_expression import Expressions
from prism_vault_agent.migrate.go_lexer import NotGo
from prism_vault_agent.migrate.go_template import Translation
from prism_vault_agent.migrate.taken import Taken

WEB = '{{ with secret "secret/data/web" }}'


def translated(text: str, left: str = "{{", right: str = "}}") -> tuple[str, dict[str, str]]:
    taken = Taken()
    return Translation(Expressions(taken.bind)).of(text, left, right), taken.env


@pytest.mark.parametrize(
    ("text", "jinja", "env"),
    [
        (WEB + "{{ .Data.data.key }}{{ end }}", "{{ KEY }}", {"KEY": "vault://secret/web#key"}),
        ('{{ with secret "kv1/web" }}{{ .Data.key }}{{ end }}', "{{ KEY }}", {"KEY": "vault://kv1/web#key"}),
        ('{{ (secret "secret/data/a/b").Data.data.k }}', "{{ K }}", {"K": "vault://secret/a/b#k"}),
        ('{{ $s := secret "secret/data/a" }}{{ $s.Data.data.k }}', "{{ K }}", {"K": "vault://secret/a#k"}),
        ('{{ with $s := secret "secret/data/a" }}{{ $s.Data.data.k }}{{ end }}', "{{ K }}", {"K": "vault://secret/a#k"}),
        (WEB + '{{ index .Data.data "a-b" }}{{ end }}', "{{ A_B }}", {"A_B": "vault://secret/web#a-b"}),
        (WEB + "a\n{{- .Data.data.k -}}\n b{{ end }}", "a{{ K }}b", {"K": "vault://secret/web#k"}),
        ("a {{/* nothing */}} b\n{{- /* nor here */ -}}\n c", "a  bc", {}),
        (WEB + "{{ .Data.data.k | base64Encode }}{{ end }}", "{{ K|base64 }}", {"K": "vault://secret/web#k"}),
        (WEB + '{{ .Data.data.k | replaceAll "a" "b" | trimSpace }}{{ end }}', '{{ K|replace("a", "b")|trim }}', None),
        (WEB + "{{ if .Data.data.k }}y{{ else }}n{{ end }}{{ end }}", "{% if K %}y{% else %}n{% endif %}", None),
        (
            WEB + '{{ if eq .Data.data.k "x" }}1{{ else if not .Data.data.l }}2{{ end }}{{ end }}',
            '{% if K == "x" %}1{% elif not L %}2{% endif %}',
            None,
        ),
        (WEB + "{{ with .Data.data.k }}<{{ . }}>{{ end }}{{ end }}", "{% if K %}<{{ K }}>{% endif %}", None),
        ('{"a":{ {{- with secret "secret/data/web" }}"k":"{{ .Data.data.k }}"}}{{ end }}', '{"a":{{ "{" }}"k":"{{ K }}"}}', None),
        ("{% raw %} {# x #} \r\n{{ `lit` }}", '{{ "{%" }} raw %} {{ "{#" }} x #} {{ "\\r" }}\n{{ "lit" }}', {}),
    ],
)
def test_what_reads_secrets_is_translated(text, jinja, env):
    """With, variables, index, parentheses, trim marks, comments, filters, conditions; what is Jinja2's own is kept as text."""
    found, bound = translated(text)
    assert found == jinja
    assert env is None or bound == env


def test_names_are_told_apart():
    """Two keys of one name get the last part of their path before it; names that change how programs run are never chosen."""
    text = "".join(
        f'{{{{ with secret "secret/data/{path}" }}}}{{{{ index .Data.data "{key}" }}}}{{{{ end }}}}'
        for path, key in (("a", "k"), ("b", "k"), ("c/b", "k"), ("a", "path"), ("a", "1x"), ("a", "k"))
    )
    found, bound = translated(text)
    assert list(bound) == ["K", "B_K", "B_K_2", "A_PATH", "A_1X"]
    assert found == "{{ K }}{{ B_K }}{{ B_K_2 }}{{ A_PATH }}{{ A_1X }}{{ K }}"


def test_other_delimiters_are_taken():
    """A template with delimiters of its own keeps the usual ones as text."""
    found, _ = translated('{{ x }} << with secret "secret/data/a" >><< .Data.data.k >><< end >>', "<<", ">>")
    assert found == '{{ "{{" }} x }} {{ K }}'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n{{ range services }}{{ end }}", "2 uses range"),
        ('{{ key "a/b" }}', "1 uses key, which reads Consul's keys"),
        ('{{ env "HOME" }}', "1 uses env, which reads the host, not Vault"),
        ('{{ with pkiCert "pki/issue/x" "common_name=a" }}{{ end }}', "1 uses pkiCert, which has a certificate made"),
        ('{{ with secret "pki/issue/x" "common_name=a" }}{{ end }}', "1 passes parameters to a secret"),
        ("{{ with secret $p }}{{ end }}", "1 uses $p, which stands for no secret"),
        (WEB + "{{ .Data.data }}{{ end }}", "1 prints .Data.data, which is not one key of a secret"),
        (WEB + "{{ . }}{{ end }}", "1 prints a whole secret"),
        (WEB + "{{ .Data.data.k | toJSON }}{{ end }}", "1 uses toJSON, which spells some characters in a way of its own"),
        (WEB + "{{ .Data.metadata.version }}{{ end }}", "1 prints .Data.metadata.version, which is not one key"),
        (WEB + "\n{{ .Data.data.k }}", "1 has a block without its end"),
        (WEB + "{{ else }}none{{ end }}", "1 has an else for a secret that is not there"),
        ("{{ end }}", "1 ends a block that there is not"),
        ("a\n{{ .Data.key }}", "2 asks for .Data of what is no secret"),
        ('{{ printf "%s" "x" }}', "1 uses printf"),
        ("{{ x", "1 has an action that does not end"),
        ("{{/* x", "1 has a comment that does not end"),
        ("{{ ! }}", "1 has an action that cannot be read"),
        ('{{ with secret "nomount" }}{{ .Data.k }}{{ end }}', "1 reads nomount#k, which is no path of a secret here"),
        ('{{ define "x" }}{{ end }}', "1 uses define"),
    ],
)
def test_what_would_not_be_the_same_is_refused(text, told):
    """What reads elsewhere, is computed, prints more than one key or spells values otherwise is refused with its line."""
    with pytest.raises(NotGo) as caught:
        translated(text)
    assert f"{caught.value.line} {caught.value}".startswith(told)


ACTIONS = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", " ", "\n", "\r", "{", "%}", "{%", "{#", '"', "`", ".Data", ".data", ".k", "$s", ":=", "|", "(",
     ")", "with ", "if ", "else", "end", "eq ", "not ", "index ", "secret ", '"secret/data/a"', '"k"', "base64Encode", "/*", "*/",
     "x", "é"]
)  # fmt: skip


def read(text: str) -> tuple[str, dict[str, str]] | NotGo:
    try:
        return translated(text)
    except NotGo as error:
        return error


@given(st.one_of(st.text(), st.lists(ACTIONS).map("".join)))
def test_whatever_it_is_it_is_translated_or_refused(text):
    """Any text is translated to a template that renders, or refused with a line of it; no other error."""
    found = read(text)
    if isinstance(found, NotGo):
        assert 1 <= found.line <= text.count("\n") + 1
    else:
        rendered("x.j2", found[0], dict.fromkeys(found[1], "v"), LARGEST_FILE)


@given(st.text(st.characters(codec="utf-8")))
def test_text_stays_as_it_is(text):
    """Text without an action is rendered to its own bytes, whatever Jinja2 would make of it."""
    if "{{" not in text:
        assert rendered("x.j2", translated(text)[0], {}, LARGEST_FILE).decode() == text
