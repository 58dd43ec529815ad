"""Every example that is a PEP 3333 application, under the standard library's validator.

Exempt by nature: ``deferred`` and ``bare_callback`` yield what is not bytes, and ``push`` returns
no iterable and unpacks ``start_response``. That is what they show.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import httpx
import pytest

from bide import wait
from tests.examples.serving import DEADLINE, Example, LoopThread, Serve

CONFORMANT = [
    ("2004.blocks", "an_application", "/"),
    ("2004.xmlrpc_page", "application", "/"),
    ("2004.telnet_page", "application", "/?type=nothing"),
    ("2004.capabilities", "blocking", "/?seconds=0"),
    ("2004.capabilities", "threaded", "/?seconds=0"),
    ("2004.capabilities", "asynchronous", "/?seconds=0"),
    ("flask_httpx.app", "make_app", "/"),
    ("flask_httpx.app", "make_app", "/books/1"),
    ("flask_httpx.app", "make_app", "/broken"),
    ("flask_httpx.app", "make_app", "/log"),
    ("demo.app", "site", "/"),
    ("demo.app", "site", "/quick"),
    ("demo.app", "site", "/wait?seconds=0"),
]
EXAMPLES = pytest.mark.parametrize(("module", "name", "path"), CONFORMANT)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def under_wsgiref(application: Any) -> Iterator[str]:
    """Serve with the standard library's server, in a thread; give the URL."""
    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(DEADLINE)


@contextlib.contextmanager
def ready(module: Any, name: str, run: Callable[[Any], Any]) -> Iterator[Any]:
    """Return an application; ``run`` closes its client, on the loop that it was used on."""
    application = getattr(module, name)
    if name != "make_app":
        yield application
        return
    made = application()
    yield made
    run(made.extensions["client"].aclose())
    made.extensions["upstream"].stop()


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=DEADLINE, trust_env=False)


@EXAMPLES
def test_the_validator_finds_nothing_under_bide(
    serve: Serve, example: Example, loop_thread: LoopThread, module: str, name: str, path: str
) -> None:
    """Both sides of the interface, the server's and the application's, keep to PEP 3333."""
    with (
        ready(example(module), name, loop_thread.run) as application,
        serve(validator(application)) as served,
    ):
        check(served.get(path), path)


@EXAMPLES
def test_the_validator_finds_nothing_under_another_server(
    example: Example, module: str, name: str, path: str
) -> None:
    """The same applications, where `wait` blocks the thread."""
    with (
        ready(example(module), name, wait) as application,
        under_wsgiref(validator(application)) as url,
    ):
        check(get(f"{url}{path}"), path)


def check(response: httpx.Response, path: str) -> None:
    assert response.status_code == (502 if path == "/broken" else 200), response.text
    assert response.content
