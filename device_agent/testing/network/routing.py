"""Which instance gets a task: the least loaded live one with room (protocol sections 9 and 15)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from device_agent.testing.network.presence import Occupant
from device_agent.testing.network.registry import Agent
from device_agent.testing.network.tasks import Task


@dataclass(slots=True, frozen=True)
class Candidate:
    """A live instance. ``concurrency`` 0 means unlimited."""

    instance_id: str
    load: int
    concurrency: int
    joined_s: float

    @property
    def free(self) -> bool:
        """Whether it has room for one more task."""
        return self.concurrency == 0 or self.load < self.concurrency

    @property
    def rank(self) -> tuple[float, int, float]:
        """Lower is better: share of its room in use, tasks, then who was there first."""
        share = self.load / self.concurrency if self.concurrency else 0.0
        return share, self.load, self.joined_s


def candidates(agent: Agent, occupants: Iterable[Occupant], open_tasks: Iterable[Task]) -> list[Candidate]:
    """The live instances of an agent.

    Load is what the instance states, plus the tasks that were sent to it and have shown no event yet: its
    presence state cannot know of those.
    """
    underway: dict[str, int] = {}
    for task in open_tasks:
        if task.state == "pending" and task.instance_id is not None:
            underway[task.instance_id] = underway.get(task.instance_id, 0) + 1
    found: list[Candidate] = []
    for occupant in occupants:
        instance = agent.instances.get(occupant.uuid)
        if instance is None:
            continue
        active = _count(occupant.state.get("activeTasks"), 0)
        concurrency = _count(occupant.state.get("concurrency"), instance.concurrency)
        load = active + underway.get(occupant.uuid, 0)
        found.append(Candidate(occupant.uuid, load, concurrency, occupant.joined_s))
    return found


def choose(found: list[Candidate]) -> Candidate | None:
    """The best free candidate, or ``None``."""
    return min((c for c in found if c.free), key=lambda c: c.rank, default=None)


def _count(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
