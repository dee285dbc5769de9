"""`device-agent mcp`: the device as tools for a local AI assistant (docs/mcp.md)."""

import argparse
import ipaddress

from device_agent.cli.common import Exit, config_path
from device_agent.cli.running_daemon import ask_daemon
from device_agent.config import load
from device_agent.errors import AgentError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("mcp", help="tools for a local AI assistant", description=__doc__)
    parser.add_argument(
        "--http",
        metavar="ADDRESS",
        type=_loopback,
        help="serve http://ADDRESS/mcp, such as 127.0.0.1:8765, instead of standard input and output",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until its input ends, or SIGTERM or SIGINT."""
    file = config_path(args)
    config = load(file)
    try:
        from device_agent.operate.mcp_door import server
    except ImportError as error:
        raise AgentError(
            f"the package for MCP is missing ({error}): pip install 'device-agent[mcp]'"
        ) from None
    made = server(config.agent.title, lambda asked: ask_daemon(file, asked))
    if args.http is None:
        made.run()
    else:
        host, port = args.http
        made.run("streamable-http", host=host, port=port)
    return Exit.DONE


def _loopback(text: str) -> tuple[str, int]:
    """Host and port. Programs elsewhere would need a password, which nobody here asks for."""
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of this machine alone, such as 127.0.0.1:8765; "
            "reach it from elsewhere through an SSH tunnel"
        )
    return host, int(port)
