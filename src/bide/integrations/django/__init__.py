"""Django: async views that hold no thread, and database connections that waiting does not mix.

One line in the settings, and ``get_wsgi_application()`` as ever::

    INSTALLED_APPS = [..., "bide.integrations.django"]

- ``async_to_sync`` parks the request, whose coroutine runs on the server's event loop: so do async
  views and middleware, and async iterators in a ``StreamingHttpResponse``, block by block.
- ``sync_to_async`` comes back to the request's own thread, and so to its own connections.
- Each request has database connections of its own: see :mod:`.databases`.

All of it applies to requests that Bide runs. Elsewhere, in ``runserver``, in commands and in test
clients, Django does what it always does.
"""

from __future__ import annotations

from collections.abc import Callable

from bide.errors import StartError

try:
    import django
except ImportError:
    raise StartError(
        "bide.integrations.django needs Django: pip install 'django>=5.2', or bide[django]"
    ) from None

OLDEST = (5, 2)
"""The version of Django that this is made for, and later ones."""


def install() -> Callable[[], None]:
    """Let Django wait as Bide does, in this process; Django calls it for ``INSTALLED_APPS``.

    Returns what takes it back. Called again it changes nothing, and takes nothing back.

    Raises:
        StartError: Django is too old, or not the one that this knows, or has no settings.
        ImproperlyConfigured: the setting ``BIDE`` has a value that it cannot have.
    """
    if django.VERSION < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise StartError(
            f"bide.integrations.django is made for Django {wanted} and later; "
            f"this is {django.get_version()}"
        )
    try:
        from bide.integrations.django import patches
    except (ImportError, AttributeError) as error:
        raise StartError(
            f"bide.integrations.django does not know Django {django.get_version()} with this "
            f"asgiref: {error}"
        ) from error
    return patches.install()


__all__ = ["OLDEST", "install"]
