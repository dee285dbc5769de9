"""How much one caller may ask for: so many at once, and so many a second after that."""

from device_agent.clock import Clock

# Callers that are told apart; of more, the first are forgotten.
NAMES_MAX = 1000


class Share:
    """So many at once, and so many a second after that."""

    def __init__(self, most: int, a_second: float, clock: Clock) -> None:
        self._most, self._a_second, self._clock = most, a_second, clock
        self._left, self._at_s = float(most), clock.monotonic_s()

    def take(self) -> bool:
        """Whether there is one more now."""
        now_s = self._clock.monotonic_s()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._a_second)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Shares:
    """A `Share` for each name, over all that it has open."""

    def __init__(self, most: int, a_second: float) -> None:
        self._most, self._a_second = most, a_second
        self._shares: dict[str, Share] = {}

    def take(self, name: str, clock: Clock) -> bool:
        """Whether there is one more for this name now."""
        if name not in self._shares:
            if len(self._shares) >= NAMES_MAX:
                self._shares.pop(next(iter(self._shares)))
            self._shares[name] = Share(self._most, self._a_second, clock)
        return self._shares[name].take()
