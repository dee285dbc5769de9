"""Whether each configured bus is there, may be used, and is used by nobody else."""

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
from device_agent.discovery import others
from device_agent.discovery.found import FoundPort
from device_agent.doctor.finding import Finding, Patient, ok

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


def config_txt(patient: Patient) -> str:
    """The file of the board's firmware; where Raspberry Pi OS has it today if there is none."""
    return next((path for path in CONFIG_TXT if patient.system.exists(path)), CONFIG_TXT[0])


def is_pi(patient: Patient) -> bool:
    return "Raspberry Pi" in others.board(patient.system)


def check(patient: Patient) -> Iterator[Finding]:
    """Every bus of the configuration; without one, what the machine has."""
    busy = patient.system.holders()
    if patient.config is not None:
        for name, bus in patient.config.buses.items():
            yield from _bus(patient, name, bus, busy)
    else:
        for kind, pattern in (("i2c", "/dev/i2c-*"), ("gpio", "/dev/gpiochip*"), ("spi", "/dev/spidev*")):
            for node in patient.system.find(pattern):
                yield _access(patient, kind, node, "")
    yield from _i2c_speed(patient)
    yield from _modem_manager(patient)


def _bus(patient: Patient, name: str, bus: BusConfig, busy: dict[str, str]) -> Iterator[Finding]:
    where = f"buses.{name}"
    match bus:
        case I2cBusConfig():
            yield _node(patient, "i2c", _adapter(patient, bus.device), bus.device, where)
        case SpiBusConfig():
            yield _node(patient, "spi", bus.device, bus.device, where)
        case GpioBusConfig():
            yield from _gpio(patient, name, bus)
        case SerialBusConfig():
            yield from _serial(patient, bus, where, busy)
        case OneWireBusConfig():
            if patient.system.exists(bus.directory):
                yield ok("1-Wire is there", where)
            else:
                yield _missing(patient, "w1", bus.directory, where)


def _adapter(patient: Patient, device: str) -> str:
    """The node of an adapter that is named by its name."""
    if device.startswith("/"):
        return device
    for path in patient.system.find("/sys/bus/i2c/devices/i2c-*"):
        if patient.system.text(f"{path}/name") == device:
            return f"/dev/{path.rpartition('/')[2]}"
    return ""


def _node(patient: Patient, kind: str, node: str, wanted: str, where: str) -> Finding:
    if not node or not patient.system.exists(node):
        return _missing(patient, kind, wanted, where)
    return _access(patient, kind, node, where)


def _missing(patient: Patient, kind: str, wanted: str, where: str) -> Finding:
    why = "its devices stay offline (absent)"
    if kind in ENABLE and is_pi(patient):
        line, command = ENABLE[kind]
        remedy = f"{command}; or write {line} into {config_txt(patient)}; then reboot"
    elif kind == "i2c":
        remedy = "sudo modprobe i2c-dev; echo i2c-dev | sudo tee /etc/modules-load.d/i2c-dev.conf"
    else:
        remedy = "enable the interface in the board's device tree or plug the adapter in"
    return Finding("problem", f"{wanted} is not there", where, why, remedy)


def _access(patient: Patient, kind: str, node: str, where: str) -> Finding:
    """The exact group that is missing, or the rule that gives the node to one."""
    system, user = patient.system, patient.user
    if system.may_use(node, user):
        return ok(f"user {user.name} may use {node}", where)
    why = f"user {user.name} cannot open it: its devices stay offline (permission)"
    group, rule = RULES[kind]
    present = system.group_of(node)
    what = f"user {user.name} may not use {node}, which belongs to group {present or '?'}"
    if present == "root" or not _group_may(patient, node):
        prepare = "" if group in system.groups() else f"sudo groupadd --system {group}; "
        remedy = (
            f"{prepare}echo '{rule}' | sudo tee -a /etc/udev/rules.d/99-device-agent.rules; "
            f"sudo udevadm control --reload; sudo udevadm trigger; sudo usermod -aG {group} {user.name}"
        )
    else:
        remedy = f"sudo usermod -aG {present} {user.name}, then log in again (or restart the service)"
    return Finding("problem", what, where, why, remedy)


def _group_may(patient: Patient, node: str) -> bool:
    try:
        return patient.system.path(node).stat().st_mode & 0o060 == 0o060
    except OSError:
        return False


# -- GPIO -------------------------------------------------------------------------------------------------


