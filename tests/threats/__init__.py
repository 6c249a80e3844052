"""The threats to rendered files and to the socket, each end to end: a real agent, of root and of an ordinary user.

===  ======================================================  ==================================
T8   a core file, or a program that the kernel pipes to      ``test_cores.py``
T9   the journal, by systemd-coredump                        ``tests/e2e/test_core_dumps.py``
T10  swap                                                    ``test_swap.py``
T11  owner and mode, for a moment                            ``test_watched.py``
T12  what somebody planted at the target                     ``test_planted.py``
T13  a link in the way, swapped in                           ``test_planted.py``
T14  directories that others may change                      ``test_directories.py``
T15  who has a file open when it is cleared                  ``test_open_files.py``
T16  the socket's mode                                       ``test_socket_mode.py``
===  ======================================================  ==================================

What the sink does about T10 to T15 system call by system call is shown in ``tests/sink``, the socket's own moments (T16) in
``tests/agent/test_socket_owner.py``.
"""
