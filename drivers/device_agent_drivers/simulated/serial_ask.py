"""The far end of `serial-ask`: it answers the configured questions with its present quantities."""

from typing import TYPE_CHECKING

from device_agent_drivers.simulated.documents import dated
from device_agent_drivers.simulated.serial_lines import SimulatedLines, written_as

if TYPE_CHECKING:
    from device_agent_drivers.serial_ask import SerialAskConfig


class SimulatedAnswers(SimulatedLines):
    """Quantities are the points, in their units; a writable one is also an output."""

    def __init__(self, config: "SerialAskConfig") -> None:
        super().__init__(config)
        self._asked = config
        self._heard = b""

    def changed(self, quantity: str) -> None:
        """It says nothing by itself."""

    def receive(self, data: bytes) -> None:
        self._heard = (self._heard + data)[-4096:]
        *_, last = questions = self._asked.questions()
        for question in questions:
            sent = question.encoded(self._asked.encoding)
            while sent in self._heard:
                self._heard = self._heard.replace(sent, b"", 1)
                self._answer(question.answer, last=question is last)
        super().receive(data)

    def _answer(self, answer: str | None, *, last: bool) -> None:
        config = self._asked
        if answer is not None:
            self.say((written_as(answer, self.texts()) + config.line_end).encode(config.encoding))
        elif last and config.frame is not None:
            points = config.points
            wire = {n: float(points[n].to_wire(v)) for n, v in dated(points, self._quantities).items()}
            self.say(config.frame.made(config.points, wire))
        elif last:
            super().changed("")