def _gpio(patient: Patient, name: str, bus: GpioBusConfig) -> Iterator[Finding]:
    where = f"buses.{name}"
    nodes = patient.system.find("/dev/gpiochip*")
    chips = others.gpio(patient.system)
    chip = next((one for one in chips if bus.chip in (one.label, one.device)), None)
    if chip is None and bus.chip.startswith("/"):
        chip = next((one for one in chips if one.device == patient.system.real(bus.chip)), None)
    if chip is None:
        refused = [one for one in chips if one.note]
        if refused and not bus.chip.startswith("/"):
            yield from (_access(patient, "gpio", one.device, where) for one in refused)
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
    yield _access(patient, "gpio", chip.device, where)
    if patient.daemon_runs or patient.config is None:
        return  # what is held is held by it
    by_id: dict[str, str] = {}
    for line in chip.lines:
        by_id |= {str(line.offset): line.consumer, **({line.name: line.consumer} if line.name else {})}
    for device, options in patient.config.devices.items():
        for claim in patient.config.drivers[device].claims(options) if options.bus == name else ():
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


def _serial(patient: Patient, bus: SerialBusConfig, where: str, busy: dict[str, str]) -> Iterator[Finding]:
    ports = others.ports(patient.system, busy)
    if isinstance(bus.port, str):
        node = patient.system.real(bus.port)
        found = [port for port in ports if port.device == node]
        wanted = bus.port
        if not found and patient.system.exists(bus.port):
            found = [FoundPort(node, holder=busy.get(node, ""))]
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
            yield _missing(patient, "serial", wanted, where)
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
    yield _access(patient, "serial", port.device, where)
    if port.holder and not patient.daemon_runs:
        why = "two readers of one port steal each other's bytes"
        yield Finding("problem", f"{port.device} is in use by {port.holder}", where, why, "stop that program")
    yield from _console(patient, port.device, where)
    if isinstance(bus.port, str) and re.fullmatch(r"/dev/tty(USB|ACM)\d+", bus.port):
        stable = f": write {port.stable}" if port.stable else ""
        why = "the number changes when adapters are plugged in another order"
        yield Finding("note", f"{bus.port} is no stable name", where, why, f"see device-agent scan{stable}")


def _console(patient: Patient, node: str, where: str) -> Iterator[Finding]:
    """Whether the kernel or a login prompt speaks on the port."""
    system = patient.system
    cmdline = next((path for path in CMDLINE if system.exists(path)), "/proc/cmdline")
    for word in system.text(cmdline).split():
        if not word.startswith("console="):
            continue
        console = word.removeprefix("console=").partition(",")[0]
        if console.startswith(("tty", "serial")) and system.real(f"/dev/{console}") == node:
            remedy = (
                f"sudo raspi-config nonint do_serial_cons 1; or take {word} out of {cmdline}; then reboot"
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


def _modem_manager(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    usb = config is not None and any(isinstance(bus, SerialBusConfig) for bus in config.buses.values())
    system = patient.system
    runs = any(system.text(path) == "ModemManager" for path in system.find("/proc/[0-9]*/comm"))
    if usb and runs:
        why = "it opens each new serial port and sends modem commands to whatever is there"
        remedy = (
            'sudo systemctl disable --now ModemManager (or a udev rule with ENV{ID_MM_DEVICE_IGNORE}="1")'
        )
        yield Finding("problem", "ModemManager runs", "serial ports", why, remedy)


def _i2c_speed(patient: Patient) -> Iterator[Finding]:
    """The clock of the header's I2C, as the device tree has it."""
    if patient.config is None or not any(bus.kind == "i2c" for bus in patient.config.buses.values()):
        return
    for path in patient.system.find("/sys/bus/i2c/devices/i2c-*/of_node/clock-frequency"):
        try:
            hz = int.from_bytes(patient.system.path(path).read_bytes()[:4], "big")
        except OSError:
            continue
        where = f"/dev/{path.split('/')[5]}"
        if hz > FAST_I2C_HZ or 0 < hz < SLOW_I2C_HZ:
            why = "chips here are specified for 100 or 400 kHz"
            remedy = f"write dtparam=i2c_arm_baudrate=100000 into {config_txt(patient)}, then reboot"
            yield Finding("problem", f"its clock is {hz / 1000:g} kHz", where, why, remedy)
        else:
            yield ok(f"its clock is {hz / 1000:g} kHz", where)
