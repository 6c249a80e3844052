"""`make demo`: the main job for real, told step by step. Everything it starts is stopped and everything it writes removed."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from prism_vault_agent.config import way
from prism_vault_agent.dev.process import tied
from prism_vault_agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".dev" / "demo"
PROGRAM = str(Path(sys.executable).with_name("prism-vault"))
NAMES = ("DEMO_DATABASE_URL", "DEMO_API_TOKEN", "DEMO_GREETING")
READY_WITHIN = 120.0
RECORDED_WITHIN = 10.0


def main() -> int:
    """Run the demo; return 0 where every step did what it tells, 130 after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    os.chdir(ROOT)
    state = _state()
    say(f"prism-vault: the main job, for real. What this demo writes is below {_shown(state)}, and removed at its end.")
    shutil.rmtree(state, ignore_errors=True)
    try:
        with _stack(state) as environ:
            return _tour(environ)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        shutil.rmtree(state, ignore_errors=True)
        with contextlib.suppress(OSError):
            state.parent.rmdir()


def _state() -> Path:
    """Return where the stack is: in our folder, or elsewhere where others may change that, which an agent refuses."""
    try:
        way.check(str(ROOT), set())
    except ConfigError:
        return Path(tempfile.mkdtemp(prefix="prism-vault-demo-")) / "state"
    return FOLDER


def _shown(path: Path) -> str:
    return str(path).replace(f"{ROOT}/", "")


def say(line: str) -> None:
    """Print a line, where somebody still reads."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _tour(environ: dict[str, str]) -> int:
    """Show the parts of the main job, one after the other; return 1 where one did something else than it should."""
    say("\n2. run a command with the secrets of scope dev; they are released once that is on the audit log")
    ran = _run(environ, "exec", "--scope", "dev", "--run-ref", "demo-run", "--", sys.executable, "-I", "demo/show.py", *NAMES)
    recorded = _recorded(environ, "cleared")
    say("\n3. ask for them for another purpose: denied, and the denial is on the audit log too")
    denied = _run(environ, "exec", "--scope", "dev", "--purpose", "curiosity", "--", "true")
    say(f"   (exit status {denied}; nothing was read and nothing was started)")
    say("\n4. who had what, when and why; and that nobody has changed the record since")
    recorded = _recorded(environ, "denied") and recorded
    found = _run(environ, "audit", "find")
    verified = _run(environ, "audit", "verify")
    say("\n5. stop everything")
    return 0 if recorded and (ran, denied, found, verified) == (0, 77, 0, 0) else 1


@contextlib.contextmanager
def _stack(state: Path) -> Iterator[dict[str, str]]:
    """Start `prism-vault dev`, give an environment with what it tells a shell, and stop it."""
    say("\n1. start OpenBao, central (the audit log) and an agent, and make a secret of demo/example.env")
    words = ("dev", "--state", _shown(state), "--env-file", "demo/example.env")
    _show(words)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C waits until the fork is done
    try:
        # Killed when this process is killed outright, so that nothing outlives it. The thread is started afterwards.
        dev = subprocess.Popen([PROGRAM, *words], stderr=subprocess.PIPE, text=True, preexec_fn=tied(before))  # noqa: PLW1509
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ready = threading.Event()
    saying = threading.Thread(target=_say_what, args=(dev, ready), daemon=True)
    saying.start()
    try:
        if not ready.wait(READY_WITHIN) or not (state / "env").exists():
            sys.exit("   it did not start")
        lines = (state / "env").read_text().splitlines()
        yield {**os.environ, **dict(shlex.split(line)[1].split("=", 1) for line in lines)}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        dev.terminate()
        dev.wait()
        saying.join()
        say("   nothing of it runs any more")


def _say_what(dev: subprocess.Popen[str], ready: threading.Event) -> None:
    """Show what dev says, but for what it tells a person at another shell; set ``ready`` when it is, and when it has ended."""
    assert dev.stderr is not None
    for line in dev.stderr:
        if "ready. In another shell" in line:
            ready.set()
        elif not ready.is_set() or line.startswith(("prism-vault dev: stopping", "prism-vault: ")):
            say("   " + line.rstrip().replace(f"{ROOT}/", ""))
    ready.set()


def _run(environ: dict[str, str], *words: str) -> int:
    """Show a command line, run it, show what it printed, and return its status."""
    _show(words)
    done = subprocess.run(
        [PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, check=False
    )
    for line in done.stdout.splitlines():
        say("   " + line)
    return done.returncode


def _recorded(environ: dict[str, str], kind: str) -> bool:
    """Wait until the log has a row of this kind, and tell whether it has. Nobody waits for rows that release nothing."""
    deadline = time.monotonic() + RECORDED_WITHIN
    words = [PROGRAM, "audit", "find", "--kind", kind, "--json"]
    while not subprocess.run(words, capture_output=True, env=environ, check=False).stdout:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _show(words: tuple[str, ...]) -> None:
    say("   $ prism-vault " + " ".join("python" if word == sys.executable else shlex.quote(word) for word in words))


def _end(number: int, _frame: object) -> NoReturn:
    """End as after Ctrl-C, with this signal's status."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
