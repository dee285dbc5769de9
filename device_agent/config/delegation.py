"""[delegation] and [delegations.NAME]: questions to a Blocks AI agent, and what its answer may cause."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from device_agent.config.trigger import AllowedCommand, When
from device_agent.config.types import NAME_MAX, WORD, LocalPath, Table
from device_agent.schema import Field, field_validator, model_validator

BASE_URL = "https://api.blocks.team"
MESSAGE_MAX = 8000
# Names that the service's public documents list; others may exist in a workspace.
BUILT_IN_AGENTS = ("claude", "codex", "gemini", "opencode", "cursor", "kimi")
COMMANDS_MAX = 32

PLACEHOLDER = re.compile(r"\{([a-z0-9_.]*)\}")
"""What a template is filled with: `{device.point}`, `{agent}`, `{time}` or `{question}`."""


class DelegationConfig(Table):
    """[delegation]: the Sessions API, for all delegations. Its key has places of its own (`secret`)."""

    base_url: str = Field(
        BASE_URL, pattern=r"^https?://[^\s?#]+$", max_length=2000, description="Where the Sessions API is."
    )
    api_key_file: LocalPath | None = Field(
        None, description="File with its key; else `sessions_api_key` beside this file."
    )
    poll_s: float = Field(
        15, ge=2, le=3600, description="How often an answer is looked for at first; later less often."
    )

    @field_validator("base_url")
    @classmethod
    def _safe(cls, url: str) -> str:
        host = url.partition("://")[2].partition("/")[0]
        if "@" in host:
            raise ValueError("must not hold a user or password: see delegation.api_key_file")
        loopback = re.fullmatch(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?", host)
        if url.startswith("http://") and not loopback:
            raise ValueError("must begin with https://: the key must not cross a network in the clear")
        return url.rstrip("/")


class Attached(Table):
    """Readings that are sent with the question: the present ones, and the history of the last `last_s`."""

    devices: tuple[str, ...] = Field(
        min_length=1, max_length=32, strict=False, description="Whose present readings go along."
    )
    last_s: float | None = Field(None, ge=1, le=2_678_400, description="Their record of so long, too.")


class FollowUp(Table):
    """Messages that follow in the same session; each at most once for a question."""

    ended: str | None = Field(
        None, min_length=1, max_length=MESSAGE_MAX, description="When the condition of `when` has ended."
    )
    acted: str | None = Field(
        None,
        min_length=1,
        max_length=MESSAGE_MAX,
        description="When a command was carried out or refused; the outcome is added.",
    )
    unclear: str | None = Field(
        None,
        min_length=1,
        max_length=MESSAGE_MAX,
        description="When the answer names no command in the requested form; the form is added.",
    )


class Delegation(Table):
    """[delegations.NAME]: one rule."""

    agent: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^\S+$",
        description='Name of the AI agent, such as "claude"; or `agent_id`, or `profile`.',
    )
    agent_id: str | None = Field(
        None, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", description="Its id."
    )
    profile: dict[str, Any] | None = Field(
        None, max_length=64, description="Or a profile of the Sessions API."
    )
    private: bool = Field(False, description="Whether the session is kept out of the workspace.")
    when: When | None = Field(
        None, description="What triggers the question; without it only a `do` of a caller or of the owner."
    )
    message: str = Field(
        min_length=1,
        max_length=MESSAGE_MAX,
        description="The question, with `{device.point}`, `{agent}`, `{time}`, `{question}`.",
    )
    readings: Attached | None = Field(None, description="What goes along.")
    min_interval_s: float = Field(
        1800, ge=10, le=31_622_400, description="Shortest time between two questions."
    )
    max_per_day: int = Field(10, ge=1, le=1000, description="Questions a day, at most.")
    answer_within_s: float = Field(3600, ge=10, le=604_800, description="How long the answer is waited for.")
    stream: str | None = Field(None, description="Where the answer goes out, and whose `do` it takes.")
    follow_up: FollowUp = Field(FollowUp(), description="Messages that follow in the same session.")
    commands: dict[str, AllowedCommand] = Field(
        default_factory=dict, max_length=COMMANDS_MAX, description="All that an answer may cause, by name."
    )
    act_within_s: float = Field(
        600,
        ge=10,
        le=43_200,
        description="A command of an answer that comes later than this after its question is refused.",
    )

    @model_validator(mode="after")
    def _one_agent(self) -> "Delegation":
        named = [one for one in (self.agent, self.agent_id, self.profile) if one is not None]
        if len(named) != 1:
            raise ValueError("must have exactly one of agent, agent_id, profile")
        return self

    @field_validator("commands")
    @classmethod
    def _named(cls, commands: dict[str, AllowedCommand]) -> dict[str, AllowedCommand]:
        for name in commands:
            if re.fullmatch(WORD, name) is None or len(name) > NAME_MAX or name == "none":
                raise ValueError(f"has {name!r:.70}: use lower-case letters, digits and _ (and not none)")
        return commands

    @property
    def asks_question(self) -> bool:
        """Whether its `do` takes an argument `question`."""
        return "question" in PLACEHOLDER.findall(self.message)

    @property
    def templates(self) -> Mapping[str, str]:
        """All texts with placeholders, by their place in the table."""
        said = {f"follow_up.{name}": text for name, text in self.follow_up if text is not None}
        return MappingProxyType({"message": self.message, **said})


def holder(name: str) -> str:
    """How a delegation is named where callers are: in `access`, in leases, in the Journal."""
    return f"delegation:{name}"
