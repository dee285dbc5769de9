"""From a `[buses.*]` table to the handle on real hardware. Imports only the module of that kind."""

from device_agent.bus.config import (
    BusConfig,
    GpioBusConfig,
    I2cBusConfig,
    MqttBusConfig,
    OneWireBusConfig,
    SerialBusConfig,
    SpiBusConfig,
)
from device_agent.bus.core import Handle, NoBus


def make_handle(name: str, config: BusConfig | None) -> Handle:
    """The handle of this bus, not yet opened: nothing is touched and no hardware library loaded.

    `config` is None for a device that has no bus.
    """
    match config:
        case None:
            return NoBus()
        case I2cBusConfig():
            from device_agent.bus.i2c_linux import LinuxI2c

            return LinuxI2c(name, config)
        case SerialBusConfig():
            from device_agent.bus.serial_port import SerialPort

            return SerialPort(name, config)
        case MqttBusConfig():
            from device_agent.bus.mqtt_paho import PahoMqtt

            return PahoMqtt(name, config)
        case SpiBusConfig():
            from device_agent.bus.spi_linux import LinuxSpi

            return LinuxSpi(name, config)
        case OneWireBusConfig():
            from device_agent.bus.onewire_sysfs import SysfsOneWire

            return SysfsOneWire(name, config)
        case GpioBusConfig(backend="gpiozero"):
            from device_agent.bus.gpio_gpiozero import GpiozeroGpio

            return GpiozeroGpio(name, config)
        case GpioBusConfig():
            from device_agent.bus.gpio_gpiod import GpiodGpio

            return GpiodGpio(name, config)
