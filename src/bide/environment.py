"""The names of settings on the command line and in the environment, and their values there."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bide.errors import SettingError, UsageError
from bide.settings import DEFAULT_ADDRESS, GROUPS, Settings

FIELDS: Final = {
    each.name: each
    for each in sorted(
        dataclasses.fields(Settings), key=lambda each: GROUPS.index(each.metadata["group"])
    )
}
"""The declarations of all settings by name, in the order in which they are listed."""

CONFIG: Final = "BIDE_CONFIG"
"""The variable that names the settings' file, as ``--config`` does."""

OTHERS: Final = (CONFIG, "BIDE_PURE", "BIDE_COMPILE", "BIDE_OPTIMIZE")
"""The variables that are not settings: the last ones choose and build the compiled form."""


def with_address(settings: Settings, enough: bool, environ: Mapping[str, str]) -> Settings:
    """Return the settings with an address to listen on where none was given, and one is needed.

    That is the port ``PORT``, at all addresses, as platforms like Heroku assign it; without it the
    default.

    Args:
        settings: which may have addresses.
        enough: whether sockets were handed over, so that no address is needed.
        environ: the environment.

    Raises:
        SettingError: ``PORT`` is not a number.
    """
    if settings.bind or enough:
        return settings
    port = environ.get("PORT", "")
    if not port:
        return dataclasses.replace(settings, bind=(DEFAULT_ADDRESS,))
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise SettingError(f"PORT is {port!r}: it must be a port number")
    return dataclasses.replace(settings, bind=(f"[::]:{port}",))


def flag(name: str) -> str:
    """Return a setting's option on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return a setting's variable in the environment."""
    return f"BIDE_{name.upper()}"


def read(name: str, text: str, called: str) -> Any:
    """Return the value that a text stands for.

    Args:
        name: the setting.
        text: from the command line or the environment.
        called: what an error calls the setting.

    Raises:
        UsageError: it is not the number, not one of the words, or not the yes or no, that it
            should be.
    """
    default = FIELDS[name].default
    choices = FIELDS[name].metadata["choices"]
    if isinstance(default, tuple):
        return tuple(text.split())
    if isinstance(default, bool):
        return _switch(text, called)
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            raise UsageError(f"{called} is {text!r}: it must be a number") from None
    if choices and text.lower() in choices:
        return text.lower()
    if choices:
        words = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise UsageError(f"{called} is {text!r}: it may be {words}")
    return text


def _switch(text: str, called: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{called} is {text!r}: it must be 1 or 0, or true or false")


def unknown(environ: Mapping[str, str]) -> list[UsageError]:
    """Return an error for each variable ``BIDE_…`` that stands for nothing."""
    known = [*map(variable, FIELDS), *OTHERS]
    return [
        UsageError(f"there is no setting {each}{nearest(each, known)}")
        for each in environ
        if each.startswith("BIDE_") and each not in known
    ]


_SAME: Final = {
    "host": "bind",
    "port": "bind",
    "BIDE_HOST": "BIDE_BIND",
    "BIDE_PORT": "BIDE_BIND",
}
"""What may be meant by a name that is not like it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a text that names what may have been meant; empty if nothing is like the name."""
    close = [_SAME[name]] if name in _SAME else difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
