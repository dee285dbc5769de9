"""Text that others wrote, fit for a terminal, a log, a record and an answer."""


def printable(text: object, limit: int = 300) -> str:
    """One line of at most `limit` characters. What steers a terminal or forges a row becomes a space: control
    characters, line breaks, marks of direction, halves of characters."""
    line = str(text)[: limit + 1]
    if not line.isprintable():
        line = "".join(sign if sign.isprintable() else " " for sign in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def within(text: str, most_bytes: int) -> str:
    """At most so many bytes of it in UTF-8; an ellipsis says that it was cut."""
    data = text.encode(errors="replace")
    return text if len(data) <= most_bytes else f"{data[: most_bytes - 3].decode(errors='ignore')}…"
