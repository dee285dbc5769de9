"""A caller of an agent on the official SDK, for `call` and `demo`: requests, and sessions with streams.

Here the SDK meets this program: its environment, its logging, its exceptions, its threads. It can miss what
is published within two round trips of its own request, so both kinds of task look into the record again.
"""

import contextlib
import importlib.util
import json
import logging
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from device_agent.cli.common import Unavailable
from device_agent.cli.show import units_of_card, units_of_description
from device_agent.errors import AgentError, ConfigError, Rejected

DEV_KEY = "bk_dev_local"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def sdk() -> Any:
    """The package `blocks_network`. Raises AgentError with the command that installs it."""
    if importlib.util.find_spec("blocks_network") is None:
        raise AgentError(
            "this needs the official SDK, which is not installed here: "
            f"{sys.executable} -m pip install 'blocks-network>=1.0.23' (the extra `caller` of this package)"
        )
    import blocks_network

    return blocks_network


def hush(log: Path | None = None) -> None:
    """Log what the SDK and its threads write to a file, or drop it, but keep it off the terminal."""
    handler: logging.Handler = logging.NullHandler() if log is None else logging.FileHandler(log)
    logging.getLogger().addHandler(handler)
    logger = logging.getLogger("device_agent.sdk")

    def note(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread is not None else "?"
        logger.debug("thread %s ended with %r", name, failed.exc_value)

    threading.excepthook = note


def use_local_network(url: str) -> None:
    """Point the SDK of this process at a stand-in. Raises AgentError for an address that is not local."""
    parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
    if parts.hostname not in _LOOPBACK or parts.scheme != "http":
        raise AgentError(
            f"--dev {url}: a development network is on this machine, such as http://127.0.0.1:8700; "
            "for another network set $BLOCKS_CDM_URL"
        )
    from device_agent.testing.network.sdk import sdk_environment

    path = parts.path if parts.path.endswith(".json") else "/config.json"
    key = os.environ.get("BLOCKS_API_KEY", DEV_KEY)
    os.environ.update(sdk_environment(f"http://{parts.netloc}{path}", parts.netloc, key))


def read_key(file: Path | None) -> str:
    """The caller's key: from the file (refused if others may read it), else $BLOCKS_API_KEY."""
    from device_agent.config.models import NetworkConfig
    from device_agent.config.secret import api_key

    try:
        # A file that was named on the command line goes before the environment.
        return api_key(NetworkConfig(api_key_file=file), environ={} if file is not None else os.environ)
    except ConfigError as error:
        text = str(error).replace("network.api_key_file = ", "--key-file ")
        text = text.replace("network.api_key_file", "--key-file")
        raise ConfigError(text.replace("give the systemd credential blocks_api_key, ", "give ")) from None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The SDK's exceptions, which are of many families, as ours: one sentence, and who has to act."""
    import httpx
    from blocks_network.rpc_client import RpcError
    from pubnub.exceptions import PubNubException

    try:
        yield
    except AgentError:
        raise
    except RpcError as error:
        raise _of_rpc(error) from error
    except TimeoutError as error:
        raise Unavailable(f"the network did not answer in time ({error})") from error
    except (RuntimeError, ValueError, LookupError, OSError, httpx.HTTPError, PubNubException) as error:
        raise _of_other(error) from error


def _of_rpc(error: Any) -> AgentError:
    data = error.data if isinstance(error.data, dict) else {}
    word = data.get("code")
    message = str(error.rpc_message)
    if word == "BillingModeMismatch":
        details = data.get("details")
        paid = isinstance(details, dict) and details.get("expected") == "paid"
        return AgentError(f"{message} {'Add --paid.' if paid else 'Leave --paid out.'}")
    if error.code in (401, 403):
        return Rejected("not_allowed", f"the network refuses this API key ({message}): use another one")
    if error.code is None:
        return _unreachable(message)
    return AgentError(f"the network refuses the task: {message}")


def _of_other(error: BaseException) -> AgentError:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < 8:
        chain.append(cause)
    for one in chain:
        status = getattr(one, "status", None) or (
            one.code if isinstance(one, urllib.error.HTTPError) else None
        )
        if status in (401, 403):
            return Rejected(
                "not_allowed", f"the network refuses this API key (HTTP {status}): use another one"
            )
    for one in chain:
        if isinstance(one, OSError) or type(one).__module__.startswith(("httpx", "httpcore")):
            return _unreachable(getattr(one, "reason", None) or one)
    if isinstance(error, RuntimeError) and "urlopen" not in str(error):
        return _unreachable(error)
    return AgentError(f"the network's answer is not understood ({type(error).__name__}: {error})")


def _unreachable(reason: object) -> Unavailable:
    where = os.environ.get("BLOCKS_CDM_URL")
    place = f"the network at {where}" if where else "the network"
    return Unavailable(f"{place} cannot be reached ({reason}): check the connection, then try again")


def leave(code: int) -> int:
    """End the process now where the SDK would keep it: a stopped stream's long-poll holds an ordinary thread
    for up to 310 s, and the interpreter would wait for that."""
    waiting = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if waiting:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


# Long enough for an answer on a good line, short enough for a person who waits.
LOOK_AGAIN_S = 4.0
CLOSE_LIMIT_S = 5.0
ENDED = ("completed", "failed", "canceled")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request task came to: the `result`, and the readings of a history as they were delivered."""

    result: Mapping[str, Any]
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class StreamItem:
    """Something from a stream: an event of any form, or bytes. `at_s` is `time.monotonic()` on arrival."""

    stream: str
    payload: Any
    at_s: float


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The session is over; nothing follows."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CallerStream:
    """An open stream. `writable`: the agent listens on it."""

    format: str
    writable: bool
    client: Any


class AgentCaller:
    """One agent, as one caller sees it. Raises AgentError, Rejected or Unavailable, each one sentence."""

    def __init__(self, agent: str, api_key: str, *, paid: bool = False) -> None:
        self.agent = agent
        with translated():
            create = sdk().TaskClient.create
            self._client = create(billing_mode="paid" if paid else "free", api_key=api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.destroy()

    def card(self) -> dict[str, Any]:
        """The agent's card; empty where it has none."""
        with translated():
            card = self._client.get_agent_card(self.agent)
        return card if isinstance(card, dict) else {}

    def units(self, limit_s: float) -> dict[str, dict[str, str]]:
        """Units by device and point: from the card, else asked for; empty where the agent states neither."""
        found = units_of_card(self.card())
        if found:
            return found
        try:
            return units_of_description(self.ask({"op": "describe"}, limit_s).result.get("devices"))
        except AgentError:
            return {}

    # -- questions ----------------------------------------

    def ask(self, question: Mapping[str, Any], limit_s: float) -> Answer:
        """A request task to its end. A task that is not done in time is cancelled: nothing happens late."""
        with translated():
            session = self._client.send_message(agent_name=self.agent, request_parts=[_part(question)])
        done = False
        try:
            with translated():
                state, error = self._ended(session, limit_s)
                done = True
                return self._answer(session, state, error)
        finally:
            if not done:
                _within(CLOSE_LIMIT_S, session.cancel)
            session.close()

    def _ended(self, session: Any, limit_s: float) -> tuple[str, str]:
        deadline_s = time.monotonic() + limit_s
        while True:
            try:
                terminal = session.wait_for_terminal(min(LOOK_AGAIN_S, limit_s))
                return str(terminal.state), str(terminal.get("error") or "")
            except TimeoutError:
                state = self._client.get_task(session.task_id).state
                if state in ENDED:
                    return str(state), _recorded_reason(self._client, session.task_id)
                if time.monotonic() > deadline_s:
                    raise Unavailable(self._silence(session, state, limit_s)) from None

    def _silence(self, session: Any, state: str | None, limit_s: float) -> str:
        if session.queued and state == "pending":
            return f"agent {self.agent} has not taken the task in {limit_s:g} s: is it online, or busy?"
        return f"agent {self.agent} has not answered in {limit_s:g} s"

    def _answer(self, session: Any, state: str, error: str) -> Answer:
        references = session.list_artifacts()
        inline = all(reference.kind == "inline" for reference in references)
        if not references or not inline:
            # From the task's record: the first session may have missed them, and it closes with the terminal.
            with contextlib.closing(self._client.connect(session.task_id)) as again:
                return _answer(self.agent, _downloaded(again), state, error)
        return _answer(self.agent, _downloaded(session), state, error)

    # -- sessions ----------------------------------------

    def open(self, request: Mapping[str, Any], minutes: int) -> "AgentSession":
        """A pipe task of 1 to 43200 minutes; `request` (docs/events.md) may be empty."""
        parts = [_part(request)] if request else []
        with translated():
            session = self._client.send_message(
                agent_name=self.agent, request_parts=parts, task_kind="pipe", duration=minutes
            )
        return AgentSession(self._client, session)


class AgentSession:
    """A pipe task: what its streams carry, in the order of arrival, ended by one `SessionEnd`."""

    def __init__(self, client: Any, session: Any) -> None:
        self.task_id: str = session.task_id
        self.items: queue.SimpleQueue[StreamItem | SessionEnd] = queue.SimpleQueue()
        self._client = client
        self._sessions = [session]
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._streams: dict[str, CallerStream] = {}
        self._opened = threading.Event()
        self._over = threading.Event()
        self._listen(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_open(self, limit_s: float) -> None:
        """Wait until a stream is open. Raises Unavailable, or Rejected with the agent's reason."""
        deadline_s = time.monotonic() + limit_s
        while not self._opened.wait(min(LOOK_AGAIN_S, limit_s)):
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the agent has opened no stream in {limit_s:g} s: is it online, or busy?")
            with translated():
                again = self._client.connect(self.task_id)
            self._sessions.append(again)
            self._listen(again)

    @property
    def streams(self) -> dict[str, CallerStream]:
        """Open streams by declared name."""
        with self._lock:
            return dict(self._streams)

    def get(self, timeout_s: float) -> StreamItem | SessionEnd | None:
        """The next item, None after `timeout_s`."""
        try:
            item = self.items.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(item, SessionEnd) and item.state == "failed" and not item.reason:
            # A session that the SDK built from the record knows the state alone.
            with translated():
                return SessionEnd(item.state, _recorded_reason(self._client, self.task_id))
        return item

    def write(self, stream: str, item: Any) -> None:
        """Send an event, or bytes. The SDK holds it for up to 250 ms to bundle it with others."""
        with translated():
            self.streams[stream].client.write(item)

    def close(self) -> None:
        """End the task, so that the agent makes safe what was driven, and let go. Bounded in time."""
        for session in self._sessions[:1]:
            if not self._over.is_set():
                _within(CLOSE_LIMIT_S, session.cancel)
        for session in self._sessions:
            _within(CLOSE_LIMIT_S, session.close)

    # -- from the SDK's threads ----------------------------------------

    def _listen(self, session: Any) -> None:
        session.on_stream(self._announced)
        session.on_terminal(self._ended)

    def _announced(self, reference: Any) -> None:
        with self._lock:
            if reference.descriptor.stream_id in self._seen:
                return
            self._seen.add(reference.descriptor.stream_id)
        threading.Thread(target=self._read, args=(reference,), name="caller-stream", daemon=True).start()

    def _read(self, reference: Any) -> None:
        descriptor = reference.descriptor
        name = descriptor.declared_stream or descriptor.stream_id
        stream = reference.open()
        with self._lock:
            # The descriptor's local direction is the caller's: what is inbound to him he cannot write.
            self._streams[name] = CallerStream(
                descriptor.format, descriptor.local_direction != "inbound", stream
            )
        self._opened.set()
        if descriptor.local_direction == "outbound":
            return
        for payload in stream.bytes() if descriptor.format == "bytes" else stream.events():
            self.items.put(StreamItem(name, payload, time.monotonic()))

    def _ended(self, terminal: Any) -> None:
        self._over.set()
        self._opened.set()  # nothing will open any more
        reason = terminal.get("error") or terminal.get("reason") or terminal.get("completionReason") or ""
        self.items.put(SessionEnd(str(terminal.get("state")), str(reason)))


# -- helpers ------------------------------------------------------------------------------------------------


def _part(body: Mapping[str, Any]) -> dict[str, str]:
    return {"partId": "request", "contentType": "application/json", "text": json.dumps(body)}


def _recorded_reason(client: Any, task_id: str) -> str:
    """Why a task failed, from its record."""
    with contextlib.closing(client.connect(task_id)) as session:
        terminals = [event for event in session.list_events() if event.type == "terminal"]
    return str(terminals[0].get("error") or "") if terminals else ""


def _downloaded(session: Any) -> Iterator[tuple[str, bytes]]:
    for reference in session.list_artifacts():
        yield str(reference.file_name or ""), session.download_artifact(reference).data


def _answer(agent: str, artifacts: Iterator[tuple[str, bytes]], state: str, error: str) -> Answer:
    """The result is the JSON object with a member `op`; what else there is are the readings."""
    result: Mapping[str, Any] | None = None
    data: bytes | None = None
    for _, body in artifacts:
        found = _json_object(body)
        if result is None and found is not None and "op" in found:
            result = found
        else:
            data = body
    if result is not None:
        return Answer(result, data)
    code, colon, message = error.partition(": ")
    if state == "failed" and colon:
        raise Rejected(code, f"{code}: {message}")
    raise AgentError(f"agent {agent} ended the task as {state} without a result{error and f' ({error})'}")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _within(limit_s: float, act: Any) -> None:
    """Close something within a limit; the SDK has none that a person would wait for."""

    def quietly() -> None:
        with contextlib.suppress(AgentError), translated():
            act()

    thread = threading.Thread(target=quietly, name="caller-close", daemon=True)
    thread.start()
    thread.join(limit_s)
