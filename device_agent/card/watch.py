"""Notices that what is published is not what the configuration makes: callers believe the card."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from device_agent.card import build
from device_agent.card.compare import differences
from device_agent.config import Config

log = structlog.get_logger("card")

SHOWN = 5


class CardWatch:
    """`published` is called with the registry's card at each join; a difference is said once."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._said: list[str] = []

    def published(self, card: Mapping[str, Any]) -> None:
        changes = differences(card, build(self._config()))
        if changes and changes != self._said:
            log.warning(
                "card_differs", changes=changes[:SHOWN], count=len(changes), command="device-agent publish"
            )
        self._said = changes
