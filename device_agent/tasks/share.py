"""How much one caller may ask for: so many at once, and so many a second after that."""

from device_agent.clock import Clock, TokenBucket

# Callers that are told apart; of more, the first are forgotten.
NAMES_MAX = 1000


class Shares:
    """A rate limit for each name, over all that it has open."""

    def __init__(self, most: int, a_second: float) -> None:
        self._most, self._a_second = most, a_second
        self._shares: dict[str, TokenBucket] = {}

    def take(self, name: str, clock: Clock) -> bool:
        """Whether there is one more for this name now."""
        if name not in self._shares:
            if len(self._shares) >= NAMES_MAX:
                self._shares.pop(next(iter(self._shares)))
            self._shares[name] = TokenBucket(self._most, self._a_second, clock)
        return self._shares[name].take()
