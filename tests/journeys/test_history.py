"""History for the official caller and for the owner: JSON inline, much of it as an upload, a picture."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from device_agent.store.history.history_block import HistoryBlock, pack
from device_agent.store.history.history_file import HistoryFile
from device_agent.testing.network import NetworkThread
from support.callers import question, result
from support.deployment import CONFIG, World
from support.waiting import LIMIT_S, until

HOUR_MS = 3_600_000
HOURS = 20
# In the first of them the device had another name.
HOURS_AS_ATTIC = 5
# Once for all tests: some of them may run after the next hour has begun.
END_MS = time.time_ns() // 1_000_000 // HOUR_MS * HOUR_MS


def fill(path: Path) -> None:
    """A record of the last hours, as an earlier life of the daemon left it: a reading every 10 s."""
    path.parent.mkdir(parents=True, mode=0o700)
    file = HistoryFile(path, keep_ms=7 * 24 * HOUR_MS, max_bytes=64_000_000)
    first = END_MS // HOUR_MS - HOURS
    for hour in range(first, first + HOURS):
        at = [hour * HOUR_MS + 10_000 * n for n in range(360)]
        columns: list[list[Any]] = [
            [20 + n % 60 / 10 for n in range(360)],
            [1013.25] * 360,
            [45 + hour % 7] * 360,
        ]
        name = "attic" if hour < first + HOURS_AS_ATTIC else "climate"
        file.append([pack(HistoryBlock(name, 0, ("temperature", "pressure", "humidity"), at, columns))])
    file.close()


@pytest.fixture(scope="module")
def world(net: NetworkThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon that begins with a record."""
    folder = tmp_path_factory.mktemp("world")
    fill(folder / "state" / "history.db")
    config = CONFIG.replace("[devices.climate]", '[devices.climate]\nformerly = ["attic"]')
    with World(folder, net, config=config) as made:
        made.start()
        until(lambda: made.daemon.ask("status")["history"]["readings"] > 3, "some readings")
        yield made


def asked(client: Any, body: dict[str, Any]) -> tuple[dict[str, Any], Any, bytes]:
    """The result, the reference of the artifact `history`, and its bytes."""
    session = question(client, {"op": "history", "devices": ["climate"], **body})
    again = client.connect(session.task_id)
    references = until(lambda: len(again.list_artifacts()) == 2 and again.list_artifacts(), "two artifacts")
    # The result comes first, as the card lists them.
    answer = json.loads(again.download_artifact(references[0]).data)
    assert session.terminal["state"] == "completed"
    data = again.download_artifact(references[1]).data
    again.close()
    return answer, references[1], data


def last(hours: float) -> dict[str, int]:
    """So many whole hours, which end with the record of the earlier life."""
    return {"from": round(END_MS - hours * HOUR_MS), "to": END_MS - 1}


def test_readings_as_json_inline(world: World, alice: Any) -> None:
    span = last(0.25)
    answer, reference, data = asked(alice, span)
    assert answer == {"op": "history", "state": "done", "count": 90, **span}
    assert (reference.kind, reference.mime_type) == ("inline", "application/json")
    body = json.loads(data)
    assert len(body["readings"]) == 90
    assert body["readings"][0]["at"] == span["from"]
    assert set(body["readings"][0]["values"]) == {"temperature", "pressure", "humidity"}
    assert body["units"]["climate"]["temperature"] == "Cel"


def test_what_happened_a_moment_ago_is_there(world: World, alice: Any) -> None:
    session = question(alice, {"op": "set", "device": "scale", "values": {"setpoint": 7}})
    assert session.terminal["state"] == "completed"
    _, _, data = asked(alice, {"devices": ["scale"]})
    assert json.loads(data)["readings"][-1]["values"]["setpoint"] == 7


def test_means_of_steps_by_iso_time(world: World, alice: Any) -> None:
    span = last(2)
    iso = {name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000)) for name, ms in span.items()}
    answer, _, data = asked(alice, {**iso, "every_s": 600})
    assert answer["count"] == 12
    first = json.loads(data)["readings"][0]
    assert first["thinned"]["count"] == 60
    assert first["thinned"]["minimum"]["temperature"] == 20
    assert first["thinned"]["maximum"]["temperature"] == pytest.approx(25.9)
    assert first["values"]["temperature"] == pytest.approx(22.95)


