"""/metrics: the answer to `status`, as Prometheus reads it. Loaded when it is first asked for.

Labels are names of the configuration, or come from lists that are fixed in the program.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

PREFIX = "device_agent_"
PUBLISH = f"{PREFIX}publish_seconds"
# Resident memory, processor time and open files of the daemon, under the names that are usual for them.
PROCESS = ProcessCollector(namespace="device_agent", registry=None)

Status = Mapping[str, Any]
Samples = Iterable[tuple[tuple[str, ...], float]]


class Family(NamedTuple):
    """A metric: its samples are label values and a value each."""

    name: str
    help: str
    samples: Callable[[Status], Samples]
    labels: tuple[str, ...] = ()


def _one(*path: str) -> Callable[[Status], Samples]:
    """The only sample, at this path in the status."""

    def samples(status: Status) -> Samples:
        value: Any = status
        for name in path:
            value = value[name]
        return [((), float(value))]

    return samples


def _each(table: str, value: Callable[[Status], float | None], *labels: str) -> Callable[[Status], Samples]:
    """A sample for each row of a table that has a value, labelled by these members."""

    def samples(status: Status) -> Samples:
        for row in status[table]:
            if (found := value(row)) is not None:
                yield tuple(str(row[name]) for name in labels), float(found)

    return samples


def _of_broker(figure: str) -> Callable[[Status], Samples]:
    """The only sample, of an agent with a door to a broker."""
    return lambda status: [((), float(status["broker"][figure]))] if status["broker"] else []


def _not_understood(status: Status) -> Samples:
    for device in status["devices"]:
        for kind, count in device.get("notes", {}).items():
            if isinstance(count, int):
                yield (device["device"], kind), count


def _recoveries(status: Status) -> Samples:
    for bus in status["buses"]:
        for step, figures in bus["recovery"].items():
            for result in ("tried", "helped", "failed"):
                yield (bus["bus"], step, result), figures[result]


def _at_safe(device: Status) -> float | None:
    return device.get("at_safe")


def _measured_s(device: Status) -> float | None:
    return device["latest"]["at"] / 1000 if "latest" in device else None


GAUGES = (
    Family(
        "info",
        "The program and this instance of it.",
        lambda status: [((status["agent"], status["version"], status["instance"] or ""), 1)],
        ("agent", "version", "instance"),
    ),
    Family("ready", "1 from READY=1 to the stop.", _one("ready")),
    Family(
        "reload_refused",
        "1 while the file is not in force, since its last reload was refused.",
        lambda status: [((), float(bool(status["configuration"]["refused"])))],
    ),
    Family("link_up", "1 while the network answers.", _one("link", "up")),
    Family("broker_up", "1 while the MQTT broker is there.", _of_broker("up")),
    Family("clock_set", "1 if the time is known.", _one("clock", "set")),
    Family("sessions", "Pipe sessions that run.", lambda status: [((), len(status["sessions"]))]),
    Family("requests", "Request tasks that run.", _one("requests")),
    Family("outbox_events", "Events that wait for their acknowledgement.", _one("outbox", "events")),
    Family("outbox_bytes", "Bytes of these events.", _one("outbox", "bytes")),
    Family("outbox_max_bytes", "The outbox holds no more.", _one("outbox", "max_bytes")),
    Family("outbox_memory_bytes", "Of these events, bytes in memory.", _one("outbox", "memory_bytes")),
    Family("outbox_age_seconds", "Age of the oldest event that waits.", _one("outbox", "age_s")),
    Family("loop_lag_seconds", "Longest delay of the event loop in a minute.", _one("loop_lag_s")),
    Family("guard_up", "1 while the guard watches.", _one("guard", "up")),
    Family("emergency_stop_latched", "1 while the emergency stop holds.", _one("emergency_stop", "latched")),
    Family(
        "leases",
        "Devices that somebody drives.",
        lambda status: [((), sum("driven_by" in device for device in status["devices"]))],
    ),
    Family(
        "device_online",
        "1 while the device works.",
        _each("devices", lambda device: device["state"] == "online", "device"),
        ("device",),
    ),
    Family(
        "device_at_safe",
        "1 while an actuator is at its safe values; missing while nobody knows.",
        _each("devices", _at_safe, "device"),
        ("device",),
    ),
    Family(
        "device_measured_timestamp_seconds",
        "When the newest reading was measured, Unix time.",
        _each("devices", _measured_s, "device"),
        ("device",),
    ),
    Family(
        "bus_open",
        "1 while the bus is open.",
        _each("buses", lambda b: b["state"] == "open", "bus"),
        ("bus",),
    ),
    Family(
        "bus_jobs", "Jobs that wait for the bus.", _each("buses", lambda bus: bus["jobs"], "bus"), ("bus",)
    ),
)
COUNTERS = (
    Family(
        "readings",
        "Readings of the device.",
        _each("devices", lambda device: device["readings"], "device"),
        ("device",),
    ),
    Family(
        "not_understood",
        "What the driver could not use of what the device said, by kind.",
        _not_understood,
        ("device", "kind"),
    ),
    Family("events", "Events that were queued for callers.", _one("outbox", "queued")),
    Family("events_acknowledged", "Events that the far end has.", _one("outbox", "acknowledged")),
    Family(
        "events_lost",
        "Events that will not come, by the reason that the gap gives.",
        lambda status: [((reason,), count) for reason, count in status["outbox"]["lost"].items()],
        ("reason",),
    ),
    Family("outbox_written_bytes", "Bytes written to the outbox's file.", _one("outbox", "written_bytes")),
    Family("outbox_disk_failures", "Writes of the outbox that failed.", _one("outbox", "disk_failures")),
    Family("disk_written_bytes", "Bytes written to disks by the daemon.", _one("disk", "written_bytes")),
    Family("link_losses", "How often the network was lost.", _one("link", "losses")),
    Family("broker_losses", "How often the MQTT broker was lost.", _of_broker("losses")),
    Family(
        "commands",
        "Commands by how they ended.",
        _each("commands", lambda row: row["count"], "state", "code"),
        ("state", "code"),
    ),
    Family(
        "bus_faults", "How often the bus failed.", _each("buses", lambda bus: bus["faults"], "bus"), ("bus",)
    ),
    Family(
        "bus_recoveries",
        "Steps taken to recover the bus, the gentle ones first, by what came of them.",
        _recoveries,
        ("bus", "step", "result"),
    ),
    Family("guard_restarts", "How often the guard was started anew.", _one("guard", "restarts")),
)


class _Scrape:
    """What a registry collects from: one status."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        for kind, families in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for one in families:
                family = kind(PREFIX + one.name, one.help, labels=one.labels)
                for labels, value in one.samples(self._status):
                    family.add_metric(labels, value)
                yield family
        publish = self._status["outbox"]["publish"]
        limits = ["+Inf" if limit is None else str(limit) for limit, _ in publish["messages"]]
        counts = accumulate(count for _, count in publish["messages"])
        buckets = list(zip(limits, counts, strict=True))
        yield HistogramMetricFamily(
            PUBLISH, "From a message's first try to its acceptance.", buckets, publish["seconds"]
        )
        yield from PROCESS.collect()


def exposition(status: Status, accept: str) -> tuple[bytes, str]:
    """The text and its content type, as the scraper's Accept header wants it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(status))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
