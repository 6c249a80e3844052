"""``prism-vault install systemd`` on a booted systemd: all of it or nothing, twice is once, and undone leaves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.booted import INSTALLED, Booted
from tests.support.roots import HERE

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = "/etc/systemd/system"
RENDER = f"{UNITS}/prism-vault-render@.service"
NETWORK = "prism-vault-agent.service.d/network.conf"
CONFIG = "/etc/prism-vault/agent.toml"
CONFIGURED = """
[vault]
address = "{vault}"
[vault.auth]
method = "approle"
role_id_file = "/etc/prism-vault/role-id"
secret_id_file = "/etc/prism-vault/secret-id"
[central]
url = "https://central.lan"
replicas = ["https://central.lan:8311"]
identity_role = "central"
"""
VAULT, OTHER, CENTRAL, SECOND = (
    f"prism-vault-relay@{name}.socket" for name in ("vault.lan:8200", "other.lan:8200", "central.lan:443", "central.lan:8311")
)
COMMAND = f"{INSTALLED}/bin/prism-vault"
# Every file and directory with its owner, mode, target and content; users stay, and what systemd itself keeps is its own.
LISTING = r"""
find /etc /opt /usr/local /usr/lib/systemd /usr/lib/sysusers.d /usr/lib/tmpfiles.d /var/lib -xdev \
  -path /var/lib/systemd -prune -o -path '/etc/*passwd*' -prune -o -path '/etc/*group*' -prune -o -path '/etc/*shadow*' -prune \
  -o -name .pwd.lock -prune -o -type f -exec sha256sum {} + -o -printf '%p %u %g %m %l\n' | sort
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, suite: str) -> Iterator[Booted]:
    """Return a machine on which nothing of ours is but the package."""
    with Booted(tmp_path_factory.mktemp("booted"), suite=suite) as booted:
        yield booted


@pytest.fixture
def bare(machine: Booted) -> Iterator[Booted]:
    """Return the machine with nothing installed, before and after."""
    yield machine
    machine.run(COMMAND, "install", "systemd", "--undo")


def install(booted: Booted, *words: str, status: int = 0) -> list[str]:
    """Return the lines that the command prints; its exit status is as it should be."""
    done = booted.run(COMMAND, "install", "systemd", *words, check=False)
    assert done.returncode == status, done
    return (done.stdout + done.stderr).splitlines()


def listening(booted: Booted) -> set[str]:
    """Return the relays that listen, each of which is enabled too."""
    words = ("--plain", "--no-legend", "prism-vault-relay@*.socket")
    active = {line.split()[0] for line in booted.run("systemctl", "list-units", "--state=active", *words).stdout.splitlines()}
    assert active == {each for each in active if booted.run("systemctl", "is-enabled", each, check=False).stdout == "enabled\n"}
    return active


def listing(booted: Booted) -> list[str]:
    """Return what is there."""
    return booted.run("sh", "-c", LISTING).stdout.splitlines()


def test_what_ships_is_put_in_place_and_taken_away(bare):
    """Every unit is there as it ships, its users and directories too, known to systemd; undone, the machine is as it was."""
    before = listing(bare)
    told = install(bare, "agent", "central")
    names = [path.name for path in (HERE / "systemd").iterdir() if path.suffix in (".service", ".socket", ".mount")]

    assert {name for name in names if bare.path(f"{UNITS}/{name}").read_bytes() == (HERE / "systemd" / name).read_bytes()} == set(
        names
    )
    assert {line.removeprefix(f"wrote {UNITS}/") for line in told if line.startswith(f"wrote {UNITS}/")} == set(names)
    assert [line for line in told if line.startswith("ran ")] == [
        "ran systemd-sysusers prism-vault-agent.conf prism-vault-central.conf",
        "ran systemd-tmpfiles --create prism-vault-agent.conf",
        "ran systemctl daemon-reload",
    ]
    assert told[-1].endswith("systemctl enable --now prism-vault-agent.service prism-vault-central.service")
    assert bare.run("id", "-un", "prism-vault").stdout == "prism-vault\n"
    assert bare.path("/etc/prism-vault/scopes.d").is_dir()
    assert bare.show("prism-vault-agent.service", "LoadState") == "loaded"
    assert listing(bare) != before

    told = install(bare, "--undo")
    assert listing(bare) == before
    assert bare.show("prism-vault-agent.service", "LoadState") == "not-found"
    assert "kept the users and groups prism-vault, prism-vault-helper, prism-vault-callers, prism-vault-central" in told[-1]


def test_twice_is_once(bare):
    """A second installation writes nothing and says so; so does undoing what is not there."""
    install(bare)
    before = listing(bare)
    assert install(bare)[0] == "nothing to do"
    assert listing(bare) == before
    install(bare, "--undo")
    assert install(bare, "--undo") == ["nothing to do"]


