"""Faults of a simulated bus: what can go wrong, where it makes sense, and what it does to bytes."""

import random
from dataclasses import dataclass

KINDS: dict[str, tuple[str, ...]] = {
    "i2c": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "gpio": ("unplug", "replug", "stuck", "slow", "noise", "frozen"),
    "serial": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "mqtt": ("unplug", "replug", "stuck", "slow", "noise", "frozen", "corrupt"),
    "spi": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
    "w1": ("unplug", "replug", "nack", "stuck", "slow", "noise", "frozen", "corrupt"),
}
"""Which kinds each bus knows. On a serial port `nack` is silence: what the far end says never arrives. On SPI
nobody drives the input, which reads as ones; on 1-Wire the kernel's file is empty."""

DEVICE_KINDS: dict[str, tuple[str, ...]] = {
    "i2c": KINDS["i2c"],
    "gpio": ("unplug", "replug", "noise", "frozen"),
    "serial": ("unplug", "replug", "nack", "noise", "frozen", "corrupt"),
    "mqtt": ("unplug", "replug", "frozen"),
    "spi": KINDS["spi"],
    "w1": KINDS["w1"],
}
"""Which of them can befall one device alone; the only device on a port or broker shares all of its fate."""

# Long enough to be seen, short enough that a driver of a dozen transactions stays within its bus's limit.
SLOW_S = 0.1
# A wedged line is freed by a person; a simulated one also ends by itself, so that no test waits for ever.
STUCK_LIMIT_S = 60.0
NOISE_PER_BYTE = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one bus, or of one device on it; until `until_s` (None: until healed)."""

    kind: str
    device: str | None = None
    until_s: float | None = None


def noisy(data: bytes, chance: random.Random) -> bytes:
    """Some bits flipped and, now and then, a byte of garbage put in."""
    out = bytearray()
    for byte in data:
        dice = chance.random()
        if dice < NOISE_PER_BYTE / 2:
            out.append(chance.randrange(256))
        out.append(byte ^ (1 << chance.randrange(8)) if dice < NOISE_PER_BYTE else byte)
    return bytes(out)


def flipped(data: bytes, chance: random.Random) -> bytes:
    """As `noisy`, but of the same length: an I2C transaction has the length that the host asked for."""
    return bytes(b ^ (1 << chance.randrange(8)) if chance.random() < NOISE_PER_BYTE else b for b in data)


def corrupted(data: bytes, chance: random.Random) -> bytes:
    """Exactly one bit wrong: no checksum over it holds."""
    if not data:
        return data
    out = bytearray(data)
    out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)
