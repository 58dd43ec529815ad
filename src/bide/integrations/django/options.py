"""The Django setting ``BIDE``: a dictionary, each of whose keys may be left out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True)
class Options:
    """The values of the setting ``BIDE``.

    Attributes:
        wait_in_atomic: whether a request may wait inside ``transaction.atomic()``.
        connections_per_thread: how many connections to one database a thread of the server has at
            most; a request that finds none free waits for one.
        connection_timeout: seconds that it waits at most.
        keep_connection: how long a request keeps a connection that it has used. ``"request"``: to
            its end; ``"transaction"``: for as long as a transaction or a cursor needs it.
    """

    wait_in_atomic: bool = True
    connections_per_thread: int = 16
    connection_timeout: float = 30.0
    keep_connection: Literal["request", "transaction"] = "request"


current = Options()
"""The options in force; set when the integration is installed."""


def read() -> Options:
    """Return the options of the setting; raise ImproperlyConfigured for a wrong key or value."""
    given = getattr(settings, "BIDE", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"BIDE is a dictionary, not {type(given).__name__}")
    known = [each.name.upper() for each in fields(Options)]
    for name, value in given.items():
        if name not in known:
            raise ImproperlyConfigured(f"BIDE has no {name!r}; it has {', '.join(known)}")
        wanted = _wanted(name, value)
        if wanted:
            raise ImproperlyConfigured(f"BIDE[{name!r}] is {wanted}, not {value!r}")
    return Options(**{name.lower(): value for name, value in given.items()})


def _wanted(name: str, value: Any) -> str:
    """Return what an option's value should be; empty if it is right."""
    kind = type(value)
    if name == "WAIT_IN_ATOMIC":
        return "" if kind is bool else "True or False"
    if name == "CONNECTIONS_PER_THREAD":
        return "" if kind is int and value >= 1 else "a number, 1 or more"
    if name == "CONNECTION_TIMEOUT":
        return "" if kind in (int, float) and value >= 0 else "a number of seconds, 0 or more"
    return "" if value in ("request", "transaction") else "'request' or 'transaction'"
