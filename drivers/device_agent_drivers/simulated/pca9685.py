"""A PCA9685 by its data sheet: what counts only asleep, what sticks, what a block write does without AI."""

from collections.abc import Sequence

from device_agent.testing.chips import Physical, RegisterChip

MODE1, MODE2, LED0, LED_END, ALL_LED, PRE_SCALE = 0x00, 0x01, 0x06, 0x46, 0xFA, 0xFE
RESTART, EXTCLK, AI, SLEEP = 0x80, 0x40, 0x20, 0x10
WAKE_UP_S = 0.0005


class SimulatedPca9685(RegisterChip):
    """Outputs: the duty of each channel, 0 while the chip sleeps or has not been restarted."""

    def __init__(self, address: int, channels: Sequence[str]) -> None:
        self._channels = list(channels)
        self.external_clock = False
        self.running = False
        """Whether the counters count: not asleep, and no restart pending."""
        self._awake_s = 0.0
        leds = {register: bytes((0x10 if register % 4 == 1 else 0,)) for register in range(LED0, LED_END)}
        super().__init__(
            {MODE1: b"\x11", MODE2: b"\x04", 0x02: b"\xe2\xe4\xe8\xe0", **leds, PRE_SCALE: b"\x1e"}
        )
        self.address = address

    def reset(self) -> None:
        super().reset()
        self.external_clock = False
        self.running = False

    def __setitem__(self, register: int, value: int) -> None:
        super().__setitem__(register, value & ~EXTCLK if register == MODE1 else value)

    def outputs(self) -> dict[str, Physical]:
        return {name: self.duty(int(name[2:])) if self.running else 0.0 for name in self._channels}

    def duty(self, channel: int) -> float:
        on_low, on_high, off_low, off_high = self.get(LED0 + 4 * channel, 4)
        if off_high & 0x10:
            return 0.0
        if on_high & 0x10:
            return 1.0
        return ((off_high << 8 | off_low) - (on_high << 8 | on_low)) % 4096 / 4096

    def _step(self) -> None:
        if self[MODE1] & AI:
            # Section 7.3.1: the count goes on from the last channel's register to the first of all.
            self.pointer = 0 if self.pointer == LED_END - 1 else (self.pointer + 1) % 0x100

    def on_read(self, register: int, value: int) -> int:
        if ALL_LED <= register < PRE_SCALE:
            return 0
        return value | EXTCLK * self.external_clock if register == MODE1 else value

    def on_write(self, register: int, value: int) -> int:
        if register == MODE1:
            return self._on_mode1(value)
        if register == PRE_SCALE:
            return max(3, value) if self[MODE1] & SLEEP else self[PRE_SCALE]
        if ALL_LED <= register < PRE_SCALE:
            for channel in range(16):
                self[LED0 + 4 * channel + register - ALL_LED] = value
        elif LED0 <= register < LED_END:
            self[MODE1] &= ~RESTART  # section 7.3.1.1: a write to any channel ends the pending restart
            self.running = not self[MODE1] & SLEEP
        return value & 0x1F if (register - LED0) % 2 and LED0 <= register < LED_END else value

    def _on_mode1(self, value: int) -> int:
        was_asleep = bool(self[MODE1] & SLEEP)
        if value & EXTCLK and was_asleep and value & SLEEP:
            self.external_clock = True
        pending = self[MODE1] & RESTART
        if value & SLEEP:
            if self.running and any(self.duty(channel) not in (0.0, 1.0) for channel in range(16)):
                pending = RESTART
            self.running = False
        elif was_asleep:
            self._awake_s = self.now_s() + WAKE_UP_S
            self.running = not pending
        elif value & RESTART and pending and self.now_s() >= self._awake_s - 1e-9:
            pending = 0
            self.running = True
        return value & ~RESTART | pending
