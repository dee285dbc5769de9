"""What hardware is there, found by reading files and asking chips, in an order that asks nothing twice."""

import re
from collections.abc import Mapping

from device_agent import registry
from device_agent.bus.config import I2cBusConfig, OneWireBusConfig
from device_agent.bus.onewire_sysfs import SysfsOneWire
from device_agent.config import Config
from device_agent.discovery import i2c
from device_agent.discovery.results import (
    DetectedChip,
    DetectedDevice,
    DetectedGpio,
    DetectedPort,
    ScanResult,
)
from device_agent.discovery.system import System
from device_agent.errors import BusError, ConfigError

DEVICE_TREE = "/proc/device-tree"
# Parts of a Pi's camera and video pipeline that give no picture by themselves.
NO_CAMERA = re.compile(r"bcm2835-(codec|isp)|pispbe|rpivid|hevc|rp1-cfe|unicam-embedded")
MQTT_PORT = 1883
LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000", "0" * 32, "00000000000000000000000001000000")


def board_model(system: System) -> str:
    """The board's model, such as "Raspberry Pi 4 Model B Rev 1.4"."""
    model = system.text(f"{DEVICE_TREE}/model")
    found = re.search(r"^Model\s*:\s*(.+)$", system.text("/proc/cpuinfo"), re.MULTILINE)
    if model or found:
        return model or (found[1].strip() if found else "")
    parts = (system.text(f"/sys/class/dmi/id/{part}") for part in ("sys_vendor", "product_name"))
    return " ".join(filter(None, parts))


def gpio_chips(system: System) -> list[DetectedGpio]:
    """Every GPIO chip once: kernels for the Pi 5 link an old number to the new one."""
    found = []
    for node in dict.fromkeys(system.real(node) for node in system.find("/dev/gpiochip*")):
        try:
            chip = system.gpio_chip(node)
        except PermissionError:
            group = system.group_of(node)
            found.append(DetectedGpio(node, note=f"permission denied: add your user to group {group}"))
        except (OSError, ImportError) as error:
            found.append(DetectedGpio(node, note=f"cannot be opened: {error}"))
        else:
            found.append(DetectedGpio(node, chip.label, chip.lines))
    return found


# -- serial ---------------------------------------------------------------------------------------------


def serial_ports(system: System, busy: Mapping[str, str]) -> list[DetectedPort]:
    """Serial ports that have hardware behind them."""
    stable = _stable_names(system)
    found = []
    for path in system.find("/sys/class/tty/*"):
        name = path.rpartition("/")[2]
        if not system.exists(f"{path}/device") or not system.exists(f"/dev/{name}"):
            continue
        if system.text(f"{path}/type") == "0":  # an 8250 that the kernel is ready for and the board lacks
            continue
        driver = system.link(f"{path}/device/driver")
        usb = _usb_device(system, f"{path}/device")
        found.append(
            DetectedPort(
                f"/dev/{name}",
                stable.get(f"/dev/{name}", ""),
                _hex(system.text(f"{usb}/idVendor")) if usb else None,
                _hex(system.text(f"{usb}/idProduct")) if usb else None,
                system.text(f"{usb}/serial") if usb else "",
                usb.rpartition("/")[2] if usb else "",
                system.text(f"{usb}/product") if usb else "",
                driver,
                busy.get(f"/dev/{name}", ""),
            )
        )
    return found


def _usb_device(system: System, path: str) -> str:
    """The folder of the USB device that a port is part of; "" for none."""
    at = system.real(path)
    while at.count("/") > 2:
        if system.exists(f"{at}/idVendor"):
            return at
        at = at.rpartition("/")[0]
    return ""


def _stable_names(system: System) -> dict[str, str]:
    """Names that outlive a reboot, by node; the first that there is of by-id, by-path, the board's alias."""
    names: dict[str, str] = {}
    for pattern in ("/dev/serial/by-id/*", "/dev/serial/by-path/*", "/dev/serial[0-9]*"):
        for path in system.find(pattern):
            names.setdefault(system.real(path), path)
    return names


