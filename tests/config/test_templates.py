"""Templates in the configuration: read as safely as it is itself, known by their digest, or refused with line and key."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.config.compiled import load_fast
from prism_vault_agent.config.load import load
from prism_vault_agent.config.plain import from_plain, to_plain
from prism_vault_agent.config.templates import LARGEST_TEMPLATE
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.scope import ScopeName
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, private, write
from tests.support.as_user import NOBODY

if TYPE_CHECKING:
    from pathlib import Path

BOUND = BASE + SCOPE + ENV + 'KEY = "vault://secret/web#key"\n'
TEXT = "key = {{ KEY }}\n"


def entry(path: object, form: str = "template") -> str:
    return f'[[scopes.web.files]]\npath = "web.conf"\nformat = "{form}"\ntemplate = "{path}"\n'


def template(tmp_path: Path, content: bytes = TEXT.encode(), name: str = "web.conf.j2") -> Path:
    path = tmp_path / "templates" / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    private(path, "")
    path.write_bytes(content)
    return path


def refusal(tmp_path: Path, lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, BOUND + lines), ENVIRON)
    return caught.value.line()


def test_a_template_is_in_the_settings_with_its_digest(tmp_path: Path):
    """The file has the template's path, its text and the digest of that; what is shown or compiled has no text."""
    path = template(tmp_path)
    settings = load(write(tmp_path, BOUND + entry(path)), ENVIRON)
    (file,) = settings.scopes[ScopeName("web")].files
    assert (file.format, file.template, file.text) == ("template", str(path), TEXT)
    assert file.digest == hashlib.sha256(TEXT.encode()).hexdigest()
    plain = to_plain(settings)
    assert from_plain(plain) == settings and TEXT not in str(plain)


def test_a_changed_template_is_another_configuration(tmp_path: Path):
    """Settings of the same file differ where a template's text does, so what was rendered of it is stale."""
    path = template(tmp_path)
    main = write(tmp_path, BOUND + entry(path))
    before = load(main, ENVIRON)
    assert load(main, ENVIRON) == before
    path.write_text(TEXT + "#\n")
    assert load(main, ENVIRON) != before


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (entry("templates/web.conf.j2"), "template: is not an absolute path"),
        (entry("/etc/prism-vault/secret-id"), "template: is not a template; give it a name that ends in .j2"),
        (entry("/nowhere/web.conf.j2"), "template: is not below"),
        (entry("{}/../x.j2"), "template: is not below"),
        (entry("{}/templates/../web.conf.j2"), "template: is not below"),
        (entry("{}/templates/none.j2"), "none.j2: there is no such template"),
        (entry("{}/templates/web.conf.j2", "systemd"), "template: is for format template, and this file has another"),
        (entry("").replace('template = ""\n', ""), "scopes.web.files[0].template: is missing"),
    ],
)
def test_a_wrong_template_is_refused(tmp_path: Path, lines: str, told: str):
    """A path that is relative, elsewhere, winding or nowhere, another ending, or a template without its format is refused."""
    template(tmp_path)
    line = refusal(tmp_path, lines.replace("{}", str(tmp_path)))
    assert told in line and "agent.toml:" in line and "scopes.web.files[0]" in line


def test_what_others_could_have_written_is_refused(tmp_path: Path):
    """A template, or a directory on the way to it, that group or world may write is refused; so is a pipe."""
    path = template(tmp_path)
    path.chmod(0o620)
    assert "web.conf.j2: may be written by others (mode 0620)" in refusal(tmp_path, entry(path))
    path.chmod(0o600)
    path.parent.chmod(0o770)
    assert "templates: may be written by others (mode 0770)" in refusal(tmp_path, entry(path))
    path.parent.chmod(0o700)
    os.mkfifo(path.with_name("pipe.j2"))
    assert "pipe.j2: is not a regular file" in refusal(tmp_path, entry(path.with_name("pipe.j2")))


