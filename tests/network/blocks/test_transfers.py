"""Large files: the upload of results and the download of inputs (`files.py`)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import NetworkError, ProtocolFault, Refused, TokenRefused, Unreachable
from device_agent.network.blocks import files as module
from device_agent.network.blocks.files import (
    SLOWEST_UPLOAD_BYTES_PER_S,
    TOO_LARGE,
    TRANSFER_LIMIT_S,
    Upload,
    Uploads,
    download,
    is_ours,
)
from device_agent.network.blocks.http import Http
from support.fake_backend import FakeBackend

REQUEST = "/api/v1/files/request-upload"
CONFIRM = "/api/v1/files/confirm-upload"


class Backend:
    """A joiner whose `call` answers from a script; it notes the order of all steps."""

    def __init__(self, url: str) -> None:
        self.steps: list[str] = []
        self.failures: dict[str, list[Exception]] = {REQUEST: [], CONFIRM: []}
        self.grant: dict[str, Any] = {
            "uploadUrl": f"{url}/bucket",
            "formFields": [{"key": "policy", "value": "p"}],
            "uploadId": "u1",
        }
        self.bodies: list[dict[str, Any]] = []
        self.on_request: Callable[[], None] = lambda: None

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.steps.append(path)
        self.bodies.append(body)
        if self.failures[path]:
            raise self.failures[path].pop(0)
        if path != REQUEST:
            return {}
        self.on_request()
        return self.grant


@pytest.fixture
def joiner(backend: FakeBackend) -> Backend:
    backend.answers["/bucket"].append((204, b""))
    return Backend(backend.url)


@pytest.fixture
def uploads(http: Http, joiner: Backend) -> Uploads:
    return Uploads(http, joiner)  # type: ignore[arg-type]


def upload(data: bytes | Path = b"picture") -> Upload:
    return Upload("t1", data, "image/png", "o1", "a.png")


async def test_a_file_is_announced_only_when_the_network_has_it(
    uploads: Uploads, joiner: Backend, backend: FakeBackend
):
    async def before() -> None:
        joiner.steps.append("before")

    await uploads.upload(upload(), before)
    assert joiner.steps == [REQUEST, "before", CONFIRM]
    assert joiner.bodies[0]["fileSize"] == 7
    assert joiner.bodies[1] == {"uploadId": "u1"}
    (form,) = backend.asked_for("/bucket")
    assert b'name="policy"' in form.body
    assert form.body.index(b"policy") < form.body.index(b"picture"), "the file is the last member"


async def test_a_file_is_read_from_the_disk(uploads: Uploads, backend: FakeBackend, tmp_path: Path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00" * 50_000)
    await uploads.upload(upload(path))
    assert b"\x00" * 50_000 in backend.asked_for("/bucket")[0].body


@pytest.mark.parametrize("failure", [Unreachable("x"), Refused("x", 503), ProtocolFault("x")])
@pytest.mark.parametrize("step", [REQUEST, CONFIRM])
async def test_an_upload_is_repeated_as_a_whole_and_before_is_called_once(
    uploads: Uploads, joiner: Backend, step: str, failure: NetworkError
):
    calls: list[int] = []

    async def before() -> None:
        calls.append(1)

    joiner.failures[step] = [failure, failure]
    await uploads.upload(upload(), before)
    assert joiner.steps.count(REQUEST) == 3
    assert calls == [1]


async def test_refusals_are_raised_after_many_and_outages_do_not_count(
    uploads: Uploads, joiner: Backend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 2)
    joiner.failures[REQUEST] = [Unreachable("x"), Refused("x", 413), Unreachable("x"), Refused("no", 413)]
    with pytest.raises(Refused, match="no"):
        await uploads.upload(upload())
    assert joiner.steps == [REQUEST] * 4


async def test_a_refused_form_is_a_refusal(
    uploads: Uploads, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 1)
    backend.answers["/bucket"] = [(403, b"expired")]
    with pytest.raises(Refused, match="HTTP 403"):
        await uploads.upload(upload())


async def test_a_file_that_is_gone_is_a_refusal(
    uploads: Uploads, joiner: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 1)
    path = tmp_path / "a.bin"
    path.write_bytes(b"x")
    joiner.on_request = path.unlink
    with pytest.raises(Refused, match="No such file"):
        await uploads.upload(upload(path))


@pytest.mark.parametrize("member", ["uploadUrl", "formFields", "uploadId"])
async def test_a_grant_without_a_member_is_tried_again(
    uploads: Uploads, joiner: Backend, member: str, monkeypatch: pytest.MonkeyPatch
):
    whole = joiner.grant
    joiner.grant = {name: value for name, value in whole.items() if name != member}
    task = asyncio.create_task(uploads.upload(upload()))
    async with asyncio.timeout(10):
        while len(joiner.steps) < 2:  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.001)
    joiner.grant = whole
    await asyncio.wait_for(task, 10)
    assert joiner.steps[-1] == CONFIRM


async def test_progress_is_reported_while_the_file_is_read(
    uploads: Uploads, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PROGRESS_S", 0.0)
    told: list[tuple[str, float]] = []
    await uploads.upload(upload(b"x" * 3_000_000), progress=lambda text, share: told.append((text, share)))
    assert told
    assert all(0.0 <= share <= 1.0 for _, share in told)
    assert told[-1][0].startswith("uploading a.png: ")
    assert told[-1][0].endswith("of 3000 kB")


async def test_a_large_file_has_as_long_as_a_slow_link_needs(
    uploads: Uploads, http: Http, monkeypatch: pytest.MonkeyPatch
):
    limits_s: list[float] = []
    exchange = http.exchange

    def noted(what: str, limit_s: float, **options: Any) -> Any:
        limits_s.append(limit_s)
        return exchange(what, limit_s, **options)

    monkeypatch.setattr(http, "exchange", noted)
    for size_bytes in (7, 3_000_000):
        await uploads.upload(upload(b"x" * size_bytes))
    assert limits_s == [TRANSFER_LIMIT_S, 3_000_000 / SLOWEST_UPLOAD_BYTES_PER_S]


async def test_an_upload_from_before_an_outage_is_begun_anew_when_it_ends(
    uploads: Uploads, http: Http, joiner: Backend, monkeypatch: pytest.MonkeyPatch
):
    hanging, post = asyncio.Event(), uploads._post_form

    async def hang(*args: Any) -> int:
        monkeypatch.setattr(uploads, "_post_form", post)
        hanging.set()
        await asyncio.Event().wait()
        return 0

    http.connectivity.answered()
    monkeypatch.setattr(uploads, "_post_form", hang)
    task = asyncio.create_task(uploads.upload(upload()))
    await asyncio.wait_for(hanging.wait(), 10)
    http.connectivity.lost("no answer")
    await asyncio.sleep(0)
    http.connectivity.answered()
    await asyncio.wait_for(task, 10)
    assert joiner.steps == [REQUEST, REQUEST, CONFIRM]


# -- downloads ----------------------------------------------------------------------------------------------


@pytest.fixture
def addresses(backend: FakeBackend) -> Any:
    """The file's address with two tokens."""
    return [lambda: backend.url + FIRST, lambda: backend.url + SECOND]


