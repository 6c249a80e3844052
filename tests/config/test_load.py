"""The configuration file: what is understood, and how what is wrong is told."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from prism_vault_agent.config.lines import KeyPath, lines
from prism_vault_agent.config.load import load
from prism_vault_agent.config.settings import AuthSettings, TlsFiles
from prism_vault_agent.errors import ConfigError
from prism_vault_agent.proof.keys import SigningKey
from prism_vault_agent.scope import Binding, CallerRule, SecretReference
from tests.config.written import BASE, ENV, ENVIRON, SCOPE, write

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey.from_seed("prism.lan/log", bytes(32)).verifying_key
OTHER = SigningKey.from_seed("prism.lan/other", bytes(32)).verifying_key
WHOLE = """\
[agent]
host = "server1"
socket = "/run/pv/agent.sock"
socket_owner = "root"
socket_group = "0"
socket_mode = "0600"
state = "/var/lib/pv"
workers = 2
connections_per_user = 9
log_format = "console"
log_level = "debug"
[vault]
address = "https://vault.lan:8200/"
namespace = "team-a/"
ca_file = "/etc/ca.pem"
cert_file = "/etc/cert.pem"
key_file = "/etc/key.pem"
timeout = "250ms"
[vault.auth]
method = "jwt"
mount = "jwt-lan"
role = "server1"
jwt_file = "/run/jwt"
on_failure = "exit"
[central]
url = "https://server1.lan:8310"
audit = "strict"
token_file = "/etc/pv/token"
timeout = "1m"
replicas = ["https://server2.lan:8310/", "https://server3.lan:8310"]
log_key = "prism.lan/log+dc1a04ad+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
[scopes.web]
project = "prism"
environment = "lan"
purposes = ["service", "deploy-check"]
callers = [{ kind = "service", user = "root" },
  { kind = "agent", group = "root", executable = "/usr/bin/agent", unit = "a.service", container = "0123456789ab" }]
