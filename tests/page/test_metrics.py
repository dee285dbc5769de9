"""/metrics says what `status` says, in names that Prometheus and the dashboard know."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from device_agent.page.metrics import COUNTERS, GAUGES, PREFIX, exposition
from device_agent.store.outbox.counts import OutboxCounts

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def status() -> dict[str, Any]:
    counts = OutboxCounts(queued=120)
    counts.accepted(90, 0.3)
    counts.accepted(10, 70.0)
    counts.lost["overflow"] += 7
    recovery = {"reopen": {"tried": 3, "helped": 1, "failed": 0}}
    return {
        "agent": "greenhouse_7",
        "version": "1.2",
        "instance": "i-1",
        "ready": True,
        "configuration": {"refused": ["x"], "waits_for_restart": []},
        "link": {"up": False, "losses": 4},
        "broker": {"up": True, "losses": 3},
        "clock": {"set": True},
        "sessions": [{}],
        "requests": 2,
        "commands": [
            {"state": "done", "code": "", "count": 5},
            {"state": "rejected", "code": "leased", "count": 2},
        ],
        "outbox": {
            "events": 20,
            "bytes": 4000,
            "max_bytes": 32_000_000,
            "memory_bytes": 3000,
            "age_s": 12.5,
            "written_bytes": 8192,
            "disk_failures": 1,
            **counts.figures(),
        },
        "disk": {"written_bytes": 100_000},
        "guard": {"up": True, "restarts": 0},
        "emergency_stop": {"latched": False},
        "loop_lag_s": 0.02,
        "buses": [
            {"bus": "i2c1", "state": "open", "jobs": 3, "faults": 6, "recovery": recovery},
        ],
        "devices": [
            {
                "device": "climate",
                "state": "online",
                "readings": 40,
                "notes": {"lines_unlike": 3, "refused x": "why"},
                "latest": {"at": 1_800_000_000_500},
            },
            {"device": "valve", "state": "offline", "readings": 0, "at_safe": None, "driven_by": "somebody"},
        ],
    }


def samples(text: bytes) -> dict[str, float]:
    """Value by name and labels, as they are written."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_every_figure_is_there_with_its_unit() -> None:
    text, content_type = exposition(status(), "")
    assert content_type.startswith("text/plain")
    found = samples(text)
    expected = {
        "ready": 1,
        "reload_refused": 1,
        "info{agent=greenhouse_7,instance=i-1,version=1.2}": 1,
        "readings_total{device=climate}": 40,
        "not_understood_total{device=climate,kind=lines_unlike}": 3,
        "device_online{device=climate}": 1,
        "device_online{device=valve}": 0,
        "device_measured_timestamp_seconds{device=climate}": 1_800_000_000.5,
        "leases": 1,
        "events_total": 120,
        "events_acknowledged_total": 100,
        "events_lost_total{reason=overflow}": 7,
        "outbox_bytes": 4000,
        "outbox_age_seconds": 12.5,
        "outbox_written_bytes_total": 8192,
        "publish_seconds_count": 2,
        "publish_seconds_sum": 70.3,
        "publish_seconds_bucket{le=0.25}": 0,
        "publish_seconds_bucket{le=0.5}": 1,
        "publish_seconds_bucket{le=60.0}": 1,
        "publish_seconds_bucket{le=+Inf}": 2,
        "link_up": 0,
        "link_losses_total": 4,
        "broker_up": 1,
        "broker_losses_total": 3,
        "commands_total{code=leased,state=rejected}": 2,
        "bus_faults_total{bus=i2c1}": 6,
        "bus_recoveries_total{bus=i2c1,result=tried,step=reopen}": 3,
        "bus_jobs{bus=i2c1}": 3,
        "loop_lag_seconds": 0.02,
    }
    assert {name: found.get(f"{PREFIX}{name}") for name in expected} == expected
    assert found[f"{PREFIX}process_resident_memory_bytes"] > 1_000_000
    assert b"broker" not in b"".join(
        line for line in exposition({**status(), "broker": None}, "")[0].splitlines(True) if line[:1] != b"#"
    ), "an agent without a door to one"
    # Of what nobody knows there is no sample, and text is no number.
    assert not [name for name in found if "at_safe" in name or "refused x" in name]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_each_family_has_a_help_and_a_type(accept: str) -> None:
    text = exposition(status(), accept)[0].decode()
    for one in (*GAUGES, *COUNTERS):
        assert re.search(rf"# HELP {PREFIX}{one.name}(_total)? \S.*\.", text), one.name


def test_the_dashboard_asks_for_what_is_there() -> None:
    """Metrics and labels; a panel that nobody sees anything on is worse than none."""
    written = exposition(status(), "")[0].decode()
    known = set(re.findall(rf"^({PREFIX}\w+)", written, re.MULTILINE))
    labels = {one.labels for one in (*GAUGES, *COUNTERS)}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(rf"{PREFIX}\w+", target["expr"]))
            for names in re.findall(r"by \(([^)]*)\)", target["expr"]):
                by = set(names.split(", ")) - {"le", "instance"}
                assert not by or any(by <= set(known_labels) for known_labels in labels), target
    assert len(asked) >= 20
    assert asked <= known, asked - known
