"""gpio-pwm and servo: duty and angle, polarity, safe values, and buses that cannot."""

import pytest
from gpiozero.pins.mock import MockFactory, MockPWMPin

from device_agent.bus.config import GpioBusConfig
from device_agent.bus.gpio_gpiod import GpiodGpio
from device_agent.bus.gpio_gpiozero import GpiozeroGpio
from device_agent.errors import BusError
from device_agent.guard.actions import carry_out
from device_agent.safety.safe_recorder import open_and_record, recorded
from device_agent.testing import Board, check_driver, open_handle
from device_agent.testing.board.server import BoardServer
from device_agent_drivers.gpio_pwm import GpioPwm, GpioPwmConfig
from device_agent_drivers.servo import Servo, ServoConfig


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        (GpioPwm, {"line": 18, "safe": 0}),
        (GpioPwm, {"line": "GPIO18", "safe": {"duty": 0.5, "frequency": 200}, "active_low": True}),
        (Servo, {"line": 12, "safe": 0}),
        (Servo, {"line": 12, "safe": {"angle": 10}, "minimum_deg": 0, "maximum_deg": 180}),
    ],
)
def test_contract(driver, options):
    check_driver(driver, options)


def shown(it, line: int) -> tuple[float, float]:
    (found,) = [entry for entry in it.board.show()["buses"]["pins"]["lines"] if entry["line"] == line]
    return found["duty"], found["frequency_hz"]


def test_duty_and_frequency(bench):
    it = bench(GpioPwm, "pins", line=18, safe=0.25, frequency_hz=500)
    it.driver.open()
    assert shown(it, 18) == (0.25, 500)
    assert it.driver.write({"duty": 0.75}) == {"duty": 0.75}
    assert it.driver.write({"frequency": 2000}) == {"frequency": 2000}
    assert it.measure() == {"duty": 0.75, "frequency": 2000}
    it.driver.safe()
    assert shown(it, 18) == (0.25, 500)


def test_active_low_turns_the_duty_round_once(bench):
    it = bench(GpioPwm, "pins", line=18, safe=0, active_low=True)
    it.driver.open()
    assert shown(it, 18)[0] == 1.0
    it.driver.write({"duty": 0.3})
    assert shown(it, 18)[0] == pytest.approx(0.7)
    assert it.measure()["duty"] == pytest.approx(0.3)


@pytest.mark.parametrize(("angle", "duty"), [(-90, 0.05), (0, 0.075), (45, 0.0875), (90, 0.1)])
def test_angles(bench, angle, duty):
    it = bench(Servo, "pins", line=12, safe=0)
    it.driver.open()
    assert shown(it, 12) == (pytest.approx(0.075), 50)
    assert it.driver.write({"angle": angle}) == {"angle": pytest.approx(angle)}
    assert shown(it, 12)[0] == pytest.approx(duty)
    it.driver.safe()
    assert shown(it, 12)[0] == pytest.approx(0.075)


def test_a_servo_that_turns_the_other_way(bench):
    it = bench(Servo, "pins", line=12, safe=0, minimum_deg=0, maximum_deg=180,
               minimum_pulse_ms=2.5, maximum_pulse_ms=0.5)  # fmt: skip
    it.driver.open()
    assert shown(it, 12)[0] == pytest.approx(0.125)
    it.driver.write({"angle": 180})
    assert shown(it, 12)[0] == pytest.approx(0.025)


def test_a_bus_that_only_switches_on_and_off_refuses():
    bus = GpiodGpio("pins", GpioBusConfig(kind="gpio", chip="pinctrl-bcm2835"))
    driver = GpioPwm(GpioPwmConfig(line=18, safe=0), bus)
    with pytest.raises(BusError, match=r'`pwm` table.*or use `backend = "gpiozero"`'):
        driver.open()


def test_software_pwm_of_gpiozero():
    factory = MockFactory(pin_class=MockPWMPin)
    bus = GpiozeroGpio("pins", GpioBusConfig(kind="gpio", chip="gpiochip0", backend="gpiozero"), factory)
    bus.open()
    driver = GpioPwm(GpioPwmConfig(line=18, safe=0.25, active_low=True, frequency_hz=200), bus)
    driver.open()
    pin = factory.pin(18)
    assert (pin.frequency, pin.state) == (200, 0.75)
    assert driver.write({"duty": 1.0, "frequency": 100.0}) == {"duty": 1.0, "frequency": 100.0}
    assert (pin.frequency, pin.state) == (100, 0)
    driver.close()
    bus.close()


def test_a_pin_factory_without_pwm_is_told():
    factory = MockFactory()
    bus = GpiozeroGpio("pins", GpioBusConfig(kind="gpio", chip="gpiochip0", backend="gpiozero"), factory)
    bus.open()
    with pytest.raises(BusError, match="line 18"):
        GpioPwm(GpioPwmConfig(line=18, safe=0), bus).open()
    bus.close()


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (GpioPwmConfig, {"line": 1}, "safe"),
        (GpioPwmConfig, {"line": 1, "safe": 2}, "0 to 1"),
        (GpioPwmConfig, {"line": 1, "safe": True}, "0 to 1"),
        (GpioPwmConfig, {"line": 1, "safe": {"frequency": 100}}, "`safe` of duty"),
        (GpioPwmConfig, {"line": 1, "safe": 0, "frequency_hz": 0}, "frequency_hz"),
        (ServoConfig, {"line": 1, "safe": 91}, "-90 to 90"),
        (ServoConfig, {"line": 1, "safe": 0, "minimum_deg": 90}, "below"),
        (ServoConfig, {"line": 1, "safe": 0, "maximum_pulse_ms": 1}, "differ"),
        (ServoConfig, {"line": 1, "safe": 0, "frequency_hz": 400, "maximum_pulse_ms": 2.5}, "period"),
    ],
)
def test_options_are_checked(config, options, message):
    with pytest.raises(ValueError, match=message):
        config.model_validate(options)


@pytest.mark.parametrize(
    ("driver", "options", "duty"),
    [
        (GpioPwm, {"line": 18, "safe": 0.25, "active_low": True}, 0.75),
        (Servo, {"line": 18, "safe": 90}, 0.1),
    ],
)
def test_the_guard_knows_their_way_to_safe(tmp_path, driver, options, duty):
    buses = {"pins": GpioBusConfig(kind="gpio", chip="simulated")}
    model = driver.Config.model_validate({"bus": "pins", **options})
    with Board(buses, {"it": (driver, model)}) as board, BoardServer(board, tmp_path / "board"):
        handle = open_handle("pins", buses["pins"], board=tmp_path / "board")
        handle.open()
        device = driver(model, recorded(handle))
        (recipe,) = open_and_record("it", device)
        device.write({"duty": 1} if driver is GpioPwm else {"angle": 0})
        line = board.show()["buses"]["pins"]["lines"][0]
        assert line["duty"] != pytest.approx(duty)
        carry_out({"kind": recipe.kind, **recipe.members}, recipe.fd)
        line = board.show()["buses"]["pins"]["lines"][0]
        assert (line["duty"], line["by"]) == (pytest.approx(duty), "guard")
        recipe.close()
        device.close()
        handle.close()