env_from = ["vault://secret/prism/more"]
allow_paths = ["secret/prism/*", "secret/one"]
allow_names = ["PATH"]
on_collision = "scope"
pristine = true
grace = "1m"
[scopes.web.env]
DATABASE_URL = "vault://secret/prism/lan/web#database_url?version=3"
PATH = "vault://secret/prism/lan/web#path"
"""


def failure(path: str, environ: dict[str, str] | None = None) -> ConfigError:
    """Return the error that loading ``path`` raises."""
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON | (environ or {}))
    assert "\n" not in caught.value.line()
    return caught.value


def test_everything_that_is_written_is_in_the_settings(tmp_path: Path):
    """Each key of the configuration has its place in the settings, in the units that these promise."""
    settings = load(write(tmp_path, WHOLE), ENVIRON)
    agent, vault, central, scope = settings.agent, settings.vault, settings.central, settings.scopes["web"]  # type: ignore[index]
    assert (agent.host, agent.socket, agent.socket_uid, agent.socket_gid) == ("server1", "/run/pv/agent.sock", 0, 0)
    assert (agent.socket_mode, agent.state, agent.workers, agent.connections_per_user) == (0o600, "/var/lib/pv", 2, 9)
    assert (agent.log_format, agent.log_level) == ("console", "debug")
    assert (vault.address, vault.namespace, vault.timeout) == ("https://vault.lan:8200", "team-a", 0.25)
    assert vault.tls == TlsFiles("/etc/ca.pem", "/etc/cert.pem", "/etc/key.pem")
    assert vault.auth == AuthSettings("jwt", "jwt-lan", role="server1", jwt_file="/run/jwt", on_failure="exit")
    assert (central.url, central.token_file, central.identity_role, central.timeout) == (
        "https://server1.lan:8310",
        "/etc/pv/token",
        "",
        60.0,
    )
    assert central.urls == ("https://server1.lan:8310", "https://server2.lan:8310", "https://server3.lan:8310")
    assert central.log_keys == ("prism.lan/log+dc1a04ad+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",)
    assert (scope.project, scope.environment, scope.purposes) == ("prism", "lan", ("service", "deploy-check"))
    assert scope.callers == (
        CallerRule("service", uid=0),
        CallerRule("agent", gid=0, executable="/usr/bin/agent", unit="a.service", container="0123456789ab"),
    )
    assert scope.bindings == (
        Binding("DATABASE_URL", SecretReference("secret/prism/lan/web", "database_url", 3)),
        Binding("PATH", SecretReference("secret/prism/lan/web", "path")),
        Binding(None, SecretReference("secret/prism/more")),
    )
    assert (scope.allow_paths, scope.allow_names) == (("secret/prism/*", "secret/one"), frozenset({"PATH"}))
    assert (scope.collision, scope.pristine, scope.grace) == ("scope", True, 60.0)


@pytest.mark.parametrize(
    ("method", "given", "implied"),
    [
        ("approle", {"role_id_file": "/r", "secret_id_file": "/s"}, {}),
        ("kubernetes", {"role": "r"}, {"jwt_file": "/var/run/secrets/kubernetes.io/serviceaccount/token"}),
        ("userpass", {"username": "u", "password_file": "/p"}, {}),
        ("token_file", {"token_file": "/t"}, {"mount": "token"}),
        ("jwt", {"role": "r", "jwt_file": "/j"}, {}),
    ],
)  # fmt: skip
def test_each_login_method_has_its_usual_mount(tmp_path: Path, method: Any, given: dict[str, str], implied: dict[str, str]):
    """A method without a mount logs in at the path where the provider usually has it, and sets only its own fields."""
    lines = "".join(f'{key} = "{value}"\n' for key, value in given.items())
    text = f'[vault]\naddress = "https://v"\n[vault.auth]\nmethod = "{method}"\n{lines}' + BASE[BASE.index("[central]") :]
    expected = AuthSettings(**{"method": method, "mount": method, **given, **implied})
    assert load(write(tmp_path, text), ENVIRON).vault.auth == expected


def test_certificate_login_needs_a_certificate(tmp_path: Path):
    """Method cert without a client certificate is refused; with one it is taken."""
    text = BASE.replace('method = "approle"', 'method = "cert"')
    text = re.sub(r"(role|secret)_id_file.*\n", "", text)
    assert "vault.auth.method: needs a client certificate" in failure(write(tmp_path, text)).message
    text = text.replace("[vault.auth]", 'cert_file = "/c"\nkey_file = "/k"\n[vault.auth]')
    assert load(write(tmp_path, text), ENVIRON).vault.auth == AuthSettings("cert", "cert")


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "what"),
    [
        ("address =", "adress =", 2, "vault.adress", "is not a known key; did you mean address?"),
        ("url =", "colour =", 10, "central.colour", "is not a known key; known here: audit, ca_file"),
        ("role_id_file =", "role_file =", 6, "vault.auth.role_file", "did you mean role_id_file?"),
        ('"approle"', '"approl"', 5, "vault.auth.method", "has an unknown value; write one of approle, jwt"),
        ('method = "approle"\n', "", 4, "vault.auth.method", "is missing; write one of approle, jwt"),
        ('"http://127.0.0.1:8200"', "8200", 2, "vault.address", "has the wrong type; write a string, in quotes"),
        ('"http://127.0.0.1:8200"', '"http://vault.lan:8200"', 2, "vault.address", "would send credentials in clear"),
        ('"http://127.0.0.1:8200"', '"https://user:pass@vault.lan"', 2, "vault.address", "is not the address of a server"),
        ('"http://127.0.0.1:8200"', '"https://vault.lan/?a=b"', 2, "vault.address", "is not the address of a server"),
        ('"http://127.0.0.1:8200"', '"https://[::1"', 2, "vault.address", "is not the address of a server"),
        ('"/etc/prism-vault/role-id"', '"role-id"', 6, "vault.auth.role_id_file", "is not an absolute path"),
        ('"/etc/prism-vault/role-id"', '"/etc/\\u0000"', 6, "vault.auth.role_id_file", "must be one line of printable text"),
        ("[central]\nurl", "[central]\naudit = 'lax'\nurl", 10, "central.audit", "has an unknown value; write 'strict'"),
        ("identity_role", "token_file = '/t'\nidentity_role", 9, "central", "needs one credential"),
        ('identity_role = "agent"', "", 9, "central", "needs one credential"),
        ('identity_role = "agent"', "cert_file = '/c'\nkey_file = '/k'", 9, "central", "a certificate alone needs https://"),
        ("[central]", "[central]\nlog_key = 'log+00+AA=='", 10, "central.log_key", "is not a whole verifying key"),
        ("[central]", f"[central]\nfurther_log_keys = ['{KEY}']", 10, "central.further_log_keys", "needs a key beside which"),
        ("[central]", f"[central]\nlog_key = '{KEY}'\nfurther_log_keys = ['{OTHER}']", 11, "central.further_log_keys[0]", "is"),
        ("[central]", "[central]\nreplicas = ['http://h']", 10, "central.replicas[0]", "would send credentials in clear"),
        ("[central]", "[central]\nreplicas = ['http://127.0.0.1:8310']", 10, "central.replicas[0]", "names an address twice"),
        ("[vault.auth]", 'key_file = "/k"\n[vault.auth]', 1, "vault.cert_file", "is missing"),
        ("[vault.auth]", 'timeout = "5"\n[vault.auth]', 4, "vault.timeout", "is not a duration"),
        ("[vault.auth]", 'timeout = "0s"\n[vault.auth]', 4, "vault.timeout", "is not a useful timeout"),
        ("[central]", "[agent]\nworkers = 0\n[central]", 10, "agent.workers", "is out of range; write at least 1"),
        ("[central]", "[agent]\nworkers = true\n[central]", 10, "agent.workers", "has the wrong type; write a whole number"),
        ("[central]", "[agent]\nsocket_mode = 0o660\n[central]", 10, "agent.socket_mode", "has the wrong type"),
        ("[central]", "[agent]\nsocket_mode = '0777'\n[central]", 10, "agent.socket_mode", "is not the mode of a socket"),
        ("[central]", "[agent]\nsocket_owner = 'no-such-user'\n[central]", 10, "agent.socket_owner", "names a user that"),
        ("[central]", "[agent]\nsocket_group = 'no-such-group'\n[central]", 10, "agent.socket_group", "names a group that"),
        ("[central]", f"[agent]\nsocket = '/{'s' * 107}'\n[central]", 10, "agent.socket", "is longer than the 107 bytes"),
        ("[central]", "[agents]\n[central]", 9, "agents", "is not a known key; did you mean agent?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line_and_key(tmp_path: Path, *, old: str, new: str, line: int, key: str, what: str):
    """An error names the file, the line and the key, and says what to do."""
    assert old in BASE
    path = write(tmp_path, BASE.replace(old, new, 1))
    told = failure(path)
    assert told.line().startswith(f"{path}:{line}: {key}: ")
    assert what in told.line()
    assert told.mend
    assert told.exit_status == 78


@pytest.mark.parametrize(
    ("lines", "key", "what"),
    [
        ('callers = [{ kind = "service" }]', "scopes.web.callers[0]", "would admit everybody"),
        ("callers = []", "scopes.web.callers", "is empty"),
        ('callers = [{ kind = "robot", uid = 1 }]', "scopes.web.callers[0].kind", "has an unknown value; write 'service'"),
        ('callers = [{ kind = "agent", uid = 1, usr = "x" }]', "scopes.web.callers[0].usr", "did you mean user?"),
        ('callers = [{ kind = "agent", uid = 1, user = "root" }]', "scopes.web.callers[0].uid", "says the same as user"),
        ('callers = [{ kind = "agent", user = "no-such-user" }]', "scopes.web.callers[0].user", "names a user that"),
        ('callers = [{ kind = "agent", group = "no-such-group" }]', "scopes.web.callers[0].group", "names a group that"),
        ('callers = [{ kind = "agent", uid = -1 }]', "scopes.web.callers[0].uid", "is out of range"),
        ('callers = [{ kind = "agent", container = "" }]', "scopes.web.callers[0].container", "is not a container id"),
        ('callers = [{ kind = "agent", executable = "python" }]', "scopes.web.callers[0].executable", "not an absolute path"),
        ("purposes = []", "scopes.web.purposes", "is empty; name at least one"),
        ('purposes = ["two words"]', "scopes.web.purposes[0]", "is not a name"),
        ('project = "../other"', "scopes.web.project", "is not a name"),
        ('grace = "2h"', "scopes.web.grace", "is longer than an hour"),
        ('on_collision = "mine"', "scopes.web.on_collision", "has an unknown value"),
        ('env_from = ["vault://secret/web#key"]', "scopes.web.env_from[0]", "names one key"),
        ('env_from = ["secret/web"]', "scopes.web.env_from[0]", "not a secret reference"),
        ('allow_paths = ["*"]', "scopes.web.allow_paths[0]", "is not a path at the provider"),
        ('allow_paths = ["secret"]', "scopes.web.allow_paths[0]", "names a mount and nothing in it"),
        ('allow_paths = ["secret/../other/*"]', "scopes.web.allow_paths[0]", "is not a path at the provider"),
        ('allow_names = ["A B"]', "scopes.web.allow_names[0]", "names a variable that"),
        ("templates = []", "scopes.web.templates", "is not a known key"),
        ('age = "1h"', "scopes.web.age", "is not a known key"),
        ('ttl = "0s"', "scopes.web.ttl", "is not the life of a lease"),
        ('ttl = "769h"', "scopes.web.ttl", "is not the life of a lease"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_scope_is_told(tmp_path: Path, lines: str, key: str, what: str):
    """A scope is checked as strictly as everything else, and what this version does not do is no known key."""
    name = lines.partition(" ")[0]
    text = "".join(line + "\n" for line in SCOPE.splitlines() if not line.startswith(name))
    told = failure(write(tmp_path, BASE + text + lines + "\n")).line()
    assert f": {key}: " in told
    assert what in told


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ('""', "is not a letter or underscore"),
        ('"A B"', "is not a letter or underscore"),
        ("1A", "is not a letter or underscore"),
        ('"ÄÖ"', "is not a letter or underscore"),
        ('"A=B"', "is not a letter or underscore"),
        ('"A\\nB"', "is not a letter or underscore"),
        ("A" * 10_000, "is longer than 255 characters"),
        ("LD_PRELOAD", "changes how programs load or run"),
        ("PATH", "changes how programs load or run"),
        ("BASH_ENV", "changes how programs load or run"),
        ("PYTHONPATH", "changes how programs load or run"),
        ("NODE_OPTIONS", "changes how programs load or run"),
        ("database_url", "differs from DATABASE_URL only by case"),
    ],
)
def test_a_name_that_no_process_should_get_is_refused(tmp_path: Path, name: str, what: str):
    """Names that are malformed, twins but for case, or dangerous and not allowed are errors of the file (F57, F58)."""
    line = f'DATABASE_URL = "vault://secret/web#url"\n{name} = "vault://secret/web#key"\n'
    path = write(tmp_path, BASE + SCOPE + ENV + line)
    told = failure(path).line()
    assert what in told
    assert told.startswith(f"{path}:{(BASE + SCOPE + ENV + line).count(chr(10))}: scopes.web.env.")


def test_a_name_that_is_set_twice_is_refused(tmp_path: Path):
    """The same name twice is an error of the file, with its line (F57, F59)."""
    line = 'URL = "vault://secret/web#a"\n'
    text = BASE + SCOPE + ENV + line + line
    path = write(tmp_path, text)
    assert failure(path).line().startswith(f"{path}:{text.count(chr(10))}: is not TOML")


def test_a_dangerous_name_can_be_allowed_by_name(tmp_path: Path):
    """A scope that lists a dangerous name in allow_names may set it, and no other."""
    text = BASE + SCOPE + 'allow_names = ["LD_PRELOAD"]\n' + ENV + 'LD_PRELOAD = "vault://secret/web#a"\n'
    assert load(write(tmp_path, text), ENVIRON).scopes["web"].bindings[0].name == "LD_PRELOAD"  # type: ignore[index]
    assert "LD_LIBRARY_PATH" in failure(write(tmp_path, text + 'LD_LIBRARY_PATH = "vault://secret/web#b"\n')).message


def test_a_bad_reference_is_refused_without_being_repeated(tmp_path: Path):
    """A value where a reference belongs may be a secret: the error does not show it."""
    told = failure(write(tmp_path, BASE + SCOPE + ENV + 'TOKEN = "hunter2-canary"\n')).line()
    assert "scopes.web.env.TOKEN: not a secret reference" in told
    assert "hunter2" not in told
    told = failure(write(tmp_path, BASE + SCOPE + ENV + 'TOKEN = "vault://secret/web"\n')).line()
    assert "names no key of the secret" in told


def test_no_error_repeats_a_value(tmp_path: Path):
    """Whatever key a secret is written to by mistake, no error shows it."""
    canary = "hunter2canary"
    for line in BASE.splitlines():
        if " = " in line:
            for written in (f'"{canary} "', f'["{canary}"]', f'{{ {canary} = "{canary}" }}'):
                text = BASE.replace(line, f"{line.partition(' = ')[0]} = {written}")
                assert canary not in failure(write(tmp_path, text)).line().replace(f".{canary}:", ":")


def test_the_environment_is_a_default_only(tmp_path: Path):
    """VAULT_* and BAO_* stand in for what the file does not say; the file wins; a token is never taken (T20)."""
    environ = {
        "VAULT_ADDR": "https://a",
        "BAO_ADDR": "https://b",
        "VAULT_NAMESPACE": "ns",
        "VAULT_TOKEN": "t",
        "BAO_CACERT": "/ca",
        **ENVIRON,
    }
    vault = load(write(tmp_path, BASE), environ).vault
    assert (vault.address, vault.namespace, vault.tls.ca_file) == ("http://127.0.0.1:8200", "ns", "/ca")
    without = write(tmp_path, BASE.replace('address = "http://127.0.0.1:8200"\n', ""))
    assert load(without, environ).vault.address == "https://b"
    assert "vault.address: is missing" in failure(without).message
    assert failure(without, {"VAULT_ADDR": "http://elsewhere"}).message == (
        "environment variable VAULT_ADDR: would send credentials in clear"
    )


def test_what_was_given_out_is_looked_after_every_15_seconds_by_default(tmp_path: Path):
    """Where nothing is said, versions are asked for every 15 s, at most 100 a second, and a run has 10 s to end."""
    settings = load(write(tmp_path, WHOLE.replace('grace = "1m"\n', "")), ENVIRON)
    (scope,) = settings.scopes.values()
    assert (settings.vault.poll, settings.vault.poll_requests, settings.agent.on_end) == (15.0, 100, "keep")
    assert (scope.grace, scope.on_rotate.does, scope.on_revoke.does) == (10.0, "notify", "terminate")


@pytest.mark.root
def test_the_defaults_of_root_are_the_hosts_places(tmp_path: Path):
    """Root's agent has its socket in /run and its state in /var/lib, whatever the XDG variables say."""
    agent = load(write(tmp_path), {"XDG_RUNTIME_DIR": "/run/user/0", "XDG_STATE_HOME": "/root/state"}).agent
    assert (agent.socket, agent.state) == ("/run/prism-vault/agent.sock", "/var/lib/prism-vault")
    assert (agent.socket_uid, agent.socket_mode, agent.host) == (0, 0o660, os.uname().nodename)


