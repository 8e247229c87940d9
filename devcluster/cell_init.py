"""The init of a cell: it mounts empty folders over the named ones, then reaps processes that have ended.

It runs by `python -I -S`, as process 1 of its cell, until it is killed.
"""

import os
import signal
import socket
import subprocess
import sys


def main() -> None:
    """Set up the cell, print `ready`, and reap processes for ever."""
    socket.sethostname(sys.argv[1])
    for path in sys.argv[2:]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as forward:
        forward.write("1")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    print("ready", flush=True)
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass  # none is left at the moment


if __name__ == "__main__":
    main()