FIRST = "/write/a.txt"
SECOND = "/control/a.txt"


async def test_a_file_is_written_to_the_disk(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path
):
    backend.answers[FIRST].append((200, b"x" * 200_000))
    await download(http, addresses, tmp_path / "a", 200_000)
    assert (tmp_path / "a").stat().st_size == 200_000


async def test_a_file_that_is_too_large_is_refused_at_once(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path
):
    backend.answers[FIRST].append((200, b"x" * 200_001))
    with pytest.raises(Refused, match="larger than") as raised:
        await download(http, addresses, tmp_path / "a", 200_000)
    assert raised.value.status == TOO_LARGE
    assert len(backend.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_the_next_token_is_tried_after_a_refused_one(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path, status: int
):
    backend.answers[FIRST].append((status, b""))
    backend.answers[SECOND].append((200, b"ok"))
    await download(http, addresses, tmp_path / "a", 10)
    assert [asked.path for asked in backend.asked] == [FIRST, SECOND]
    assert (tmp_path / "a").read_bytes() == b"ok"


async def test_one_redirect_to_the_same_host_is_followed(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 1)
    backend.answers[FIRST].append((307, b"", {"Location": "/stored"}))
    backend.answers["/stored"] += [(200, b"ok"), (307, b"", {"Location": "/again"})]
    await download(http, addresses, tmp_path / "a", 10)
    assert (tmp_path / "a").read_bytes() == b"ok"
    with pytest.raises(Refused, match="HTTP 307"):
        await download(http, addresses, tmp_path / "a", 10)
    assert not backend.asked_for("/again")


async def test_a_redirect_to_another_host_is_not_followed(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 1)
    there = backend.url.replace("127.0.0.1", "localhost") + "/admin"
    backend.answers[FIRST].append((307, b"", {"Location": there}))
    with pytest.raises(Refused, match="no host of its own"):
        await download(http, addresses, tmp_path / "a", 10)
    assert not backend.asked_for("/admin")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("there", "ours"),
    [
        ("https://ps.pndsn.com/x", True),
        ("https://files.s3.us-east-1.amazonaws.com/x", True),
        ("https://files-us.pndsn.com:443/x", True),
        ("http://ps.pndsn.com/x", False),
        ("http://127.0.0.1:631/x", False),
        ("https://127.0.0.1/x", False),
        ("https://evilpndsn.com/x", False),
        ("https://pndsn.com.evil.example/x", False),
        ("https://ps.pndsn.com@evil.example/x", False),
        ("file:///etc/shadow", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_which_hosts_are_the_services_own(there: str, ours: bool):
    assert is_ours("https://ps.pndsn.com/v1/files", there) is ours


async def test_a_download_is_repeated_and_given_up_after_many_refusals(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 3)
    backend.answers[FIRST] += [(503, b""), (404, b""), (200, b"ok")]
    await download(http, addresses, tmp_path / "a", 10)
    backend.answers[FIRST] = [(404, b"")]
    with pytest.raises(Refused, match="HTTP 404"):
        await download(http, addresses, tmp_path / "a", 10)
    assert len(backend.asked) == 3 + 3


async def test_the_last_token_that_is_refused_is_a_refusal(
    http: Http, backend: FakeBackend, addresses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "REFUSALS_MAX", 2)
    backend.answers[FIRST] = backend.answers[SECOND] = [(403, b"")]
    with pytest.raises(TokenRefused):
        await download(http, addresses, tmp_path / "a", 10)
    assert [asked.path for asked in backend.asked] == [FIRST, SECOND, SECOND]


def test_a_file_has_a_name_even_if_nobody_gave_it_one():
    assert Upload("t1", b"", "text/plain", "o1").name == "t1-artifact"
