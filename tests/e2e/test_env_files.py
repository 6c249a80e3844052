"""Environment files as a booted systemd gives them to a unit, and as a Docker engine gives them to a container (F51)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from prism_vault_agent.dialects.contents import contents
from prism_vault_agent.exec.environment import read_block
from tests.agent.nasty import TRAPS, at_random
from tests.dialects.test_readers import CARRIED, carried
from tests.support.booted import Booted
from tests.support.engine import BASE
from tests.support.soak import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prism_vault_agent.scope import Format

RANDOM = 600
UNIT = """\
[Service]
Type=oneshot
EnvironmentFile=/etc/values.env
ExecStart=/bin/sh -c 'exec env -0 > /run/values'
"""


def batches(form: Format) -> list[dict[str, str]]:
    """Return the traps that a dialect carries, and strings at random."""
    traps = carried(form, list(TRAPS.values()))
    assert len(traps) == CARRIED[form]
    return [traps, *(carried(form, at_random(RANDOM, seed)) for seed in range(count(1, 20)))]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Return a machine with a service that reads a file."""
    with Booted(tmp_path_factory.mktemp("booted")) as booted:
        booted.path("/etc/systemd/system/reads.service").write_text(UNIT)
        yield booted


@pytest.mark.parametrize("form", ["systemd", "portable"])
def test_a_unit_gets_every_value(machine, form):
    """A service of a booted systemd has every value of its ``EnvironmentFile=`` byte for byte."""
    for values in batches(form):
        machine.path("/etc/values.env").write_bytes(contents(form, "f", values)["f"])
        machine.run("systemctl", "start", "reads.service")
        found = {name.decode(): value for name, value in read_block(machine.path("/run/values").read_bytes()).items()}
        assert {name: value for name, value in found.items() if name.startswith("K")} == {
            name: value.encode() for name, value in values.items()
        }


def test_a_container_gets_every_value(engine, tmp_path):
    """A container of ``docker run --env-file`` has every value byte for byte."""
    file = tmp_path / "values.env"
    for values in batches("docker"):
        file.write_bytes(contents("docker", "f", values)["f"])
        name = engine.docker("create", "--network=none", f"--env-file={file}", BASE, "/bin/true").stdout.strip()
        found = dict(line.split("=", 1) for line in engine.inspect(name)["Config"]["Env"])
        engine.docker("rm", name)
        assert {name: value for name, value in found.items() if name.startswith("K")} == values
