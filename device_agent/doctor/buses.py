"""Whether each configured bus exists, may be used, and is not used by another program."""

import os
import re
from collections.abc import Iterator

from device_agent.bus.config import (
    BusConfig,
    GpioBusConfig,
    I2cBusConfig,
    OneWireBusConfig,
    SerialBusConfig,
    SpiBusConfig,
)
from device_agent.discovery.results import DetectedPort
from device_agent.discovery.scan import board_model, gpio_chips, serial_ports
from device_agent.doctor.finding import Finding, Target, ok

CONFIG_TXT = ("/boot/firmware/config.txt", "/boot/config.txt")
CMDLINE = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
# Group, and the rule that gives it; as systemd/99-device-agent.rules has them.
RULES = {
    "gpio": ("gpio", 'SUBSYSTEM=="gpio", KERNEL=="gpiochip[0-9]*", GROUP="gpio", MODE="0660"'),
    "i2c": ("i2c", 'SUBSYSTEM=="i2c-dev", GROUP="i2c", MODE="0660"'),
    "spi": ("spi", 'SUBSYSTEM=="spidev", GROUP="spi", MODE="0660"'),
    "serial": ("dialout", 'SUBSYSTEM=="tty", KERNEL=="tty[A-Z]*[0-9]*", GROUP="dialout", MODE="0660"'),
}
ENABLE = {
    "i2c": ("dtparam=i2c_arm=on", "sudo raspi-config nonint do_i2c 0"),
    "spi": ("dtparam=spi=on", "sudo raspi-config nonint do_spi 0"),
    "w1": ("dtoverlay=w1-gpio", "sudo raspi-config nonint do_onewire 0"),
    "serial": ("enable_uart=1", "sudo raspi-config nonint do_serial_hw 0"),
}
FAST_I2C_HZ, SLOW_I2C_HZ = 400_000, 10_000


def config_txt(target: Target) -> str:
    """The file of the board's firmware; where Raspberry Pi OS has it today if there is none."""
    return next((path for path in CONFIG_TXT if target.system.exists(path)), CONFIG_TXT[0])


def is_pi(target: Target) -> bool:
    return "Raspberry Pi" in board_model(target.system)


def check(target: Target) -> Iterator[Finding]:
    """Every bus of the configuration; without one, what the machine has."""
    busy = target.system.holders()
    if target.config is not None:
        for name, bus in target.config.buses.items():
            yield from _bus(target, name, bus, busy)
    else:
        for kind, pattern in (("i2c", "/dev/i2c-*"), ("gpio", "/dev/gpiochip*"), ("spi", "/dev/spidev*")):
            for node in target.system.find(pattern):
                yield _access(target, kind, node, "")
    yield from _i2c_speed(target)
    yield from _modem_manager(target)


def _bus(target: Target, name: str, bus: BusConfig, busy: dict[str, str]) -> Iterator[Finding]:
    where = f"buses.{name}"
    match bus:
        case I2cBusConfig():
            yield _node(target, "i2c", _adapter(target, bus.device), bus.device, where)
        case SpiBusConfig():
            yield _node(target, "spi", bus.device, bus.device, where)
        case GpioBusConfig():
            yield from _gpio(target, name, bus)
        case SerialBusConfig():
            yield from _serial(target, bus, where, busy)
        case OneWireBusConfig():
            if target.system.exists(bus.directory):
                yield ok("1-Wire is there", where)
            else:
                yield _missing(target, "w1", bus.directory, where)


def _adapter(target: Target, device: str) -> str:
    """The node of an adapter that is named by its name."""
    if device.startswith("/"):
        return device
    for path in target.system.find("/sys/bus/i2c/devices/i2c-*"):
        if target.system.text(f"{path}/name") == device:
            return f"/dev/{path.rpartition('/')[2]}"
    return ""


def _node(target: Target, kind: str, node: str, wanted: str, where: str) -> Finding:
    if not node or not target.system.exists(node):
        return _missing(target, kind, wanted, where)
    return _access(target, kind, node, where)


def _missing(target: Target, kind: str, wanted: str, where: str) -> Finding:
    why = "its devices stay offline (absent)"
    if kind in ENABLE and is_pi(target):
        line, command = ENABLE[kind]
        remedy = f"{command}; or write {line} into {config_txt(target)}; then reboot"
    elif kind == "i2c":
        remedy = "sudo modprobe i2c-dev; echo i2c-dev | sudo tee /etc/modules-load.d/i2c-dev.conf"
    else:
        remedy = "enable the interface in the board's device tree or plug the adapter in"
    return Finding("problem", f"{wanted} is not there", where, why, remedy)


