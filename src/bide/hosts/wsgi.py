"""``bide.blocking``: what waits, under any WSGI server; one application, or several by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bide.applications.mounts import Mounts, longest
from bide.errors import LoadError
from bide.hosts.starting import Starting
from bide.hosts.wsgi_calls import Blocking
from bide.serving.dispatchers import nothing_here
from bide.wsgi.conversation import Application


class BlockingMounts:
    """A plain WSGI application around several that wait; made by :func:`blocking`.

    A WSGI server has decoded the path, so an encoded slash ends a segment here.
    """

    def __init__(self, mounts: Mounts) -> None:
        starting = Starting()
        self._sites: dict[tuple[bytes, ...], Blocking] = {}
        for each in mounts.resolve():
            if each.interface != "wsgi":
                raise LoadError(
                    f"{each.name} is an ASGI application, which a WSGI server cannot serve: have "
                    "bide itself serve what bide.mount returns, or an ASGI server, by "
                    "bide.hosts.asgi"
                )
            self._sites[each.segments] = Blocking(each.application, each.name, starting)
        self._depth = max(map(len, self._sites))
        self._sites.setdefault((), Blocking(nothing_here, "no application", starting))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Call the application that the path leads to (PEP 3333); on a thread of the server."""
        path: str = environ.get("PATH_INFO", "")
        segments = path.encode("latin-1").split(b"/", self._depth + 1)[1 : self._depth + 1]
        found = segments[: longest(segments, self._sites)]
        root = b"".join(b"/" + each for each in found).decode("latin-1")
        # In place, as other dispatchers do: what is outside may look for what an application adds.
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + root
        environ["PATH_INFO"] = path[len(root) :]
        return self._sites[tuple(found)](environ, start_response)


def blocking(application: Application | Mounts) -> Blocking | BlockingMounts:
    """Wrap an application that waits, so that any WSGI server can call it.

    Promises in the iterable, push, coroutine functions, async iterables and ``wait`` work as under
    Bide. But each wait blocks the server's thread. Awaitables run on one event loop in a background
    thread. Under Bide, the wrapper only calls the application.

    The server's ``write`` is not used. What the application raises is raised to the server. The
    application learns that the client has left when the server calls ``close``.

    Args:
        application: the WSGI callable (PEP 3333), called on the server's thread; or the result of
            :func:`bide.mount`.

    Raises:
        LoadError: an application of ``mount`` cannot be imported, or is not a WSGI application.
    """
    return BlockingMounts(application) if isinstance(application, Mounts) else Blocking(application)
