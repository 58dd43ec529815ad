"""The time of a log line, in local time with its zone (RFC 3339)."""

from __future__ import annotations

from datetime import datetime

_last: tuple[int, str, str] = (-1, "", "")  # a second, its text, its zone; replaced in one step


def stamp(created: float, between: str = " ") -> str:
    """Return a time as text, like ``2026-11-25 10:00:00.000+01:00``; from any thread.

    Args:
        created: seconds since the epoch.
        between: what stands between date and time; RFC 3339's ``T``, or a space for people.
    """
    global _last
    second = int(created)
    last = _last
    if last[0] != second:
        text = datetime.fromtimestamp(second).astimezone().isoformat(" ")
        last = _last = (second, text[:19], text[19:])
    text = last[1] if between == " " else last[1].replace(" ", between)
    return f"{text}.{int((created - second) * 1000):03d}{last[2]}"
