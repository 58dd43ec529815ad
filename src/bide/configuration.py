"""Where the values of settings come from: several sources, of which the first to give one counts.

The command line goes before the environment, that before a file, and that before the defaults. A
program in Python gives keywords in place of the command line, and reads no file. An error calls a
setting by the name that it has in the source that was used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bide.environment import FIELDS, flag, nearest, read, unknown, variable
from bide.errors import SettingError, StartError, UsageError
from bide.settings import Settings

FILE: Final = "bide.toml"
PROJECT: Final = "pyproject.toml"
"""Where ``[tool.bide]`` is read, if there is no ``bide.toml``."""


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        called: what an error calls the setting.
        place: what ``--print-settings`` says.
    """

    called: str
    place: str


class Configuration:
    """The values that sources give. Take from a source before those that it goes before.

    Attributes:
        values: by the setting's name.
        origins: by the setting's name; also of what cannot be read.
        mistakes: what cannot be read, in the order of the sources.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.mistakes: list[UsageError] = []

    def take_options(self, options: Mapping[str, str | bool | tuple[str, ...] | None]) -> None:
        """Take what the command line gives; None or an empty tuple is nothing."""
        for name, given in options.items():
            if given is None or given == ():
                continue
            origin = Origin(flag(name), flag(name))
            if isinstance(given, str):
                self._take_text(name, given, origin)
            else:
                self._take(name, given, origin)

    def take_environment(self, environ: Mapping[str, str]) -> None:
        """Take the variables ``BIDE_…``; one that is empty gives nothing."""
        for name, each in FIELDS.items():
            for called in (variable(name), each.metadata["also"]):
                if text := environ.get(called):
                    self._take_text(name, text, Origin(called, called))
        self.mistakes += unknown(environ)

    def take_file(self, path: str) -> None:
        """Take a file's settings.

        Args:
            path: the file; if it is empty, the current directory is looked at for one.
        """
        try:
            table, place = _table(path) if path else _found()
        except UsageError as error:
            self.mistakes.append(error)
            return
        seen: dict[str, str] = {}
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in FIELDS:
                known = nearest(name, FIELDS)
                self.mistakes.append(UsageError(f"there is no setting {key!r} in {place}{known}"))
            elif name in seen:
                self.mistakes.append(
                    UsageError(f"{place} has {seen[name]} and {key}, which are the same setting")
                )
            else:
                seen[name] = key
                self._take(name, value, Origin(f"{key} in {place}", place))

    def take_keywords(self, options: Mapping[str, Any]) -> None:
        """Take what a program in Python gives.

        Raises:
            TypeError: there is no such setting.
        """
        for name, value in options.items():
            if name not in FIELDS:
                raise TypeError(f"there is no setting {name!r}{nearest(name, FIELDS)}")
            self._take(name, value, Origin(name, name))

    def give(self, name: str, value: Any, called: str) -> None:
        """Take a value in place of any that was taken."""
        self.origins[name] = Origin(called, called)
        self.values[name] = value

    def _take(self, name: str, value: Any, origin: Origin) -> None:
        if name not in self.origins:
            self.origins[name] = origin
            self.values[name] = value

    def _take_text(self, name: str, text: str, origin: Origin) -> None:
        if name in self.origins:
            return
        self.origins[name] = origin
        try:
            self.values[name] = read(name, text, origin.called)
        except UsageError as error:
            self.mistakes.append(error)

    # What comes of them -------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Return the settings.

        Raises:
            SettingError: the first that is wrong.
        """
        if self.mistakes:
            raise self.mistakes[0]
        try:
            return Settings(**self.values)
        except SettingError as error:
            raise self.named(error) from None

    def checked(self) -> tuple[Settings | None, list[StartError]]:
        """Return the settings without those that are wrong, and all that is wrong.

        None in place of the settings, if what is wrong is not the value of one.
        """
        wrong: list[StartError] = [*self.mistakes]
        values = dict(self.values)
        while True:
            try:
                return Settings(**values), wrong
            except SettingError as error:
                wrong.append(self.named(error))
                if _setting_of(error) not in values:
                    return None, wrong
                del values[_setting_of(error)]

    def named(self, error: StartError) -> StartError:
        """Return an error that calls its setting as the source does, if it begins with one."""
        name = _setting_of(error)
        if not isinstance(error, SettingError) or name not in self.origins:
            return error
        return type(error)(self.origins[name].called + str(error).removeprefix(name))

    def lines(self) -> Iterator[str]:
        """Return all settings as a file for ``--config``, each with where its value comes from.

        Raises:
            SettingError: one of them is wrong.
        """
        settings = self.settings()
        for name in FIELDS:
            place = self.origins[name].place if name in self.origins else "default"
            value = getattr(settings, name)
            if value and FIELDS[name].metadata["secret"]:
                yield f"# {name} is not shown  # {place}"
            else:
                yield f"{name} = {toml(value)}  # {place}"


def from_keywords(
    settings: Settings | None, options: Mapping[str, Any], environ: Mapping[str, str]
) -> Settings:
    """Return the settings of a program in Python: all at once, or by keywords and variables.

    Raises:
        SettingError: one of them is wrong.
        TypeError: both are given, or a keyword is not a setting.
    """
    if settings is not None:
        if options:
            raise TypeError(f"give either settings or {', '.join(options)}: settings are all of it")
        return settings
    configuration = Configuration()
    configuration.take_keywords(options)
    configuration.take_environment(environ)
    return configuration.settings()


def _setting_of(error: StartError) -> str:
    """Return the setting that an error's message begins with."""
    return str(error).partition(" ")[0]


def _found() -> tuple[dict[str, Any], str]:
    """Return the settings of the current directory's file, and how that is called."""
    if os.path.exists(FILE):
        return _table(FILE)
    try:
        # Other people's file: it is of no concern as long as it says nothing of Bide.
        told = b"bide" in Path(PROJECT).read_bytes()
    except OSError:
        told = False
    return _table(PROJECT) if told else ({}, PROJECT)


def _table(path: str) -> tuple[dict[str, Any], str]:
    import tomllib  # it takes some milliseconds, and most servers have no file

    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the settings in {path}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"the settings in {path} are not TOML: {error}") from None
    if os.path.basename(path) != PROJECT:
        return table, path
    place = f"[tool.bide] of {path}"
    tool = table.get("tool")
    table = tool.get("bide", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{place} must be a table")
    return table, place


def toml(value: Any) -> str:
    """Return a setting's value as TOML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