def test_a_dry_run_does_nothing(bare):
    """It names what would be written or removed, and leaves the machine as it is."""
    before = listing(bare)
    assert f"would write {RENDER}" in install(bare, "--dry-run")
    assert listing(bare) == before
    install(bare)
    before = listing(bare)
    assert f"would remove {RENDER}" in install(bare, "--undo", "--dry-run")
    assert listing(bare) == before


def test_a_file_that_was_changed_stays(bare):
    """A unit that the operator edited, or had before, is named and left, by installations and by undoing them."""
    bare.path(RENDER).write_text("[Unit]\nDescription=mine\n")
    assert f"kept {RENDER}: it is not as it was installed" in install(bare)
    mount = bare.path(f"{UNITS}/run-prism\\x2dvault-files.mount")
    mount.write_text(mount.read_text().replace("size=64m", "size=16m"))
    told = [line for line in install(bare) if line.startswith("kept ")]
    assert len(told) == 2
    told = install(bare, "--undo")

    assert "size=16m" in mount.read_text()
    assert f"kept {UNITS}/{mount.name}: it is not as it was installed" in told
    assert bare.path(RENDER).read_text() == "[Unit]\nDescription=mine\n"
    mount.unlink()
    bare.path(RENDER).unlink()


def test_an_older_one_of_ours_is_replaced(bare):
    """A file that is as an earlier installation put it, started by another launcher, is brought up to date, and then undone."""
    before = listing(bare)
    bare.run("cp", COMMAND, "/usr/local/bin/prism-vault")
    install(bare, "--launcher", "/usr/local/bin/prism-vault")
    assert "ExecStart=/usr/local/bin/prism-vault render %I" in bare.path(RENDER).read_text()
    bare.run("rm", "/usr/local/bin/prism-vault")
    assert f"wrote {RENDER}" in install(bare)
    assert f"ExecStart={COMMAND} render %I" in bare.path(RENDER).read_text()
    install(bare, "--undo")
    assert listing(bare) == before


def test_half_of_it_is_none_of_it(bare):
    """Where one file cannot be written, or a command fails, everything is as it was before, with 73 and a line that says why."""
    before = listing(bare)
    bare.run("sh", "-c", "mkdir -p /etc/tmpfiles.d && mount -t tmpfs -o ro none /etc/tmpfiles.d")
    told = install(bare, status=73)
    bare.run("umount", "/etc/tmpfiles.d")
    assert listing(bare) == before
    assert "Read-only file system; mend that, and install again; nothing was changed" in told[-1]

    bare.run("mv", "/usr/bin/systemd-tmpfiles", "/usr/bin/systemd-tmpfiles.away")
    told = install(bare, status=73)
    bare.run("mv", "/usr/bin/systemd-tmpfiles.away", "/usr/bin/systemd-tmpfiles")
    assert listing(bare) == before
    assert "systemd-tmpfiles does not run" in told[-1]
    assert bare.show("prism-vault-agent.service", "LoadState") == "not-found"


def test_the_relays_are_those_of_the_configuration(bare):
    """For each server that it names one listens, with the port that https has; one that was enabled by hand stays.

    Undone, all is as it was.
    """
    bare.path(CONFIG).parent.mkdir()
    bare.path(CONFIG).write_text(CONFIGURED.format(vault="https://vault.lan:8200"))
    before = listing(bare)
    told = install(bare, "--dry-run")
    assert [line for line in told if "would enable" in line] == [f"would enable {relay}" for relay in (VAULT, CENTRAL, SECOND)]
    assert listing(bare) == before
    bare.run("mkdir", "-p", "/run/prism-vault/relay/central.lan:443")
    told = install(bare, status=73)
    assert (CENTRAL in told[-1], told[-1].endswith("; mend that, and install again; the units are in place")) == (True, True)
    assert listening(bare) == {VAULT}, "what fails is not half enabled"
    bare.run("rmdir", "/run/prism-vault/relay/central.lan:443")
    told = install(bare)
    assert [line for line in told if "enabled" in line] == [f"enabled {relay}" for relay in (CENTRAL, SECOND)]
    assert told[-1] == "next: systemctl enable --now prism-vault-agent.service"
    assert listening(bare) == {VAULT, CENTRAL, SECOND}
    assert install(bare)[:-1] == ["nothing to do"]

    bare.run("systemctl", "enable", "--now", OTHER)
    bare.path(CONFIG).write_text(CONFIGURED.format(vault="https://other.lan:8200"))
    assert [line for line in install(bare) if "abled" in line] == [f"disabled {VAULT}"]
    assert listening(bare) == {OTHER, CENTRAL, SECOND}
    told = install(bare, "--undo", status=75)
    assert OTHER in told[-1] and CENTRAL not in told[-1]
    bare.run("systemctl", "disable", "--now", OTHER)
    told = install(bare, "--undo")
    assert [line for line in told if "disabled" in line] == [f"disabled {relay}" for relay in (CENTRAL, SECOND)]
    bare.path(CONFIG).write_text(CONFIGURED.format(vault="https://vault.lan:8200"))
    assert listing(bare) == before
    bare.run("rm", "-r", "/etc/prism-vault")


