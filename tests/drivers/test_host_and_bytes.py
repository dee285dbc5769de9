"""The board itself, read from files; and a serial console."""

from pathlib import Path

import pytest

from device_agent.driver import Flag, Flagged, NoBus
from device_agent_drivers.host import Host, HostConfig
from device_agent_drivers.serial_bytes import SerialBytes, SerialBytesConfig

NO_ANSWER = Flagged(None, Flag.NO_ANSWER)
PI = {
    "proc/loadavg": "0.42 0.30 0.20 1/100 1234\n",
    "proc/meminfo": "MemTotal:  1000000 kB\nMemFree:  1 kB\nMemAvailable:  750000 kB\nHugePages: x\n",
    "proc/uptime": "12345.67 40000.00\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "99000\n",
    "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "48312\n",
    "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50004\n",
}


def host(root: Path, files: dict[str, str]) -> Host:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return Host(HostConfig(), NoBus(), root=root)


def test_a_raspberry_pi(tmp_path):
    values = host(tmp_path, PI).read()
    assert 0 <= values.pop("disk_used") <= 100
    assert values == {
        "cpu_temperature": 48.312,
        "load_1m": 0.42,
        "memory_used": 25.0,
        "uptime": 12345.67,
        "throttled": True,
        "under_voltage": True,
    }


@pytest.mark.parametrize(
    ("word", "throttled", "under_voltage"), [("0", False, False), ("1", False, True), ("50000", False, False)]
)
def test_the_firmwares_word_speaks_of_now(tmp_path, word, throttled, under_voltage):
    """Bits 16 and up say that it happened once; they are no present state."""
    values = host(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": word}).read()
    assert (values["throttled"], values["under_voltage"]) == (throttled, under_voltage)


def test_the_firmwares_word_of_a_pi_5(tmp_path):
    path = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    values = host(tmp_path, {path: "4"}).read()
    assert (values["throttled"], values["under_voltage"]) == (True, False)


@pytest.mark.parametrize(
    ("life_time", "pre_eol_info", "used", "failing"),
    [
        ("0x01 0x01", "0x01", 10, False),
        ("0x03 0x07", "0x02", 70, True),
        ("0x0b 0x01", "0x03", 110, True),
        ("0x00 0x00", "0x00", NO_ANSWER, NO_ANSWER),
        ("rubbish", "", NO_ANSWER, NO_ANSWER),
    ],
)
def test_an_emmc_tells_its_wear(tmp_path, life_time, pre_eol_info, used, failing):
    device = tmp_path / "sys/block/mmcblk0/device"
    device.mkdir(parents=True)
    (device / "life_time").write_text(life_time + "\n")
    (device / "pre_eol_info").write_text(pre_eol_info + "\n")
    config = HostConfig(storage="mmcblk0")
    values = Host(config, NoBus(), root=tmp_path).read()
    assert (values["storage_used"], values["storage_failing"]) == (used, failing)
    assert list(values) == [point.name for point in Host.points_of(config)]


def test_a_board_without_anything(tmp_path):
    values = host(tmp_path, {"proc/meminfo": "rubbish", "proc/uptime": ""}).read()
    values.pop("disk_used")
    assert set(values.values()) == {NO_ANSWER}
    assert list(values) == [point.name for point in Host.points if point.name != "disk_used"]


def test_a_disk_that_is_not_there(tmp_path):
    driver = Host(HostConfig(disk="/no/such"), NoBus(), root=tmp_path)
    assert driver.read()["disk_used"] == NO_ANSWER


def test_this_machine():
    values = Host(HostConfig(), NoBus()).read()
    assert values["uptime"] > 0
    assert 0 < values["memory_used"] < 100


def test_a_console_is_all_bytes(bench):
    it = bench(SerialBytes, "meter")
    it.driver.open()
    source = it.driver.listen()
    it.board.feed("meter", b"login: \xff\x00")
    assert b"".join(source.drain()) == b"login: \xff\x00"
    assert list(it.driver.feed(b"login: ")) == []
    it.driver.write_bytes(b"root\r")
    assert it.board.sent("meter") == b"root\r"
    assert SerialBytes.bytes_side
    assert SerialBytes.claims(SerialBytesConfig()) == ("port",)
