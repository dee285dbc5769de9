"""Hardware PWM on files as the kernel lays them out: order of writes, polarity, channels that come late."""

import errno
import itertools
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


def shares(root: Path) -> float:
    """For how much of the time the line is high."""
    now = held(root)
    share = int(now["duty_cycle"]) / max(1, int(now["period"])) if now["enable"] == "1" else 0.0
    return 1 - share if now["polarity"] == "inversed" and now["enable"] == "1" else share


class Kernel:
    """Refuses what the kernel refuses, and records after each write how long the line is high."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, *, inverts: bool = True) -> None:
        self._files = root / "pwmchip0" / "pwm1"
        self._inverts = inverts
        self.high: list[float] = []
        monkeypatch.setattr(SysfsPwm, "_write", lambda pwm, name, value: self.write(name, str(value)))

    def write(self, name: str, text: str) -> None:
        root = self._files.parents[1]
        before = held(root)
        now = {**before, name: text}
        refused = int(now["period"]) == 0 or int(now["duty_cycle"]) > int(now["period"])
        if name == "polarity" and text != before["polarity"]:
            refused |= before["enable"] == "1" or (text == "inversed" and not self._inverts)
        if refused:
            raise OSError(errno.EINVAL, f"{name} = {text} refused: {before}")
        (self._files / name).write_text(text + "\n")
        self.high.append(shares(root))

    def on(self, *, active_low: bool) -> float:
        """The largest share on since it was asked last."""
        on = [1 - high if active_low else high for high in self.high]
        self.high = []
        return max(on)


ENDS = [(duty, hz) for duty in (0, 0.001, 0.25, 0.999, 1) for hz in (1, 50, 60, 20_000)]


@pytest.mark.parametrize("active_low", [False, True])
def test_no_change_passes_what_is_more_on_than_its_ends(root, monkeypatch, active_low):
    kernel = Kernel(monkeypatch, root)
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=50, active_low=active_low, root=root)
    assert held(root)["polarity"] == ("inversed" if active_low else "normal")
    kernel.on(active_low=active_low)
    for before, after in itertools.product(ENDS, ENDS):
        pwm.write(*before)
        kernel.on(active_low=active_low)
        pwm.write(*after)
        assert pwm.read() == (pytest.approx(after[0], abs=1e-4), pytest.approx(after[1], rel=1e-4))
        assert kernel.on(active_low=active_low) <= max(before[0], after[0]) + 1e-4, (before, after)
        pwm.write(*before)
        kernel.on(active_low=active_low)
        for recipe in pwm.recipes(*after):
            kernel.write(Path(recipe.members["path"]).name, recipe.members["steps"][0].decode())
        assert pwm.read() == (pytest.approx(after[0], abs=1e-4), pytest.approx(after[1], rel=1e-4))
        assert kernel.on(active_low=active_low) <= max(before[0], after[0]) + 1e-4, (before, after)


@pytest.mark.parametrize("duty", [0, 0.25, 1])
@pytest.mark.parametrize("enable", ["0", "1"])
@pytest.mark.parametrize(("inverts", "polarity"), [(True, "normal"), (True, "inversed"), (False, "normal")])
def test_opening_an_active_low_one_never_passes_on(root, monkeypatch, inverts, polarity, enable, duty):
    """Whatever ran there before, at the same frequency and not more on than it is to be."""
    off = {"normal": "20000000", "inversed": "0"}[polarity]
    for name, text in {
        "period": "20000000",
        "duty_cycle": off,
        "enable": enable,
        "polarity": polarity,
    }.items():
        (root / "pwmchip0" / "pwm1" / name).write_text(text + "\n")
    kernel = Kernel(monkeypatch, root, inverts=inverts)
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=duty, frequency_hz=50, active_low=True, root=root)
    assert shares(root) == pytest.approx(1 - duty)
    assert pwm.read() == (pytest.approx(duty), 50.0)
    if enable == "1":
        assert kernel.on(active_low=True) <= duty + 1e-6
    pwm.write(1, 50)
    kernel.on(active_low=True)
    for recipe in pwm.recipes(duty, 50):
        kernel.write(Path(recipe.members["path"]).name, recipe.members["steps"][0].decode())
    assert shares(root) == pytest.approx(1 - duty)


def test_one_that_cannot_invert_keeps_its_frequency(root, monkeypatch):
    kernel = Kernel(monkeypatch, root, inverts=False)
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=0.5, frequency_hz=50, active_low=True, root=root)
    pwm.write(0, 50)
    kernel.on(active_low=True)
    with pytest.raises(PlaceRefused, match="50 Hz would switch an active-low output on"):
        pwm.write(0, 100)
    assert not kernel.high
    # And what is opened at another frequency is at its safe duty all the same.
    with pytest.raises(PlaceRefused, match="50 Hz"):
        SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=100, active_low=True, root=root)
    assert shares(root) == 1.0
    assert not (root / "pwmchip0" / "unexport").read_text()


def test_the_polarity_of_the_program_before(root, monkeypatch):
    (root / "pwmchip0" / "pwm1" / "period").write_text("1000\n")
    (root / "pwmchip0" / "pwm1" / "polarity").write_text("inversed\n")
    (root / "pwmchip0" / "pwm1" / "enable").write_text("1\n")
    kernel = Kernel(monkeypatch, root)
    SysfsPwm("pins", "pwmchip0/1", duty=0, frequency_hz=100, root=root)
    assert held(root)["polarity"] == "normal"
    assert kernel.on(active_low=False) == 0


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


@pytest.mark.parametrize("gone", [False, True], ids=["with its descriptors", "by the path alone"])
@pytest.mark.parametrize("active_low", [False, True])
def test_the_guards_writes_fit_any_setting(root, active_low, gone):
    pwm = SysfsPwm("pins", "pwmchip0/1", duty=1, frequency_hz=20, active_low=active_low, root=root)
    done = []
    for recipe in pwm.recipes(0.25, 100.0):
        path = Path(recipe.members["path"])
        path.write_text("")  # a file of the kernel is written anew each time
        if gone:
            recipe.close()
        assert carry_out({"kind": recipe.kind, **recipe.members}, recipe.fd) == recipe.fd
        done.append((path.name, path.read_text()))
        recipe.close()
    assert done == [("duty_cycle", "0"), ("period", "10000000"), ("duty_cycle", "2500000")]
