"""Django: async views that hold no thread, and database connections that waiting does not mix.

Add one line to the settings, and call ``get_wsgi_application()`` as always::

    INSTALLED_APPS = [..., "bide.integrations.django"]

- ``async_to_sync`` parks the request and runs its coroutine on the server's event loop. So do async
  views and middleware, and async iterators in a ``StreamingHttpResponse``, block by block.
- ``sync_to_async`` makes its call on the request's own thread, and so with its own connections.
- Each request has database connections of its own: see :mod:`.databases`.

All of this applies to requests that Bide runs. Elsewhere, in ``runserver``, in commands and in test
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
"""The oldest version of Django that this is made for."""


def install() -> Callable[[], None]:
    """Make Django in this process wait as Bide does; Django calls this for ``INSTALLED_APPS``.

    Returns:
        A function that undoes this; call it between requests. If this was installed already, the
        function does nothing.

    Raises:
        StartError: Django is too old, or its code differs from what this replaces, or it has no
            settings.
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
            f"bide.integrations.django does not support Django {django.get_version()} with this "
            f"asgiref: {error}"
        ) from error
    return patches.install()


__all__ = ["OLDEST", "install"]
