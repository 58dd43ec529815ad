"""The fixtures of ``bide.pytest_plugin``.

They import neither Flask nor Django, unless the suite tests a Django project.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from bide.testing.live import LiveServer

if TYPE_CHECKING:
    from bide.testing.django import DjangoLiveServer

SCOPE: Final = "bide_live_server_scope"
"""The name of the scope in a suite's configuration."""


def _scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ARG001 - pytest's signature
    return config.getini(SCOPE)


@pytest.fixture(scope=_scope)
def live_server_settings() -> dict[str, Any]:
    """Settings for ``live_server``, as for ``bide.testing.LiveServer``; override it for others."""
    return {}


@pytest.fixture(scope=_scope)
def live_server(
    request: pytest.FixtureRequest, live_server_settings: dict[str, Any]
) -> Iterator[LiveServer | DjangoLiveServer]:
    """Bide on a free port, serving the suite's fixture ``app``, or else the Django project.

    ``live_server.url`` is the URL to put before a path. The server stops when its test is over,
    with every request and thread. The option ``bide_live_server_scope`` makes it live for longer.
    """
    app = _app(request)
    if app is None:
        yield from _django(request, live_server_settings)
    else:
        with LiveServer(app, **live_server_settings) as server, _named(app, server.address):
            yield server


def _app(request: pytest.FixtureRequest) -> Any:
    """Return the value of the suite's fixture ``app``; None without such a fixture."""
    try:
        return request.getfixturevalue("app")
    except pytest.FixtureLookupError as error:
        if error.argname != "app":
            raise  # a fixture that ``app`` itself needs
        return None


@contextlib.contextmanager
def _named(app: Any, address: str) -> Iterator[None]:
    """Make Flask's ``url_for(..., _external=True)`` use the server's URLs in a ``with`` block."""
    config = getattr(app, "config", None)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(config, dict) and "SERVER_NAME" in config:
            patch.setitem(config, "SERVER_NAME", address)
        yield


def _django(request: pytest.FixtureRequest, options: dict[str, Any]) -> Iterator[DjangoLiveServer]:
    conf = sys.modules.get("django.conf")
    plugin = request.config.pluginmanager.hasplugin("django")
    if conf is None or not conf.settings.configured or not plugin:
        pytest.fail(
            "live_server has nothing to serve: define a fixture `app` that gives the WSGI "
            "application, or for Django install pytest-django and name your settings",
            pytrace=False,
        )
    from bide.testing.django import DjangoLiveServer

    server = DjangoLiveServer(**options)
    server.start()
    yield server
    server.stop()
