"""A caller of one agent on the official SDK, for `call` and `demo`: questions, and sessions with streams.

The SDK can miss what is published within two round trips of its own request; both kinds of task look again.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from device_agent.cli.call_sdk import sdk, translated
from device_agent.cli.common import Unavailable
from device_agent.errors import AgentError, Rejected

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
class Item:
    """Something from a stream: an event of any form, or bytes. `at_s` is `time.monotonic()` on arrival."""

    stream: str
    payload: Any
    at_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; nothing follows."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open stream. `writable`: the agent listens on it."""

    format: str
    writable: bool
    client: Any


class Caller:
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

    def open(self, request: Mapping[str, Any], minutes: int) -> "Session":
        """A pipe task of 1 to 43200 minutes; `request` as in design section 4, may be empty."""
        parts = [_part(request)] if request else []
        with translated():
            session = self._client.send_message(
                agent_name=self.agent, request_parts=parts, task_kind="pipe", duration=minutes
            )
        return Session(self._client, session)


class Session:
    """A pipe task: what its streams carry, in the order of arrival, ended by one `Ended`."""

    def __init__(self, client: Any, session: Any) -> None:
        self.task_id: str = session.task_id
        self.items: queue.SimpleQueue[Item | Ended] = queue.SimpleQueue()
        self._client = client
        self._sessions = [session]
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._streams: dict[str, Opened] = {}
        self._opened = threading.Event()
        self._over = threading.Event()
        self._listen(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_open(self, limit_s: float) -> None:
        """Until a stream is open. Raises Unavailable, or Rejected with the agent's reason."""
        deadline_s = time.monotonic() + limit_s
        while not self._opened.wait(min(LOOK_AGAIN_S, limit_s)):
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the agent has opened no stream in {limit_s:g} s: is it online, or busy?")
            with translated():
                again = self._client.connect(self.task_id)
            self._sessions.append(again)
            self._listen(again)

    @property
    def streams(self) -> dict[str, Opened]:
        """Open streams by declared name."""
        with self._lock:
            return dict(self._streams)

    def get(self, timeout_s: float) -> Item | Ended | None:
        """The next item, None after `timeout_s`."""
        try:
            item = self.items.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            return None
        if isinstance(item, Ended) and item.state == "failed" and not item.reason:
            # A session that the SDK built from the record knows the state alone.
            with translated():
                return Ended(item.state, _recorded_reason(self._client, self.task_id))
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
            self._streams[name] = Opened(descriptor.format, descriptor.local_direction != "inbound", stream)
        self._opened.set()
        if descriptor.local_direction == "outbound":
            return
        for payload in stream.bytes() if descriptor.format == "bytes" else stream.events():
            self.items.put(Item(name, payload, time.monotonic()))

    def _ended(self, terminal: Any) -> None:
        self._over.set()
        self._opened.set()  # nothing will open any more
        reason = terminal.get("error") or terminal.get("reason") or terminal.get("completionReason") or ""
        self.items.put(Ended(str(terminal.get("state")), str(reason)))


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
    """Try a farewell; the SDK gives none of them a limit that a person would wait for."""

    def quietly() -> None:
        with contextlib.suppress(AgentError), translated():
            act()

    thread = threading.Thread(target=quietly, name="caller-farewell", daemon=True)
    thread.start()
    thread.join(limit_s)
