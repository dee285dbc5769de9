"""``python -m device_agent.testing.network``: one JSON line with the addresses when ready, then serves.

Ends at SIGTERM, at SIGINT, or with ``--until-stdin-closes`` at the end of its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys

from device_agent.testing.network.hosting import NOTICE
from device_agent.testing.network.server import DevNetwork
from device_agent.testing.network.settings import Settings


def main() -> None:
    """Run the stand-in as a process."""
    parser = argparse.ArgumentParser(prog="device_agent.testing.network", description=NOTICE)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free port")
    parser.add_argument(
        "--auto-register", action="store_true", help="every agent name is registered when read"
    )
    parser.add_argument("--hold-s", type=float, default=280.0, help="how long an idle long-poll is held")
    parser.add_argument("--minute-s", type=float, default=60.0, help="length of a minute of task duration")
    parser.add_argument(
        "--safety-grace-s", type=float, default=10.0, help="wait before the backend ends a task"
    )
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="round trip added to every request")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with standard input")
    asyncio.run(_run(parser.parse_args()))


async def _run(arguments: argparse.Namespace) -> None:
    settings = Settings(
        auto_register=arguments.auto_register,
        hold_s=arguments.hold_s,
        minute_s=arguments.minute_s,
        safety_grace_s=arguments.safety_grace_s,
    )
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if arguments.until_stdin_closes:
        loop.add_reader(sys.stdin, _read_stdin, loop, ended)
    async with DevNetwork(arguments.port, settings) as net:
        net.set_rtt(arguments.rtt_ms)
        print(json.dumps({**net.addresses, "notice": NOTICE}), flush=True)
        await ended.wait()


def _read_stdin(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        loop.remove_reader(sys.stdin)
        ended.set()


if __name__ == "__main__":
    main()