def _access(target: Target, kind: str, node: str, where: str) -> Finding:
    """The exact group that is missing, or the rule that gives the node to one."""
    system, user = target.system, target.user
    if system.may_use(node, user):
        return ok(f"user {user.name} may use {node}", where)
    why = f"user {user.name} cannot open it: its devices stay offline (permission)"
    group, rule = RULES[kind]
    present = system.group_of(node)
    what = f"user {user.name} may not use {node}, which belongs to group {present or '?'}"
    if present == "root" or not _group_may(target, node):
        prepare = "" if group in system.groups() else f"sudo groupadd --system {group}; "
        remedy = (
            f"{prepare}echo '{rule}' | sudo tee -a /etc/udev/rules.d/99-device-agent.rules; "
            f"sudo udevadm control --reload; sudo udevadm trigger; sudo usermod -aG {group} {user.name}"
        )
    else:
        fix = ("usermod", "-aG", present, user.name)
        remedy = f"sudo {' '.join(fix)}, then log in again (or restart the service)"
        return Finding("problem", what, where, why, remedy, fix)
    return Finding("problem", what, where, why, remedy)


def _group_may(target: Target, node: str) -> bool:
    try:
        return target.system.path(node).stat().st_mode & 0o060 == 0o060
    except OSError:
        return False


# -- GPIO -------------------------------------------------------------------------------------------------


def _gpio(target: Target, name: str, bus: GpioBusConfig) -> Iterator[Finding]:
    where = f"buses.{name}"
    nodes = target.system.find("/dev/gpiochip*")
    chips = gpio_chips(target.system)
    chip = next((one for one in chips if bus.chip in (one.label, one.device)), None)
    if chip is None and bus.chip.startswith("/"):
        chip = next((one for one in chips if one.device == target.system.real(bus.chip)), None)
    if chip is None:
        refused = [one for one in chips if one.note]
        if refused and not bus.chip.startswith("/"):
            yield from (_access(target, "gpio", one.device, where) for one in refused)
            return
        there = ", ".join(f"{one.label} ({one.device})" for one in chips) or "none"
        yield Finding(
            "problem",
            f"there is no GPIO chip {bus.chip}; there are: {there}",
            where,
            "its devices stay offline (absent)",
            "write another label as `chip`: see device-agent scan"
            if nodes
            else "the kernel has no GPIO chip",
        )
        return
    yield _access(target, "gpio", chip.device, where)
    if target.daemon_runs or target.config is None:
        return  # what is held is held by it
    by_id: dict[str, str] = {}
    for line in chip.lines:
        by_id |= {str(line.offset): line.consumer, **({line.name: line.consumer} if line.name else {})}
    for device, options in target.config.devices.items():
        for claim in target.config.drivers[device].claims(options) if options.bus == name else ():
            line_id = claim.removeprefix("line ")
            if claim.startswith("line ") and by_id.get(line_id):
                yield Finding(
                    "problem",
                    f"line {line_id} of {bus.chip} is held by {by_id[line_id]}",
                    f"devices.{device}",
                    "a line has one owner: the device stays offline (busy)",
                    "stop that program, take its overlay out, or use another line",
                )


# -- serial -----------------------------------------------------------------------------------------------


