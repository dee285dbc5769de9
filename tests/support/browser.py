"""A real Chromium, driven over its DevTools protocol."""

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from support.waiting import LIMIT_S, until_async

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PHONE, DESKTOP = (390, 844), (1280, 900)


class Tab:
    """One page of the browser. What it logs as an error, or throws, is in `faults`."""

    def __init__(self, of: "Browser", channel: aiohttp.ClientWebSocketResponse) -> None:
        self.browser = of
        self._channel = channel
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.faults: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._channel:
            said = json.loads(message.data)
            if (waiting := self._waiting.pop(said.get("id", 0), None)) is not None:
                waiting.set_result(said)
            elif said.get("method") == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(said["params"]["exceptionDetails"]))
            elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.faults.append(said["params"]["entry"]["text"])

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        waiting = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._channel.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(LIMIT_S):
            answer = await waiting
        assert "error" not in answer, answer["error"]
        return answer["result"]  # type: ignore[no-any-return]

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        done = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until the expression is true, as JavaScript sees it."""
        await until_async(lambda: self.js(f"Boolean({expression})"), expression)

    async def open(self, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        width, height = size
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def key(self, name: str) -> None:
        """One key, as a keyboard gives it."""
        text = {"Enter": "\r", "Space": " "}.get(name, "")
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}[name]
        key = {"Space": " "}.get(name, name)
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=name, windowsVirtualKeyCode=code, text=text
            )

    async def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


class Browser:
    """A Chromium with a profile of its own."""

    def __init__(self, folder: Path) -> None:
        self._port_file = folder / "profile" / "DevToolsActivePort"
        words = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
            "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank",
        ]  # fmt: skip
        with (folder / "browser.log").open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, *words], stdout=log, stderr=log)

    @property
    def port(self) -> int:
        """0 while it does not listen yet."""
        try:
            first, whole, _ = self._port_file.read_text().partition("\n")
        except OSError:
            return 0
        return int(first) if whole else 0

    @asynccontextmanager
    async def tab(self, *, new: bool = False) -> AsyncIterator[Tab]:
        """Its first tab, or a new one in front of the others."""
        address = f"http://127.0.0.1:{self.port}/json"
        async with aiohttp.ClientSession() as session:
            if new:
                async with session.put(f"{address}/new?about:blank") as answer:
                    page = await answer.json()
            else:
                async with session.get(f"{address}/list") as answer:
                    page = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as channel:
                tab = Tab(self, channel)
                try:
                    yield tab
                finally:
                    await tab.close()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(LIMIT_S)


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """One tab of a browser that ends with the block."""
    it = Browser(folder)
    try:
        await until_async(lambda: it.port)
        async with it.tab() as tab:
            yield tab
    finally:
        it.end()
