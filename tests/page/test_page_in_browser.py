"""The page in a real Chromium, of a real daemon on a simulated board."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from device_agent.page.server import LISTENERS_MAX
from support.browser import DESKTOP, PHONE, PROGRAM, Tab, browser
from support.mosquitto import free_port
from support.processes import BoardProcess, Daemon
from support.waiting import until, until_async

pytestmark = pytest.mark.skipif(not PROGRAM, reason="chromium is not installed (apt-get install chromium)")

CONFIG = """
[agent]
name = "greenhouse_7"
[network]
cdm_url = "http://127.0.0.1:9"
[state]
directory = "{folder}/state"
[safety]
guard_timeout_s = 10
[buses.i2c1]
kind = "i2c"
device = "/dev/i2c-1"
[buses.pins]
kind = "gpio"
chip = "pinctrl-bcm2835"
[devices.climate]
driver = "bme280"
bus = "i2c1"
address = 0x76
every_s = 0.5
[devices.valve]
driver = "gpio-output"
bus = "pins"
line = 27
safe = false
max_on_s = 600
every_s = 0.5
[devices.pump]
driver = "gpio-output"
bus = "pins"
line = 22
safe = false
[devices.secret]
driver = "gpio-input"
bus = "pins"
line = 17
[page]
listen = "127.0.0.1:{port}"
[access]
drive = ["local:page"]
[access.devices.pump]
drive = []
[access.devices.secret]
read = []
"""
VALVE, PUMP = 27, 22


class Place:
    """The daemon, its board, and the page's address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        config = folder / "agent.toml"
        config.write_text(CONFIG.format(folder=folder, port=self.port))
        self.board = BoardProcess(folder, config)
        environment = {"BLOCKS_API_KEY": "bk_device", "DEVICE_AGENT_BOARD": str(self.board.socket)}
        self._begun = partial(Daemon, folder, config, environment)
        self.start()

    def start(self) -> None:
        self.daemon = self._begun()
        self.daemon.wait_logged("page_open")
        until(lambda: all(one["state"] == "online" for one in self.daemon.ask("status")["devices"]))

    def close(self) -> None:
        self.daemon.end()
        self.board.stop()


@asynccontextmanager
async def visited(folder: Path, size: tuple[int, int] = DESKTOP) -> AsyncIterator[tuple[Tab, Place]]:
    place = Place(folder)
    try:
        async with browser(folder) as tab:
            await tab.open(place.url, size)
            await tab.until("document.querySelectorAll('.card').length === 3")
            yield tab, place
            assert tab.faults == []
    finally:
        place.close()


def named(label: str) -> str:
    return f"document.querySelector('[aria-label={json.dumps(label)}]')"


async def test_what_is_measured_is_shown_with_units_and_its_past(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, _):
        climate = named("climate")
        await tab.until(f"{climate}.innerText.includes('°C')")
        assert "hPa" in await tab.js(f"{climate}.innerText")
        assert await tab.js("document.title") == "greenhouse_7"
        await tab.until(f"{climate}.querySelector('.spark path')")
        await tab.js(f"{named('History of climate temperature')}.click()")
        await tab.until("document.querySelector('#chart path')")
        assert "values, from" in await tab.js("document.getElementById('chart-text').textContent")
        assert (await tab.picture()).startswith(b"\x89PNG")


async def test_a_switch_asks_moves_and_is_written_down(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, place):
        await tab.js(f"{named('valve on')}.click()")
        await tab.until("document.getElementById('confirm').open")
        assert place.board.levels(VALVE)[-1] == 0, "nothing moves before it is confirmed"
        await tab.js("document.getElementById('confirm-yes').click()")
        await until_async(lambda: place.board.levels(VALVE)[-1] == 1)
        await tab.until(f"{named('valve on')}.getAttribute('aria-checked') === 'true'")
        await tab.until(f"{named('valve')}.innerText.includes('driven by local:page, safe in')")
        await tab.until("document.getElementById('journal').innerText.includes('local:page')")


