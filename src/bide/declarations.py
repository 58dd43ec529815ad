"""How a setting is declared, and how its value is checked against that.

The settings themselves are in :mod:`bide.settings`. Nothing here knows any of them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import field
from typing import Any

from bide.errors import SettingError


def setting(
    group: str,
    default: Any,
    text: str,
    *,
    metavar: str = "",
    short: str = "",
    also: str = "",
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    path: bool = False,
    secret: bool = False,
) -> Any:
    """Declare a setting: the field of a dataclass.

    The type of the default is that of the setting: text, a whole number, seconds (a float), a
    switch (False), or texts (a tuple).

    Args:
        group: the heading under which it is listed.
        default: its value where nobody gives one.
        text: what it does, in sentences.
        metavar: the word for its value in the help; none for a switch and for choices.
        short: a letter, for a short option on the command line; no two settings have the same.
        also: another variable in the environment, of a name that hosters set.
        choices: the values that it may have, if they are few.
        minimum: the least value of a number.
        path: whether it is a file's path, which is made absolute.
        secret: whether nothing may show its value.
    """
    metadata = {
        "group": group,
        "help": text,
        "metavar": metavar,
        "short": short,
        "also": also,
        "choices": choices,
        "minimum": minimum,
        "path": path,
        "secret": secret,
    }
    return field(default=default, metadata=metadata, repr=not secret)


def taken(each: dataclasses.Field[Any], value: Any) -> Any:
    """Return a value as its setting keeps it: one text of several alone, paths absolute.

    Raises:
        SettingError: the setting cannot have the value.
    """
    path = each.metadata["path"]
    if isinstance(each.default, tuple):
        if isinstance(value, (str, os.PathLike)):
            value = (value,) if value else ()
        elif isinstance(value, Iterable):
            value = tuple(value)
        if path and isinstance(value, tuple):
            value = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in value)
    elif path and isinstance(value, os.PathLike):
        value = os.fspath(value)
    check(each, value)
    if not path:
        return value
    return located(value) if isinstance(value, str) else tuple(map(located, value))


def check(each: dataclasses.Field[Any], value: Any) -> None:
    """Check a value against the declaration of its setting.

    Raises:
        SettingError: the setting cannot have the value.
    """
    choices = each.metadata["choices"]
    minimum = each.metadata["minimum"]
    if isinstance(each.default, str) and not isinstance(value, str):
        shown = "" if each.metadata["secret"] else f" {value!r}:"
        raise SettingError(f"{each.name} is{shown} it must be text")
    several = isinstance(each.default, tuple)
    if several and not (isinstance(value, tuple) and all(isinstance(one, str) for one in value)):
        raise SettingError(f"{each.name} is {value!r}: it must be text, or several texts")
    if choices and value not in choices:
        raise SettingError(
            f"{each.name} is {value!r}: it may be {', '.join(choices[:-1])} or {choices[-1]}"
        )
    if isinstance(each.default, bool) and not isinstance(value, bool):
        raise SettingError(f"{each.name} is {value!r}: it must be true or false")
    if minimum is None:
        return
    whole = isinstance(each.default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise SettingError(f"{each.name} is {value!r}: it must be a number")
    if not value >= minimum:
        raise SettingError(f"{each.name} is {value!r}: it must be {minimum:g} or more")


def located(path: str) -> str:
    """Return a path made absolute; "" and "-", and an abstract socket's name, as they are.

    Raises:
        SettingError: the path is relative, and the current directory does not exist.
    """
    if path in ("", "-") or path.startswith(("/", "@")):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError:
        raise SettingError(
            f"{path} is a relative path, and the current directory does not exist"
        ) from None
