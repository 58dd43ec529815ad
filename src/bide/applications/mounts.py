"""Several applications in one server, each at its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bide.applications.interfaces import Interface, interface_of
from bide.applications.loading import load
from bide.capabilities import name_of
from bide.errors import LoadError, UsageError
from bide.settings import DEFAULTS, Settings

_PREFIXED: Final = re.compile(r"(wsgi|asgi):([\w.]+:.+)", re.DOTALL)
"""``wsgi:shop:app``; but ``wsgi:app`` is the name ``app`` in a module ``wsgi``."""
_AT: Final = re.compile(r"(/[^=]*)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mount:
    """One application at its path.

    Attributes:
        path: ``/``, or segments with a slash before each: ``/live``. Not encoded.
        application: the callable.
        name: what it is called in the log.
        interface: which one it has.
    """

    path: str
    application: Any
    name: str
    interface: Interface

    @property
    def root(self) -> bytes:
        """Its path as a request's root is: empty for ``/``."""
        return b"" if self.path == "/" else self.path.encode()

    @property
    def segments(self) -> tuple[bytes, ...]:
        """The segments of that."""
        return tuple(self.root.split(b"/")[1:])


class Mounts:
    """Applications by their paths; made by :func:`mount`. It serves wherever one may be given."""

    def __init__(self, applications: Mapping[str, Any]) -> None:
        if not isinstance(applications, Mapping):
            raise LoadError(
                f"mount() takes applications by their paths, not {type(applications).__name__}: "
                'write mount({"/": app})'
            )
        for path in applications:
            _check_path(path)
        if not applications:
            raise LoadError("there is no application to mount")
        self._given = dict(applications)

    @classmethod
    def of(cls, application: Any) -> Mounts:
        """Return the mounts of what may be one application, at ``/``."""
        return application if isinstance(application, cls) else cls({"/": application})

    def resolve(self, settings: Settings = DEFAULTS, name: str = "") -> Mounts:
        """Return the same with every application imported, and its interface known.

        Args:
            settings: ``app_dir`` and ``interface`` count.
            name: what the only one is called.

        Raises:
            LoadError: one cannot be imported, or is not an application.
        """
        only = len(self._given) == 1
        resolved: dict[str, Any] = {}
        for path, given in self._given.items():
            if isinstance(given, Mount):
                resolved[path] = given
                continue
            wanted, called, application = settings.interface, name if only else "", given
            if isinstance(given, str):
                prefixed = _PREFIXED.fullmatch(given)
                spec = given
                if prefixed is not None:
                    wanted, spec = prefixed.groups()
                application = load(spec, settings.app_dir)
                called = called or given
            if isinstance(application, Mounts):
                if not only or path != "/":
                    raise LoadError(f"{called} comes from mount(), and cannot be mounted again")
                return application.resolve(settings)
            called = called or name_of(application)
            kind = interface_of(application, called, wanted)
            resolved[path] = Mount(path, application, called, kind)
        return Mounts(resolved)

    def __str__(self) -> str:
        """Return them as a command line names them."""
        return " ".join(
            f"{path}={each.name if isinstance(each, Mount) else each}"
            for path, each in self._given.items()
        )

    def __iter__(self) -> Any:
        """Yield each :class:`Mount`, of those that have been resolved."""
        return iter(self._given.values())


def mount(applications: Mapping[str, Any]) -> Mounts:
    """Serve several applications, WSGI and ASGI, in one server, each at its own path.

    A request goes to the application with the longest path that its own path begins with. Whole
    segments count: ``/live`` gets ``/live`` and ``/live/now``, but not ``/lively``. A WSGI
    application finds its path in ``SCRIPT_NAME``, an ASGI application in ``root_path``.

    Args:
        applications: paths, such as ``/`` or ``/live``, with their applications. Each is a
            callable, or ``"module:name"``.

    Returns:
        What ``bide.run``, ``bide.Server`` and ``bide.testing`` take as an application.

    Raises:
        LoadError: a path is malformed.
    """
    return Mounts(applications)


def longest(segments: Sequence[bytes], mounted: Mapping[tuple[bytes, ...], object]) -> int:
    """Return how many segments of a path are the longest path that something is mounted at.

    Args:
        segments: those of the path, decoded.
        mounted: what is mounted, by segments.
    """
    for number in range(len(segments), 0, -1):
        if tuple(segments[:number]) in mounted:
            return number
    return 0


def named(specs: tuple[str, ...]) -> str | Mounts:
    """Return what a command line names: ``module:name``, or ``/path=module:name`` of each.

    Raises:
        UsageError: there are several, and one has no path; or two have the same.
        LoadError: a path is malformed.
    """
    if len(specs) == 1 and (not specs[0].startswith("/") or _is_file(specs[0])):
        return specs[0]
    found: dict[str, Any] = {}
    for each in specs:
        parts = _AT.fullmatch(each)
        if parts is None:
            raise UsageError(
                f"{each!r} has no path or no application: write each of several applications as "
                "/PATH=MODULE:NAME"
            )
        path, spec = parts.groups()
        if path in found:
            raise UsageError(f"two applications have the path {path}")
        found[path] = spec
    return Mounts(found)


def _is_file(spec: str) -> bool:
    """Whether the file of a module was named, which the import will tell what to write instead."""
    return "=" not in spec and spec.partition(":")[0].endswith(".py")


def _check_path(path: Any) -> None:
    wrong = not isinstance(path, str) or not path.startswith("/")
    if wrong or (path != "/" and not all(path[1:].split("/"))) or re.search(r"[?#%\s]", path):
        raise LoadError(
            f"{path!r} is not a path to mount at: write / or /live, not encoded, "
            "without a slash at the end"
        )
