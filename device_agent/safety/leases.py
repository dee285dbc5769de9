"""Who drives a device: one holder at a time; others are refused, with its label and the wait that remains."""

from dataclasses import dataclass

from device_agent.errors import Rejected


@dataclass(slots=True)
class Lease:
    """`holder` is that of an `Actor`; `label` is what others may know of it. Instants are monotonic."""

    holder: str
    label: str
    used_s: float
    rank: int = 0
    """By the owner's access list; the lower number goes first."""


class Leases:
    """A lease begins with the first accepted command. It ends with its session, or after `idle_s` unused."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._held: dict[str, Lease] = {}

    def holder(self, device: str, now_s: float) -> Lease | None:
        """The lease in force, if any."""
        lease = self._held.get(device)
        if lease is not None and now_s - lease.used_s >= self._idle_s:
            del self._held[device]
            return None
        return lease

    def check(self, device: str, holder: str, now_s: float) -> None:
        """Raises Rejected `leased` while somebody else drives the device."""
        lease = self.holder(device, now_s)
        if lease is not None and lease.holder != holder:
            wait_s = self._idle_s - (now_s - lease.used_s)
            raise Rejected(
                "leased",
                f"{device} is driven by {lease.label}; free when that session ends, or in {wait_s:.0f} s "
                "without a command from it",
            )

    def yields_to(self, device: str, holder: str, rank: int, now_s: float) -> bool:
        """Whether somebody else's lease is in force, and its rank comes after this one."""
        lease = self.holder(device, now_s)
        return lease is not None and lease.holder != holder and rank < lease.rank

    def take(self, device: str, holder: str, label: str, now_s: float, rank: int = 0) -> None:
        """Begin or prolong a lease. `check` allowed it, or `yields_to` did."""
        self._held[device] = Lease(holder, label, now_s, rank)

    def clear(self) -> None:
        """End all leases."""
        self._held.clear()

    def release(self, holder: str, device: str | None = None) -> list[str]:
        """End the leases of a holder, on all devices or on this one; the names of the devices."""
        names = [
            name
            for name, lease in self._held.items()
            if lease.holder == holder and (device is None or name == device)
        ]
        for name in names:
            del self._held[name]
        return names
