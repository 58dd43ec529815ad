"""Whose the control socket is: a living server's is never removed, a dead one's is replaced."""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bide.errors import ControlError, StartError
from bide.process.control_socket import ControlSocket, name_from, open_socket
from bide.seeing.client import directory, find, is_live, names
from tests.failures import Failures, same
from tests.served import Log


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the directory of control sockets. Their paths must be short."""
    short = tempfile.mkdtemp(prefix="bide-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", short)
    yield Path(directory())
    shutil.rmtree(short)


def opened(setting: str = "", application: str = "shop:app", taken: str = "") -> ControlSocket:
    """Open one, which must be possible."""
    found = open_socket(setting, application, taken)
    assert found is not None
    return found


def end(one: ControlSocket, killed: bool = False) -> None:
    """End its server, in order or not."""
    if not killed:
        one.remove()
    one.socket.close()


def test_two_servers_of_one_name_have_a_socket_each(place: Path) -> None:
    """For their user alone. Each removes its own; the place of one that was killed is taken."""
    first, second = opened(), opened()
    same([first.name, second.name], ["shop", "shop-2"])
    same(names(), ["shop", "shop-2"])
    for each in (first, second):
        same(stat.S_IMODE(os.stat(each.path).st_mode), 0o600)
    same(stat.S_IMODE(place.stat().st_mode), 0o700)
    end(first, killed=True)
    same(names(), ["shop-2"])
    third = opened()
    same(third.path, first.path)
    end(second)
    same(names(), ["shop"])
    end(third)
    same(list(place.iterdir()), [])


def test_a_server_that_ends_late_does_not_remove_the_socket_of_another(place: Path) -> None:
    """As that of a version that has taken over."""
    old = opened()
    new = opened(taken=old.path)
    same(new.path, old.path)
    end(old)
    assert is_live(new.path)
    end(new)
    same(list(place.iterdir()), [])


def test_a_path_is_refused_that_cannot_be_had(place: Path) -> None:
    """One line says why; what is there stays as it is."""
    place.mkdir()
    live = opened(str(place / "live"))
    file = place / "file"
    file.write_text("kept")
    long = place / ("x" * 120)
    wrong = {
        live.path: "is used by another server",
        str(file): "is not a socket",
        str(place / "missing" / "here"): "No such file or directory",
        str(long): "too long",
    }
    with Failures() as failures:
        for path, reason in wrong.items():
            with failures.of(path), pytest.raises(StartError, match=reason):
                open_socket(path, "shop:app")
    same(file.read_text(), "kept")
    assert is_live(live.path)
    end(live)
    same(open_socket("off", "shop:app"), None)


def test_where_the_usual_place_is_not_the_user_s_alone_there_is_no_socket(
    place: Path, log: Log
) -> None:
    """Others could put one of their own there. A line says so."""
    place.mkdir()
    place.chmod(0o777)
    same(open_socket("", "shop:app"), None)
    assert log.find("can be used by other users")
    with pytest.raises(ControlError, match="no server is found"):
        find()


def test_a_server_is_found_by_its_name_by_its_path_or_alone() -> None:
    """Else a line says which there are."""
    with pytest.raises(ControlError, match="no server is found"):
        find()
    shop = opened()
    same([find(), find("shop"), find("/some/path")], [shop.path, shop.path, "/some/path"])
    live = opened(application="live:app")
    with pytest.raises(ControlError, match="name one of live, shop"):
        find()
    with pytest.raises(ControlError, match=r"no server 'sho'; there is: live, shop"):
        find("sho")
    for each in (shop, live):
        end(each)


def test_a_name_is_made_from_the_application_s() -> None:
    """It is a file's name, whatever the application is called."""
    with Failures() as failures:
        for application, name in {
            "shop:app": "shop",
            "my.site:create()": "my.site",
            "../../etc/x:app": "etc-x",
            "": "server",
            "<locals>:app": "locals",
            "x" * 100: "x" * 40,
        }.items():
            with failures.of(application):
                same(name_from(application), name)


def test_who_waits_to_be_accepted_does_not_make_a_server_dead() -> None:
    """A server that is stopped accepts nobody, and lives."""
    one = opened()
    clients = []
    for _ in range(40):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect_ex(one.path)
        clients.append(client)
    assert is_live(one.path)
    for client in clients:
        client.close()
    end(one)
