"""All exceptions of the package: one root, and branches by who can act on them.

Every message says what, where, which value, and what to do. A traceback goes to the log only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.text.printable import printable, within

# The network refuses an event above 32 kB, and a task whose end is refused never ends.
SENTENCE_MAX_BYTES = 1000


class AgentError(Exception):
    """Root of everything this package raises on purpose."""


class ConfigError(AgentError):
    """A person must edit a file. `problems` holds every fault found, one sentence each. Exit code 78."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class NotReady(ConfigError):
    """What a start needs is not there yet, and may come without anybody editing a file. Exit code 75."""


# --- buses and drivers: the device waits and tries again -------------------------------------------------


class BusError(AgentError, OSError):
    """Something on a bus failed; `reason` is the one of a device's `status` event (docs/events.md)."""

    reason = "bus_fault"


class NoAnswer(BusError):
    """One address or unit did not answer (a NACK); the bus itself works. Try again on the same handle."""

    reason = "absent"


class PlaceRefused(BusError):
    """One line, channel, register or topic cannot be used as its device wants; the bus and all others can."""

    reason = "absent"


class BusTimeout(BusError, TimeoutError):
    """A job had begun and did not end in time, so it may have happened: a write's outcome is `unknown`."""

    reason = "timeout"


class BusBusy(BusError):
    """A job never began, and never will: the bus was occupied for the whole time limit."""

    reason = "bus_fault"


class BusFaulted(BusError):
    """The bus is not usable now: its thread is stuck, or the medium is being reopened."""

    reason = "bus_fault"


class BusGone(BusError):
    """The medium itself disappeared (unplugged adapter, removed chip). Close before reopening."""

    reason = "unplugged"


class BusHeld(BusError):
    """Somebody else holds the line, port or address; the message names the holder where the kernel tells."""

    reason = "busy"


class BusDenied(BusError, PermissionError):
    """The operating system refuses; the message names the group or rule that is missing."""

    reason = "permission"


class DriverError(AgentError):
    """A chip answered, but not as its data sheet says."""

    reason = "driver_error"


class WrongChip(DriverError):
    """Another chip than the configured one answers at this place; the message holds the id that was found."""

    reason = "wrong_chip"


class ChipReset(DriverError):
    """The chip lost its configuration during the run (brown-out); it is opened and configured again."""

    reason = "chip_reset"


class BadReading(DriverError, ValueError):
    """A checksum, frame or range was wrong: nothing in this answer can be used."""

    reason = "checksum"


# --- commands: the caller gets an answer -----------------------------------------------------------------


def sentence(text: str) -> str:
    """A sentence that may echo what somebody sent, and fits every answer."""
    return within(printable(text, SENTENCE_MAX_BYTES), SENTENCE_MAX_BYTES)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a command or request came to nothing: one of the codes of docs/events.md, and a sentence."""

    code: str
    message: str

    def members(self) -> dict[str, str]:
        """As callers get it."""
        return {"code": self.code, "message": sentence(self.message)}

    @classmethod
    def from_members(cls, members: Mapping[str, Any]) -> "Fault":
        """What `members` made, perhaps in another process; what is missing there is made up for."""
        return cls(str(members.get("code", "internal")), str(members.get("message", "no reason given")))


class Rejected(AgentError):
    """A command or request was refused before anything moved."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = sentence(message)

    @property
    def fault(self) -> Fault:
        """As an answer says it."""
        return Fault(self.code, self.message)


class Interlocked(Rejected):
    """Another device forbids it. The message names it, which is not for every caller."""

    def __init__(self, message: str, other: str) -> None:
        super().__init__("interlocked", message)
        self.other = other


# --- storage -------------------------------------------------------------------------------------------


class StoreError(AgentError):
    """A store on disk failed."""


class NotRecorded(StoreError):
    """A command could not be recorded where it survives the process, so it was not carried out."""


# --- network: the supervisor's policy decides when to try again ---------------------------------------------


class NetworkError(AgentError):
    """Communication with the network failed."""


class Unreachable(NetworkError):
    """No answer at all (DNS, connect, reset, time-out): try again within 5 s."""


class Refused(NetworkError):
    """An answer that refuses (4xx, 5xx): back off up to 60 s. `status` is HTTP's, `code` the service's."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class TokenRefused(Refused):
    """HTTP 403 (or 401 of the API): this token is not accepted; renew or replace it.

    `body` is the parsed answer: stream setup is answered in it (docs/protocol.md#stream-setup).
    """

    body: object = None


class Revoked(Refused):
    """The API key is invalid or an administrator forced the agent offline: stay down, safe, and say so."""


class NoKey(NetworkError):
    """There is no API key, or none that may be used: asked again when one is given."""


class ProtocolFault(NetworkError):
    """The other side sent something the protocol does not allow; the message names the member."""
