"""For the tests of applications: a client without sockets, and a real server for one test.

:class:`Client` runs Bide's own calls, waits and WebSockets included, in the test's process.
:class:`LiveServer` runs Bide itself on a free port, for browsers and other HTTP clients;
``bide.pytest_plugin`` has a fixture of it. The classes for Django are in
:mod:`bide.testing.django`.
"""

from bide.testing.client import Client
from bide.testing.exchange import IncompleteResponse, Overdue
from bide.testing.live import LiveServer
from bide.testing.options import RedirectError
from bide.testing.response import Response
from bide.testing.websocket import ClientWebSocket, WebSocketRefused

__all__ = [
    "Client",
    "ClientWebSocket",
    "IncompleteResponse",
    "LiveServer",
    "Overdue",
    "RedirectError",
    "Response",
    "WebSocketRefused",
]
