"""Frameworks with their integrations: their views wait, stream, fail and are left.

All of it with ``wsgiref.validate`` around the site. What they keep for each thread is in
``test_thread_locals.py``.
"""

import hashlib

from tests.conftest import Serve
from tests.frameworks.sites import Site
from tests.served import request

MANY = 60
"""Requests that wait at once."""


def test_many_views_wait_on_two_threads(serve: Serve, site: Site) -> None:
    """Which of the framework's code below and above the wait allows."""
    served = serve(site.application, threads=2, limit_threads=2)
    clients = [served.request(f"/wait/{number}") for number in range(MANY)]
    served.until_waiting(MANY)
    assert served.status.threads <= 2
    site.gate.open()
    assert [client.response().text for client in clients] == [str(each) for each in range(MANY)]


def test_a_stream_comes_piece_by_piece(serve: Serve, site: Site) -> None:
    """The first block is with the client while the view waits for the second."""
    served = serve(site.application, threads=1)
    client = served.request("/stream")
    assert client.head().status == 200
    assert client.chunk() == b"begin\n"
    served.until_waiting(1)
    assert client.is_silent()
    site.gate.open()
    assert client.chunk() == b"end\n"
    assert client.chunk() == b""
    assert site.seen.count("stream closed") == 1


def test_two_streams_of_one_thread_take_turns(serve: Serve, site: Site) -> None:
    """Neither waits for the other's end."""
    served = serve(site.application, threads=1)
    clients = [served.request("/stream") for _ in range(2)]
    for client in clients:
        client.head()
        assert client.chunk() == b"begin\n"
    served.until_waiting(2)
    site.gate.open()
    for client in clients:
        assert client.chunk() == b"end\n"
        assert client.chunk() == b""


def test_empty_blocks_are_not_in_the_way_of_waits(serve: Serve, site: Site) -> None:
    """Whoever drops or peeks at them, as Bottle does, does so below the wait."""
    assert serve(site.application).get("/empty").body == b"something"


def test_the_framework_handles_what_a_wait_raises(serve: Serve, site: Site) -> None:
    """It is raised at the view's line, like any error of the view's own."""
    response = serve(site.application).get("/broken")
    assert (response.status, response.complete) == (503, True)
    assert "handled: the other service is down" in response.text


TORN_DOWN = {
    "bottle": ["torn down"],
    "cherrypy": ["torn down"],
    "falcon": [],
    "pyramid": ["torn down"],
    "webpy": ["torn down"],
}
"""What the framework does if what a view raises is not an ``Exception``: Falcon nothing."""


def test_a_departure_passes_the_frameworks_handlers(serve: Serve, site: Site) -> None:
    """And the view's own ``except Exception``; nothing is logged as a failure of the application.

    Only web.py takes it for one: it catches all there is, and answers a client that is gone.
    """
    served = serve(site.application, threads=1)
    client = served.request("/wait/me")
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert site.seen == ["waited", *TORN_DOWN[site.framework]]
    site.gate.open()
    assert served.get("/wait/other").text == "other"


def test_a_stream_that_is_left_is_closed(serve: Serve, site: Site) -> None:
    """At once, through all that the framework wraps it with."""
    served = serve(site.application)
    client = served.request("/stream")
    client.head()
    assert client.chunk() == b"begin\n"
    served.until_waiting(1)
    client.close()
    served.until_idle()
    assert site.seen.count("stream closed") == 1


def test_an_upload_that_pauses_holds_no_thread(serve: Serve, site: Site) -> None:
    """A body larger than any buffer; others are answered on the only thread meanwhile."""
    site.gate.open()
    served = serve(site.application, threads=1)
    body = bytes(range(256)) * 1024  # 256 KiB
    client = served.connect()
    whole = request("/upload", method="POST", body=body)
    client.send(whole[: len(whole) // 2])
    served.until_waiting(1)
    assert served.get("/wait/other").text == "other"
    client.send(whole[len(whole) // 2 :])
    assert client.response().text == hashlib.sha256(body).hexdigest()