def test_the_problems_of_a_file_are_told_in_its_order(tmp_path: Path):
    """Of several problems the first in the file is the one that load tells."""
    text = BASE.replace("url =", "uri =").replace("address =", "adress =")
    assert ":2: vault.adress" in failure(write(tmp_path, text)).message


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[vault\n", 1, "is not TOML"),
        (BASE + "x = \n", 12, "is not TOML"),
        (BASE + '\n\nx = """open', 14, "is not TOML"),
        (BASE + "[vault]\n", 12, "is not TOML"),
        ("\ufeff" + BASE, 1, "is not TOML"),
        ("x = " + "[" * 5000, None, "is nested too deeply"),
        ("x = " + "9" * 5000, None, "too long a number"),
    ],
)
def test_a_file_that_is_not_toml_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, what: str):
    """Broken TOML, a mark of byte order, nesting without end and numbers without end are errors, never crashes (F59)."""
    path = write(tmp_path, text)
    told = failure(path).line()
    assert told.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert what in told


def test_a_file_that_is_not_utf8_is_told_with_its_line(tmp_path: Path):
    """Bytes that are no UTF-8 are an error with the line of the first (F59)."""
    path = write(tmp_path, BASE)
    (tmp_path / "agent.toml").write_bytes(BASE.encode() + b"# \xff\n")
    assert failure(path).message == f"{path}:12: is not UTF-8"


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ('"[key]" = 1\n' + BASE, '"[key]"', "is not a known key"),
        (BASE + '"[key]" = 1\n', 'central."[key]"', "is not a known key"),
        (BASE + SCOPE + '"[key]" = 1\n', 'scopes.web."[key]"', "is not a known key"),
        (BASE + SCOPE.replace("web", '"[key]"'), 'scopes."[key]"', "is not a name"),
        (BASE + SCOPE + ENV + '"[key]" = 1\n', 'scopes.web.env."[key]"', "has the wrong type"),
    ],
)
def test_a_key_is_told_as_it_is_written(tmp_path: Path, text: str, key: str, what: str):
    """A key that is spelt as the validator spells its own mark is a key like any other."""
    told = failure(write(tmp_path, text)).line()
    assert f": {key}: " in told
    assert what in told


