"""Rules at work: each has a task, hears what devices report, and is woken once a second."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from device_agent.background import BackgroundTasks
from device_agent.records import Reading, ReadingSubscriber, Status
from device_agent.triggers.schedule import Schedule
from device_agent.triggers.state_file import StateFile

TICK_S = 1.0


class RuleTasks(ReadingSubscriber):
    """What delegations, and local rules with alerts, have in common."""

    def __init__(self, name: str, state_file: StateFile[Any]) -> None:
        """`state_file` is written as it is then when this is closed."""
        self.state_file = state_file
        self.background = BackgroundTasks(name)
        self._schedules: list[Schedule] = []

    def begin(self, name: str, schedule: Schedule, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which waits for the schedule's `changed`."""
        self._schedules.append(schedule)
        self.background.run_forever(name, work)
        if len(self._schedules) == 1:
            self.background.run_forever("tick", self._tick)

    async def close(self) -> None:
        """What is under way or waits is in the file; the next process goes on."""
        await self.background.close()
        await self.state_file.save()

    def on_reading(self, reading: Reading) -> None:
        for schedule in self._schedules:
            schedule.add_reading(reading)

    def on_status(self, status: Status) -> None:
        for schedule in self._schedules:
            schedule.add_status(status)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for schedule in self._schedules:
                schedule.changed.set()
