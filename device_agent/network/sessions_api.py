"""The Sessions API: plain HTTPS and JSON, polled. One request each; who calls decides when to try again.

It is another service than the network, with a key of its own: the key goes to `base_url` and nowhere else.
"""

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from device_agent.errors import NetworkError, ProtocolFault, Refused, Unreachable
from device_agent.network.blocks.http import error_of, printable, read_reply

if TYPE_CHECKING:
    import aiohttp

REQUEST_LIMIT_S = 60.0
REPLY_MAX_BYTES = 1_000_000
RETRY_AFTER_MAX_S = 900.0
LINK_MAX = 2000


class Unsent(Unreachable):
    """No connection came about: the service cannot have heard the request."""


class NotNow(Refused):
    """HTTP 429 or 503: refused before any work; `retry_after_s` where the service says when to come back."""

    def __init__(self, message: str, status: int, code: str, retry_after_s: float | None) -> None:
        super().__init__(message, status, code)
        self.retry_after_s = retry_after_s


class Opened(NamedTuple):
    """A session: its durable id, and where its next final message will be."""

    id: str
    final_message: str
    page: str
    """For people; empty where the service names none."""


class SessionsApi:
    """`pool` gives the daemon's shared connections; they are opened on first use."""

    def __init__(self, base_url: str, key: str, pool: Callable[[], "aiohttp.ClientSession"]) -> None:
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
        """Say more in a session; where the final message to it will be. Raises as `create` does."""
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
        """The address behind a link. Raises ProtocolFault for another host: the key stays at home."""
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
        headers = {"Authorization": f"ApiKey {self._key}", "Accept": "application/json"}
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
        return _reply(what, response.status, text, response.headers.get("Retry-After"))


def _reply(what: str, status: int, text: bytes, retry_after: str | None) -> dict[str, Any]:
    try:
        reply = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        reply = None
    if 200 <= status < 300:
        if not isinstance(reply, dict):
            raise ProtocolFault(f"{what}: the answer is not a JSON object")
        return reply
    code, message = error_of(reply)
    sentence = f"{what}: HTTP {status} {message or printable(code) or 'without a reason'}"
    if status in (429, 503):
        raise NotNow(sentence, status, printable(code), _seconds(retry_after))
    raise Refused(sentence, status, printable(code))


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
    """Whether the request that failed so may have been carried out all the same."""
    if isinstance(error, (Unsent, NotNow)):
        return False
    return not (isinstance(error, Refused) and 400 <= error.status < 500)
