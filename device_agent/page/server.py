"""The web server of the page. It has no rule of its own: every question is asked as `local:page`.

No other site can use it: the Host header must be one of ours, and what moves anything needs the page's token.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

import structlog
from aiohttp import web

from device_agent.background import BackgroundTasks
from device_agent.config.page import PageConfig
from device_agent.errors import ConfigError
from device_agent.operate.control_socket import Handler, answer
from device_agent.store.files import open_to_others

log = structlog.get_logger("page")

DOOR = "local:page"
ASSETS = {"app.js": "text/javascript", "style.css": "text/css"}
WITHOUT_PASSWORD = frozenset(("/healthz", "/readyz"))
MAY_ASK = frozenset(("set", "do", "stop"))
# Of one question, and of the history that one answer carries.
BODY_MAX_BYTES = 16_384
UPDATE_EVERY_S = 1.0
# A person has a few tabs open; each costs a copy of the state a second.
LISTENERS_MAX = 16
JOURNAL_ROWS = 50
WRITE_LIMIT_S = 20.0
WRONG_PASSWORD_WAIT_S = 1.0
PASSWORD_MAX_BYTES = 1024
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """Serves until cancelled. `handlers` are those of the control socket, by op."""

    def __init__(self, config: PageConfig, handlers: Mapping[str, Handler]) -> None:
        self._config = config
        self._handlers = handlers
        self._token = secrets.token_urlsafe(32)
        self._background = BackgroundTasks("page")
        self._update = ""
        self._updated = asyncio.Event()
        self._listeners = 0
        self._guess = asyncio.Lock()
        self._hosts = _names(config)
        self._password: bytes | None = None

    async def run(self) -> None:
        """Raises OSError where the address is taken, ConfigError for a file that cannot be used."""
        config = self._config
        self._password = _password(config)
        app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[self._guarded])
        app.router.add_get("/", self._index)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/api/updates", self._updates)
        app.router.add_get("/api/describe", self._describe)
        app.router.add_get("/api/history", self._history)
        app.router.add_post("/api/ask", self._ask)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            host, port = config.address
            await web.TCPSite(runner, host, port, ssl_context=_tls(config)).start()
            log.info("page_open", listen=config.listen, tls=config.certificate_file is not None)
            self._background.run_forever("updates", self._look)
            await asyncio.Event().wait()
        finally:
            await self._background.close()
            await runner.cleanup()

    # -- who may come in ----------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Next) -> web.StreamResponse:
        try:
            await self._check(request)
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=error.text, headers=error.headers)
        if not response.prepared:
            response.headers.update(SECURITY)
        return response

    async def _check(self, request: web.Request) -> None:
        host = _host_of(request.headers.get("Host", ""))
        if host not in self._hosts and not _is_address(host):
            known = ", ".join(sorted(self._hosts))
            raise web.HTTPMisdirectedRequest(
                text=f"This page is not reached by the name {host!r:.100}, but by {known}. "
                "Further names are listed in [page] hosts.\n"
            )
        if request.path in WITHOUT_PASSWORD:
            return
        if self._password is not None and not self._knows_password(request):
            if "Authorization" in request.headers:
                async with self._guess:  # one after the other, whoever guesses
                    await asyncio.sleep(WRONG_PASSWORD_WAIT_S)
            raise web.HTTPUnauthorized(
                text="The password is wrong or missing.\n",
                headers={"WWW-Authenticate": 'Basic realm="device-agent", charset="UTF-8"'},
            )
        if request.method not in ("GET", "HEAD"):
            own = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
            token = request.headers.get("X-Page-Token", "")
            if not own or not hmac.compare_digest(
                token.encode(errors="surrogateescape"), self._token.encode()
            ):
                raise web.HTTPForbidden(text="This did not come from the page itself: load it again.\n")

    def _knows_password(self, request: web.Request) -> bool:
        """As a browser gives it, with any user name, or as a bearer's token."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        password = given.encode(errors="surrogateescape")
        if scheme.lower() != "bearer":
            try:
                _, _, password = base64.b64decode(given, validate=True).partition(b":")
            except (binascii.Error, ValueError):
                return False
        assert self._password is not None
        return scheme.lower() in ("basic", "bearer") and hmac.compare_digest(password, self._password)

    # -- what there is ----------------------------------------

    async def _index(self, request: web.Request) -> web.Response:
        text = _asset("index.html").replace("{token}", self._token)
        return web.Response(text=text, content_type="text/html")

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in ASSETS:
            raise web.HTTPNotFound(text="There is no such file.\n")
        return web.Response(text=_asset(name), content_type=ASSETS[name])

    async def _health(self, request: web.Request) -> web.Response:
        """The event loop answers; more is in `status`."""
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        """As systemd is told: every device was opened, or could not be; not while it stops."""
        ready = (await self._answer({"op": "status"})).get("result", {}).get("ready")
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            from device_agent.page import metrics
        except ImportError:
            raise web.HTTPNotImplemented(
                text="The metrics need prometheus-client: pip install 'device-agent[metrics]'\n"
            ) from None
        found = await self._answer({"op": "status"})
        if not found["ok"]:
            raise web.HTTPServiceUnavailable(text=f"{found['error']['message']}\n")
        text, content_type = metrics.exposition(found["result"], request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def _describe(self, request: web.Request) -> web.Response:
        return _json(await self._answer({"op": "describe"}))

    async def _history(self, request: web.Request) -> web.Response:
        """Of one device: `device`, `from` and `to` (epoch milliseconds), `every_s`."""
        query = request.query
        question: dict[str, Any] = {"op": "history", "devices": [query.get("device", "")]}
        question |= {name: query[name] for name in ("from", "to") if name in query}
        if "every_s" in query:
            try:
                question["every_s"] = float(query["every_s"])
            except ValueError:
                raise web.HTTPBadRequest(text="every_s is no number of seconds.\n") from None
        found = await self._answer(question)
        if not found["ok"]:
            return _json(found)
        return web.Response(body=found["result"]["data"], content_type="application/json")

    async def _ask(self, request: web.Request) -> web.Response:
        """A `set`, `do` or `stop` (docs/events.md); the answer has `ok`, and `result` or `error`."""
        try:
            question = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="The body is no JSON.\n") from None
        if not isinstance(question, dict) or question.get("op") not in MAY_ASK:
            raise web.HTTPBadRequest(text=f"op is one of {', '.join(sorted(MAY_ASK))}.\n")
        return _json(await self._answer(question))

    async def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        return await answer(self._handlers, {**question, "as": DOOR})

    # -- what changes ----------------------------------------

    async def _look(self) -> None:
        """One look for all listeners, and none while nobody listens."""
        while True:
            if self._listeners:
                status = await self._answer({"op": "status"})
                journal = await self._answer({"op": "journal", "limit": JOURNAL_ROWS})
                update = {"status": status.get("result"), "journal": journal.get("result")}
                self._update = json.dumps(update, default=str)
                updated, self._updated = self._updated, asyncio.Event()
                updated.set()
            await asyncio.sleep(UPDATE_EVERY_S)

    async def _updates(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the state, once a second. Whoever is too slow misses some."""
        if self._listeners >= LISTENERS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{LISTENERS_MAX} pages are open already: close one.\n")
        response = web.StreamResponse(headers={**SECURITY, "Content-Type": "text/event-stream"})
        self._listeners += 1
        try:
            await response.prepare(request)
            while True:
                await self._updated.wait()
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await response.write(f"data: {self._update}\n\n".encode())
        except (ConnectionError, TimeoutError):
            return response
        finally:
            self._listeners -= 1


def _json(document: object) -> web.Response:
    return web.json_response(document, dumps=lambda value: json.dumps(value, default=str))


def _asset(name: str) -> str:
    return (files("device_agent.page") / "assets" / name).read_text(encoding="utf-8")


def _host_of(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    name = header.rpartition("]")[0][1:] if header.startswith("[") else header.partition(":")[0]
    return name.lower().rstrip(".")


def _names(config: PageConfig) -> frozenset[str]:
    """By which names a browser may reach the page; another site's name that points here is none of them."""
    own = socket.gethostname().lower()
    return frozenset(("localhost", own, f"{own}.local", config.address[0], *map(str.lower, config.hosts)))


def _is_address(host: str) -> bool:
    """An address is nobody's name: a browser that shows it has no other site's page."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _password(config: PageConfig) -> bytes | None:
    path = config.password_file
    if path is None:
        return None
    try:
        if why := open_to_others(path):
            raise ConfigError(f"page.password_file {path} {why}")
        with path.open("rb") as file:
            password = file.read(PASSWORD_MAX_BYTES).strip()
    except OSError as error:
        raise ConfigError(f"page.password_file: {path} cannot be read ({error.strerror})") from error
    if not password:
        raise ConfigError(f"page.password_file: {path} is empty: write a password into it")
    return password


def _tls(config: PageConfig) -> ssl.SSLContext | None:
    if config.certificate_file is None or config.key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate_file, config.key_file)
    except OSError as error:  # ssl.SSLError is one
        named = f"{config.certificate_file} and {config.key_file}"
        raise ConfigError(f"page.certificate_file: {named} cannot be used: {error}") from error
    return context
