"""Where the official SDK meets this program: its environment, its logging, its exceptions, its threads."""

import contextlib
import importlib.util
import logging
import os
import sys
import threading
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.cli.common import Unavailable
from device_agent.errors import AgentError, ConfigError, Rejected

DEV_KEY = "bk_dev_local"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def sdk() -> Any:
    """The package `blocks_network`. Raises AgentError with the command that installs it."""
    if importlib.util.find_spec("blocks_network") is None:
        raise AgentError(
            "this needs the official SDK, which is not installed here: "
            f"{sys.executable} -m pip install 'blocks-network>=1.0.23'"
        )
    import blocks_network

    return blocks_network


def hush(log: Path | None = None) -> None:
    """What the SDK and its threads say goes into a file, or nowhere, but never across the terminal."""
    handler: logging.Handler = logging.NullHandler() if log is None else logging.FileHandler(log)
    logging.getLogger().addHandler(handler)
    logger = logging.getLogger("device_agent.sdk")

    def note(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread is not None else "?"
        logger.debug("thread %s ended with %r", name, failed.exc_value)

    threading.excepthook = note


def use_local_network(url: str) -> None:
    """Point the SDK of this process at a stand-in. Raises AgentError for an address that is not local."""
    parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
    if parts.hostname not in _LOOPBACK or parts.scheme != "http":
        raise AgentError(
            f"--dev {url}: a development network is on this machine, such as http://127.0.0.1:8700; "
            "for another network set $BLOCKS_CDM_URL"
        )
    from device_agent.testing.network.sdk import sdk_environment

    path = parts.path if parts.path.endswith(".json") else "/config.json"
    key = os.environ.get("BLOCKS_API_KEY", DEV_KEY)
    os.environ.update(sdk_environment(f"http://{parts.netloc}{path}", parts.netloc, key))


def read_key(file: Path | None) -> str:
    """The caller's key: from the file (refused if others may read it), else $BLOCKS_API_KEY."""
    from device_agent.config.models import NetworkConfig
    from device_agent.config.secret import api_key

    try:
        # A file that was named on the command line goes before the environment.
        return api_key(NetworkConfig(api_key_file=file), environ={} if file is not None else os.environ)
    except ConfigError as error:
        text = str(error).replace("network.api_key_file = ", "--key-file ")
        text = text.replace("network.api_key_file", "--key-file")
        raise ConfigError(text.replace("give the systemd credential blocks_api_key, ", "give ")) from None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The SDK's exceptions, which are of many families, as ours: one sentence, and who has to act."""
    import httpx
    from blocks_network.rpc_client import RpcError
    from pubnub.exceptions import PubNubException

    try:
        yield
    except AgentError:
        raise
    except RpcError as error:
        raise _of_rpc(error) from error
    except TimeoutError as error:
        raise Unavailable(f"the network did not answer in time ({error})") from error
    except (RuntimeError, ValueError, LookupError, OSError, httpx.HTTPError, PubNubException) as error:
        raise _of_other(error) from error


def _of_rpc(error: Any) -> AgentError:
    data = error.data if isinstance(error.data, dict) else {}
    word = data.get("code")
    message = str(error.rpc_message)
    if word == "BillingModeMismatch":
        details = data.get("details")
        paid = isinstance(details, dict) and details.get("expected") == "paid"
        return AgentError(f"{message} {'Add --paid.' if paid else 'Leave --paid out.'}")
    if error.code in (401, 403):
        return Rejected("not_allowed", f"the network refuses this API key ({message}): use another one")
    if error.code is None:
        return _unreachable(message)
    return AgentError(f"the network refuses the task: {message}")


def _of_other(error: BaseException) -> AgentError:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < 8:
        chain.append(cause)
    for one in chain:
        status = getattr(one, "status", None) or (
            one.code if isinstance(one, urllib.error.HTTPError) else None
        )
        if status in (401, 403):
            return Rejected(
                "not_allowed", f"the network refuses this API key (HTTP {status}): use another one"
            )
    for one in chain:
        if isinstance(one, OSError) or type(one).__module__.startswith(("httpx", "httpcore")):
            return _unreachable(getattr(one, "reason", None) or one)
    if isinstance(error, RuntimeError) and "urlopen" not in str(error):
        return _unreachable(error)
    return AgentError(f"the network's answer is not understood ({type(error).__name__}: {error})")


def _unreachable(reason: object) -> Unavailable:
    where = os.environ.get("BLOCKS_CDM_URL")
    place = f"the network at {where}" if where else "the network"
    return Unavailable(f"{place} cannot be reached ({reason}): check the connection, then try again")


def leave(code: int) -> int:
    """End the process now where the SDK would keep it: a stopped stream's long-poll holds an ordinary thread
    for up to 310 s, and the interpreter would wait for that."""
    waiting = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if waiting:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code
