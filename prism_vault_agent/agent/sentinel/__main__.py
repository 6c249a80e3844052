"""How the agent starts its sentinel: this file, by a bare interpreter, which waits on its standard input for the agent's end.

A clean end is told by a byte. All that it needs at the end is imported before: that is most of what the end would take, and it
is of one version with the agent.
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
    sys.path.append(__file__.rpartition("/prism_vault_agent/")[0])
    from prism_vault_agent.agent.sentinel.after import sentinel

    sys.exit(0 if posix.read(0, 1) else sentinel(sys.argv[1]))
