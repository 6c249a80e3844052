"""The reader of ``--env-file``."""

from __future__ import annotations

import itertools
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.exec import Failure, envfile

NAME = "A_name1"
text = st.binary(max_size=40).filter(lambda value: 0 not in value and b"\r" not in value)


def read(tmp_path, content: bytes):
    path = tmp_path / "my.env"
    path.write_bytes(content)
    return envfile.read(str(path))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"A=1", b"1"),
        (b"A=", b""),
        (b"A = 1 ", b"1"),
        (b"export A=1", b"1"),
        (b"  export\tA=1", b"1"),
        (b"A=one two", b"one two"),
        (b"A=1 # why", b"1"),
        (b"A=1\t# why", b"1"),
        (b"A=a#b", b"a#b"),
        (b"A=#b", b""),
        (b"A='1 # $x \\n'", b"1 # $x \\n"),
        (b"A='' # why", b""),
        (b'A=""', b""),
        (b'A="one # two"', b"one # two"),
        (b'A="a\\nb\\tc\\rd\\\\e\\"f\\$g"', b'a\nb\tc\rd\\e"f$g'),
        (b'A="\\d+\\x"', b"\\d+\\x"),
        (b'A="\\\\\\\\n"', b"\\\\n"),
        (b'A="one\ntwo"', b"one\ntwo"),
        (b'A="one\n#two\n\n three" # why', b"one\n#two\n\n three"),
        (b"A=a=b", b"a=b"),
        (b"A=it's", b"it's"),
        (b"A=\xe4\xff", b"\xe4\xff"),
        (b"A=vault://secret/web#key", b"vault://secret/web#key"),
        (b"\xef\xbb\xbfA=1", b"1"),
        (b"A=1\r\n", b"1"),
        (b'A="1"\r\n', b"1"),
        (b"A=1\nA=2", b"2"),
        (b"# A=2\n\n\t\nA=1", b"1"),
    ],
)
def test_forms(line, value):
    """Each documented form stands for its documented value."""
    assert envfile.parse(line) == {b"A": value}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"A=1\nlonely-canary\n", 2),
        (b"=canary", 1),
        (b"1A=canary", 1),
        (b"A-B=canary", 1),
        (b"A B=canary", 1),
        (b"export =canary", 1),
        (b"\nA='canary\n", 2),
        (b'A=1\nB="canary\nC=2\n', 2),
        (b"A='1'canary", 1),
        (b'A="1"#canary', 1),
        (b"A=can\0ary", 1),
        (b"A=" + b"canary" * 22_000, 1),
    ],
    ids=itertools.count(),
)
def test_bad_lines(tmp_path, content, line):
    """A line that is not understood is told by file and line, without any of what it holds."""
    with pytest.raises(Failure) as caught:
        read(tmp_path, content)
    assert caught.value.exit_status == 78
    assert f"my.env:{line}: " in caught.value.line
    assert "canary" not in caught.value.line


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), text, max_size=5))
def test_double_quotes_carry_anything(variables):
    """Every value has a spelling in double quotes, also one of several lines."""
    escape = {ord('"'): b'\\"', ord("\\"): b"\\\\"}
    lines = [
        name.encode() + b'="' + b"".join(escape.get(byte, bytes([byte])) for byte in value) + b'"\n'
        for name, value in variables.items()
    ]
    assert envfile.parse(b"".join(lines)) == {name.encode(): value for name, value in variables.items()}


@given(st.binary(max_size=120))
def test_any_bytes(content):
    """Any file is read or refused by line; no value can hold a NUL byte."""
    try:
        found = envfile.parse(content)
    except envfile._Wrong:
        return
    assert not any(0 in value for value in found.values())


@given(text.filter(lambda value: b"'" not in value and b"\n" not in value))
def test_single_quotes_as_in_sh(value):
    """A single-quoted value is what sh makes of the line."""
    assert envfile.parse(b"A='" + value + b"'") == {b"A": value}


def test_agrees_with_sh(tmp_path):
    """What this reader accepts and sh understands too, both read alike."""
    content = b'A=plain\nexport B=\'single $x\'\nC="double \\" \\\\ \\$x"\nD="two\nlines"\nE=\n# F=1\nG=x # why\n'
    ours = read(tmp_path, content)
    script = f". {tmp_path}/my.env; export A C D E G; exec env -0"
    theirs = subprocess.run(["sh", "-c", script], env={}, capture_output=True, check=True).stdout.split(b"\0")
    assert {b"%b=%b" % pair for pair in ours.items()} <= set(theirs)


def test_unreadable_file(tmp_path):
    """A file that is not there, is a directory or is too long is refused by its name."""
    for path in (tmp_path / "none.env", tmp_path):
        with pytest.raises(Failure) as caught:
            envfile.read(str(path))
        assert caught.value.exit_status == 78
        assert str(path) in caught.value.line
    with pytest.raises(Failure, match="longer than"):
        read(tmp_path, b"#" * (envfile.LONGEST_FILE + 1))
