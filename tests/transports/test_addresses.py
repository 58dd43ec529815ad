"""Addresses to listen on: read, listened on, described; mistakes in one line."""

import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from bide.errors import BindError, SettingError
from bide.transports import addresses
from bide.transports.addresses import Address, described, listen, parse_address
from tests.failures import Failures


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        ("example.org:65535", Address("example.org", 65535), "example.org:65535"),
        ("[::1]:80", Address("::1", 80), "[::1]:80"),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        (":8000", Address("0.0.0.0", 8000), "0.0.0.0:8000"),
        ("unix:/run/bide.sock", Address(path="/run/bide.sock"), "unix:/run/bide.sock"),
        ("unix:relative.sock", Address(path="relative.sock"), "unix:relative.sock"),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address, written: str) -> None:
    """As one may give it to ``--bind``."""
    assert parse_address(text) == address
    assert str(address) == written


@pytest.mark.parametrize("text", ["", ":", "two words:80", "a:b:80", "[localhost]"])
def test_what_is_no_address_is_told_what_one_looks_like(text: str) -> None:
    """All three kinds."""
    with pytest.raises(SettingError) as caught:
        parse_address(text)
    assert str(caught.value) == (
        f"{text!r} is not an address: write HOST:PORT, [IPv6]:PORT or unix:PATH, "
        "for example 127.0.0.1:8000"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://127.0.0.1:8000", "is a URL: write 127.0.0.1:8000"),
        ("http://localhost:8000/shop/", "is a URL: write localhost:8000"),
        ("https://[::1]:80", "is a URL: write [::1]:80; for HTTPS give a --certificate, too"),
        ("http://", "is a URL: write 127.0.0.1:8000"),
        ("8000", "has no host: write 127.0.0.1:8000"),
        ("localhost", "has no port: write localhost:8000"),
        ("localhost:", "has no port: write localhost:8000"),
        ("[::1]", "has no port: write [::1]:8000"),
        ("/run/shop", "is a path: write unix:/run/shop"),
        ("shop.sock", "is a path: write unix:shop.sock"),
        ("localhost:http", "has the port 'http': a port is a number from 0 to 65535"),
        ("localhost:8000/", "has the port '8000/': a port is a number from 0 to 65535"),
        ("127.0.0.1:99999", "has the port '99999': a port is a number from 0 to 65535"),
        (":99999", "has the port '99999': a port is a number from 0 to 65535"),
        ("[::1]:65536", "has the port '65536': a port is a number from 0 to 65535"),
        ("a:-1", "has the port '-1': a port is a number from 0 to 65535"),
        ("::1:80", "needs brackets for IPv6: write [::1]:80"),
        ("::1", "needs brackets for IPv6: write [::1]:8000"),
        ("2001:db8::7", "needs brackets for IPv6: write [2001:db8::7]:8000"),
    ],
)
def test_a_mistaken_address_is_told_what_to_write(text: str, said: str) -> None:
    """The message names what is wrong with it."""
    with pytest.raises(SettingError) as caught:
        parse_address(text)
    assert str(caught.value) == f"the address {text!r} {said}"


@pytest.mark.parametrize("text", ["localhost:٣", "localhost:1²", "localhost: 80"])
def test_a_port_has_plain_digits(text: str) -> None:
    """Python takes the digits of every script."""
    with pytest.raises(SettingError, match="a port is a number from 0 to 65535"):
        parse_address(text)


def test_a_unix_socket_needs_a_path() -> None:
    """With an example."""
    with pytest.raises(SettingError, match=r"has no path: write unix:/run/bide\.sock"):
        parse_address("unix:")


# Listening -------------------------------------------------------------------------------------


def test_tcp_is_listened_on_without_blocking() -> None:
    """On a free port, for 0; described as it may be written."""
    (listener,) = listen(Address("127.0.0.1", 0))
    with listener:
        assert listener.getblocking() is False
        host, port = listener.getsockname()
        assert described(listener) == f"127.0.0.1:{port}"
        with socket.create_connection((host, port)):
            pass


def test_a_port_can_be_listened_on_again_at_once() -> None:
    """Connections of the server before may still be on their way out."""
    (listener,) = listen(Address("127.0.0.1", 0))
    with listener:
        address = listener.getsockname()
        client = socket.create_connection(address)
        listener.setblocking(True)
        server, _ = listener.accept()
        server.close()
        client.close()
    (again,) = listen(Address(*address))
    again.close()


def test_ipv6_is_listened_on_and_described_in_brackets() -> None:
    """It takes no IPv4 connections, for which one asks by another address."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        (listener,) = listen(Address("::1", 0))
    except BindError:
        pytest.skip("this machine has no IPv6 address")
    with listener:
        assert described(listener) == f"[::1]:{listener.getsockname()[1]}"
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_all_addresses_of_a_name_get_the_same_free_port() -> None:
    """``localhost`` is two of them on many machines."""
    listeners = listen(Address("localhost", 0))
    ports = {each.getsockname()[1] for each in listeners}
    for each in listeners:
        each.close()
    assert len(ports) == 1


def test_a_unix_socket_is_listened_on(tmp_path: Path) -> None:
    """And described with its path."""
    path = tmp_path / "s"
    (listener,) = listen(Address(path=str(path)))
    with listener:
        assert described(listener) == f"unix:{path}"
        assert listener.getblocking() is False
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_socket_left_by_a_server_that_is_no_more_is_replaced(tmp_path: Path) -> None:
    """Nobody accepts on it."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (listener,) = listen(Address(path=str(path)))
    listener.close()


