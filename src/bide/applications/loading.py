"""From ``module:name`` to a WSGI application, or one line that says why not."""

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

from bide.applications.patched import refuse_patched
from bide.errors import LoadError

DEFAULT_NAMES = ("app", "application")


class ApplicationFailed(LoadError):  # noqa: N818 - says what happened
    """The user's own code raised while it was imported or called; ``__cause__`` is the error."""


def load(spec: str) -> Any:
    """Import an application. The current directory is put on Python's path.

    Args:
        spec: ``module``, ``module:name``, ``module:dotted.name`` or ``module:factory()``, a factory
            with literal arguments if any. Without a name, ``app`` or ``application``.

    Raises:
        LoadError: there is no such thing, or it is not a WSGI application.
        ApplicationFailed: the user's own code raised.
    """
    module_name, colon, expression = spec.partition(":")
    whole = all(module_name.split("."))
    if not whole or (colon and not expression) or module_name.endswith(".py"):
        hint = module_name.removesuffix(".py").replace(os.sep, ".").strip(".") if whole else ""
        raise LoadError(
            f"{spec!r} names no application: write MODULE:NAME, for example {hint or 'myapp'}:app"
        )
    here = os.getcwd()
    module = _import(module_name, here)
    application = _evaluate(module, expression, here) if expression else _default(module, here)
    check(application, spec)
    return application


def _import(name: str, here: str) -> ModuleType:
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise LoadError(f"there is no module {missing!r}{_similar(missing, here)}") from None
        raise ApplicationFailed(f"cannot import {name}: {error}") from error
    except (Exception, SystemExit) as error:
        refuse_patched()  # Python's import fails already where a module patches threads
        kind = type(error).__name__
        raise ApplicationFailed(f"cannot import {name}: {kind}: {error}") from error


def _similar(name: str, here: str) -> str:
    package, _, _ = name.rpartition(".")
    if package:
        places = list(getattr(sys.modules.get(package), "__path__", []))
        where = f" in the package {package!r}{_origin(package, here)}"
    else:
        places = [here]
        where = f" in {here} or among the installed packages"
    modules = sorted(f"{package}.{each.name}".lstrip(".") for each in pkgutil.iter_modules(places))
    close = difflib.get_close_matches(name, modules, 3) or modules[:8]
    return f"{where}; there is {', '.join(close)}" if close else where


def _origin(name: str, here: str) -> str:
    """Return a text with the file of a module that was found outside the current directory.

    Empty for one inside. A file of the same name may be in the current directory all the same, if
    Python had imported the other one before.
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
    if not callable(found):
        raise LoadError(f"{expression!r}: {'.'.join(names)} cannot be called")
    try:
        return found(*args, **kwargs)
    except (Exception, SystemExit) as error:
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
        check(application, "")
    except Exception:  # noqa: BLE001 - LoadError, or what a proxy raises when it is asked
        return False
    return True


def check(application: Any, spec: str) -> None:
    """Raise LoadError, with what it is, for an object that is not a WSGI application."""
    if not callable(application):
        raise LoadError(f"{spec} is no application: {type(application).__name__} is not callable")
    if is_asgi(application):
        raise LoadError(
            f"{spec} is an ASGI application; Bide serves WSGI applications: "
            "use an ASGI server such as uvicorn for it"
        )
    try:
        # Not that of a wrapped function: a decorator may make a WSGI application of something else.
        signature = inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):  # written in C: calling it will tell
        return
    try:
        signature.bind(None, None)
    except TypeError:
        try:
            signature.bind()
        except TypeError:
            hint = ""
        else:
            hint = f"; if it makes an application, write {spec}()"
        raise LoadError(
            f"{spec} is no WSGI application: it does not take (environ, start_response){hint}"
        ) from None


def is_asgi(application: Any) -> bool:
    """Whether a callable is a coroutine function that takes (scope, receive, send)."""
    call = application if inspect.isroutine(application) else type(application).__call__
    if isinstance(application, type) or not (
        inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call)
    ):
        return False
    try:
        signature = inspect.signature(application)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(None, None, None)
    except TypeError:
        return False
    return True
