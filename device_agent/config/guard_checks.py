"""Checks of what the guard can keep safe when the daemon is killed: pulses in software, other buses."""

from collections.abc import Iterator

from device_agent.bus.config import GpioBusConfig
from device_agent.config.draft import ConfigDraft, DraftDevice
from device_agent.driver import Actuator

GUARDED = ("gpio", "i2c", "serial", "mqtt")


def pulses(draft: ConfigDraft) -> Iterator[str]:
    """Lines that shall switch by themselves where nothing can, or could not go on without the daemon."""
    for device, bus in _in_software(draft):
        line, pins = getattr(device.config, "line", None), f"buses.{device.config.bus}"
        wish = f'name its hardware channel in {pins}.pwm, such as {{ {line} = "pwmchip0/0" }}'
        if bus.backend == "gpiod":
            place = f"devices.{device.name}.line = {line}"
            yield f'{place} can only be switched on and off: {wish}, or use {pins}.backend = "gpiozero"'
            continue
        duty = device.safe.get("duty")
        if device.driver.pulses == "share" and duty not in (0, 1):
            yield (
                f"devices.{device.name}.safe: pulses made in software end with the agent, so a duty of "
                f"{duty} could not be kept when it is killed: make it 0 or 1, or {wish}"
            )


def unguarded(draft: ConfigDraft) -> Iterator[str]:
    """What stays as it is, or ends in another way than its safe value, when the daemon is killed."""
    for device in draft.devices.values():
        if not (issubclass(device.driver, Actuator) and device.writable):
            continue
        kind = device.driver.Bus.kind
        if kind not in GUARDED:
            yield (
                f"devices.{device.name} stays as it is when the agent is killed: the guard cannot use a bus "
                f'of kind "{kind}"; use hardware that goes safe by itself'
            )
    for device, bus in _in_software(draft):
        if bus.backend == "gpiozero" and device.driver.pulses == "position":
            yield (
                f"devices.{device.name} goes to no position when the agent is killed: pulses made in "
                f"software end with it, and the guard keeps the line off; name a hardware channel in "
                f"buses.{device.config.bus}.pwm"
            )


def _in_software(draft: ConfigDraft) -> Iterator[tuple[DraftDevice, GpioBusConfig]]:
    for device in draft.devices.values():
        bus = draft.buses.get(device.config.bus or "")
        line = str(getattr(device.config, "line", ""))
        if device.driver.pulses and isinstance(bus, GpioBusConfig) and line not in bus.pwm:
            yield device, bus