async def test_what_the_rules_forbid_is_said_and_does_not_move(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, place):
        await tab.js(f"{named('pump on')}.click()")
        await tab.until("document.getElementById('said').textContent.includes('do not let you drive pump')")
        assert not await tab.js("document.getElementById('confirm').open")
        assert 1 not in place.board.levels(PUMP)
        assert "secret" not in await tab.js("document.body.innerText")


async def test_the_stop_by_keyboard_alone_on_a_phone(tmp_path: Path) -> None:
    async with visited(tmp_path, PHONE) as (tab, place):
        assert await tab.js("document.documentElement.scrollWidth <= window.innerWidth"), "a part is cut off"
        await tab.key("Tab")
        assert await tab.js("document.activeElement.id") == "stop"
        await tab.key("Enter")
        await tab.until("document.getElementById('confirm').open")
        for _ in range(3):
            if await tab.js("document.activeElement.id") != "confirm-yes":
                await tab.key("Tab")
        assert await tab.js("document.activeElement.id") == "confirm-yes"
        await tab.key("Enter")
        await tab.until("document.getElementById('banner').textContent.includes('released at the device')")
        assert place.daemon.ask("status")["emergency_stop"]["latched"] is True


async def press_stop(tab: Tab) -> None:
    await tab.js("document.getElementById('stop').click()")
    await tab.until("document.getElementById('confirm').open")
    await tab.js("document.getElementById('confirm-yes').click()")


async def test_the_stop_of_a_page_that_was_open_before_the_daemon_was(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, place):
        await asyncio.to_thread(place.daemon.stop)
        await tab.until("document.getElementById('banner').textContent.includes('No connection')")
        await asyncio.to_thread(place.start)
        await tab.until("document.getElementById('banner').textContent === ''")
        await press_stop(tab)
        await tab.until("document.getElementById('banner').textContent.includes('released at the device')")
        tab.faults.clear()  # the browser's own complaints about the connection


async def test_the_stop_of_the_eighth_tab(tmp_path: Path) -> None:
    """A browser opens six connections to a server, for all tabs together."""
    async with visited(tmp_path) as (tab, place), AsyncExitStack() as stack:
        tabs = [await stack.enter_async_context(tab.browser.tab(new=True)) for _ in range(7)]
        for one in tabs:
            await one.open(place.url)
        await tabs[-1].until("document.querySelectorAll('.card').length === 3")
        await press_stop(tabs[-1])
        await until_async(lambda: place.daemon.ask("status")["emergency_stop"]["latched"])


async def test_a_page_that_was_one_too_many_follows_when_another_is_closed(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, place):
        await tab.call("Page.navigate", url="about:blank")
        async with aiohttp.ClientSession() as session:
            others: list[aiohttp.ClientResponse] = []

            async def all_taken() -> bool:
                one = await session.get(f"{place.url}api/updates")
                if one.status == 200:
                    others.append(one)
                else:
                    one.close()
                return len(others) == LISTENERS_MAX

            await until_async(all_taken, "the place of the tab itself is free again")
            await tab.call("Page.navigate", url=place.url)
            await tab.until("document.getElementById('banner')?.textContent.includes('No connection')")
            others[0].close()
            await tab.until("document.querySelectorAll('.card').length === 3")
            for one in others:
                one.close()
        tab.faults.clear()  # the browser's own complaint that it was refused


async def test_everything_that_can_be_used_has_a_name(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, _):
        nameless = await tab.js(
            "[...document.querySelectorAll('button, input')].filter((one) => one.offsetParent"
            " && !one.getAttribute('aria-label') && !one.innerText.trim()).length"
        )
        assert nameless == 0


async def test_a_device_that_is_gone_is_said(tmp_path: Path) -> None:
    async with visited(tmp_path) as (tab, place):
        await asyncio.to_thread(place.daemon.stop)
        await tab.until("document.getElementById('banner').textContent.includes('No connection')")
        tab.faults.clear()  # the browser's own complaints about the connection
