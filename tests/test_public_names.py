"""What third parties may import. Adding a name here is a promise; taking one away breaks their drivers."""

import importlib
import inspect

import pytest

PROMISED = {
    "device_agent.driver": {
        "Action",
        "Actuator",
        "ActuatorConfig",
        "Argument",
        "BadReading",
        "ChipReset",
        "Dated",
        "Driver",
        "DriverConfig",
        "DriverError",
        "Edge",
        "File",
        "Flag",
        "Flagged",
        "GpioBus",
        "I2cBus",
        "Listener",
        "MqttBus",
        "MqttMessage",
        "NoAnswer",
        "NoBus",
        "OneWireBus",
        "Pattern",
        "Point",
        "Sensor",
        "SerialBus",
        "SpiBus",
        "Step",
        "Unit",
        "Value",
        "Values",
        "WrongChip",
    },
    "device_agent.testing": {
        "Board",
        "Chip",
        "Drive",
        "GpioChip",
        "I2cChip",
        "MqttChip",
        "Nack",
        "OneWireChip",
        "Publication",
        "Quantity",
        "RegisterChip",
        "SerialChip",
        "SpiChip",
        "SteppedClock",
        "check_driver",
        "ensure_board",
        "open_handle",
    },
}


@pytest.mark.parametrize("module", PROMISED)
def test_the_promised_names_and_no_others(module):
    loaded = importlib.import_module(module)
    assert set(loaded.__all__) == PROMISED[module]
    assert list(loaded.__all__) == sorted(loaded.__all__)


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in PROMISED.items() for name in sorted(names)]
)
def test_every_promised_name_is_there(module, name):
    assert getattr(importlib.import_module(module), name) is not None


def test_the_verbs_of_a_driver():
    from device_agent.driver import Actuator, Driver, Listener, Sensor

    verbs = {
        shape.__name__: {
            name
            for name, value in vars(shape).items()
            if inspect.isroutine(value) or isinstance(value, classmethod)
        }
        - {"__init__", "__init_subclass__"}
        for shape in (Driver, Sensor, Listener, Actuator)
    }
    assert verbs == {
        "Driver": {
            "points_of",
            "claims",
            "keep",
            "reading_s",
            "to_read",
            "step_limit_s",
            "identify",
            "notes",
            "all_actions",
            "takes_bytes",
            "open",
            "close",
            "do",
            "write_bytes",
        },
        "Sensor": {"trigger", "read", "read_steps"},
        "Listener": {"listen", "feed", "present"},
        "Actuator": {"safe_of", "confirms", "write", "write_steps", "safe"},
    }
