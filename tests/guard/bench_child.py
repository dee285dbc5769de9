"""The command line where no daemon runs, on the simulated board at $DEVICE_AGENT_BOARD."""

import os
import sys
from functools import partial
from pathlib import Path

from device_agent.cli import main
from device_agent.operate import standalone_control
from device_agent.testing.board.handles import open_handle

if __name__ == "__main__":
    make = partial(open_handle, board=Path(os.environ["DEVICE_AGENT_BOARD"]))
    standalone_control.drive_directly = partial(standalone_control.drive_directly, make=make)  # type: ignore[assignment]
    standalone_control.safe_directly = partial(standalone_control.safe_directly, make=make)  # type: ignore[assignment]
    sys.exit(main(sys.argv[1:]))
