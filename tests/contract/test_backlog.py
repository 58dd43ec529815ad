"""The server stops while connections wait in the listener's backlog: each of them is answered."""

import pytest

from tests.conftest import Serve
from tests.served import Client, answering, request, until

WAITING = 150
"""Connections in the backlog: more than are accepted in one turn of the loop."""


@pytest.mark.parametrize("limit", [1000, 1], ids=["with-room", "at-the-limit"])
def test_all_that_have_connected_are_answered_when_the_server_stops(
    serve: Serve, limit: int
) -> None:
    """Closing the listener would reset them; also those that waited for others to end."""
    served = serve(
        answering(lambda environ: environ["PATH_INFO"]), limit_connections=limit, backlog=256
    )
    kept = served.request("/kept")
    assert kept.response().complete
    until(lambda: served.status.connections == 1)
    clients: list[Client] = []

    def stop_behind_their_backs() -> None:
        # The loop does not turn meanwhile: it accepts none of them before it stops.
        for number in range(WAITING):
            clients.append(served.connect())
            clients[-1].send(request(f"/{number}"))
        assert served.stopping is not None
        served.stopping.set()

    served.call(stop_behind_their_backs)
    for number, client in enumerate(clients):
        response = client.response()
        assert (response.text, response.complete) == (f"/{number}", True)
        assert client.rest() == b""
    served.join()
