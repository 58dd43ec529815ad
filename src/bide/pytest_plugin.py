"""A pytest plugin: the fixture ``live_server`` is Bide on a free port, serving the tested app.

It is loaded only on request, since pytest-flask and pytest-django have a fixture of the same name.
Write ``pytest_plugins = ["bide.pytest_plugin"]`` in the uppermost ``conftest.py``, or use
``-p bide.pytest_plugin``. Its ``live_server`` then replaces theirs, in whatever order the plugins
are loaded; the rest of them goes on working. The fixtures are in :mod:`bide.testing.fixtures`.
"""

from __future__ import annotations

import pytest

from bide.testing import fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option for pytest's configuration file."""
    parser.addini(
        fixtures.SCOPE, "how long live_server lives: function, class, module, …", default="function"
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the fixtures after every other plugin: of two with one name, the last counts."""
    config.pluginmanager.register(fixtures, "bide-fixtures")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Add the suite's fixture ``app`` to a test that uses ``live_server``, as pytest-flask does.

    pytest-flask then pushes a request context for that test.
    """
    names: list[str] = getattr(item, "fixturenames", [])
    wanted = "live_server" in names and "app" not in names
    if wanted and item.session._fixturemanager.getfixturedefs("app", item):
        names.append("app")