def test_an_agent_with_the_network(bare):
    """With ``--network`` there is a drop-in, and no relay; without it again it is the other way.

    A wrong configuration changes nothing.
    """
    bare.path(CONFIG).parent.mkdir()
    bare.path(CONFIG).write_text(CONFIGURED.format(vault="https://vault.lan:8200"))
    before = listing(bare)
    assert f"wrote {UNITS}/{NETWORK}" in install(bare, "--network")
    assert listening(bare) == set()
    told = install(bare)
    assert (f"removed {UNITS}/{NETWORK}" in told, listening(bare)) == (True, {VAULT, CENTRAL, SECOND})
    told = install(bare, "--network")
    assert (f"wrote {UNITS}/{NETWORK}" in told, listening(bare)) == (True, set())
    install(bare, "--undo")
    assert listing(bare) == before
    bare.path(CONFIG).write_text("[vault]\naddress = 7\n")
    (refused,) = install(bare, status=78)
    assert refused.startswith(f"prism-vault: {CONFIG}:2: vault.address")
    bare.run("rm", "-r", "/etc/prism-vault")


def test_what_is_in_use_is_not_taken_away(bare):
    """While a unit is active or enabled undoing is refused with 75, and the command that it names makes it possible."""
    install(bare)
    before = listing(bare)
    bare.run("systemctl", "enable", "--now", "prism-vault-helper.socket")
    (told,) = install(bare, "--undo", status=75)
    assert "prism-vault-helper.socket is in use; systemctl disable --now prism-vault-helper.socket" in told
    bare.run(*told.partition("; ")[2].split())
    assert listing(bare) == before
    install(bare, "--undo")


def test_only_root_installs(bare):
    """Another user is refused with 77, but for a dry run; a launcher that another user could replace is refused with 78."""
    before = listing(bare)
    as_nobody = ("runuser", "-u", "nobody", "--", COMMAND, "install", "systemd")
    refused = bare.run(*as_nobody, check=False)
    assert (refused.returncode, refused.stderr.split(";")[0]) == (77, "prism-vault: only root can install units")
    assert f"would write {RENDER}" in bare.run(*as_nobody, "--dry-run").stdout
    bare.run("install", "-o", "nobody", "-m", "755", COMMAND, "/usr/local/bin/theirs")
    (told,) = install(bare, "--launcher", "/usr/local/bin/theirs", status=78)
    assert "could be changed by another user than root" in told
    bare.run("rm", "/usr/local/bin/theirs")
    assert listing(bare) == before


def test_an_image_is_installed_into(bare):
    """With ``--root`` files and users are made below it, and this machine stays as it is; a drop-in may name the provider."""
    before = listing(bare)
    bare.run("sh", "-c", "mkdir -p /srv/image/etc /srv/image/opt/prism-vault/bin; cp -a /etc/passwd /etc/group /srv/image/etc")
    bare.run("cp", COMMAND, f"/srv/image{COMMAND}")
    bare.path("/srv/image/etc/prism-vault").mkdir()
    bare.path(f"/srv/image{CONFIG}").write_text(CONFIGURED.replace('address = "{vault}"', ""))
    assert "vault.address" in install(bare, "--root", "/srv/image", status=78)[0]
    dropin = bare.path(f"/srv/image{UNITS}/prism-vault-agent.service.d/vault.conf")
    dropin.parent.mkdir(parents=True)
    dropin.write_text("[Service]\nEnvironment=VAULT_ADDR=https://vault.lan:8200\n")
    told = install(bare, "--root", "/srv/image")
    wants = bare.path(f"/srv/image{UNITS}/sockets.target.wants")
    assert {each.name for each in wants.iterdir()} == {VAULT, CENTRAL, SECOND}
    assert listening(bare) == set()
    assert "ran systemd-sysusers --root=/srv/image prism-vault-agent.conf" in told
    assert bare.path(f"/srv/image{RENDER}").is_file()
    assert "prism-vault-callers" in bare.path("/srv/image/etc/group").read_text()
    assert bare.path("/srv/image/etc/prism-vault/scopes.d").is_dir()
    assert listing(bare) == before
    install(bare, "--root", "/srv/image", "--undo")
    assert not bare.path(f"/srv/image{RENDER}").exists()
    assert not wants.exists()
    assert listing(bare) == before