def test_a_socket_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    """Another server accepts on it."""
    path = tmp_path / "s"
    (other,) = listen(Address(path=str(path)))
    with other:
        with pytest.raises(BindError, match=r"cannot listen on unix:.*: it is in use; stop the"):
            listen(Address(path=str(path)))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """It may be anybody's. The message says what it is."""
    (tmp_path / "file").write_text("data")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    kinds = {
        "file": "a file",
        "directory": "a directory",
        "link": "a link that leads nowhere",
        "pipe": "a pipe",
    }
    with Failures() as failures:
        for name, what in kinds.items():
            with failures.of(name):
                address = Address(path=str(tmp_path / name))
                with pytest.raises(BindError) as caught:
                    listen(address)
                inside = f"a path in it: {address}/bide.sock"
                assert str(caught.value) == (
                    f"cannot listen on {address}: {what} exists already, and is not removed; "
                    "choose "
                    f"{inside if name == 'directory' else 'another path'}"
                )
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(kinds)
    assert (tmp_path / "file").read_text() == "data"


@pytest.mark.parametrize("mode", [0o666, 0o600])
def test_the_rights_of_a_unix_socket_are_those_given(tmp_path: Path, mode: int) -> None:
    """Whatever the umask is, which is the whole process's."""
    path = tmp_path / "s"
    before = os.umask(0o077)
    try:
        (listener,) = listen(Address(path=str(path)), mode=mode)
    finally:
        os.umask(before)
    with listener:
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_path_that_is_too_long_is_listened_on_where_it_is_short_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path has become a long one; the system takes 107 bytes."""
    deep = tmp_path.joinpath(*["directory" * 5] * 3)
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    (listener,) = listen(Address(path=str(deep / "s")))
    with listener:
        assert stat.S_ISSOCK((deep / "s").stat().st_mode)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has them")
def test_an_abstract_socket_has_a_name_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one server."""
    monkeypatch.chdir(tmp_path)
    address = parse_address(f"unix:@bide-{os.getpid()}")
    (listener,) = listen(address)
    with listener:
        assert described(listener) == str(address)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(BindError, match="it is in use"):
            listen(address)


@pytest.mark.parametrize(("platform", "text"), [("linux", "unix:@"), ("darwin", "unix:@name")])
def test_an_abstract_socket_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, platform: str, text: str
) -> None:
    """Not made a file of that name."""
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(SettingError, match=r"is an abstract socket, .* write unix:\./@"):
        parse_address(text)


def test_all_addresses_of_ipv6_are_all_of_ipv4_too() -> None:
    """By a socket each, so that clients of IPv4 have their own addresses; a free port is both's."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    listeners = listen(Address("::", 0))
    (port,) = {each.getsockname()[1] for each in listeners}
    found = {described(each) for each in listeners}
    for each in listeners:
        each.close()
    assert f"0.0.0.0:{port}" in found
    assert found <= {f"0.0.0.0:{port}", f"[::]:{port}"}
    for each in listen(Address("::", port), alone=True):
        assert each.family == socket.AF_INET6
        each.close()


def test_another_free_port_is_taken_where_one_is_free_on_one_address_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system chooses it for the first address of a host."""
    taken = [OSError(errno.EADDRINUSE, "taken")]

    def listen_to(family: int, where: tuple[str, int], *more: Any) -> socket.socket:
        if where[1] and taken:
            raise taken.pop()
        return real(family, where, *more)

    real = addresses._listen_to
    monkeypatch.setattr(addresses, "_listen_to", listen_to)
    twice = [(socket.AF_INET, 0, 0, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: twice)
    listeners = listen(Address("localhost", 0))
    assert not taken
    assert len({each.getsockname()[1] for each in listeners}) == 1
    for each in listeners:
        each.close()


def test_a_port_in_use_gets_one_line_that_says_what_to_do() -> None:
    """Nothing is left open."""
    (other,) = listen(Address("127.0.0.1", 0))
    with other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(BindError) as caught:
            listen(address)
    assert str(caught.value) == (
        f"cannot listen on {address}: it is in use; stop the other server, "
        "or choose another with --bind"
    )
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (Address("no-such-host.invalid", 80), "the host is not known"),
        (Address("192.0.2.1", 0), "this machine has no such address"),
        (Address(path="/no/such/directory/s"), "its directory is not there"),
        (Address(path=f"{__file__}/s"), "what it names as its directory is a file"),
        (Address(path=f"/{'x' * 200}"), "its path is longer than 107 bytes"),
    ],
)
def test_an_address_that_cannot_be_listened_on_says_why(address: Address, why: str) -> None:
    """In words."""
    with pytest.raises(BindError) as caught:
        listen(address)
    assert str(caught.value).startswith(f"cannot listen on {address}: {why}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root has the rights")
def test_an_address_without_the_rights_says_so(tmp_path: Path) -> None:
    """A directory of somebody else's."""
    tmp_path.chmod(0o500)
    with pytest.raises(BindError, match="permission denied; ports below 1024"):
        listen(Address(path=str(tmp_path / "s")))
