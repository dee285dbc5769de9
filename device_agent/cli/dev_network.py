"""`device-agent dev-network`: a local stand-in of the network, for development and tests."""

import argparse
import asyncio
import signal
import sys

from device_agent.cli.common import print_json


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "dev-network", help="a local stand-in of the network, for development", description=__doc__
    )
    parser.add_argument(
        "--port", type=int, default=8700, help="port on the loopback interface (default 8700)"
    )
    parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    asyncio.run(_serve(args.port, as_json=args.json))
    return 0


async def _serve(port: int, *, as_json: bool) -> None:
    from device_agent.testing.network.hosting import serve
    from device_agent.testing.network.sdk import sdk_environment

    def ready(addresses: dict[str, str | int]) -> None:
        if as_json:
            print_json(addresses)
            return
        print(addresses["notice"])
        print("Put this into the configuration of an agent, and give it any key that begins with bk_:\n")
        print("[network]")
        for name in ("cdm_url", "pubnub_origin"):
            print(f'{name} = "{addresses[name]}"')
        print(
            "pubnub_tls = false\n\n# for delegations, with a key that begins with bk_ as well\n[delegation]"
        )
        print(f'base_url = "{addresses["sessions_url"]}"\n')
        print("Programs that use the official SDK for Python, with this interpreter, find it by:\n")
        for name, value in sdk_environment(
            str(addresses["cdm_url"]), str(addresses["pubnub_origin"])
        ).items():
            print(f"export {name}={value}")
        print(f"{sys.executable} cards/greenhouse_caller.py\n\nCtrl-C ends it.", flush=True)

    server = asyncio.ensure_future(serve(port, ready=ready))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.cancel)
    try:
        await server
    except asyncio.CancelledError:
        return