def test_the_lines_of_a_file_are_read_once_however_much_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file with thousands of faults is read for its lines once, not once for each."""
    read: list[str] = []

    def counted(text: str) -> dict[KeyPath, int]:
        read.append(text)
        return lines(text)

    monkeypatch.setattr("prism_vault_agent.config.problems.lines", counted)
    unknown = "".join(f"key{number} = 1\n" for number in range(2000))
    told = failure(write(tmp_path, unknown + BASE)).line()
    assert "agent.toml:1: key0: is not a known key" in told
    assert len(read) == 1


def test_scopes_d_adds_scopes_and_nothing_else(tmp_path: Path):
    """Files in scopes.d define scopes; another section in them is refused."""
    more = SCOPE.replace("web", "jobs")
    settings = load(write(tmp_path, BASE + SCOPE, jobs=more), ENVIRON)
    assert sorted(settings.scopes) == ["jobs", "web"]
    assert settings.files == (str(tmp_path / "agent.toml"), str(tmp_path / "scopes.d" / "jobs.toml"))
    told = failure(write(tmp_path, BASE + SCOPE, jobs=more + "[agent]\nworkers = 1\n")).line()
    assert f"{tmp_path}/scopes.d/jobs.toml:{more.count(chr(10)) + 1}: agent: is not a known key" in told


def test_an_error_in_scopes_d_names_its_file(tmp_path: Path):
    """What is wrong in a file of scopes.d is told with that file and its line, also where two fields contradict."""
    more = SCOPE.replace("web", "jobs").replace("uid = 1000", 'user = "no-such-user"')
    told = failure(write(tmp_path, BASE + SCOPE, jobs=more)).line()
    assert told.startswith(f"{tmp_path}/scopes.d/jobs.toml:6: scopes.jobs.callers[0].user: ")


def test_a_scope_that_two_files_define_is_refused(tmp_path: Path):
    """A scope has one place; the error names both."""
    told = failure(write(tmp_path, BASE + SCOPE, again=SCOPE)).line()
    assert f"{tmp_path}/scopes.d/again.toml:2: scopes.web: is defined in {tmp_path}/agent.toml too" in told


def test_hidden_files_and_other_suffixes_in_scopes_d_are_left_alone(tmp_path: Path):
    """What an editor leaves behind is no scope."""
    path = write(tmp_path, BASE, jobs=SCOPE)
    for name in (".jobs.toml.swp", ".hidden.toml", "jobs.toml~", "README"):
        (tmp_path / "scopes.d" / name).write_text("not TOML [")
    assert sorted(load(path, ENVIRON).scopes) == ["web"]


def test_prism_vault_config_names_the_file(tmp_path: Path):
    """Without an argument the environment says which file; the argument goes before it."""
    path = write(tmp_path, BASE)
    assert load(None, ENVIRON | {"PRISM_VAULT_CONFIG": path}).files == (path,)
    assert load(path, ENVIRON | {"PRISM_VAULT_CONFIG": "/nowhere"}).files == (path,)
    assert failure("/nowhere/agent.toml").message == "/nowhere/agent.toml: there is no such configuration file"
