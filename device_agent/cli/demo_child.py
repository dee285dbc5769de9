"""A child of the demo: any command of this program, which ends when the demo does, however that ends."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    """`python -m device_agent.cli.demo_child PARENT COMMAND …`"""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        return 0  # it had ended before the request for its signal was in force
    from device_agent.cli import main as command

    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
