"""Configures logging by a deployer's file: a dictConfig in JSON or TOML."""

from __future__ import annotations

import json
import logging.config
import tomllib
from pathlib import Path
from typing import Any

from bide.errors import SettingError


def apply(path: str) -> frozenset[str]:
    """Configure logging by a file: TOML if its name ends in ``.toml``, else JSON.

    ``version`` may be left out. Existing loggers are not disabled unless the file says so.

    Returns:
        The names of the loggers that the file configures.

    Raises:
        SettingError: the file cannot be read, or is not a configuration. Its message is one line.
    """
    config = _read(path)
    config.setdefault("version", 1)
    config.setdefault("disable_existing_loggers", False)
    try:
        logging.config.dictConfig(config)
        return frozenset(config.get("loggers", ()))
    except Exception as error:
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        raise SettingError(_line(f"the log configuration {path}: {error}{cause}")) from error


def _read(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(f"cannot read the log configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"the log configuration {path} is not UTF-8") from error
    kind = "TOML" if path.endswith(".toml") else "JSON"
    try:
        config = tomllib.loads(text) if kind == "TOML" else json.loads(text)
    except ValueError as error:
        raise SettingError(_line(f"the log configuration {path} is not {kind}: {error}")) from error
    if not isinstance(config, dict):
        raise SettingError(f"the log configuration {path} must be a table, as dictConfig takes it")
    return config


def _line(message: str) -> str:
    return " ".join(message.split())
