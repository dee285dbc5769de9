"""An HTTPS server on this machine with a certificate of the dates that a test wants."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType

import pytest
from aiohttp import web

CONFIG = """
[ca]
default_ca = d
[d]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = p
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
x509_extensions = x
[p]
commonName = supplied
[x]
subjectAltName = DNS:backend.test, DNS:localhost, IP:127.0.0.1
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
"""
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def certificate(folder: Path, begin: datetime, end: datetime) -> ssl.SSLContext:
    """For a server; `folder/ca.pem` is who vouches for it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    (folder / "index.txt").touch()
    (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
    usage = ("-addext", "keyUsage=critical,keyCertSign", "-days", "36500", "-subj", "/CN=tests")
    openssl("req", "-x509", *CURVE, "-keyout", "ca.key", "-out", "ca.pem", *usage)
    openssl("req", *CURVE, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=backend.test")
    dates = [f"{at:%Y%m%d%H%M%SZ}" for at in (begin, end)]
    signed = ("-startdate", dates[0], "-enddate", dates[1], "-in", "server.csr", "-out", "server.pem")
    openssl("ca", "-batch", "-notext", "-config", "ca.cnf", *signed)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def add_authority(certificate: Path, folder: Path) -> None:
    """Into a folder in which OpenSSL finds authorities one by one."""
    words = ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)]
    name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(certificate, folder / f"{name}.0")


class TlsBackend:
    """Answers everything with `{}`, `/time/0` with the time; notes which requests carried a key."""

    def __init__(self, context: ssl.SSLContext, now: datetime) -> None:
        self.now = now
        """What `Date` says, and the time."""
        self.date: datetime | None = None
        """What `Date` says instead."""
        self.asked: list[tuple[str, str, bool]] = []
        self._context = context

    async def __aenter__(self) -> "TlsBackend":
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path, "Authorization" in request.headers))
        token = int(self.now.timestamp() * 10_000_000)
        date = format_datetime((self.date or self.now).astimezone(UTC), usegmt=True)
        text = f"[{token}]" if request.path == "/time/0" else "{}"
        return web.Response(text=text, content_type="application/json", headers={"Date": date})
