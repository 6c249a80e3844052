"""How fast output goes through a mask: ``python -m tests.bench.mask [MEGABYTES|alone]``.

With ``alone`` the mask by itself, in this process and by processor time, which a busy machine changes less. Else a log of lines,
through ``cat``, a plain relay, and the masking process, with 1, 5 and 50 values; the same bytes, the same pipes.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prism_vault_agent.exec.masking import Mask, Stream
from tests.exec.fake_agent import FakeAgent, answer
from tests.supervise.supervised import words

LINE = "2026-11-26T15:00:00Z INFO request id={} path=/v1/items status=200 took=12ms user=alice@example.com\n"
# What a process of ours costs that only passes on.
RELAY = "import posix\nwhile piece := posix.read(0, 1 << 20): posix.write(1, piece)"
ROUNDS = 5
PIECE = 65_536


def main() -> None:
    """Run and print the throughput of each."""
    if sys.argv[1:] == ["alone"]:
        alone()
        return
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        lines = ordinary()
        log.write_bytes(lines * (megabytes * 1_000_000 // len(lines)))
        floor = rate(["sh", "-c", 'cat "$0" | cat', str(log)], log)
        print(f"{'cat | cat':24} {floor:8.0f} MB/s")
        relayed = rate(["sh", "-c", f'cat "$0" | {sys.executable} -ISc "{RELAY}"', str(log)], log)
        print(f"{'cat | plain relay':24} {relayed:8.0f} MB/s")
        for number in (1, 5, 50):
            values = {b"V%d" % each: secrets.token_urlsafe(24).encode() for each in range(number)}
            directory = Path(place) / str(number)
            directory.mkdir()
            with FakeAgent(directory, answer(values)) as agent:
                plain = rate(words(agent, "cat", str(log), options=("--supervise",)), log)
                masked = rate(words(agent, "cat", str(log), options=("--mask-output",)), log)
            print(f"{number:2} values, unmasked      {plain:8.0f} MB/s")
            told = f"{masked / floor:.2f} of cat's, {masked / relayed:.2f} of the relay's; goal: at least 100 MB/s"
            print(f"{number:2} values, masked        {masked:8.0f} MB/s  ({told})")


def ordinary() -> bytes:
    """Return a megabyte of a log."""
    return "".join(LINE.format(secrets.token_hex(6)) for _ in range(10_000)).encode()


def alone() -> None:
    """Print the throughput of the mask by itself."""
    text = memoryview(ordinary() * 20)
    pieces = [bytes(text[at : at + PIECE]) for at in range(0, len(text), PIECE)]
    for number in (1, 5, 50):
        mask = Mask([secrets.token_urlsafe(24).encode() for _ in range(number)])
        stream, begun = Stream(mask), time.process_time()
        for piece in pieces:
            stream.feed(piece)
        print(f"{number:2} values, {len(mask.forms):3} forms: {len(text) / 1e6 / (time.process_time() - begun):.0f} MB/s")


def rate(command: list[str], log: Path) -> float:
    """Return the best of some rounds, in MB a second."""
    best = 0.0
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            size = 0
            while piece := process.stdout.read(1 << 20):
                size += len(piece)
        assert size == log.stat().st_size
        best = max(best, size / 1e6 / (time.perf_counter() - begun))
    return best


if __name__ == "__main__":
    main()
