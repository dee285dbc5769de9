"""`device-agent call` from outside: the official SDK, the real daemon, exit codes that a script can use."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.waiting import until


def test_read_describe_and_set(calls: Any) -> None:
    read, table, describe = calls.together(("read", "climate", "--json"), ("read",), ("describe",))
    assert read.returncode == 0, read.stderr
    result = json.loads(read.stdout)
    assert result["op"] == "read"
    assert set(result["readings"][0]["values"]) == {"temperature", "pressure", "humidity"}
    assert result["readings"][0]["units"] == {"temperature": "Cel", "pressure": "hPa", "humidity": "%"}
    assert "°C" in table.stdout
    assert "valve" in table.stdout
    assert table.stderr == ""
    assert "settable, safe: off" in describe.stdout
    would = calls("set", "valve", "on", "on", "--dry-run")
    assert (would.returncode, would.stdout) == (0, "would be done\n"), would.stderr
    assert calls.world.valve_open() is False
    done = calls("set", "valve", "on", "on")
    assert (done.returncode, done.stdout) == (0, "done: on = on (read back)\n"), done.stderr
    assert calls.world.valve_open() is True
    back, pulse = calls("set", "valve", "on", "off", "--json"), calls("do", "valve", "pulse", "for_s=0.1")
    assert json.loads(back.stdout)["ack"]["verified"] is True
    assert pulse.returncode == 0, pulse.stderr


def test_set_for_a_time_goes_back_to_safe(calls: Any) -> None:
    assert calls("set", "valve", "on", "true", "--for", "1s").returncode == 0
    until(lambda: calls.world.valve_open() is False, "the valve closes by itself")


def test_an_emergency_stop_from_afar_is_released_at_the_device_alone(calls: Any) -> None:
    assert calls("set", "valve", "on", "on").returncode == 0
    refused = calls("stop", key="bk_stranger")
    assert (refused.returncode, refused.stdout) == (77, "")
    done = calls("stop")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert calls.world.valve_open() is False
    barred = calls("set", "valve", "on", "on")
    assert barred.returncode == 77
    assert "until somebody releases it at the device" in barred.stderr
    assert calls.owner("release").returncode == 0


FAULTS = [
    (("read", "nothing"), "bk_demo", 1, "there is no device 'nothing'"),
    (("set", "valve", "on", "7"), "bk_demo", 1, "valve.on takes a boolean, not 7"),
    (("set", "valve", "on", "on"), "bk_stranger", 77, "not_allowed"),
    (("read",), "wrong", 77, "refuses this API key"),
    (("read", "--paid"), "bk_demo", 1, "Leave --paid out"),
    (("read", "--dev", "http://127.0.0.1:1"), "bk_demo", 69, "cannot be reached"),
    (("read", "--dev", "http://example.com"), "bk_demo", 1, "is on this machine"),
    (("history", "climate", "--from", "soon"), "bk_demo", 2, "'soon' is no instant"),
    (("watch", "--stream", "nothing"), "bk_demo", 1, "there is no stream 'nothing'"),
]


def test_what_does_not_work_is_one_sentence(calls: Any) -> None:
    begun = [calls.begin(*words, key=key) for words, key, _, _ in FAULTS]
    for process, (words, _, code, sentence) in zip(begun, FAULTS, strict=True):
        done = calls.end(process)
        assert done.returncode == code, (words, done.stderr)
        assert sentence in done.stderr, words
        assert code == 2 or len(done.stderr.splitlines()) == 1, done.stderr


def test_without_a_key_it_says_where_to_put_one() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BLOCKS_")}
    done = subprocess.run(
        [sys.executable, "-m", "device_agent", "call", "anybody", "read"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert done.stderr.startswith("error: no API key (looked for")
    assert "$BLOCKS_API_KEY, --key-file" in done.stderr


def test_a_key_file_that_others_may_read_is_refused(calls: Any, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("bk_demo\n")
    file.chmod(0o644)
    done = calls("read", "climate", "--key-file", str(file), key="")
    assert (done.returncode, "chmod 600" in done.stderr) == (78, True)
    file.chmod(0o600)
    assert calls("read", "climate", "--key-file", str(file), key="").returncode == 0


def test_watch_as_lines_table_and_csv(calls: Any, tmp_path: Path) -> None:
    out = tmp_path / "readings.csv"
    # Alone: another caller's arrival on the shared stream would say the present once more, to all.
    (lines,) = calls.together(("watch", "climate", "--for", "2", "--format", "json"))
    table, csv = calls.together(
        ("watch", "--for", "2"),
        ("watch", "--stream", "live", "--for", "2", "--format", "csv", "--out", str(out)),
    )
    events = [json.loads(line) for line in lines.stdout.splitlines()]
    assert {event["device"] for event in events if event["kind"] == "reading"} == {"climate"}
    seen = [event["at"] for event in events if event["kind"] == "reading"]
    assert len(seen) == len(set(seen)), "a device that two streams carry is printed once"
    assert "climate      temperature" in table.stdout
    assert "°C" in table.stdout
    rows = out.read_text().splitlines()
    assert rows[0] == "at,device,point,value,unit,flag,late,seq"
    assert any(",climate,humidity," in row and ",%," in row for row in rows)
    assert [done.returncode for done in (lines, table, csv)] == [0, 0, 0]


def test_watch_passes_a_byte_stream_on_and_ends_in_order(calls: Any) -> None:
    process = calls.begin("watch", "--stream", "console", text=False)

    def heard() -> bool:
        # What is said before the stream is open is gone, as on a real console.
        calls.world.board("feed", "terminal", b"login: \xff\n")
        return bool(select.select([process.stdout], [], [], 0.2)[0])

    try:
        until(heard, "the prompt")
        assert process.stdout.readline() == b"login: \xff\n"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    until(lambda: not (calls.world.status() or {"sessions": [1]})["sessions"], "the session is over")


def test_drive_from_standard_input(calls: Any) -> None:
    process = calls.begin("drive", "--json", stdin=subprocess.PIPE)
    commands = [
        {"kind": "set", "id": "one", "device": "valve", "values": {"on": True}},
        {"kind": "set", "id": "two", "device": "climate", "values": {"temperature": 1}},
        "set valve on on",
        "make coffee",
    ]
    lines = [c if isinstance(c, str) else json.dumps(c) for c in commands]
    done = calls.end(process, "\n".join(lines))
    acks = [json.loads(line) for line in done.stdout.splitlines()]
    by_id = {ack["id"]: ack for ack in acks}
    assert (by_id["one"]["state"], by_id["one"]["verified"]) == ("done", True)
    assert by_id["two"]["error"]["code"] == "read_only"
    assert len(acks) == 3
    assert "'make coffee' is none of" in done.stderr
    assert done.returncode == 1


def test_drive_with_commands_as_arguments(calls: Any) -> None:
    good = calls.begin("drive", "--command", "set valve on on", "--command", "pause")
    stranger = calls.begin("drive", "--command", "set valve on on", key="bk_stranger")
    done, refused = calls.end(good), calls.end(stranger)
    assert done.returncode == 0, done.stderr
    assert "done: on = on (read back)" in done.stdout
    assert "pause: done" in done.stdout
    assert refused.returncode == 77
    assert "not_allowed" in refused.stdout


def test_history_is_written_to_a_file(calls: Any, tmp_path: Path) -> None:
    until(lambda: len(calls("history", "climate", "--format", "csv").stdout.splitlines()) > 1, "a reading")
    table, picture = tmp_path / "day.csv", tmp_path / "day.png"
    whole, told, shown, seen = calls.together(
        ("history", "climate", "--from", "1h", "--out", str(table)),
        ("history", "climate", "--from", "1h", "--json"),
        ("history", "climate"),
        ("history", "climate", "--from", "1h", "--every", "1", "--out", str(picture)),
    )
    assert (whole.returncode, seen.returncode) == (0, 0), whole.stderr + seen.stderr
    assert whole.stdout.endswith(f" bytes written to {table}\n")
    assert len(json.loads(told.stdout)["readings"]) >= 1
    assert "temperature [°C]" in shown.stdout
    assert len(shown.stdout.splitlines()) > 10, "a recording of seconds is shown in seconds"
    assert "temperature" in table.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
