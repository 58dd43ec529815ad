"""From ``module:name`` to an application, or one line that says why not."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import sys
from types import GenericAlias, ModuleType
from typing import Any

from bide.applications import guesses
from bide.applications.interfaces import interface_of
from bide.applications.patched import refuse_patched
from bide.errors import LoadError

DEFAULT_NAMES = ("app", "application")


class ApplicationFailed(LoadError):  # noqa: N818 - says what happened
    """The user's own code raised while it was imported or called; ``__cause__`` is the error."""


def load(spec: str, directory: str = "") -> Any:
    """Import an application. Its directory is put on Python's path.

    Args:
        spec: ``module``, ``module:name``, ``module:dotted.name`` or ``module:factory()``, a factory
            with literal arguments if any. Without a name, ``app`` or ``application``.
        directory: where it is; the current directory, if empty.

    Raises:
        LoadError: there is no such thing.
        ApplicationFailed: the user's own code raised.
    """
    module_name, colon, expression = spec.partition(":")
    whole = all(module_name.split(".")) and os.sep not in module_name
    if not whole or (colon and not expression) or module_name.endswith(".py"):
        hint = guesses.for_path(module_name, expression)
        raise LoadError(
            f"{spec!r} does not name an application: write MODULE:NAME, for example {hint}"
        )
    if directory and not os.path.isdir(directory):
        raise LoadError(f"{directory} is not a directory (--app-dir)")
    here = os.path.abspath(directory) if directory else os.getcwd()
    if directory and sys.path[:1] != [here]:
        sys.path.insert(0, here)  # before the current directory, which ``python -m bide`` has there
    module = _import(module_name, here)
    return _evaluate(module, expression, here) if expression else _default(module, here)


def _import(name: str, here: str) -> ModuleType:
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            where = _similar(name, missing, here)
            raise LoadError(f"there is no module {missing!r}{where}") from None
        raise ApplicationFailed(f"cannot import {name}: {error}") from error
    except (Exception, SystemExit) as error:
        refuse_patched()  # Python's import fails already where a module patches threads
        kind = type(error).__name__
        hint = guesses.for_relative(error, name, here) if isinstance(error, ImportError) else ""
        raise ApplicationFailed(f"cannot import {name}: {kind}: {error}{hint}") from error


def _similar(whole: str, name: str, here: str) -> str:
    """Return a text that says where a module was not found, and what was meant or is there."""
    package, _, _ = name.rpartition(".")
    if package:
        places = list(getattr(sys.modules.get(package), "__path__", []))
        where = f" in the package {package!r}{_origin(package, here)}"
        hint = guesses.for_attribute(name)
    else:
        places = [here]
        where = f" in {here} or among the installed packages"
        hint = guesses.for_missing(whole, here)
    if hint:
        return f"{where}; {hint}"
    modules = sorted(f"{package}.{each.name}".lstrip(".") for each in pkgutil.iter_modules(places))
    close = difflib.get_close_matches(name, modules, 3) or modules[:8]
    return f"{where}; there is {', '.join(close)}" if close else where


def _origin(name: str, here: str) -> str:
    """Return a text with the file of a module that was found outside the application's directory.

    Empty for one inside. A file of the same name may be in that directory all the same, if Python
    had imported the other one before.
    """
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if file is not None and file.startswith(os.path.join(here, "")):
        return ""
    top = name.partition(".")[0]
    standard = top in sys.stdlib_module_names
    found = (
        f"{file}{' of the standard library' if standard else ''}" if file else "built into Python"
    )
    own = os.path.join(here, *name.split("."))
    hidden = [each for each in (f"{own}.py", own) if os.path.exists(each)]
    return f"; found was {found}{f', not {hidden[0]}: rename that' if hidden else ''}"


def _default(module: ModuleType, here: str) -> Any:
    for name in DEFAULT_NAMES:
        if hasattr(module, name):
            return getattr(module, name)
    raise LoadError(
        f"the module {module.__name__!r} has neither app nor application{_candidates(module)}"
        f"{_origin(module.__name__, here)}"
    )


def _evaluate(module: ModuleType, expression: str, here: str) -> Any:
    try:
        node = ast.parse(expression, mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        names = _names(node if call is None else call.func)
        args = [ast.literal_eval(each) for each in call.args] if call is not None else []
        kwargs = (
            {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
            if call is not None
            else {}
        )
    except (SyntaxError, ValueError):
        raise LoadError(
            f"{expression!r} is neither a name nor a call of a factory: "
            "write NAME, DOTTED.NAME or FACTORY()"
        ) from None
    found: Any = module
    for name in names:
        if not hasattr(found, name):
            if found is not module:
                raise LoadError(f"{found!r} has no {name!r}{_candidates(found)}")
            raise LoadError(
                f"the module {module.__name__!r} has no {name!r}{_candidates(found)}"
                f"{_origin(module.__name__, here)}"
            )
        found = getattr(found, name)
    if call is None:
        return found
    called = ".".join(names)
    if not callable(found):
        raise LoadError(f"{expression!r}: {called} cannot be called")
    try:
        return found(*args, **kwargs)
    except (Exception, SystemExit) as error:
        if not (args or kwargs) and not isinstance(found, type) and _fits(found):
            raise LoadError(
                f"{called} is an application, and not a factory: write {module.__name__}:{called}"
            ) from None
        kind = type(error).__name__
        raise ApplicationFailed(f"{expression} failed: {kind}: {error}") from error


def _names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_names(node.value), node.attr]
    raise ValueError


def _candidates(found: Any) -> str:
    """Return a text with the names in an object that may be applications."""
    names = []
    for name, value in vars(found).items() if hasattr(found, "__dict__") else ():
        if name.startswith("_") or isinstance(value, ModuleType) or not callable(value):
            continue
        origin = getattr(value, "__module__", None)
        defined = isinstance(value, type) or inspect.isfunction(value)
        if defined and origin != getattr(found, "__name__", None):
            continue  # imported from elsewhere
        names.append(name)
    fitting = [name for name in names if _fits(getattr(found, name))]
    shown = ", ".join((fitting or names)[:10])
    return f"; it has {shown}" if shown else ""


def _fits(application: Any) -> bool:
    if isinstance(application, GenericAlias):  # a name for a type
        return False
    try:
        interface_of(application, "")
    except Exception:  # noqa: BLE001 - LoadError, or what a proxy raises when it is asked
        return False
    return True