def test_days_of_the_callers_time_zone(world: World, alice: Any) -> None:
    span = {"from": END_MS - HOURS * HOUR_MS, "to": END_MS - 1, "every_s": 86_400}
    zones = {}
    for zone in ("Europe/Berlin", "Pacific/Kiritimati"):
        _, _, data = asked(alice, {**span, "zone": zone})
        zones[zone] = [reading["thinned"] for reading in json.loads(data)["readings"]]
        assert sum(step["count"] for step in zones[zone]) == HOURS * 360
    begins = [{step["from_at"] // HOUR_MS % 24 for step in steps} for steps in zones.values()]
    assert begins[0] <= {22, 23}, "midnight in Berlin"
    assert begins[1] == {10}, "midnight on Kiritimati"


def test_much_comes_as_an_uploaded_csv(world: World, alice: Any) -> None:
    answer, reference, data = asked(alice, {**last(HOURS), "format": "csv"})
    assert reference.kind != "inline"
    assert len(data) > 300_000
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert len(rows) == answer["count"] == HOURS * 360
    assert rows[0]["device"] == "climate"
    assert float(rows[1]["temperature"]) == 20.1


@pytest.mark.parametrize("path", ["*/request-upload", "/_storage/*", "*/confirm-upload"])
def test_an_upload_survives_a_fault_of_each_of_its_steps(world: World, alice: Any, path: str) -> None:
    for kind, options in (("status", {"status": 503}), ("reset", {})):
        world.net.call(lambda k=kind, o=options: world.net.net.add_fault(k, path, count=1, **o))
    answer, reference, data = asked(alice, {**last(HOURS), "format": "csv"})
    assert reference.kind != "inline"
    assert len(list(csv.DictReader(io.StringIO(data.decode())))) == answer["count"] == HOURS * 360


def test_a_picture_is_a_png(world: World, alice: Any) -> None:
    _, reference, data = asked(alice, {**last(6), "format": "png"})
    assert reference.mime_type == "image/png"
    assert data.startswith(b"\x89PNG\r\n")
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size[0] == 1400
        assert len(picture.convert("RGB").getcolors(100_000)) > 20


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"devices": ["nothing"]}, "unknown_device", "nothing"),
        ({"from": "yesterday"}, "invalid_value", "from: 'yesterday' is no instant"),
        ({"from": 2000, "to": 1000}, "invalid_value", "not before"),
        ({"format": "pdf"}, "invalid_value", "format"),
        ({"every_s": 0}, "invalid_value", "every_s"),
        ({"every": 3}, "invalid_value", "every"),
    ],
)
def test_refusals_say_field_and_reason(
    world: World, alice: Any, body: dict[str, Any], code: str, words: str
) -> None:
    session = question(alice, {"op": "history", "devices": ["climate"], **body})
    assert session.terminal["state"] == "failed"
    answer = result(session)
    assert (answer["state"], answer["error"]["code"]) == ("rejected", code)
    assert words in answer["error"]["message"]


# -- the owner ----------------------------------------------------------------------------------------------


def cli(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "device_agent", "--config", str(world.config), *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S * 3,
        check=False,
        env={**os.environ, "TZ": "UTC"},
    )


def test_the_owner_sees_a_table_and_writes_files(world: World, tmp_path: Path) -> None:
    span = last(4)
    ends = ("--from", str(span["from"]), "--to", str(span["to"]))
    table = cli(world, "history", "climate", *ends)
    assert table.returncode == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[0].split("  ")[0] == "time"
    assert "temperature [°C]" in lines[0]
    assert len(lines) == 4 * 12 + 2
    assert "(20 to 23" in lines[1] or "(20 to 22.9)" in lines[1]
    out = tmp_path / "day.csv"
    written = cli(world, "history", "climate", *ends, "--out", str(out))
    assert written.returncode == 0, written.stderr
    assert len(out.read_text().splitlines()) == 4 * 360 + 1
    told = cli(world, "history", "climate", *ends, "--json")
    assert len(json.loads(told.stdout)["readings"]) == 4 * 360


