"""The proxy by which an address is reached, where there is no other way out; for TLS by CONNECT."""

import ipaddress
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp

if TYPE_CHECKING:
    from yarl import URL


class Proxies:
    """$HTTPS_PROXY, $HTTP_PROXY and $ALL_PROXY, or the one that is `named` in the configuration for all.

    $NO_PROXY and this machine are reached directly. False where there is none.
    """

    def __init__(self, named: str | None) -> None:
        self._by_scheme = getproxies_environment()
        if named:
            self._by_scheme |= {"http": named, "https": named}

    def __bool__(self) -> bool:
        return bool(self._by_scheme.keys() & {"http", "https", "all"})

    def proxy_of(self, url: "URL") -> str | None:
        """The proxy for an address; None: directly."""
        host = url.host or ""
        if _is_here(host) or proxy_bypass(f"{host}:{url.port}", self._by_scheme):
            return None
        return self._by_scheme.get(url.scheme) or self._by_scheme.get("all")

    def request_class(self) -> type[aiohttp.ClientRequest]:
        """Requests of a session that go by these proxies.

        What aiohttp itself has for this looks it up on a thread for each request, and reads .netrc.
        """
        from yarl import URL

        find = self.proxy_of

        class Request(aiohttp.ClientRequest):
            def update_proxy(self, proxy: Any, proxy_auth: Any, proxy_headers: Any) -> None:
                if proxy is None and (found := find(self.url)):
                    proxy = URL(found)
                    if proxy.user:
                        login = f"{proxy.user}:{proxy.password or ''}".encode()
                        # Becomes Proxy-Authorization, whichever way the proxy is used.
                        proxy_headers = {"Authorization": f"Basic {b64encode(login).decode()}"}
                        proxy = proxy.with_user(None)
                super().update_proxy(proxy, proxy_auth, proxy_headers)

        return Request


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
