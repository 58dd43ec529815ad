"""What is kept of the clients that proxies name, and that nothing of it is another's."""

from __future__ import annotations

from bide.exchange.messages import Request
from bide.exchange.peer import Peer
from bide.serving.admission import KNOWN, Admission
from bide.serving.clients import Clients
from bide.serving.refusals import Refusals
from bide.settings import Settings

SERVER = ("10.0.0.1", 8000)


def admission() -> tuple[Admission, Refusals]:
    """Return one that believes two proxies, and where it counts."""
    refusals = Refusals()
    return Admission(Settings(trust=("10.0.0.0/30",)), refusals, Clients(0, 0)), refusals


def told(admission: Admission, peer: Peer, *headers: str, host: str = "a") -> tuple[Peer, bytes]:
    """Return the two ends of a request with some headers, and its root."""
    pairs = [each.encode().split(b": ", 1) for each in (f"Host: {host}", *headers)]
    request = Request("GET", b"/", b"/", b"", "1.1", [(name, value) for name, value in pairs])
    return admission._forwarded(peer, request), request.root


def test_a_client_that_comes_again_is_not_read_again() -> None:
    """Over whichever connection of the proxy; another proxy, or another header, is another case."""
    one, _ = admission()
    peers = [one.peer("http", SERVER, ("10.0.0.2", port)) for port in (5001, 5002)]
    other = one.peer("http", SERVER, ("10.0.0.3", 5001))
    client = "X-Forwarded-For: 192.0.2.7"
    first = told(one, peers[0], client, "X-Forwarded-Prefix: /shop")
    again = told(one, peers[1], client, "X-Forwarded-Prefix: /shop")
    assert again[0] is first[0]
    assert again[1] == first[1] == b"/shop"
    assert told(one, peers[0], client) != first
    assert told(one, other, client)[0].proxy == "10.0.0.3"
    assert told(one, peers[0], client, "X-Forwarded-Proto: https")[0].scheme == "https"
    assert told(one, one.peer("https", SERVER, ("10.0.0.2", 1)), client)[0].scheme == "https"


def test_what_is_a_connections_or_a_requests_own_is_not_kept() -> None:
    """The port of a proxy that names no client, and a host that is the request's."""
    one, _ = admission()
    peers = [one.peer("http", SERVER, ("10.0.0.2", port)) for port in (5001, 5002)]
    secure = [told(one, peer, "X-Forwarded-Proto: https")[0] for peer in peers]
    assert [each.client for each in secure] == [("10.0.0.2", 5001), ("10.0.0.2", 5002)]
    headers = ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Port: 81")
    hosts = [told(one, peers[0], *headers, host=host)[0].believed for host in ("a", "b")]
    assert [each and each["HTTP_HOST"] for each in hosts] == ["a:81", "b:81"]


def test_what_is_not_believed_is_counted_each_time() -> None:
    """Also of a client that is known."""
    one, refusals = admission()
    peer = one.peer("http", SERVER, ("10.0.0.2", 5001))
    for _ in range(3):
        told(one, peer, "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: nonsense")
        told(one, peer, "X-Forwarded-For: nonsense")
    assert len(refusals._seen) == 6


def test_what_is_kept_is_bounded() -> None:
    """Clients are many, and can change their headers at will."""
    one, _ = admission()
    peer = one.peer("http", SERVER, ("10.0.0.2", 5001))
    for number in range(2 * KNOWN + 10):
        address = f"192.0.{number // 256}.{number % 256}"
        assert told(one, peer, f"X-Forwarded-For: {address}")[0].client_host == address
    assert len(one._known) <= KNOWN