def test_without_a_time_the_table_fits_what_is_recorded(world: World) -> None:
    """The record has old rows and, after a pause, those of now: a day's table shows these in fine steps."""
    done = cli(world, "history", "climate")
    assert done.returncode == 0, done.stderr
    assert "means of 1800 s" in done.stdout


def test_who_may_not_read_the_file_asks_the_daemon(world: World) -> None:
    answer = world.daemon.ask("history", devices=["climate"], format="csv", **last(1))
    assert answer["count"] == 360
    assert answer["data"].startswith(b"time,at,device,temperature")
    refused = world.daemon.ask("history", devices=["climate"], format="bmp")
    assert "format" in refused["error"]["message"]


def test_days_are_this_machines_or_those_of_a_zone(world: World) -> None:
    ends = ("--from", str(END_MS - HOURS * HOUR_MS), "--to", str(END_MS - 1), "--every", "1d", "--json")
    local = json.loads(cli(world, "history", "climate", *ends).stdout)
    assert local["zone"] == "local"
    times = [datetime.fromtimestamp(r["at"] / 1000, UTC).time().isoformat() for r in local["readings"]]
    assert set(times) == {"00:00:00"}
    far = json.loads(cli(world, "history", "climate", *ends, "--zone", "Pacific/Kiritimati").stdout)
    assert {reading["at"] // HOUR_MS % 24 for reading in far["readings"]} == {10}
    assert "there is no time zone" in cli(world, "history", "climate", *ends, "--zone", "Mars").stderr


def test_a_renamed_device_is_found_under_both_names(world: World, tmp_path: Path) -> None:
    ends = ("--from", str(END_MS - HOURS * HOUR_MS), "--to", str(END_MS - 1), "--every", "1d", "--json")

    def count(config: Path, name: str) -> int:
        done = cli(world, "--config", str(config), "history", name, *ends)
        return sum(r["thinned"]["count"] for r in json.loads(done.stdout)["readings"])

    text = world.config.read_text().replace("climate", "air").replace('formerly = ["attic"]', "")
    renamed = tmp_path / "renamed.toml"
    renamed.write_text(text)
    assert count(world.config, "climate") == HOURS * 360
    assert count(renamed, "climate") == (HOURS - HOURS_AS_ATTIC) * 360, "what nobody is called now"
    assert count(renamed, "air") == 0
    renamed.write_text(text.replace("[devices.air]", '[devices.air]\nformerly = ["climate"]'))
    assert count(renamed, "air") == (HOURS - HOURS_AS_ATTIC) * 360


def test_a_device_that_does_not_exist_is_named(world: World) -> None:
    done = cli(world, "history", "nothing")
    assert done.returncode == 1
    assert "there is no device 'nothing'; there are: climate" in done.stderr


def test_status_and_monitor_show_the_record(world: World) -> None:
    shown = cli(world, "status").stdout
    assert "history  " in shown
    assert "a day written" in shown
    assert "guard    on watch" in shown
    monitor = cli(world, "monitor", "--times", "2")
    assert monitor.returncode == 0
    assert len(monitor.stdout.splitlines()) == 2
    assert "climate: temperature" in monitor.stdout
    lines = cli(world, "monitor", "--json", "--times", "1").stdout.splitlines()
    assert json.loads(lines[0])["history"]["max_bytes"] == 64_000_000


def test_without_a_daemon_the_file_answers(world: World) -> None:
    """The last test of this module: it ends the daemon."""
    assert world.daemon.stop() == 0
    span = last(1)
    done = cli(world, "history", "climate", "--from", str(span["from"]), "--to", str(span["to"]), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["readings"]) == 360
    assert cli(world, "monitor").returncode == 69


def test_switched_off_there_is_none(net: NetworkThread, new_world: Any, alice: Any) -> None:
    world = new_world(more="\n[history]\nenabled = false\n")
    world.start()
    session = question(alice, {"op": "history", "devices": ["climate"]})
    assert session.terminal["state"] == "failed"
    assert "keeps no history" in result(session)["error"]["message"]
    assert not (world.folder / "state" / "history.db").exists()
    assert world.daemon.ask("status")["history"] is None
    assert "keeps no history" in cli(world, "history", "climate").stderr
