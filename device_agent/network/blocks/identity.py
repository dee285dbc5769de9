"""What the agent is on the network, kept over restarts: control messages go to this very instance (W5)."""

import json
import os
import re
import uuid
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import structlog

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
    """One small file, mode 0600, replaced as a whole; a damaged one is set aside and begun anew."""

    def __init__(self, path: Path, agent_name: str) -> None:
        self._path = path
        self._saved = ""
        self.identity = self._load(agent_name)
        self.save()

    def _load(self, agent_name: str) -> Identity:
        known = {item.name: item.type for item in fields(Identity)}
        stored: dict[str, object] = {}
        try:
            loaded = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(loaded, dict):
                stored = {key: value for key, value in loaded.items() if key in known}
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            aside = self._path.with_suffix(".damaged")
            log.warning("identity_set_aside", file=str(self._path), aside=str(aside), error=str(error))
            try:
                self._path.replace(aside)
            except OSError:
                log.warning("identity_not_moved", file=str(self._path))
        defaults = Identity()
        clean = {
            key: value for key, value in stored.items() if isinstance(value, type(getattr(defaults, key)))
        }
        identity = Identity(**clean)
        if identity.agent_name != agent_name or not re.fullmatch(
            r"AG-\w+-[0-9a-f-]{36}", identity.instance_id
        ):
            identity = Identity(agent_name=agent_name, instance_id=f"AG-{agent_name}-{uuid.uuid4()}")
        return identity

    def save(self) -> None:
        """Write if anything changed. A full or read-only disk is reported and does not stop the agent."""
        text = json.dumps(asdict(self.identity), indent=1)
        if text == self._saved:
            return
        temporary = self._path.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            self._saved = text
        except OSError as error:
            log.warning("identity_not_saved", file=str(self._path), error=str(error))
