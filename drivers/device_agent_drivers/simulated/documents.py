"""What a far end that speaks JSON, or maps, makes of its points."""

import time
from collections.abc import Mapping
from typing import Any

from device_agent.testing.chips import Physical
from device_agent_drivers.configured import PointOptions


def documents_of(points: Mapping[str, PointOptions], wire: Mapping[str, Any]) -> list[dict[str, Any]]:
    """These points' values at their paths: one document, or one for each different `where`."""
    documents: dict[str, dict[str, Any]] = {}
    for name, value in wire.items():
        options = points[name]
        document = documents.setdefault(repr(options.where), {})
        for path, found in {**options.where, options.path or name: value}.items():
            *parents, last = path.split(".")
            place = document
            for step in parents:
                place = place.setdefault(step, {})
            place[last] = found
    return list(documents.values())


def dated(points: Mapping[str, PointOptions], quantities: Mapping[str, Physical]) -> dict[str, Physical]:
    """The quantities, with the present time in those points that tell it."""
    now_s = time.time()
    stamps = {name: options.time.written(now_s) for name, options in points.items() if options.time}
    return {**quantities, **stamps}
