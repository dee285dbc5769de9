"""Who acts, and what the owner's access rules say to it.

A refusal tells nothing that the caller may not know: a device that is hidden from it does not exist.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from device_agent.config.access import AccessConfig, Right
from device_agent.errors import Rejected
from device_agent.network import Caller, TaskKind
from device_agent.records import Value, is_number

if TYPE_CHECKING:
    from device_agent.messages.commands import Command

_PLAIN = " |:@+=,;!$&'()*"
T = TypeVar("T")


class Role(Enum):
    """What an actor is. No name that somebody else chooses makes one the other."""

    CALLER = "caller"
    OWNER = "owner"
    """Acts on the device itself, and needs no access rule."""
    DELEGATION = "delegation"
    RULE = "rule"
    """Acts by a line of the owner's, which is its right; who drives already is asked as of any caller."""
    LOCAL = "local"
    """Comes in on the device by a door of its own (a page, a local broker), under the access rules."""


# A door may name its own clients behind a slash.
LOCAL_DOORS = ("local:page", "local:mqtt", "local:mcp")
DOOR_MAX = 100


@dataclass(frozen=True, slots=True)
class Actor:
    """Who drives. `holder`: `task:` and its id, `local`, `delegation:NAME`, `rule:NAME`, or a door."""

    holder: str
    label: str
    caller: Caller
    kind: TaskKind | None = None
    role: Role = Role.CALLER
    shared_stream: str = ""
    """Of a copy for what came on a shared stream, whose senders nobody can tell: the stream."""
    unix_user: str = ""
    """Who is at the device, of the owner and of doors."""

    @property
    def is_owner(self) -> bool:
        return self.role is Role.OWNER

    @property
    def may_all(self) -> bool:
        return self.role in (Role.OWNER, Role.RULE)

    @property
    def identities(self) -> frozenset[str]:
        if self.role in (Role.DELEGATION, Role.RULE):
            return frozenset((self.holder,))
        if self.role is Role.LOCAL:
            return frozenset((self.holder, self.holder.partition("/")[0]))
        named = [("org", self.caller.org), ("user", self.caller.user)]
        return frozenset(f"{kind}:{name}" for kind, name in named if name)

    @property
    def recorded(self) -> str:
        """As the owner's Journal and log name it: by which way, and who, which other callers may not know."""
        way = f"{self.label} on stream {self.shared_stream}" if self.shared_stream else self.label
        names = (("user", self.caller.user), ("organisation", self.caller.org), ("Unix user", self.unix_user))
        who = ", ".join(f"{kind} {name}" for kind, name in names if name)
        return f"{way} ({who})" if who else way

    @property
    def journal_key(self) -> str:
        """Whose ids these are: a caller's, over all its tasks; of a shared stream, the stream's."""
        if self.role is not Role.CALLER:
            return self.holder
        if self.shared_stream:
            return f"stream {self.shared_stream}"
        # A slash in a name must not make one caller of two.
        return "/".join(quote(name, safe=_PLAIN) for name in (self.caller.org, self.caller.user))

    def id_key(self, command: "Command") -> str:
        """By what its id is kept: on a shared stream with the content, so that nobody uses up another's."""
        if not self.shared_stream:
            return command.id
        content = json.dumps(command.members(), sort_keys=True).encode()
        return f"{command.id} {hashlib.blake2b(content, digest_size=16).hexdigest()}"


def local_actor(door: object) -> Actor:
    """Who comes in by a door on the device: `local:page`, or `local:mcp/CLIENT`. Raises Rejected."""
    if not isinstance(door, str) or door.partition("/")[0] not in LOCAL_DOORS or len(door) > DOOR_MAX:
        known = ", ".join(LOCAL_DOORS)
        raise Rejected("invalid_value", f"as is none of {known}, each perhaps with /CLIENT behind it")
    return Actor(door, door, Caller(), role=Role.LOCAL)


def may(access: AccessConfig, right: Right, actor: Actor, device: str) -> bool:
    """What the owner does, or has written down to be done, needs no access rule."""
    return actor.may_all or access.allows(right, device, actor.identities, actor.kind)


def knows(access: AccessConfig, actor: Actor, device: str) -> bool:
    """Whether the device exists for this actor."""
    return may(access, "read", actor, device) or may(access, "drive", actor, device)


def rank(access: AccessConfig, actors: Iterable[Actor], device: str) -> int:
    """The worst rank among these; the owner on the device is above all with -1."""
    return max(-1 if one.is_owner else access.rank(device, one.identities) for one in actors)


def known_device(
    access: AccessConfig, actor: Actor, name: str, devices: Mapping[str, T], bounds: Collection[str]
) -> T:
    """What has this name. Raises Rejected `unknown_device`, in the same words if it is hidden."""
    if name not in bounds or name not in devices or not knows(access, actor, name):
        known = _names([one for one in bounds if knows(access, actor, one)])
        raise Rejected("unknown_device", f"there is no device {name!r} here; there are: {known}")
    return devices[name]


def check_read(name: str, devices: Collection[str], may_read: Callable[[str], bool]) -> None:
    """Raises Rejected `unknown_device`, in the same words for a device that is hidden."""
    if name not in devices or not may_read(name):
        known = _names([one for one in devices if may_read(one)])
        raise Rejected("unknown_device", f"devices: there is no device {name!r} here; there are: {known}")


def check_right(access: AccessConfig, right: Right, actors: Iterable[Actor], device: str) -> None:
    """Raises Rejected `not_allowed` unless all of them have this right on the device."""
    if not all(may(access, right, actor, device) for actor in actors):
        raise Rejected("not_allowed", f"the owner's access rules do not let you {right} {device}")


def check_points(
    access: AccessConfig, actors: Collection[Actor], device: str, values: Mapping[str, Value | None]
) -> None:
    """Raises Rejected `not_allowed` unless all of them may set these points to these values.

    None stands for a value that is not known yet.
    """
    callers = [actor for actor in actors if not actor.may_all]
    for point, value in values.items():
        if not all(access.drives_point(device, point, actor.identities) for actor in callers):
            raise Rejected("not_allowed", f"the owner's access rules do not let you drive {device}.{point}")
        rule = access.point(device, point)
        if not callers or not is_number(value):
            continue
        low, high = rule.minimum, rule.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"{'' if low is None else f'{low:g}'} to {'' if high is None else f'{high:g}'}"
            raise Rejected(
                "not_allowed",
                f"the owner's access rules let you set {device}.{point} within {bounds}, not to {value!r}",
            )


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
