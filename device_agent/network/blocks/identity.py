"""The agent's identity on the network, kept over restarts (docs/protocol.md, W5)."""

import re
import threading
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from device_agent.store.files import read_small, sealed, set_aside, unsealed, write_atomically

log = structlog.get_logger("identity")


@dataclass(slots=True)
class Identity:
    """Cached answers of the network, and the instance id that must not change. Tokens in it are secrets."""

    instance_id: str = ""
    agent_name: str = ""
    agent_id: str = ""
    control_channel: str = ""
    control_token: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    control_timetoken: str = "0"
    environment: str = ""
    billing_mode: str = ""
    listing: str = ""
    publish_key: str = ""
    subscribe_key: str = ""
    api_base_url: str = ""
    playground_keys: list[str] = field(default_factory=list)
    network_keys: list[str] = field(default_factory=list)


class IdentityFile:
    """One small file, mode 0600, replaced as a whole. A damaged one is set aside and a new identity made."""

    def __init__(self, path: Path, agent_name: str) -> None:
        self._path = path
        self._saved = b""
        self._saving = threading.Lock()
        self.identity = self._load(agent_name)
        self.save()

    def _load(self, agent_name: str) -> Identity:
        stored = self._read()
        defaults = asdict(Identity())
        fits = {
            name: stored[name]
            for name, default in defaults.items()
            if isinstance(stored.get(name), type(default))
        }
        identity = Identity(**fits)
        good_id = re.fullmatch(r"AG-\w+-[0-9a-f-]{36}", identity.instance_id)
        if identity.agent_name != agent_name or not good_id:
            identity = Identity(agent_name=agent_name, instance_id=f"AG-{agent_name}-{uuid.uuid4()}")
        return identity

    def _read(self) -> dict[str, Any]:
        try:
            return unsealed(read_small(self._path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("identity_unreadable", file=str(self._path), error=str(error))
        try:
            log.warning("identity_set_aside", aside=str(set_aside(self._path)))
        except OSError as error:
            log.warning("identity_not_moved", file=str(self._path), error=str(error))
        return {}

    def save(self) -> None:
        """Write if anything changed, on any thread. A full or read-only disk is logged and stops nothing."""
        with self._saving:
            data = sealed(asdict(self.identity))
            if data == self._saved:
                return
            try:
                write_atomically(self._path, data)
                self._saved = data
            except OSError as error:
                log.warning("identity_not_saved", file=str(self._path), error=str(error))