def _hex(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


# -- the rest -------------------------------------------------------------------------------------------


def spi_devices(system: System) -> list[DetectedDevice]:
    return [DetectedDevice(node, "chip select; chips on SPI cannot be asked who they are")
            for node in system.find("/dev/spidev*")]  # fmt: skip


def pwm_chips(system: System) -> list[DetectedDevice]:
    """By device, with the number and the channels: numbers change between kernels, devices do not."""
    found = []
    for path in system.find("/sys/class/pwm/pwmchip*"):
        device = system.real(f"{path}/device").rpartition("/")[2]
        channels = system.text(f"{path}/npwm") or "?"
        found.append(DetectedDevice(device, f"{path.rpartition('/')[2]}, {channels} channels"))
    return found


def cameras(system: System) -> list[DetectedDevice]:
    """Video devices that may give pictures; of several nodes of one camera the first."""
    found = []
    for path in system.find("/sys/class/video4linux/video*"):
        name = system.text(f"{path}/name")
        if system.text(f"{path}/index") in ("", "0") and not NO_CAMERA.search(name):
            found.append(DetectedDevice(f"/dev/{path.rpartition('/')[2]}", name))
    return found


def mqtt_brokers(system: System) -> list[DetectedDevice]:
    """A local MQTT broker: who listens at its port, as the kernel lists it. Nothing is sent."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in system.text(table).splitlines()[1:]:
            words = line.split()
            if len(words) < 4 or words[3] != LISTENING:
                continue
            address, _, port = words[1].partition(":")
            if int(port, 16) == MQTT_PORT and address in LOOPBACK:
                return [DetectedDevice(f"127.0.0.1:{MQTT_PORT}", "listens where MQTT brokers do")]
    return []


W1 = "/sys/bus/w1/devices"


def installed() -> tuple[i2c.Drivers, list[str]]:
    """Every driver that can be loaded, and what is wrong with the others."""
    drivers, notes = {}, []
    for name in registry.names():
        try:
            drivers[name] = registry.load(name)
        except ConfigError as error:
            notes.append(str(error))
    return drivers, notes


def daemon_buses(config: Config | None) -> dict[str, str]:
    """The I2C nodes of a daemon that runs with this configuration."""
    if config is None:
        return {}
    return {
        bus.device: f"the running daemon (bus {name})"
        for name, bus in config.buses.items()
        if isinstance(bus, I2cBusConfig)
    }


def scan(system: System, daemon: Mapping[str, str], drivers: i2c.Drivers, notes: list[str]) -> ScanResult:
    """Find everything. `daemon` says by node (or an adapter's name) what the running daemon holds.

    A bus in use is not asked: its chips belong to who uses it.
    """
    busy = {**system.holders(), **_nodes(system, daemon)}
    return ScanResult(
        board=board_model(system),
        gpio=tuple(gpio_chips(system)),
        i2c=tuple(i2c.buses(system, drivers, busy)),
        spi=tuple(spi_devices(system)),
        onewire=tuple(_onewire(system, drivers)),
        serial=tuple(serial_ports(system, busy)),
        pwm=tuple(pwm_chips(system)),
        cameras=tuple(cameras(system)),
        brokers=tuple(mqtt_brokers(system)),
        notes=tuple(notes),
    )


def _onewire(system: System, drivers: i2c.Drivers) -> list[DetectedChip]:
    bus = SysfsOneWire("w1", OneWireBusConfig(kind="w1", directory=str(system.path(W1))))
    try:
        bus.open()
        return i2c.identified(drivers, "w1", bus, bus.devices())
    except BusError:
        return []  # the kernel has no 1-Wire
    finally:
        bus.close()


def _nodes(system: System, daemon: Mapping[str, str]) -> dict[str, str]:
    """With the names of adapters replaced by their nodes."""
    names = {
        system.text(f"/sys/bus/i2c/devices/{node.rpartition('/')[2]}/name"): node
        for node in system.find("/dev/i2c-*")
    }
    return {names.get(device, device): who for device, who in daemon.items()}
