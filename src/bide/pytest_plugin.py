"""A pytest plugin: ``live_server`` is Bide on a free port, serving what the suite tests.

It is taken by those alone that ask for it, for plugins of Flask's and of Django's have a fixture of
the same name: by ``pytest_plugins = ["bide.pytest_plugin"]`` in the uppermost ``conftest.py``, or
by ``-p bide.pytest_plugin``. Then it comes before theirs, whatever the order, and works with the
rest of them. The fixtures themselves are in :mod:`bide.testing.fixtures`.
"""

from __future__ import annotations

import pytest

from bide.testing import fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what the suite's configuration may say."""
    parser.addini(
        fixtures.SCOPE, "how long live_server lives: function, class, module, …", default="function"
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Bring the fixtures, later than every other plugin: of one name, the last one counts."""
    config.pluginmanager.register(fixtures, "bide-fixtures")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a test of ``live_server`` have the suite's ``app`` by name, as it has with pytest-flask.

    That pushes its request context for tests that have it.
    """
    names: list[str] = getattr(item, "fixturenames", [])
    wanted = "live_server" in names and "app" not in names
    if wanted and item.session._fixturemanager.getfixturedefs("app", item):
        names.append("app")
