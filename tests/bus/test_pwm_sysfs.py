"""Hardware PWM on files as the kernel lays them out: order of writes, polarity, channels that come late."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.bus.pwm_sysfs import SysfsPwm
from device_agent.errors import BusError, PlaceRefused
from device_agent.guard.actions import carry_out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A channel that is exported already."""
    make_channel(tmp_path / "pwmchip0" / "pwm1")
    (tmp_path / "pwmchip0" / "unexport").write_text("")
    return tmp_path


def make_channel(files: Path, polarity: str = "normal") -> None:
    files.mkdir(parents=True)
    for name, text in {"period": "0", "duty_cycle": "0", "enable": "0", "polarity": polarity}.items():
        (files / name).write_text(text + "\n")


def held(root: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (root / "pwmchip0" / "pwm1").iterdir()}


def test_duty_and_frequency(root):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0.25, frequency_hz=1000, root=root)
    assert held(root) == {"period": "1000000", "duty_cycle": "250000", "enable": "1", "polarity": "normal"}
    pwm.write(0.5, 50)
    assert pwm.read() == (pytest.approx(0.5), pytest.approx(50))
    pwm.write(1, 25_000)
    assert held(root)["duty_cycle"] == held(root)["period"] == "40000"
    pwm.close()
    pwm.close()
    assert (root / "pwmchip0" / "unexport").read_text() == "1"
    with pytest.raises(PlaceRefused, match="released"):
        pwm.write(0, 50)


def test_active_low_and_the_polarity_of_the_program_before(root):
    (root / "pwmchip0" / "pwm1" / "polarity").write_text("inversed\n")
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=100, active_low=True, root=root)
    assert held(root) == {
        "period": "10000000", "duty_cycle": "10000000", "enable": "1", "polarity": "normal",
    }  # fmt: skip
    assert pwm.read() == (0.0, 100.0)


class Kernel:
    """Refuses what the kernel refuses: a duty beyond the period."""

    def __init__(self, pwm: SysfsPwm) -> None:
        self._plain = pwm._write
        self._pwm = pwm
        pwm._write = self.write  # type: ignore[method-assign]

    def write(self, name: str, value: int) -> None:
        self._plain(name, value)
        assert int(self._pwm._text("duty_cycle")) <= int(self._pwm._text("period")), name


def test_every_change_is_one_that_the_kernel_takes(root):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=50, root=root)
    Kernel(pwm)
    for duty, frequency_hz in ((1, 50), (1, 20_000), (0.5, 60), (1, 1), (0, 100_000), (0.01, 10), (1, 10)):
        pwm.write(duty, frequency_hz)
        assert pwm.read() == (pytest.approx(duty, abs=1e-4), pytest.approx(frequency_hz, rel=1e-4))


def test_no_such_chip(root):
    """The GPIO chip is not to be opened again for it."""
    (root / "pwmchip0" / "device").symlink_to(root / "devices" / "1f00098000.pwm")
    with pytest.raises(PlaceRefused, match=r"pwmchip9 is not there; there are pwmchip0 \(1f00098000\.pwm\)"):
        SysfsPwm("pins", "pwmchip9/0", duty=0, frequency_hz=50, root=root)


def test_a_chip_is_found_by_its_device_whatever_its_number(root):
    (root / "pwmchip0" / "device").symlink_to(root / "devices" / "1f00098000.pwm")
    pwm = SysfsPwm("pins", "1f00098000.pwm/1", duty=0.25, frequency_hz=1000, root=root)
    assert pwm.read() == (0.25, 1000.0)
    pwm.close()
    (root / "pwmchip0").rename(root / "pwmchip2")
    assert SysfsPwm("pins", "1f00098000.pwm/1", duty=0.5, frequency_hz=1000, root=root).read()[0] == 0.5
    with pytest.raises(PlaceRefused, match=r"fe20c000\.pwm is not there"):
        SysfsPwm("pins", "fe20c000.pwm/1", duty=0, frequency_hz=50, root=root)


def test_a_chip_that_leaves(root):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=50, root=root)
    (root / "pwmchip0" / "pwm1").rename(root / "gone")
    with pytest.raises(PlaceRefused):
        pwm.read()
    with pytest.raises(BusError):
        pwm.write(1, 50)
    pwm.close()


@pytest.fixture
def exporting(tmp_path: Path) -> Iterator[Path]:
    """`export` is a pipe; who writes a number to it gets that channel a moment later."""
    chip = tmp_path / "pwmchip0"
    chip.mkdir()
    os.mkfifo(chip / "export")

    def kernel() -> None:
        number = (chip / "export").read_text()
        make_channel(chip / "making")
        (chip / "making").rename(chip / f"pwm{number}")

    thread = threading.Thread(target=kernel)
    thread.start()
    yield tmp_path
    thread.join(10)


def test_a_channel_is_exported_and_waited_for(exporting):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0.5, frequency_hz=1000, root=exporting)
    assert pwm.read() == (0.5, 1000.0)


@pytest.mark.parametrize(
    ("duty", "active_low", "expected"),
    [
        (0.0, False, "0"),
        (0.25, False, "2500000"),
        (0.0, True, "10000000"),  # never by way of 0, at which the line is on
    ],
)
def test_the_guards_writes_fit_any_setting(root, duty, active_low, expected):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=1, frequency_hz=20, active_low=active_low, root=root)
    done = []
    for recipe in pwm.recipes(duty, 100.0):
        path = Path(os.readlink(f"/proc/self/fd/{recipe.fd}"))
        path.write_text("")  # a file of the kernel is written anew each time
        carry_out({"kind": recipe.kind, **recipe.members}, recipe.fd)
        done.append((path.name, path.read_text()))
        recipe.close()
    assert done == [("duty_cycle", expected), ("period", "10000000"), ("duty_cycle", expected)]
