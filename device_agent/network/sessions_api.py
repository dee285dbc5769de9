"""The Sessions API: HTTPS and JSON, polled. Each method sends one request; the caller repeats it.

It is another service than the network, with a key of its own that is sent to `base_url` only.
"""

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from device_agent.errors import ConfigError, NetworkError, ProtocolFault, Refused, Unreachable
from device_agent.network.blocks.http import parse_reply, read_reply
from device_agent.text.printable import printable

if TYPE_CHECKING:
    import aiohttp

REQUEST_LIMIT_S = 60.0
REPLY_MAX_BYTES = 1_000_000
RETRY_AFTER_MAX_S = 900.0
LINK_MAX = 2000


class Unsent(Unreachable):
    """There was no connection, so the service has not received the request."""


class NotNow(Refused):
    """HTTP 429 or 503: refused before any work. `retry_after_s`: when to come back, if it says."""

    def __init__(self, message: str, status: int, code: str, retry_after_s: float | None) -> None:
        super().__init__(message, status, code)
        self.retry_after_s = retry_after_s


class Opened(NamedTuple):
    """A session: its durable id, and the address of its next final message."""

    id: str
    final_message: str
    page: str
    """Its web page for people; empty if the service names none."""


class SessionsApi:
    """`pool` returns the daemon's shared connections, which are opened on first use."""

    def __init__(
        self, base_url: str, key: Callable[[], str], pool: Callable[[], "aiohttp.ClientSession"]
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._pool = pool

    async def create(self, agent: Mapping[str, Any], message: str, *, private: bool) -> Opened:
        """Open a session. `agent` is one of `agent_name`, `agent_id`, `profile` with its value.

        Raises Unsent and NotNow if there is none now, Refused below 500 if there is none; after any other
        NetworkError there may be one.
        """
        reply = await self._ask(
            "POST", "/rest/v1/sessions", {**agent, "message": message, "is_private": private}
        )
        id_ = reply.get("id")
        if (
            not isinstance(id_, str)
            or not id_.isascii()
            or not id_.replace("-", "").isalnum()
            or len(id_) > 64
        ):
            raise ProtocolFault("the answer to a new session has no id")
        page = reply.get("session_html_url")
        safe = isinstance(page, str) and page.startswith("https://") and page == printable(page, LINK_MAX)
        return Opened(id_, self._final_message(reply), str(page) if safe else "")

    async def follow_up(self, session: str, message: str) -> str:
        """Send a message in a session; returns the address of the final message. Raises as `create` does."""
        reply = await self._ask("POST", f"/rest/v1/sessions/{session}/messages", {"message": message})
        return self._final_message(reply)

    async def final_message(self, link: str) -> str | None:
        """The text of the final message; None while there is none. Raises NetworkError."""
        items = (await self._ask("GET", link, None)).get("items")
        if not isinstance(items, list):
            raise ProtocolFault("the answer to a poll has no list `items`")
        if not items:
            return None
        text = items[0].get("message") if isinstance(items[0], dict) else None
        if not isinstance(text, str):
            raise ProtocolFault("the final message has no text `message`")
        return text

    def _final_message(self, reply: Mapping[str, Any]) -> str:
        links = reply.get("_links")
        entry = links.get("final_message") if isinstance(links, dict) else None
        href = entry.get("href") if isinstance(entry, dict) else None
        if not isinstance(href, str) or not href or len(href) > LINK_MAX:
            raise ProtocolFault("the answer has no link to the final message")
        return self._ours(href)

    def _ours(self, href: str) -> str:
        """The address of a link. Raises ProtocolFault for another host, which must not get the key."""
        address = urljoin(f"{self._base_url}/", href)
        try:
            there, home = urlsplit(address), urlsplit(self._base_url)
            same = (there.scheme, there.hostname, there.port) == (home.scheme, home.hostname, home.port)
            if same and "@" not in there.netloc:
                return address
        except ValueError:
            pass
        raise ProtocolFault(f"a link leads away from {self._base_url}: {printable(href, 100)}")

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        import aiohttp

        address = self._base_url + path if path.startswith("/") else self._ours(path)
        what = f"{method} {urlsplit(address).path}"
        try:
            key = self._key()
        except ConfigError as error:
            raise Unsent(str(error)) from error
        headers = {"Authorization": f"ApiKey {key}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(REQUEST_LIMIT_S),
                # Redirects are not followed: they would take the key along.
                self._pool().request(
                    method, address, headers=headers, data=data, allow_redirects=False
                ) as response,
            ):
                text = await read_reply(response, what, REPLY_MAX_BYTES)
        except TimeoutError:
            raise Unreachable(f"{what}: no answer within {REQUEST_LIMIT_S:g} s") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unsent(f"{what}: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{what}: {error or type(error).__name__}") from error
        try:
            return parse_reply(what, response.status, text)
        except Refused as refused:
            if refused.status not in (429, 503):
                raise
            wait_s = _seconds(response.headers.get("Retry-After"))
            raise NotNow(str(refused), refused.status, refused.code, wait_s) from None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After is a number of seconds or a date."""
    if retry_after is None:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S) if wait_s == wait_s else None


def may_exist(error: NetworkError) -> bool:
    """Whether a request that failed like this may have been carried out."""
    if isinstance(error, (Unsent, NotNow)):
        return False
    return not (isinstance(error, Refused) and 400 <= error.status < 500)
