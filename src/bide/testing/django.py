"""Bide in the place of the server that Django's live tests start.

For ``LiveServerTestCase`` there is the mixin :class:`BideLiveServer`, for pytest-django the fixture
of ``bide.pytest_plugin``. Both serve what ``runserver`` would: ``WSGI_APPLICATION``, with static
and media files. :class:`DjangoClient` calls the application without sockets. This module imports
Django, so only projects that have Django can import it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Unpack

from django.conf import settings
from django.core.servers.basehttp import get_internal_wsgi_application
from django.db import connections
from django.test import testcases
from django.test.utils import modify_settings

from bide.keywords import Keywords
from bide.testing.client import Client
from bide.testing.live import LiveServer
from bide.testing.options import ClientOptions, check_names
from bide.waiting.waiter import current_waiter
from bide.wsgi.conversation import Application

HOST: Final = "localhost"


class _WithConnections:
    """Calls an application with the test's own connections, and closes those that it opens.

    A database in memory belongs to its connection, so all threads use the test's. Any other
    database can only be removed after the test when no thread has it open.
    """

    def __init__(self, application: Application, lent: dict[str, Any]) -> None:
        self._application = application
        self._lent = lent

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for alias, connection in self._lent.items():
            connections[alias] = connection
        waiter = current_waiter()
        assert waiter is not None
        waiter.ends += (self._close,)
        result: Iterable[bytes] = self._application(environ, start_response)
        return result

    def _close(self) -> None:
        for connection in connections.all(initialized_only=True):
            # Another request of this thread may wait in its transaction.
            if connection.alias not in self._lent and not connection.in_atomic_block:
                connection.close()


def _in_memory() -> dict[str, Any]:
    """Return the test's connections to databases in memory, by their aliases."""
    return {
        connection.alias: connection
        for connection in connections.all()
        if connection.vendor == "sqlite" and connection.is_in_memory_db()
    }


class DjangoClient(Client):
    """A client of the project's ``WSGI_APPLICATION``: ``with DjangoClient() as client:``.

    The application runs on other threads than the test, with connections of their own. So a test
    that uses the database must derive from ``TransactionTestCase``, or use pytest-django's
    ``transactional_db``. A database in memory is shared.

    Args:
        options: as for :class:`bide.testing.Client`; the host is ``testserver``, as in Django's
            client.
    """

    def __init__(self, **options: Unpack[ClientOptions]) -> None:
        check_names(type(self).__name__, options, ClientOptions)
        self._lent = _in_memory()
        self._shares = False
        as_django: ClientOptions = {"base_url": "http://testserver", **options}
        super().__init__(_WithConnections(get_internal_wsgi_application(), self._lent), **as_django)

    def open(self) -> None:
        """Start the client, and share the connections of databases in memory."""
        super().open()
        for connection in self._lent.values():
            connection.inc_thread_sharing()
        self._shares = True

    def close(self) -> None:
        """Cancel the requests in progress, and end the threads; may be called again."""
        super().close()
        if self._shares:
            self._shares = False
            for connection in self._lent.values():
                connection.dec_thread_sharing()


def application(static_handler: Callable[[Any], Any]) -> Application:
    """Return the project's WSGI application behind handlers of its static and media files."""
    app = get_internal_wsgi_application()
    # One without a prefix of its own would take every path.
    if settings.MEDIA_URL.strip("/"):
        app = testcases._MediaFilesHandler(app)
    return static_handler(app) if settings.STATIC_URL else app  # type: ignore[no-any-return]


class ServerThread:
    """Bide's server, with the interface of ``LiveServerTestCase.server_thread_class``.

    Attributes:
        settings: as for :class:`bide.testing.LiveServer`; a derived class may set them.
        port: the port that it listens on, once ``is_ready`` is set and ``error`` is None.
    """

    settings: ClassVar[Keywords] = {}
    daemon = True

    def __init__(
        self,
        host: str,
        static_handler: Callable[[Any], Any],
        connections_override: dict[str, Any] | None = None,
        port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.static_handler = static_handler
        self.connections_override = connections_override or {}
        self.is_ready = threading.Event()
        self.error: Exception | None = None
        self._server: LiveServer | None = None

    def start(self) -> None:
        """Start the server. Never raises: the error is in ``error``."""
        try:
            app = _WithConnections(application(self.static_handler), self.connections_override)
            options: Keywords = {"bind": f"{self.host}:{self.port}", **self.settings}
            server = LiveServer(app, **options)
            server.start()
            self._server = server
            self.port = server.port
        except Exception as error:  # noqa: BLE001 - the test case raises it
            self.error = error
        self.is_ready.set()

    def terminate(self) -> None:
        """Stop the server, if it has started."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def server(self) -> LiveServer:
        """The server, while it runs."""
        assert self._server is not None, "the live server does not run"
        return self._server


class BideLiveServer:
    """A mixin that makes Bide the server of a live test case of Django's.

    Name it first: ``class Tests(BideLiveServer, StaticLiveServerTestCase)``. All else is as
    Django's documentation says: ``self.live_server_url``, the database, the files.
    """

    server_thread_class = ServerThread


class DjangoLiveServer:
    """Replaces pytest-django's ``live_server``, with Bide as the server.

    Args:
        options: as for :class:`bide.testing.LiveServer`.
    """

    def __init__(self, **options: Unpack[Keywords]) -> None:
        handler = testcases._StaticFilesHandler
        if "django.contrib.staticfiles" in settings.INSTALLED_APPS:
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            handler = StaticFilesHandler
        kind = type("ServerThread", (ServerThread,), {"settings": options})
        self.thread: ServerThread = kind(HOST, handler, _in_memory())
        # Enabled for each test by pytest-django itself, under this name.
        self._live_server_modified_settings = modify_settings(ALLOWED_HOSTS={"append": HOST})

    def start(self) -> None:
        """Listen and serve; raises the error with which the server cannot start."""
        for connection in self.thread.connections_override.values():
            connection.inc_thread_sharing()
        self.thread.start()
        if self.thread.error is not None:
            self.stop()
            raise self.thread.error

    def stop(self) -> None:
        """Stop as SIGTERM does."""
        self.thread.terminate()
        for connection in self.thread.connections_override.values():
            connection.dec_thread_sharing()

    @property
    def url(self) -> str:
        """The URL to put before a path: ``http://localhost:PORT``."""
        return f"http://{self.thread.host}:{self.thread.port}"

    def status(self) -> Any:
        """Return the server's counts; from any thread."""
        return self.thread.server.status()

    def __str__(self) -> str:
        return self.url

    def __add__(self, path: str) -> str:
        return f"{self.url}{path}"