def _serial(target: Target, bus: SerialBusConfig, where: str, busy: dict[str, str]) -> Iterator[Finding]:
    ports = serial_ports(target.system, busy)
    if isinstance(bus.port, str):
        node = target.system.real(bus.port)
        found = [port for port in ports if port.device == node]
        wanted = bus.port
        if not found and target.system.exists(bus.port):
            found = [DetectedPort(node, holder=busy.get(node, ""))]
    else:
        wanted = f"USB {bus.port.vid:04x}:{bus.port.pid:04x}" + (
            f" serial {bus.port.serial}" if bus.port.serial else ""
        )
        found = [
            port
            for port in ports
            if (port.vid, port.pid) == (bus.port.vid, bus.port.pid)
            and bus.port.serial in (None, port.serial)
            and bus.port.location in (None, port.location)
        ]
    if not found:
        uart = isinstance(bus.port, str) and re.fullmatch(r"/dev/(serial\d|ttyAMA\d+|ttyS\d+)", bus.port)
        if uart:
            yield _missing(target, "serial", wanted, where)
        else:
            remedy = "plug it in; device-agent scan shows what is there"
            yield Finding("problem", f"{wanted} is not there", where, "its device stays offline", remedy)
        return
    if len(found) > 1:
        several = ", ".join(port.device for port in found)
        remedy = "add `serial` or `location` to the port: see device-agent scan"
        yield Finding("problem", f"{wanted} are {several}", where, "the port is ambiguous", remedy)
        return
    (port,) = found
    yield _access(target, "serial", port.device, where)
    if port.holder and not target.daemon_runs:
        why = "two readers of one port steal each other's bytes"
        yield Finding("problem", f"{port.device} is in use by {port.holder}", where, why, "stop that program")
    yield from _console(target, port.device, where)
    if isinstance(bus.port, str) and re.fullmatch(r"/dev/tty(USB|ACM)\d+", bus.port):
        stable = f": write {port.stable}" if port.stable else ""
        why = "the number changes when adapters are plugged in another order"
        yield Finding("note", f"{bus.port} is no stable name", where, why, f"see device-agent scan{stable}")


def _console(target: Target, node: str, where: str) -> Iterator[Finding]:
    """Whether the kernel or a login prompt speaks on the port."""
    system = target.system
    file = next((path for path in CMDLINE if system.exists(path)), "")
    for word in system.text(file or "/proc/cmdline").split():
        if not word.startswith("console="):
            continue
        console = word.removeprefix("console=").partition(",")[0]
        if console.startswith(("tty", "serial")) and system.real(f"/dev/{console}") == node:
            remedy = f"sudo raspi-config nonint do_serial_cons 1; or take {word} out of {file}; then reboot"
            if not file:  # what /proc shows is the boot loader's
                remedy = (
                    f"take {word} out of the boot loader's kernel options (/etc/default/grub), then reboot"
                )
            why = "the kernel's messages go to the far end, and a login prompt takes its bytes"
            yield Finding("problem", f"the system console is on {node}", where, why, remedy)
    name = os.path.basename(node)
    for unit in (f"serial-getty@{name}.service", "serial-getty@serial0.service"):
        enabled = system.exists(f"/etc/systemd/system/getty.target.wants/{unit}")
        port = unit.partition("@")[2].removesuffix(".service")
        if enabled and system.real(f"/dev/{port}") == node:
            why = "a login prompt reads what your instrument says"
            remedy = f"sudo systemctl disable --now {unit}; sudo systemctl mask {unit}"
            yield Finding("problem", f"a login prompt is on {node}", where, why, remedy)


def _modem_manager(target: Target) -> Iterator[Finding]:
    config = target.config
    usb = config is not None and any(isinstance(bus, SerialBusConfig) for bus in config.buses.values())
    system = target.system
    runs = any(system.text(path) == "ModemManager" for path in system.find("/proc/[0-9]*/comm"))
    if usb and runs:
        why = "it opens each new serial port and sends modem commands to whatever is there"
        remedy = (
            'sudo systemctl disable --now ModemManager (or a udev rule with ENV{ID_MM_DEVICE_IGNORE}="1")'
        )
        yield Finding("problem", "ModemManager runs", "serial ports", why, remedy)


def _i2c_speed(target: Target) -> Iterator[Finding]:
    """The clock of the header's I2C, as the device tree has it."""
    if target.config is None or not any(bus.kind == "i2c" for bus in target.config.buses.values()):
        return
    for path in target.system.find("/sys/bus/i2c/devices/i2c-*/of_node/clock-frequency"):
        try:
            hz = int.from_bytes(target.system.path(path).read_bytes()[:4], "big")
        except OSError:
            continue
        where = f"/dev/{path.split('/')[5]}"
        if hz > FAST_I2C_HZ or 0 < hz < SLOW_I2C_HZ:
            why = "chips here are specified for 100 or 400 kHz"
            remedy = f"write dtparam=i2c_arm_baudrate=100000 into {config_txt(target)}, then reboot"
            yield Finding("problem", f"its clock is {hz / 1000:g} kHz", where, why, remedy)
        else:
            yield ok(f"its clock is {hz / 1000:g} kHz", where)
