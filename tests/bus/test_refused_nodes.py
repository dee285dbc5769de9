"""What the system refused, and which remedy is the right one."""

from pathlib import Path

from device_agent.bus.system import denied


def test_a_node_of_another_group_wants_the_group() -> None:
    assert "add the user to" in str(denied("/dev/does-not-exist"))


def test_a_node_that_its_mode_opens_wants_the_unit(tmp_path: Path) -> None:
    assert "DeviceAllow=char-1 rw" in str(denied("/dev/null"))
    file = tmp_path / "no device"
    file.touch()
    assert "add the user to" in str(denied(str(file)))
