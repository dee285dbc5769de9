"""The other end of a command template: finds the values in what was sent."""

import re

from device_agent_drivers.configured import Template


def reader_of(template: Template) -> re.Pattern[str]:
    """A pattern with the template's fields as named groups."""
    pattern = re.escape(template.text.replace("{{", "\0").replace("}}", "\1"))
    for name in template.fields:
        field = rf"\\\{{{name}(?::.*?)?\\\}}"
        pattern = re.sub(field, f"(?P<{name}>[^\\\\r\\\\n]+?)", pattern, count=1)
    return re.compile(pattern.replace("\0", r"\{").replace("\1", r"\}"))
