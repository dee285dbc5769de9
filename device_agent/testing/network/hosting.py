"""Running the stand-in elsewhere than in the test's own loop: in a thread, as a process, from a command."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from device_agent.testing.network.links import Addressed
from device_agent.testing.network.server import DevNetwork
from device_agent.testing.network.settings import Settings

T = TypeVar("T")

NOTICE = "Local stand-in of the Blocks Network, for development and tests only."
_START_LIMIT_S = 15.0
_STOP_LIMIT_S = 5.0


async def serve(
    port: int,
    *,
    auto_register: bool = True,
    ready: Callable[[dict[str, str | int]], None] | None = None,
) -> None:
    """Serve until cancelled; ``ready`` is called once with the addresses, ``notice`` among them."""
    async with DevNetwork(port, Settings(auto_register=auto_register)) as net:
        if ready is not None:
            ready({**net.addresses, "notice": NOTICE})
        await asyncio.get_running_loop().create_future()


class NetworkThread:
    """A :class:`DevNetwork` on a loop of its own, for tests that block: ``with NetworkThread() as host:``.

    ``host.net`` may be read from anywhere; what changes it goes through :meth:`call` or :meth:`run`.
    """

    def __init__(self, port: int = 0, settings: Settings | None = None) -> None:
        self.net = DevNetwork(port, settings)
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._host, name="dev-network", daemon=True)

    def _host(self) -> None:
        try:
            asyncio.run(self._main())
        except OSError as error:
            self._started.set_exception(error)

    async def _main(self) -> None:
        async with self.net:
            self._started.set_result(asyncio.get_running_loop())
            await self._ended.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(_START_LIMIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.result().call_soon_threadsafe(self._ended.set)
        self._thread.join(_STOP_LIMIT_S)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = _START_LIMIT_S) -> T:
        """Run a coroutine on the network's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._started.result()).result(timeout_s)

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a plain function on the network's loop, for instance ``host.call(host.net.heal)``."""

        async def work() -> T:
            return function(*args, **kwargs)

        return self.run(work())


class AdminClient:
    """The HTTP admin surface, blocking. Errors raise ValueError with the server's sentence."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url

    def call(self, method: str, timeout_s: float = 30.0, **arguments: Any) -> Any:
        """Call one of :data:`~device_agent.testing.network.admin.METHODS`."""
        return self._ask(f"/call/{method}", json.dumps(arguments).encode(), timeout_s)

    def view(self, name: str, timeout_s: float = 30.0, **query: Any) -> Any:
        """Read one of the views: addresses, agents, tasks, presence, publishes, requests, tokens, faults."""
        text = urllib.parse.urlencode(query)
        return self._ask(f"/{name}?{text}", None, timeout_s)

    def _ask(self, path: str, body: bytes | None, timeout_s: float) -> Any:
        request = urllib.request.Request(self._admin_url + path, data=body)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read().decode(errors="replace")) from error


class NetworkProcess(Addressed, AdminClient):
    """The stand-in as a child process that ends with this one: ``with NetworkProcess() as net:``."""

    def __init__(self, *arguments: str) -> None:
        self._command = [
            sys.executable,
            "-m",
            "device_agent.testing.network",
            "--until-stdin-closes",
            *arguments,
        ]
        self._process: subprocess.Popen[str] | None = None
        self.addresses: dict[str, Any] = {}

    def __enter__(self) -> Self:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._process = process
        assert process.stdout is not None
        killer = threading.Timer(_START_LIMIT_S, process.kill)
        killer.start()
        line = process.stdout.readline()
        killer.cancel()
        if not line:
            self.__exit__(None, None, None)
            raise RuntimeError(f"the stand-in did not start: {' '.join(self._command)}")
        self.addresses = json.loads(line)
        super().__init__(self.addresses["admin_url"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise RuntimeError("the stand-in does not run")
        return self._process.pid
