"""HCL 1 as Vault Agent reads it: values, blocks, heredocs, lines; and whatever is no HCL is an error with a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.migrate.hcl import Body, NotHcl, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('a = "b"', "b"),
        ('"a" = "b"', "b"),
        ('a : "b",', "b"),
        (r'a = "q\"\\\n\t\u00e9\U0001f511\x41\101"', 'q"\\\n\té\U0001f511AA'),
        ('a = "x ${ f("y") } z"', 'x ${ f("y") } z'),
        ("a = 12", 12),
        ("a = -0x1f", -31),
        ("a = 1.5e3", 1500.0),
        ("a = true # on", True),
        ("a = /* off */ false // really", False),
        ('a = ["b", 1, [true],]', ["b", 1, [True]]),
        ("a = []", []),
        ("a = <<EOT\n  b\n c\nEOT\n", "  b\n c\n"),
        ("a = <<-EOT\n    b\n      c\n    EOT\n", "b\n  c\n"),
        ("a = <<-EOT\n  b\n      c\n    EOT", "  b\n      c\n"),
    ],
)
def test_a_value_is_read_as_hcl_means_it(text, value):
    """Each kind of value, comments beside it, escapes, interpolations kept as they are, heredocs with and without indentation."""
    (item,) = parse(text)
    assert (item.name, item.labels, item.value) == ("a", (), value)


def test_blocks_have_labels_lines_and_an_order():
    """A block is told by its name, labels and line; objects are blocks too; of several of a name the last counts."""
    body = parse('x {\n}\ntemplate "a" "b" {\n  c = 1\n  c = 2\n  d = { e = "f" }\n}\n')
    assert [(item.name, item.labels, item.line) for item in body] == [("x", (), 1), ("template", ("a", "b"), 3)]
    inside = body.items[1].value
    last, nested = inside.get("c"), inside.get("d")
    assert last is not None and (last.value, last.line) == (2, 5)
    assert isinstance(nested.value, Body) and nested.value.items[0].value == "f"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('a = "b\n"', 1, "a string that does not end"),
        ("\n\na = <<EOT\nb\n", 3, "a heredoc that does not end"),
        ("a {\n b = 1\n", 3, "ends too early"),
        ("a = [1 2]", 1, "a list without a comma or an end"),
        ('{"template": []}', 1, "has no name where one is expected"),
        ('a = "\\q"', 1, "an escape that there is not"),
        ('a = "\\ud800"', 1, "a character that there is not"),
        ("a = b", 1, "has no value where one is expected"),
        ("a = " + "[" * 5000, 1, "is nested too deeply"),
        ("a", 1, "ends within a block"),
    ],
)
def test_what_is_no_hcl_is_told_with_its_line(text, line, told):
    """What cannot be read is refused, with the line at which reading ended."""
    with pytest.raises(NotHcl, match=told) as caught:
        parse(text)
    assert caught.value.line == line


PIECES = st.sampled_from(
    [
        "a",
        "=",
        "{",
        "}",
        "[",
        "]",
        ",",
        '"',
        "<<EOT\n",
        "<<-E\n",
        "EOT\n",
        "\n",
        "${",
        "\\",
        "1",
        "-",
        "0x",
        "/*",
        "*/",
        "#",
        " ",
        "é",
    ]
)


def read(text: str) -> Body | NotHcl:
    try:
        return parse(text)
    except NotHcl as error:
        return error


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_whatever_it_is_it_is_read_or_refused(text):
    """Any text is a body or an error of ours with a line of it, and nothing else."""
    found = read(text)
    assert isinstance(found, Body) or 1 <= found.line <= text.count("\n") + 1
