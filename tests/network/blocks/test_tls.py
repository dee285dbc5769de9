"""Certificates are judged by the time that is known, and no secret is sent before it is."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_agent.clock import SystemClock
from device_agent.errors import ProtocolFault, Unreachable
from device_agent.network.blocks.http import Api, Http
from device_agent.network.blocks.tls import ClockContext
from device_agent.network.connectivity import Connectivity
from support.tls_backend import TlsBackend, add_authority, certificate

NOW = datetime(2027, 5, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


class Board(SystemClock):
    """A board without a battery: its wall clock says `wall`, and nobody vouches for that."""

    def __init__(self, wall: datetime) -> None:
        self._wall = wall
        super().__init__()

    def _wall_ms(self) -> float:
        return self._wall.timestamp() * 1000

    def _machine_knows(self) -> bool | None:
        return False


Serve = Callable[..., AsyncIterator[tuple[TlsBackend, Api]]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A backend, and a client of it on a board whose wall clock says `wall`."""

    @asynccontextmanager
    async def made(
        wall: datetime, begin: datetime = NOW - YEAR / 12, end: datetime = NOW + YEAR / 12
    ) -> AsyncIterator[tuple[TlsBackend, Api]]:
        context = certificate(tmp_path, begin, end)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with TlsBackend(context, NOW) as backend:
            http = Http(Connectivity(Board(wall)), origin=f"localhost:{backend.port}")
            try:
                yield backend, Api(http, f"https://127.0.0.1:{backend.port}")
            finally:
                await http.close()

    return made


@pytest.mark.parametrize("wall", [datetime(1970, 1, 1, 0, 5, tzinfo=UTC), NOW - YEAR / 4])
async def test_the_time_is_learned_before_the_key_is_sent(serve: Serve, wall: datetime) -> None:
    async with serve(wall) as (backend, api):
        assert await api.request("GET", "/agents", bearer="bk_secret") == {}
        assert backend.asked == [
            ("HEAD", "/agents", False), ("GET", "/time/0", False), ("GET", "/agents", True),
        ]  # fmt: skip
        clock = api._http.connectivity.clock
        assert abs(clock.now_ms() - NOW.timestamp() * 1000) < 60_000
        await api.request("GET", "/agents", bearer="bk_secret")
        assert len(backend.asked) == 4, "it is learned once"


@pytest.mark.parametrize(("known", "answers"), [(True, True), (False, False)])
async def test_authorities_in_files_of_their_own_are_read_when_they_are_needed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool, answers: bool
) -> None:
    now = datetime.now(UTC)
    async with serve(now, now - YEAR, now + YEAR) as (_, api):
        folder = tmp_path / "authorities"
        folder.mkdir()
        add_authority(tmp_path / "ca.pem", folder)
        if not known:
            next(folder.iterdir()).rename(folder / "00000000.0")
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
        assert ClockContext.make(SystemClock()).get_ca_certs() == [], "none is in memory yet"
        if answers:
            assert await api.request("GET", "/agents") == {}
        else:
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await api.request("GET", "/agents")


async def test_a_clock_chip_is_enough(serve: Serve) -> None:
    async with serve(datetime(1970, 1, 1, tzinfo=UTC)) as (backend, api):
        clock = api._http.connectivity.clock
        clock.learn(NOW.timestamp() * 1000, clock.monotonic_s(), "device")
        await api.request("GET", "/agents", bearer="bk_secret")
        assert backend.asked == [("GET", "/agents", True)]
        clock.learn((NOW + YEAR).timestamp() * 1000, clock.monotonic_s(), "device")
        await api._http.close()
        with pytest.raises(Unreachable, match="the certificate is not valid at"):
            await api.request("GET", "/agents", bearer="bk_secret")


@pytest.mark.parametrize(
    "date", [NOW + YEAR, NOW - YEAR / 4, datetime(2020, 1, 1, tzinfo=UTC)], ids=["late", "early", "ancient"]
)
async def test_a_host_whose_date_its_own_certificate_contradicts_is_not_believed(
    serve: Serve, date: datetime
) -> None:
    async with serve(datetime(1970, 1, 1, tzinfo=UTC)) as (backend, api):
        backend.date = date
        with pytest.raises(ProtocolFault, match="cannot be right"):
            await api.request("GET", "/agents", bearer="bk_secret")
        assert not any(with_key for _, _, with_key in backend.asked)
        assert not api._http.connectivity.clock.is_set()


async def test_who_is_spoken_to_is_checked_as_ever(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(datetime(1970, 1, 1, tzinfo=UTC)) as (backend, api):
        monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await api.request("GET", "/agents", bearer="bk_secret")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        api.base_url = f"https://127.0.0.2:{backend.port}"
        with pytest.raises(Unreachable):
            await api.request("GET", "/agents", bearer="bk_secret")
        assert backend.asked == []


async def test_where_the_machine_knows_the_time_its_library_judges(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Board, "_machine_knows", lambda self: True)
    now = datetime.now(UTC)
    async with serve(now, now - 2 * YEAR, now - YEAR) as (backend, api):
        with pytest.raises(Unreachable, match="certificate has expired"):
            await api.request("GET", "/agents", bearer="bk_secret")
        assert backend.asked == []
