"""[access]: who may read, who may drive; by device, by point, by kind of task."""

from collections.abc import Collection
from typing import Literal

from device_agent.config.types import Callers, Table
from device_agent.schema import Field

Right = Literal["read", "drive"]


class PointAccess(Table):
    """[access.devices.NAME.points.POINT]: who may drive the point, and how far. None is as for the device."""

    drive: Callers | None = Field(None, description="Who may drive this point; else as for the device.")
    minimum: float | None = Field(None, description="The lowest value callers may set.")
    maximum: float | None = Field(None, description="The highest value callers may set.")


class DeviceAccess(Table):
    """[access.devices.NAME]: what differs for one device; None is as in [access]."""

    read: Callers | None = Field(None, description="Who may read this device; else as in [access].")
    drive: Callers | None = Field(None, description="Who may drive this device; else as in [access].")
    points: dict[str, PointAccess] = Field(default_factory=dict, description="What differs for one point.")


class KindAccess(Table):
    """[access.request], [access.pipe]: in tasks of that kind a caller needs this as well."""

    read: Callers | None = Field(
        None, description="Who may read in tasks of this kind, of those who may at all."
    )
    drive: Callers | None = Field(
        None, description="Who may drive in tasks of this kind, of those who may at all."
    )


class AccessConfig(Table):
    """[access]: who may read, who may drive. Nobody drives unless it is written.

    The order of a `drive` list is a rank. With `preempt` a caller takes a device over from a caller of lower
    rank, and the owner at the device from everybody; without it, the first one keeps it.
    """

    read: Callers = Field(
        ("anyone",), description='Who may read: "anyone", or a list of "org:ID", "user:ID", "local:page" …'
    )
    drive: Callers = Field((), description="Who may drive; nobody unless it is written. The order is a rank.")
    preempt: bool = Field(
        False, description="A caller of higher rank takes a device over from one of lower rank."
    )
    request: KindAccess = Field(KindAccess(), description="What differs in request tasks.")
    pipe: KindAccess = Field(KindAccess(), description="What differs in pipe tasks.")
    devices: dict[str, DeviceAccess] = Field(default_factory=dict, description="What differs for one device.")

    def callers(self, right: Right, device: str) -> tuple[str, ...]:
        """Who has this right on a device."""
        own = self.devices.get(device)
        special = getattr(own, right) if own is not None else None
        return special if special is not None else getattr(self, right)  # type: ignore[no-any-return]

    def allows(self, right: Right, device: str, identities: Collection[str], kind: str | None = None) -> bool:
        """Whether a caller known by these identities ("org:…", "user:…") has this right on a device.

        `kind` is the kind of the task in which it asks.
        """
        own = getattr(getattr(self, kind), right) if kind in ("request", "pipe") else None
        return _among(self.callers(right, device), identities) and (own is None or _among(own, identities))

    def drives_point(self, device: str, point: str, identities: Collection[str]) -> bool:
        """Whether a caller who may drive the device may drive this point of it."""
        own = self.point(device, point).drive
        return own is None or _among(own, identities)

    def point(self, device: str, point: str) -> PointAccess:
        """What differs for one point."""
        own = self.devices.get(device)
        return own.points.get(point, _NO_DIFFERENCE) if own is not None else _NO_DIFFERENCE

    def rank(self, device: str, identities: Collection[str]) -> int:
        """The place of the first entry of the device's `drive` list that means this caller, from 0."""
        granted = self.callers("drive", device)
        places = [place for place, name in enumerate(granted) if name == "anyone" or name in identities]
        return min(places, default=len(granted))


_NO_DIFFERENCE = PointAccess()


def _among(granted: Collection[str], identities: Collection[str]) -> bool:
    return "anyone" in granted or not set(granted).isdisjoint(identities)
