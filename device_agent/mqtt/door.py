"""The door to a broker: state and availability of each device, the numbered events, commands and their acks.

It has no rule of its own: every question is asked as `local:mqtt`.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

import structlog

from device_agent.background import BackgroundTasks, Backoff, first_of
from device_agent.bus.mqtt_link import BrokerLink, Incoming, Outgoing
from device_agent.config.mqtt import MqttConfig
from device_agent.errors import BusError, Fault, Rejected
from device_agent.mqtt.discovery import announcements
from device_agent.network import MessageSource
from device_agent.operate.control_socket import Handler, answer

log = structlog.get_logger("mqtt")

DOOR = "local:mqtt"
AGAIN_FIRST_S = 0.5
AGAIN_MAX_S = 30.0
# How often it is seen whether there are other devices, or the rules let it read others.
LOOK_EVERY_S = 5.0
# A device's newest state goes out at most this often.
STATE_EVERY_S = 0.1
# Bytes of events on their way to the broker, before it has acknowledged them.
EVENTS_BYTES = 32_000
REFUSED_AGAIN_S = 5.0
# Commands under way at once; more are refused.
COMMANDS_MAX = 64
COMMAND_MAX_BYTES = 16_384
# An answer that nobody took for so long is of no use, with a broker of MQTT 5.
ACK_EXPIRES_S = 60
FAREWELL_S = 0.5
ONLINE, OFFLINE = b"online", b"offline"
MINE = frozenset(("value", "args", "id", "ttl_ms", "at", "dry_run"))


class Feed(Protocol):
    """What the runtime gives a door by itself (`tasks.local_events`)."""

    @property
    def source(self) -> MessageSource: ...
    async def news(self) -> set[str]: ...
    def present(self, name: str) -> tuple[str, dict[str, Any] | None]: ...
    def readable(self) -> list[str]: ...
    def answered(self, ack: Mapping[str, Any]) -> None: ...


class MqttDoor:
    """Serves until cancelled, over any number of connections."""

    def __init__(self, config: MqttConfig, agent: str, handlers: Mapping[str, Handler], feed: Feed) -> None:
        """`handlers` are those of the control socket, by op; `agent` is the agent's name."""
        self._config = config
        self._agent = agent
        self._handlers = handlers
        self._feed = feed
        self._prefix = config.prefix or f"device-agent/{agent}"
        self._version = 5
        self._up, self._losses = False, 0
        self._background = BackgroundTasks("mqtt")
        self._announced: dict[str, bytes] = {}
        """Discovery payloads, by topic, that this connection has published."""
        self._shown: dict[str, bytes] = {}
        """The availability of each device, as this connection has published it."""
        self._found_stale: set[str] = set()
        """Devices that the broker remembers from earlier times."""

    async def run(self) -> None:
        """A broker that is away is looked for, later each time; each trouble is logged once."""
        backoff, logged = Backoff(AGAIN_FIRST_S, AGAIN_MAX_S), ""
        try:
            while True:
                try:
                    await self._serve(backoff)
                except BusError as error:
                    if logged != str(error):
                        log.warning("mqtt_away", error=str(error))
                    logged = str(error)
                await asyncio.sleep(backoff.next_s())
        finally:
            await self._background.close()

    async def _serve(self, backoff: Backoff) -> None:
        """One connection. Raises BusError."""
        link = BrokerLink(
            self._config,
            self._availability(False)[:2],
            self._version,
            self._stale,
            (lambda message: self._command(link, message)) if self._config.commands else None,
        )
        self._announced, self._shown, self._found_stale = {}, {}, set()
        try:
            await link.open()
            await self._begin(link)
            log.info("mqtt_joined", broker=f"{self._config.host}:{self._config.port}", version=self._version)
            backoff.reset()
            self._up = True
            await self._work(link)
        except BusError:
            self._losses += self._up
            self._version = 4 if link.version_refused and self._version == 5 else 5
            raise
        except asyncio.CancelledError:
            await self._farewell(link)
            raise
        finally:
            self._up = False
            await link.close()

    def figures(self) -> dict[str, Any]:
        """Whether the broker is there, and how often it was lost."""
        return {"up": self._up, "losses": self._losses}

    async def _begin(self, link: BrokerLink) -> None:
        commands = [f"{self._prefix}/{rest}" for rest in ("+/+/set", "+/do/+", "stop")]
        await link.listen(f"{self._prefix}/+/availability", commands)
        await self._show(link)
        await link.publish(self._availability(True))

    async def _work(self, link: BrokerLink) -> None:
        jobs = [link.until_lost(), self._send_events(link), self._send_states(link), self._follow(link)]
        ended = [job for job in await first_of(*jobs) if job is not None]
        for error in [job.exception() for job in ended]:
            if error is not None:
                raise error

    async def _farewell(self, link: BrokerLink) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await link.publish(self._availability(False))
        except (BusError, TimeoutError):
            return  # then the broker says it, by the will

    def _availability(self, online: bool) -> Outgoing:
        return Outgoing(f"{self._prefix}/availability", ONLINE if online else OFFLINE, True)

    # -- what goes out ----------------------------------------

    async def _send_events(self, link: BrokerLink) -> None:
        """Each event is a message. All of one number of the outbox are acknowledged before the next go out;
        after a lost connection they go out again."""
        source, topic = self._feed.source, f"{self._prefix}/events"
        while not source.closed:
            await source.until_ready()
            message = source.next_message(EVENTS_BYTES)
            if message is None:
                continue
            await self._accepted(link, [Outgoing(topic, item) for item in message.items])
            source.ack(message)

    async def _accepted(self, link: BrokerLink, messages: list[Outgoing]) -> None:
        """What the broker refuses (its access list, its disk) it is asked again."""
        logged = ""
        while True:
            try:
                return await link.publish(*messages)
            except BusError as error:
                if error.reason != "permission":
                    raise
                if logged != str(error):
                    logged = str(error)
                    log.warning("mqtt_events_refused", error=logged)
            await asyncio.sleep(REFUSED_AGAIN_S)

    async def _send_states(self, link: BrokerLink) -> None:
        while True:
            names = await self._feed.news()
            await self._publish_all(link, self._states(names & set(self._feed.readable())))
            await asyncio.sleep(STATE_EVERY_S)

    def _states(self, names: Iterable[str]) -> list[Outgoing]:
        messages = []
        for name in sorted(names):
            state, reading = self._feed.present(name)
            place = f"{self._prefix}/{name}"
            if reading is not None:
                del reading["device"]
                messages.append(Outgoing(f"{place}/state", _json(reading), True))
            online = ONLINE if state == "online" else OFFLINE
            if self._shown.get(name) != online:
                self._shown[name] = online
                messages.append(Outgoing(f"{place}/availability", online, True))
        return messages

    async def _publish_all(self, link: BrokerLink, messages: Iterable[Outgoing]) -> None:
        """What the broker refuses of these is logged; the rest goes on."""
        if messages := list(messages):
            try:
                await link.publish(*messages)
            except BusError as error:
                if error.reason != "permission":
                    raise
                log.warning("mqtt_refused", error=str(error))

    async def _follow(self, link: BrokerLink) -> None:
        """A reload brings other devices, or other rights."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._show(link)

    async def _show(self, link: BrokerLink) -> None:
        """Devices that are new to this connection, what has changed of them, and the end of those gone."""
        readable = set(self._feed.readable())
        gone = (self._shown.keys() | self._found_stale) - readable
        announced = await self._discovery() if self._config.home_assistant else {}
        messages = [
            Outgoing(topic, payload, True)
            for topic, payload in announced.items()
            if self._announced.get(topic) != payload
        ]
        messages += self._states(readable - self._shown.keys())
        for name in sorted(gone):
            for rest in ("state", "availability"):
                messages.append(Outgoing(f"{self._prefix}/{name}/{rest}", b"", True))
            messages.append(Outgoing(self._discovery_topic(name), b"", True))
            self._shown.pop(name, None)
        self._announced, self._found_stale = announced, set()
        await self._publish_all(link, messages)

    async def _discovery(self) -> dict[str, bytes]:
        described = await self._ask({"op": "describe"})
        status = await self._ask({"op": "status"})
        if not described["ok"] or not status["ok"]:
            return self._announced
        found = announcements(
            described["result"], self._agent, self._prefix, status["result"]["version"], self._config.commands
        )
        return {self._discovery_topic(name): _json(payload) for name, payload in found.items()}

    def _discovery_topic(self, name: str) -> str:
        return f"{self._config.discovery_prefix}/device/{self._agent}_{name}/config"

    def _stale(self, message: Incoming) -> None:
        """The availability of a device, retained: perhaps of one that an earlier configuration had."""
        if message.payload and message.retained:
            self._found_stale.add(message.topic.removeprefix(f"{self._prefix}/").partition("/")[0])

    # -- what comes in ----------------------------------------

    def _command(self, link: BrokerLink, message: Incoming) -> None:
        if not message.payload and message.retained:
            return  # somebody took a retained message back
        waiting, is_stop = len(self._background), message.topic.endswith("/stop")
        if waiting < COMMANDS_MAX * (2 if is_stop else 1):
            work: Coroutine[Any, Any, Any] = self._carry_out(link, message)
        elif is_stop:
            work = self._ack_of(message)  # which a broker that takes no answers does not hold up
        else:
            work = self._refuse(link, message, f"{COMMANDS_MAX} commands wait for their answers already")
        if waiting < COMMANDS_MAX * (3 if is_stop else 2):
            self._background.spawn("command", work)
        else:
            work.close()  # a flood that does not even read its refusals

    async def _refuse(self, link: BrokerLink, message: Incoming, why: str) -> None:
        fault = Fault("too_soon", why)
        await self._answer(link, message, _rejected("", fault.members()), to_events=False)

    async def _carry_out(self, link: BrokerLink, message: Incoming) -> None:
        await self._answer(link, message, await self._ack_of(message))

    async def _ack_of(self, message: Incoming) -> dict[str, Any]:
        """What became of the command."""
        try:
            if message.retained:
                raise Rejected("expired", "a retained command moves nothing: publish it without retain")
            question = question_of(message.topic.removeprefix(f"{self._prefix}/").split("/"), message)
            found = await self._ask({**question, "age_ms": message.age_s * 1000})
            ack = found["result"] if found["ok"] else _rejected(question["id"], found["error"])
        except Rejected as rejected:
            ack = _rejected("", rejected.fault.members())
        if (file := ack.pop("file", None)) is not None:
            ack["file"] = {"name": file["name"], "mime_type": file["mime_type"], "bytes": len(file["data"])}
        return ack

    async def _answer(
        self, link: BrokerLink, message: Incoming, ack: dict[str, Any], *, to_events: bool = True
    ) -> None:
        """The ack on the device's topic, on the one that was asked for, and among the events; the state after
        it, for whoever showed the new one already."""
        if to_events:
            self._feed.answered(ack)
        name = message.topic.removeprefix(f"{self._prefix}/").partition("/")[0]
        topics = [f"{self._prefix}/ack" if name == "stop" else f"{self._prefix}/{name}/ack"]
        if message.response_topic:
            topics.append(message.response_topic)
        body = _json(ack)
        messages = [
            Outgoing(topic, body, expires_s=ACK_EXPIRES_S, correlation=message.correlation)
            for topic in topics
        ]
        if name in self._feed.readable():
            messages += self._states([name])
        try:
            await link.publish(*messages)
        except BusError as error:
            log.info("mqtt_ack_not_sent", id=ack["id"], error=str(error))

    def _ask(self, question: Mapping[str, Any]) -> Awaitable[dict[str, Any]]:
        return answer(self._handlers, {**question, "as": DOOR})


def question_of(place: list[str], message: Incoming) -> dict[str, Any]:
    """The question that a command is: `DEVICE/POINT/set`, `DEVICE/do/ACTION`, `stop`. Raises Rejected.

    The payload is a value, or an object with `value` (of an action: `args`), and `id`, `ttl_ms`, `at` (epoch
    milliseconds), `dry_run` besides. Text that is no JSON is a value of text.
    """
    options = _options(message.payload)
    question: dict[str, Any] = {"id": f"mqtt-{secrets.token_hex(8)}"}
    question |= {name: value for name, value in options.items() if name not in ("value", "args")}
    if message.expires_s is not None:
        question.setdefault("ttl_ms", message.expires_s * 1000)
    match place:
        case ["stop"]:
            return {"op": "stop", "id": question["id"]}
        case [device, "do", action] if "value" not in options:
            return {
                "op": "do",
                "device": device,
                "action": action,
                "args": options.get("args", {}),
                **question,
            }
        case [device, point, "set"] if "value" in options and "args" not in options:
            return {"op": "set", "device": device, "values": {point: options["value"]}, **question}
    raise Rejected(
        "invalid_value", "a set has a value, or an object with `value`; a do has an object or nothing"
    )


def _options(payload: bytes) -> dict[str, Any]:
    if len(payload) > COMMAND_MAX_BYTES:
        raise Rejected("invalid_value", f"the command has more than {COMMAND_MAX_BYTES} bytes")
    if not payload:
        return {}
    text = payload.decode(errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"value": text}
    if not isinstance(value, dict):
        return {"value": value}
    if unknown := ", ".join(sorted(value.keys() - MINE)):
        raise Rejected("invalid_value", f"{unknown[:100]}: a command has {', '.join(sorted(MINE))}")
    return value


def _rejected(id_: object, error: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id_ if isinstance(id_, str) else "", "state": "rejected", "error": dict(error)}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()
