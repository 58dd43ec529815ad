"""Where a server listens: IPv4, IPv6, Unix sockets, several at once."""

import os
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

import bide
from tests.conftest import Serve
from tests.ports import free_port
from tests.served import DEADLINE, Client, Environ, answering, request


def names(environ: Environ) -> str:
    """Tell both ends, as the application sees them."""
    keys = ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT")
    return " ".join(repr(environ[key]) for key in keys)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_is_served(serve: Serve) -> None:
    """By its address in brackets."""
    served = serve(answering(names), bind="[::1]:0")
    assert served.address.startswith("[::1]:")
    port = served.address.rpartition(":")[2]
    client = served.request()
    assert client.response().text == f"'::1' '{port}' '::1' '{client.sock.getsockname()[1]}'"


def test_a_host_that_has_two_addresses_is_served_on_both(serve: Serve) -> None:
    """One free port for all of them."""
    served = serve(answering(names), bind="localhost:0")
    addresses = served.server.addresses
    ports = {address.rpartition(":")[2] for address in addresses}
    assert len(ports) == 1
    found = {each[4][0] for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {address.rpartition(":")[0].strip("[]") for address in addresses} == found


def test_a_unix_socket_is_served_and_removed_at_the_end(serve: Serve, tmp_path: Path) -> None:
    """Its clients have no address, and the server a name all the same."""
    path = tmp_path / "socket"
    served = serve(answering(names), bind=f"unix:{path}")
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert served.address == f"unix:{path}"
    assert served.get().text == "'localhost' '80' '' ''"
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, timeout=DEADLINE, trust_env=False) as client:
        assert client.get("http://any/").status_code == 200
    served.stop()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(serve: Serve, tmp_path: Path) -> None:
    """Left by a process that has ended."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    served = serve(answering(names), bind=f"unix:{path}")
    assert served.get().complete


def test_a_unix_socket_that_is_served_is_refused(serve: Serve, tmp_path: Path) -> None:
    """And its server goes on."""
    path = tmp_path / "socket"
    served = serve(answering(names), bind=f"unix:{path}")
    with pytest.raises(bide.StartError, match="it is in use"):
        serve(answering(names), bind=f"unix:{path}")
    assert served.get().complete


def test_a_file_in_the_place_of_a_unix_socket_is_refused_and_kept(
    serve: Serve, tmp_path: Path
) -> None:
    """It is somebody's."""
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(bide.StartError, match="a file exists already, and is not removed"):
        serve(answering(names), bind=f"unix:{path}")
    assert path.read_text() == "precious"


def test_a_socket_that_another_server_has_replaced_is_left_alone(
    serve: Serve, tmp_path: Path
) -> None:
    """The old server's end does not take the new one's address away."""
    path = tmp_path / "socket"
    old = serve(answering(lambda environ: b"old"), bind=f"unix:{path}")
    path.unlink()
    new = serve(answering(lambda environ: b"new"), bind=f"unix:{path}")
    old.stop()
    assert new.get().body == b"new"


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_all_of_ipv6_is_all_of_ipv4_too_unless_that_is_bound_otherwise(serve: Serve) -> None:
    """A client of IPv4 has its own address, as the application sees it."""
    port = free_port()
    served = serve(answering(names), bind=f"[::]:{port}")
    assert served.server.addresses == [f"[::]:{port}", f"0.0.0.0:{port}"]
    for host, own in (("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")):
        client = Client(f"{host}:{port}")
        client.send(request())
        assert f" '{own}' '" in client.response().text
        client.close()
    served.stop()
    both = serve(answering(names), bind=(f"[::]:{port}", f"0.0.0.0:{port}"))
    assert both.server.addresses == [f"[::]:{port}", f"0.0.0.0:{port}"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has them")
def test_an_abstract_socket_is_served(serve: Serve) -> None:
    """It is gone with the server; there is nothing to remove."""
    address = f"unix:@bide-{os.getpid()}-served"
    served = serve(answering(names), bind=address)
    assert served.address == address
    assert served.get().text == "'localhost' '80' '' ''"
    served.stop()
    assert serve(answering(names), bind=address).get().complete


def test_several_addresses_are_served_by_one_server(serve: Serve, tmp_path: Path) -> None:
    """One of them failing, none is left open."""
    path = tmp_path / "socket"
    served = serve(answering(names), bind=("127.0.0.1:0", f"unix:{path}"))
    first, second = served.server.addresses
    assert second == f"unix:{path}"
    free = tmp_path / "free"
    with pytest.raises(bide.StartError):
        serve(answering(names), bind=(f"unix:{free}", first))
    again = serve(answering(names), bind=f"unix:{free}")
    assert again.get().complete


def test_a_connection_that_is_reset_before_it_was_accepted_is_no_error(serve: Serve) -> None:
    """The next is accepted."""
    served = serve(answering(names))
    for _ in range(5):
        served.connect().reset()
    client = served.connect()
    client.send(request())
    assert client.response().complete
