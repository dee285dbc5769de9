"""Who drives a device: one session at a time; the others are told who and how long."""

from dataclasses import dataclass

from device_agent.errors import Rejected


@dataclass(slots=True)
class Lease:
    """`holder` is a task's id or "local"; `label` is what others may be told."""

    holder: str
    label: str
    used_s: float
    rank: int = 0
    """The holder's rank by the owner's access list; a lower number is higher."""


class Leases:
    """A lease starts with the first accepted command and ends with its session or after `idle_s` unused."""

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

    def ousted_by(self, device: str, holder: str, rank: int, now_s: float) -> bool:
        """Whether another one's lease is in force that gives way to this rank."""
        lease = self.holder(device, now_s)
        return lease is not None and lease.holder != holder and rank < lease.rank

    def take(self, device: str, holder: str, label: str, now_s: float, rank: int = 0) -> None:
        """Begin or prolong a lease that `check` allowed, or that gave way."""
        self._held[device] = Lease(holder, label, now_s, rank)

    def clear(self) -> None:
        """End all leases: nobody knows any more what state the devices are in."""
        self._held.clear()

    def release(self, holder: str, device: str | None = None) -> list[str]:
        """End the leases of a holder (on one device); returns the devices."""
        names = [
            name
            for name, lease in self._held.items()
            if lease.holder == holder and (device is None or name == device)
        ]
        for name in names:
            del self._held[name]
        return names
