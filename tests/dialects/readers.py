"""The real readers of environment files: each returns what it makes of a file, without the variables of its own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

from dotenv import dotenv_values

from prism_vault_agent.exec.environment import read_block

Read = dict[str, bytes]
COMPOSE = str(Path(sys.executable).with_name("docker-compose"))
LIBRARIES = ("/usr/lib/*/systemd", "/usr/lib/systemd", "/lib/systemd")


def shell(program: str, file: Path) -> Read:
    """Return the variables that a shell exports when it sources the file."""
    script = 'set -a; . "$1"; exec env -0'
    done = subprocess.run(
        [program, "-c", script, program, str(file)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert done.stderr == b""
    found = {name.decode(): value for name, value in read_block(done.stdout).items()}
    return {name: value for name, value in found.items() if name not in ("PATH", "PWD", "OLDPWD", "SHLVL", "_")}


def dash(file: Path) -> Read:
    """Return what dash reads."""
    return shell("/bin/dash", file)


def bash(file: Path) -> Read:
    """Return what bash reads."""
    return shell("/bin/bash", file)


def python_dotenv(file: Path, *, interpolate: bool = True) -> Read:
    """Return what python-dotenv reads, with interpolation, which is its default."""
    found = dotenv_values(file, interpolate=interpolate, encoding="utf-8")
    return {name: (value or "").encode() for name, value in found.items()}


def python_dotenv_plain(file: Path) -> Read:
    """Return what python-dotenv reads without interpolation."""
    return python_dotenv(file, interpolate=False)


def node(file: Path) -> Read:
    """Return what Node reads."""
    words = ["node", f"--env-file={file}", "-p", "JSON.stringify(process.env)"]
    done = subprocess.run(words, env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    return {name: value.encode() for name, value in json.loads(done.stdout).items() if name != "PATH"}


def compose(file: Path, form: str = "") -> Read:
    """Return the environment that Compose would give a service with this ``env_file``."""
    entry = {"path": str(file), **({"format": form} if form else {})}
    project = file.with_name("compose.json")
    project.write_text(json.dumps({"services": {"app": {"image": "none", "env_file": [entry]}}}))
    words = [COMPOSE, "--project-name", "test", "--file", str(project), "config", "--format", "json"]
    done = subprocess.run(words, env={"PATH": "/usr/bin:/bin", "HOME": "/"}, capture_output=True, check=True)
    found = json.loads(done.stdout)["services"]["app"]["environment"]
    # What it prints is a project again, in which a dollar sign is doubled.
    return {name: value.replace("$$", "$").encode() for name, value in found.items()}


def compose_raw(file: Path) -> Read:
    """Return what Compose reads with ``format: raw``, which is what ``docker run --env-file`` reads: one parser."""
    return compose(file, "raw")


def systemd(file: Path) -> Read:
    """Return what systemd's own ``load_env_file`` reads, without what it then drops as no valid assignment.

    These are the two calls with which a service's ``EnvironmentFile=`` is read (exec_context_load_environment).
    """
    (path,) = (found for place in LIBRARIES for found in Path("/").glob(f"{place[1:]}/libsystemd-shared-*.so"))
    library = ctypes.CDLL(str(path))
    library.env_assignment_is_valid.restype = ctypes.c_bool
    lines = ctypes.POINTER(ctypes.c_char_p)()
    if (error := library.load_env_file(None, os.fsencode(file), ctypes.byref(lines))) != 0:
        raise OSError(-error, "systemd does not read the file")
    found: Read = {}
    at = 0
    while (text := lines[at]) is not None:
        if library.env_assignment_is_valid(text):
            name, _, value = text.partition(b"=")
            found[name.decode()] = value
        at += 1
    return found
