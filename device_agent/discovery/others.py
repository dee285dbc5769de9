"""Everything that is found by reading files alone: board, GPIO, serial ports, SPI, 1-Wire, PWM, cameras."""

import re
from collections.abc import Mapping

from device_agent.discovery.found import FoundGpio, FoundPort, FoundThing
from device_agent.discovery.system import System

DEVICE_TREE = "/proc/device-tree"
# Parts of a Pi's camera and video pipeline that give no picture by themselves.
NO_CAMERA = re.compile(r"bcm2835-(codec|isp)|pispbe|rpivid|hevc|rp1-cfe|unicam-embedded")
MQTT_PORT = 1883
LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000", "0" * 32, "00000000000000000000000001000000")


def board(system: System) -> str:
    """The board's model, such as "Raspberry Pi 4 Model B Rev 1.4"."""
    model = system.text(f"{DEVICE_TREE}/model")
    told = re.search(r"^Model\s*:\s*(.+)$", system.text("/proc/cpuinfo"), re.MULTILINE)
    if model or told:
        return model or (told[1].strip() if told else "")
    parts = (system.text(f"/sys/class/dmi/id/{part}") for part in ("sys_vendor", "product_name"))
    return " ".join(filter(None, parts))


def gpio(system: System) -> list[FoundGpio]:
    """Every GPIO chip once: kernels for the Pi 5 link an old number to the new one."""
    found = []
    for node in dict.fromkeys(system.real(node) for node in system.find("/dev/gpiochip*")):
        try:
            chip = system.gpio_chip(node)
        except PermissionError:
            group = system.group_of(node)
            found.append(FoundGpio(node, note=f"permission denied: add your user to group {group}"))
        except (OSError, ImportError) as error:
            found.append(FoundGpio(node, note=f"cannot be opened: {error}"))
        else:
            found.append(FoundGpio(node, chip.label, chip.lines))
    return found


# -- serial ---------------------------------------------------------------------------------------------


def ports(system: System, busy: Mapping[str, str]) -> list[FoundPort]:
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
            FoundPort(
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


def spi(system: System) -> list[FoundThing]:
    return [FoundThing(node, "chip select; chips on SPI cannot be asked who they are")
            for node in system.find("/dev/spidev*")]  # fmt: skip


def pwm(system: System) -> list[FoundThing]:
    return [
        FoundThing(path.rpartition("/")[2], f"{system.text(f'{path}/npwm') or '?'} channels")
        for path in system.find("/sys/class/pwm/pwmchip*")
    ]


def cameras(system: System) -> list[FoundThing]:
    """Video devices that may give pictures; of several nodes of one camera the first."""
    found = []
    for path in system.find("/sys/class/video4linux/video*"):
        name = system.text(f"{path}/name")
        if system.text(f"{path}/index") in ("", "0") and not NO_CAMERA.search(name):
            found.append(FoundThing(f"/dev/{path.rpartition('/')[2]}", name))
    return found


def brokers(system: System) -> list[FoundThing]:
    """A local MQTT broker: who listens at its port, as the kernel lists it. Nothing is sent."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in system.text(table).splitlines()[1:]:
            words = line.split()
            if len(words) < 4 or words[3] != LISTENING:
                continue
            address, _, port = words[1].partition(":")
            if int(port, 16) == MQTT_PORT and address in LOOPBACK:
                return [FoundThing(f"127.0.0.1:{MQTT_PORT}", "listens where MQTT brokers do")]
    return []
