"""The contents of files: whole, exact, or an error that names the variable and what it holds, and never the value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.dialects import quoting
from prism_vault_agent.dialects.contents import FORMATS, LARGEST_FILE, contents
from prism_vault_agent.dialects.quoting import LONGEST_LINE, LONGEST_VARIABLE, QUOTING, line
from prism_vault_agent.errors import ConfigError
from tests.dialects import readers

CANARY = "canary-77ac01"
TEXT = st.text(max_size=60)
CLASSES = ("NUL byte", "lone surrogate", "Unicode noncharacter", "line break", "carriage return", "carriage return at its end")
CLASSES_OF_PORTABLE = ("dollar sign before a brace", "quote or backslash beside a dollar sign or backtick")
TOLD = {
    form: {quoting.unrepresentable("NAME", f"a {what}", form).line() for what in (*CLASSES, *CLASSES_OF_PORTABLE)}
    for form in quoting.QUOTING
}


def refusal(form, value: str, name: str = "NAME") -> str:
    with pytest.raises(ConfigError) as refused:
        contents(form, "f", {"GOOD": "x", name: value})
    assert refused.value.exit_status == 78
    return refused.value.line()


@pytest.mark.parametrize(
    ("form", "value", "told"),
    [
        *((form, f"{CANARY}\0x", "a NUL byte") for form in QUOTING),
        *((form, f"{CANARY}\ud800", "a lone surrogate") for form in QUOTING),
        ("systemd", f"{CANARY}\ufdd0", "a Unicode noncharacter"),
        ("portable", f"{CANARY}\U0001ffff", "a Unicode noncharacter"),
        ("docker", f"{CANARY}\nX=1", "a line break"),
        ("docker", f"{CANARY}\r", "a carriage return at its end"),
        ("portable", f"{CANARY}\r\n", "a carriage return"),
        ("portable", f"{CANARY}${{HOME}}", "a dollar sign before a brace"),
        ("portable", f"{CANARY}'$HOME", "a quote or backslash beside a dollar sign or backtick"),
    ],
)
def test_f51_what_a_dialect_cannot_carry_is_refused(form, value, told):
    """The error names the variable, the class of character and the format; the value is not in it."""
    line_told = refusal(form, value)
    assert f"NAME holds {told}, which a file of format {form} cannot carry" in line_told
    assert CANARY not in line_told and "HOME" not in line_told


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["", "A B", "1A", "A-B", "A\nB=x", "../A", "A/B", "\u00c4", "N" * 256], ids=ascii)
def test_f57_what_is_no_name_is_refused(form, name):
    """What no shell takes for a name is in no file: some reader would execute that line, or leave its directory."""
    if form == "json":
        assert json.loads(contents(form, "f", {name: "x"})["f"]) == {name: "x"}
        return
    assert "the name" in refusal(form, CANARY, name)


@pytest.mark.tool("systemd-analyze")
def test_a_noncharacter_is_refused_because_systemd_drops_it(tmp_path):
    """Systemd reads no file in which a value has a noncharacter, and its log would hold the value; that is why it is refused."""
    file = tmp_path / "f.env"
    for bad in ("\ufdd0", "\ufdef", "\ufffe", "\U0002ffff", "\U0010fffe"):
        file.write_bytes(f'GOOD="x"\nBAD="{bad}"\n'.encode())
        with pytest.raises(OSError, match="systemd does not read"):
            readers.systemd(file)
    file.write_bytes('GOOD="x\U0010fffd"\n'.encode())
    assert readers.systemd(file) == {"GOOD": "x\U0010fffd".encode()}


@pytest.mark.parametrize("form", ["systemd", "sh", "compose", "portable", "docker"])
def test_f54_the_longest_variable(form):
    """A variable as long as the kernel takes (or a line as long as Docker reads) is written; one byte more is refused."""
    fits = (LONGEST_LINE if form == "docker" else LONGEST_VARIABLE) - len("NAME=") - 1
    assert contents(form, "f", {"NAME": "x" * fits})["f"]
    assert "NAME " in refusal(form, "x" * (fits + 1))


def test_the_longest_line_is_read_by_docker(tmp_path):
    """The longest line that is written is one that Docker's parser still reads."""
    value = "x" * (LONGEST_LINE - len("NAME=") - 1)
    file = tmp_path / "f.env"
    file.write_bytes(contents("docker", "f", {"NAME": value, "NEXT": "y"})["f"])
    assert readers.compose_raw(file) == {"NAME": value.encode(), "NEXT": b"y"}


def test_f55_one_mebibyte_is_a_file_and_one_byte_more_is_none():
    """A value of 1 MiB has its file; a larger one is refused with its size and the limit."""
    assert contents("dir", "keys", {"NAME": "x" * LARGEST_FILE}) == {"keys/NAME": b"x" * LARGEST_FILE}
    told = refusal("dir", "x" * (LARGEST_FILE + 1))
    assert f"f/NAME would have {LARGEST_FILE + 1} bytes" in told


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), st.text(st.characters(), max_size=20), max_size=4
    )
)
def test_json_and_files_of_their_own_carry_everything(values):
    """JSON and a file for each secret carry any text, NUL and lone surrogates too; such a file is the value and nothing else."""
    assert json.loads(contents("json", "f", values)["f"]) == values
    files = contents("dir", "d", values)
    assert files == {f"d/{name}": value.encode("utf-8", "surrogatepass") for name, value in values.items()}


@given(st.sampled_from(sorted(QUOTING)), TEXT)
def test_a_refusal_never_repeats_a_value(form, value):
    """Whatever the value, it is written in its own line or told by name and class alone."""
    told = ""
    try:
        written = line(form, "NAME", value)
    except ConfigError as error:
        told = error.line()
    else:
        assert written.startswith("NAME=") and written.endswith("\n")
        assert form != "docker" or written.count("\n") == 1
    assert told == "" or told in TOLD[form]


@given(st.sampled_from(["systemd", "sh", "compose", "dotenv", "portable"]), TEXT)
def test_a_quoted_value_never_leaves_its_quotes(form, value):
    """Between the quotes that enclose a value there is no quote that is not escaped, so nothing of it is a line of its own."""
    try:
        written = line(form, "NAME", value).removeprefix("NAME=").removesuffix("\n")
    except ConfigError:
        return
    quote = written[:1]
    if quote in ("'", '"'):
        inside = written[1:-1]
        assert written.endswith(quote) and len(written) > 1
        left = inside if quote == "'" else inside.replace("\\\\", "").replace('\\"', "")
        assert quote not in left
    else:
        assert not set(written) & set(" \t\n'\"$`\\#;&|<>()")
