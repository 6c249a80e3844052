"""How the agent starts its sentinel: this file, by a bare interpreter, which waits on its standard input for the agent's end.

A clean end is told by a byte. Until then nothing is imported but what is in the interpreter itself: it is as small as one can be.
"""

import sys

if __name__ == "__main__":
    import _signal  # type: ignore[import-not-found]  # as in exec/client.py
    import posix

    # It ends with the agent and by nothing else: not with a group or a terminal, and not where somebody ends all of a name.
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    own_name = posix.open("/proc/self/comm", posix.O_WRONLY | posix.O_CLOEXEC)
    posix.write(own_name, b"prism-sentinel")
    posix.close(own_name)
    if posix.read(0, 1):
        sys.exit(0)
    sys.path.append(__file__.rpartition("/prism_vault_agent/")[0])
    from prism_vault_agent.agent.sentinel.after import sentinel

    sys.exit(sentinel(sys.argv[1]))
