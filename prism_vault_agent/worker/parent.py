"""The warm parent: a small process that has everything imported and forks workers for the front, and never holds a value.

It is started by the front with one socket. The front asks for workers in advance; each comes back as the front's end of a
socket pair. When the front has gone, so has the reason to live.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket

from prism_vault_agent.capabilities import OF_WORKER, keep
from prism_vault_agent.config.settings import AuthSettings, TlsFiles, VaultSettings
from prism_vault_agent.errors import PrismVaultError
from prism_vault_agent.process import harden
from prism_vault_agent.vault.transport import Transport, tls_context
from prism_vault_agent.worker.jobs import Worker
from prism_vault_agent.worker.messages import Message, receive


def run(descriptor: int) -> int:
    """Serve the front on ``descriptor`` until it closes; return the exit status."""
    harden("prism-vault agent: warm parent")
    keep(OF_WORKER, execs=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front's to answer
    front = socket.socket(fileno=descriptor)
    first = receive(front)
    if first is None:
        return 0
    settings = _settings(first[0])
    context = tls_context(settings.address, settings.tls)
    if context is not None:
        "".encode("idna")  # imports what a TLS connection needs, here once instead of in each worker
    gc.collect()
    gc.freeze()  # what is warm stays shared with the workers
    while (received := receive(front)) is not None:
        for _ in range(received[0]["fork"]):
            ours, workers_end = socket.socketpair()
            if os.fork() == 0:
                front.close()
                ours.close()
                _work(workers_end, settings, Transport(settings, context=context))
            workers_end.close()
            try:
                socket.send_fds(front, [b"W"], [ours.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                return 0
            finally:
                ours.close()
    return 0


def _work(front: socket.socket, settings: VaultSettings, transport: Transport) -> None:
    """Be a worker, to the end of the process."""
    status = 0
    try:
        harden("prism-vault agent: worker")
        # A provider that is down now may be up when the job comes; the job's own attempt tells.
        with contextlib.suppress(PrismVaultError):
            transport.connect()
        Worker(front, settings, transport).serve()
    except BaseException as error:  # noqa: BLE001 - the last line of a process that may hold values: type only, no trace
        _tell(f"prism-vault: a worker failed: {type(error).__name__}\n")
        status = 70
    finally:
        os._exit(status)


def _tell(line: str) -> None:
    """Say one line, unless whoever reads standard error has stopped reading."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(2, line.encode())


def _settings(plain: Message) -> VaultSettings:
    """Return the settings that the front sent as plain data."""
    return VaultSettings(**{**plain, "auth": AuthSettings(**plain["auth"]), "tls": TlsFiles(**plain["tls"])})