@pytest.mark.root
def test_a_template_of_another_user_is_refused(tmp_path: Path):
    """A template that belongs to neither root nor us is refused, also behind a link."""
    path = template(tmp_path)
    os.chown(path, NOBODY, -1)
    link = path.with_name("link.j2")
    link.symlink_to(path)
    for named in (path, link):
        assert f"belongs to uid {NOBODY}" in refusal(tmp_path, entry(named))


@pytest.mark.parametrize(
    ("content", "told"), [(b"#" * (LARGEST_TEMPLATE + 1), "is larger than 64 KiB"), (b"\xff{{ KEY }}", "is not UTF-8")]
)
def test_what_is_too_large_or_no_text_is_refused(tmp_path: Path, content: bytes, told: str):
    """More than 64 KiB, or what is not UTF-8, is no template; 64 KiB are one."""
    path = template(tmp_path, b"#" * LARGEST_TEMPLATE)
    (file,) = load(write(tmp_path, BOUND + entry(path)), ENVIRON).scopes[ScopeName("web")].files
    assert len(file.text) == LARGEST_TEMPLATE
    assert told in refusal(tmp_path, entry(template(tmp_path, content)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n{{ KEY\n", ":2: is not in the language of Jinja2"),
        ("{% if KEY %}\n\n", ":1: is not in the language of Jinja2"),
        ("a\n\n{{ KEY|shout }}\n", ":3: uses the filter shout, which there is not"),
        ("{% if KEY is prime %}{% endif %}", ":1: uses the test prime, which there is not"),
        ("\n{% include 'other.j2' %}", ":2: takes in another file, which it may not"),
        ("{% autoescape true %}{% endautoescape %}", ":1: escapes for HTML, which would change values"),
        ("{{ " + "(" * 20000 + "KEY" + ")" * 20000 + " }}", ": calls itself without end, or nests too deeply"),
    ],
)
def test_what_is_wrong_with_a_template_is_told_with_the_configuration(tmp_path: Path, text: str, told: str):
    """What can be known without a value is told where the configuration is read: its file, line and key, and the template's."""
    path = template(tmp_path, text.encode())
    line = refusal(tmp_path, entry(path))
    assert f"scopes.web.files[0].template: {path}{told}; correct the template" in line
    assert f"{tmp_path}/agent.toml:" in line and line.count("\n") == 0


def test_nothing_of_a_template_is_computed_when_it_is_read(tmp_path: Path):
    """What would take a gigabyte or for ever is not done by whoever reads the configuration: a worker is bounded, it is not."""
    path = template(tmp_path, b"{{ 'x'|indent(1000000000) }}{{ 9 ** 9 ** 9 ** 9 }}{% for a in range(99999) %}{% endfor %}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load(write(tmp_path, BOUND + entry(path)), ENVIRON).scopes[ScopeName("web")].files[0].template == str(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_jinja2_is_there_for_who_has_a_template(tmp_path: Path):
    """Reading a configuration without a template imports nothing of Jinja2."""
    code = "import sys; from prism_vault_agent.config.load import load; load(sys.argv[1], {}); print('jinja2' in sys.modules)"
    for lines, there in (("", "False"), (entry(template(tmp_path)), "True")):
        words = [sys.executable, "-I", "-c", code, write(tmp_path, BOUND + lines)]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == there


def test_without_jinja2_the_configuration_says_so(tmp_path: Path, monkeypatch):
    """Where the extra is not installed a template is refused when the configuration is read, not at the first render."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "needs Jinja2, which is not installed; pip install" in refusal(tmp_path, entry(template(tmp_path)))


def test_who_renders_no_files_needs_no_template(tmp_path: Path):
    """``exec --direct`` writes no file, so a template that is gone does not keep it from running."""
    path = template(tmp_path)
    main = write(tmp_path, BOUND + entry(path))
    path.unlink()
    settings = load_fast(main, {**ENVIRON, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert settings.scopes[ScopeName("web")].files[0].template == str(path)
