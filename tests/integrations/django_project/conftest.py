"""Django set up once for the process, and what serves views of the tests with it."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Serve
from tests.integrations.django_project.postgres import MISSING, Postgres, programs
from tests.served import Environ, Served

Views = dict[str, Callable[..., Any]]
Wrap = Callable[[Any], Any]


@pytest.fixture(scope="session")
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set Django up, with tables in each database; the integration is not in force after that."""
    directory = tmp_path_factory.mktemp("django")
    where = programs()
    postgres = None if where is None else Postgres(where)
    try:
        os.environ["DJANGO_PROJECT_DIRECTORY"] = str(directory)
        if postgres is not None:
            os.environ["DJANGO_PROJECT_POSTGRES"] = str(postgres.port)
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.integrations.django_project.settings"
        import django
        from django.core.management import call_command
        from django.db import connections

        from bide.integrations.django import patches

        # Other tests may have had Django look at other settings before.
        vars(connections).pop("settings", None)
        connections._settings = None
        django.setup()
        for name in [each for each in os.environ if each.startswith("DJANGO_")]:
            del os.environ[name]  # the settings have been read; other tests start programs
        patches._uninstall()
        for alias in connections:
            call_command("migrate", run_syncdb=True, database=alias, verbosity=0)
        yield
        connections.close_all()
    finally:
        if postgres is not None:
            postgres.stop()


class Project:
    """The project, with the integration in force, and views of the test's."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.options: dict[str, Any] = {}
        self.middleware: list[str] = []
        self._undo: list[Callable[[], None]] = []

    def serve(
        self, views: Views, install: bool = True, wrap: Wrap | None = None, **settings: Any
    ) -> Served:
        """Serve views, each under its name; ``wrap`` is put around what Django returns."""
        from django.core.wsgi import get_wsgi_application
        from django.test import override_settings
        from django.urls import path

        from bide.integrations.django import install as put_in_force

        urls = tuple(path(name, view) for name, view in views.items())
        override = override_settings(
            ROOT_URLCONF=urls, BIDE=self.options, MIDDLEWARE=self.middleware
        )
        override.enable()
        self._undo.append(override.disable)
        if install:
            self._undo.append(put_in_force())
        django = get_wsgi_application()

        def application(environ: Environ, start_response: Any) -> Any:
            response = django(environ, start_response)
            return response if wrap is None else wrap(response)

        return self._serve(application, **settings)

    def set(self, alias: str, **settings: Any) -> None:
        """Change a database's settings, for this test."""
        from django.db import connections

        before = dict(connections.settings[alias])
        connections.settings[alias].update(settings)
        self._undo.append(lambda: connections.settings[alias].update(before))

    def undo(self) -> None:
        """Take everything back."""
        while self._undo:
            self._undo.pop()()


@pytest.fixture
def project(django: None, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Return the project; its servers are stopped before it is taken back, its notes forgotten."""
    from django.db import connections

    from tests.integrations.django_project.models import Note

    serving = request.getfixturevalue("serve")
    servers: list[Served] = []

    def serve(*args: Any, **kwargs: Any) -> Served:
        servers.append(serving(*args, **kwargs))
        return servers[-1]

    project = Project(serve)
    yield project
    for served in servers:
        served.stop()
    project.undo()
    for alias in connections:
        Note.objects.using(alias).all().delete()
        connections[alias].close()


@pytest.fixture(params=["default", "postgres"])
def alias(request: pytest.FixtureRequest) -> str:
    """Name a database: SQLite's, and PostgreSQL's where it is installed."""
    name: str = request.param
    if name == "postgres" and programs() is None:
        pytest.skip(MISSING)
    return name
