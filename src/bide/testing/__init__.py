"""For the tests of applications: a client without sockets, and a real server for one test.

:class:`Client` runs Bide's own conversation, waits included, in the test's process. With
:class:`LiveServer` a test has Bide itself on a free port, for browsers and other people's clients;
``bide.pytest_plugin`` makes a fixture of it. What is Django's is in :mod:`bide.testing.django`.
"""

from bide.testing.client import Client, RedirectError
from bide.testing.exchange import IncompleteResponse, Overdue
from bide.testing.live import LiveServer
from bide.testing.response import Response

__all__ = ["Client", "IncompleteResponse", "LiveServer", "Overdue", "RedirectError", "Response"]
