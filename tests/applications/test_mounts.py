"""Applications by their paths: what may be mounted where, and how a command line says it."""

import sys
from pathlib import Path
from typing import Any

import pytest

import bide
from bide.applications.mounts import Mount, Mounts, named
from bide.errors import LoadError, UsageError
from bide.settings import Settings
from tests.failures import Failures, same

SITE = """
number = 5
def app(environ, start_response): ...
async def live(scope, receive, send): ...
def either(*args): ...
import bide
both = bide.mount({"/": app, "/live": live})
def make(name): return number if name == "a:b" else app
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a directory with a module that has applications, and one with a doubtful name."""
    (tmp_path / "mountsite.py").write_text(SITE)
    (tmp_path / "wsgi.py").write_text(SITE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield str(tmp_path)
    sys.modules.pop("mountsite", None)
    sys.modules.pop("wsgi", None)


def test_what_is_named_is_imported_and_known(site: str) -> None:
    """With what its prefix says; a module may have a prefix's name."""
    with Failures() as failures:
        for specs, interface, expected in (
            (("mountsite:app",), "auto", [("/", "mountsite:app", "wsgi")]),
            (("wsgi:app",), "auto", [("/", "wsgi:app", "wsgi")]),
            (("wsgi:live",), "auto", [("/", "wsgi:live", "asgi")]),
            (("asgi:wsgi:either",), "auto", [("/", "asgi:wsgi:either", "asgi")]),
            (("mountsite:either",), "wsgi", [("/", "mountsite:either", "wsgi")]),
            (("wsgi:make('b')",), "auto", [("/", "wsgi:make('b')", "wsgi")]),
            (
                ("mountsite:both",),
                "auto",
                [("/", "mountsite.app", "wsgi"), ("/live", "mountsite.live", "asgi")],
            ),
            (
                ("/=mountsite:app", "/live/now=mountsite:live", "/x=wsgi:mountsite:either"),
                "auto",
                [
                    ("/", "mountsite:app", "wsgi"),
                    ("/live/now", "mountsite:live", "asgi"),
                    ("/x", "wsgi:mountsite:either", "wsgi"),
                ],
            ),
        ):
            with failures.of(specs):
                mounts = Mounts.of(named(specs)).resolve(
                    Settings(app_dir=site, interface=interface)
                )
                same([(each.path, each.name, each.interface) for each in mounts], expected)
                same(list(mounts.resolve()), list(mounts))


def test_what_cannot_be_mounted_is_refused_in_one_line(site: str) -> None:
    """As it was written."""
    with Failures() as failures:
        for specs, says in (
            (("mountsite:number",), "mountsite:number is not an application: int is not callable"),
            (("mountsite:make('a:b')",), "mountsite:make('a:b') is not an application: int"),
            (("mountsite:either",), "write wsgi:mountsite:either or asgi:mountsite:either"),
            (
                ("/x=mountsite:both",),
                "mountsite:both comes from mount(), and cannot be mounted again",
            ),
            (("a:b", "c:d"), "'a:b' has no path or no application"),
            (("/live",), "'/live' has no path or no application"),
            (("/a=m:a", "/a=m:b"), "two applications have the path /a"),
            (("/a/=m:a",), "'/a/' is not a path to mount at"),
            (("//a=m:a",), "'//a' is not a path to mount at"),
            (("/a%20=m:a",), "'/a%20' is not a path to mount at"),
        ):
            with failures.of(specs):
                with pytest.raises((LoadError, UsageError)) as caught:
                    Mounts.of(named(specs)).resolve(Settings(app_dir=site))
                assert says in str(caught.value)
                assert "\n" not in str(caught.value)


def test_callables_have_their_own_names() -> None:
    """One alone has the name that it is given."""

    def app(environ: Any, start_response: Any) -> None:
        """Answer."""

    [one] = Mounts.of(app).resolve(name="shop")
    assert one == Mount("/", app, "shop", "wsgi")
    assert one.root == b""
    [first, second] = bide.mount({"/a": app, "/b": app}).resolve(name="shop")
    assert first.name == second.name == f"{__name__}.{app.__qualname__}"
    assert second.root == b"/b"
    for wrong in ({"": app}, {}, {"a": app}):
        with pytest.raises(LoadError):
            bide.mount(wrong)
