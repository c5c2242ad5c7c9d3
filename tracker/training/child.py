"""Run a command that must not outlive the process that started it: ``child PARENT NICE COMMAND``.

The kernel kills the command when its parent ends, however that ends; it also makes way for others
when cores are scarce. Done here and not between fork and exec, where a process with many threads,
as one that trains is, can hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, nice: int, command: list[str]) -> None:
    """Bind this process to its parent, then become the command.

    Parameters
    ----------
    parent : id of the process that started this one
    nice : by how much the priority falls
    command : program and arguments

    Raises
    ------
    OSError : if the kernel refuses, or the program cannot be run
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel knew
        sys.exit(1)
    os.nice(nice)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
